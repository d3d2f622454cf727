//! What is asked of audits from outside.

use cdc_rest::{AuditRequest, SourceAudit, SourceName, SourceState};

use super::super::error::SourceError;
use super::super::sources::Sources;
use super::super::state::now_ms;

impl Sources {
    /// The audit of a source that goes on, or was the last one.
    pub fn audit(&self, name: &SourceName) -> Result<SourceAudit, SourceError> {
        let source = self.get(name)?;
        let shown = source.audit().shown(name.as_str());
        Ok(shown)
    }

    /// Has a source compare its tables with its database's.
    pub async fn begin_audit(&self, name: &SourceName, request: AuditRequest) -> Result<(), SourceError> {
        let source = self.get(name)?;
        let AuditRequest { tables, mends } = request;
        // So that two requests do not begin one at once.
        let kept = source.kept().await;
        if let Some(table) = tables.iter().find(|table| source.table(table, None).is_none()) {
            return Err(SourceError::UnknownTable { name: name.clone(), table: table.clone() });
        }
        let state = source.state();
        let hint = match state {
            SourceState::Reading | SourceState::Following | SourceState::Reconnecting
                if source.audit().is_running() =>
            {
                Some("its tables are being compared already; GET …/audit shows how far that is")
            }
            SourceState::Reading | SourceState::Following | SourceState::Reconnecting => None,
            SourceState::Starting => Some("it is not connected yet; its tables can be compared when it follows"),
            SourceState::Stopped | SourceState::Paused => Some("resume it first: rows are compared while it follows"),
            SourceState::Repairing => Some("its tables are read anew and compared already"),
        };
        if let Some(hint) = hint {
            return Err(SourceError::WrongState { name: name.clone(), state, hint });
        }
        let is_whole = tables.is_empty();
        let tables = if is_whole { source.table_names() } else { tables };
        source.audit_durably(&self.ingest, |audit| audit.begin(tables, mends, is_whole, now_ms())).await?;
        drop(kept);
        tracing::info!(source = source.name(), mends, "somebody asked to compare its tables with the database's");
        source.audits.notify_one();
        Ok(())
    }
}
