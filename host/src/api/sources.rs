//! Sources: how they fare, and what is asked of them.

use cdc_rest::{AuditRequest, SourceName, TableAction, TableChoice};

use super::{Answer, Api, Outcome, json, problems};

impl Api {
    pub(super) fn list_sources(&self) -> Answer {
        json(|out| cdc_rest::write_sources(out, &self.sources.statuses()))
    }

    pub(super) fn show_source(&self, name: &SourceName) -> Outcome {
        let status = self.sources.status(name).map_err(|error| problems::source(&error))?;
        Ok(json(|out| cdc_rest::write_source(out, &status)))
    }

    pub(super) async fn pause_source(&self, name: &SourceName) -> Outcome {
        self.sources.pause(name).await.map_err(|error| problems::source(&error))?;
        self.show_source(name)
    }

    pub(super) async fn resume_source(&self, name: &SourceName) -> Outcome {
        self.sources.resume(name).await.map_err(|error| problems::source(&error))?;
        self.show_source(name)
    }

    pub(super) async fn repair_source(&self, name: &SourceName) -> Outcome {
        self.sources.repair(name).await.map_err(|error| problems::source(&error))?;
        self.show_source(name)
    }

    pub(super) fn show_source_audit(&self, name: &SourceName) -> Outcome {
        let audit = self.sources.audit(name).map_err(|error| problems::source(&error))?;
        Ok(json(|out| cdc_rest::write_source_audit(out, &audit)))
    }

    pub(super) async fn audit_source(&self, name: &SourceName, request: AuditRequest) -> Outcome {
        self.sources.begin_audit(name, request).await.map_err(|error| problems::source(&error))?;
        self.show_source_audit(name)
    }

    pub(super) fn show_source_selection(&self, name: &SourceName) -> Outcome {
        let selection = self.sources.selection(name).map_err(|error| problems::source(&error))?;
        Ok(json(|out| cdc_rest::write_source_selection(out, &selection)))
    }

    pub(super) async fn select_source_tables(&self, name: &SourceName, body: &[u8]) -> Outcome {
        let choice = TableChoice::parse(body)?;
        self.sources.select(name, Some(choice)).await.map_err(|error| problems::source(&error))?;
        self.show_source_selection(name)
    }

    pub(super) async fn reset_source_selection(&self, name: &SourceName) -> Outcome {
        self.sources.select(name, None).await.map_err(|error| problems::source(&error))?;
        self.show_source_selection(name)
    }

    pub(super) fn show_source_table(&self, name: &SourceName, table: &str) -> Outcome {
        let found = self.sources.table(name, table).map_err(|error| problems::source(&error))?;
        Ok(json(|out| cdc_rest::write_source_table(out, &found)))
    }

    pub(super) async fn steer_source_table(&self, name: &SourceName, table: &str, action: TableAction) -> Outcome {
        self.sources.steer(name, table, action).await.map_err(|error| problems::source(&error))?;
        self.show_source_table(name, table)
    }
}
