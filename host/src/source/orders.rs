//! What is asked of a source's single tables, and which tables it captures: noted durably, and then the feed is opened
//! anew with it. A source that rests takes it up when it goes on.

use cdc_rest::{SourceName, SourceSelection, SourceState, SourceTable, SourceTableState, TableAction, TableChoice};

use super::error::SourceError;
use super::kept::{Held, Kept, Selected, Why};
use super::sources::Sources;
use super::state::{Goal, Source};
use super::stored;

/// The code of a table that is read anew because somebody asked for it.
const REQUESTED: &str = "requested";

impl Sources {
    /// How one of a source's tables fares.
    pub fn table(&self, name: &SourceName, table: &str) -> Result<SourceTable, SourceError> {
        let found = self.get(name)?.table(table, self.counters().as_ref());
        found.ok_or_else(|| SourceError::UnknownTable { name: name.clone(), table: table.to_owned() })
    }

    /// Does something with one of a source's tables, over restarts too.
    pub async fn steer(&self, name: &SourceName, table: &str, action: TableAction) -> Result<(), SourceError> {
        let source = self.get(name)?;
        let mut kept = source.kept().await;
        let state = match source.table(table, None) {
            Some(found) => found.state,
            // A source that has not connected yet knows its tables by what is here of them.
            None if stored::is_of(&*self.store.view()?, name.as_str(), table) => SourceTableState::Following,
            None => return Err(SourceError::UnknownTable { name: name.clone(), table: table.to_owned() }),
        };
        if let Some(hint) = objection(state, action) {
            return Err(SourceError::WrongTable { table: table.to_owned(), state, hint });
        }
        if action == TableAction::Reread && kept.is_repairing {
            let hint = "every table is read anew already";
            return Err(SourceError::WrongState { name: name.clone(), state: SourceState::Repairing, hint });
        }
        source.change(&mut kept, &self.ingest, |kept| order(kept, table, action)).await?;
        tracing::info!(source = source.name(), table, "somebody asked to {} the table", action.as_str());
        open_anew(source);
        Ok(())
    }

    /// Which tables a source captures.
    pub fn selection(&self, name: &SourceName) -> Result<SourceSelection, SourceError> {
        Ok(self.get(name)?.selection())
    }

    /// Chooses which tables a source captures, over restarts too; none as the configuration says.
    pub async fn select(&self, name: &SourceName, choice: Option<TableChoice>) -> Result<(), SourceError> {
        let source = self.get(name)?;
        let mut kept = source.kept().await;
        let selected = choice.map(|TableChoice { tables, exclude }| Selected { tables, exclude });
        if kept.selected == selected {
            return Ok(());
        }
        source.change(&mut kept, &self.ingest, |kept| kept.selected = selected).await?;
        open_anew(source);
        Ok(())
    }
}

/// Why a table cannot be steered so, if it cannot.
fn objection(state: SourceTableState, action: TableAction) -> Option<&'static str> {
    use SourceTableState::{Dropped, Following, Paused, Reading, Rereading, Stopped, Waiting};
    match (action, state) {
        (TableAction::Pause, Paused) => Some("it is paused already"),
        (TableAction::Pause, Stopped) => Some("it follows nothing as it is; reread it to go on"),
        (TableAction::Pause | TableAction::Reread, Dropped) => Some("resume it to capture it again"),
        (TableAction::Resume, Waiting | Reading | Rereading | Following) => Some("there is nothing to resume"),
        (TableAction::Reread, Paused) => Some("resume it: its rows are read anew then"),
        (TableAction::Reread, Waiting | Reading | Rereading) => Some("its rows are on their way already"),
        (TableAction::Drop, Dropped) => Some("it is dropped already"),
        (TableAction::Pause, Waiting | Reading | Rereading | Following)
        | (TableAction::Resume, Paused | Stopped | Dropped)
        | (TableAction::Reread, Following | Stopped)
        | (TableAction::Drop, Waiting | Reading | Rereading | Following | Paused | Stopped) => None,
    }
}

fn order(kept: &mut Kept, table: &str, action: TableAction) {
    match action {
        TableAction::Pause => kept.hold(table, Held::Paused),
        TableAction::Drop => {
            kept.forget(table);
            kept.hold(table, Held::Dropped);
        }
        TableAction::Resume | TableAction::Reread => {
            kept.held.remove(table);
            let why = Why::new(REQUESTED, "somebody asked for it");
            kept.reread.insert(table.to_owned(), why);
        }
    }
}

/// What a feed is opened with has changed.
fn open_anew(source: &Source) {
    source.wishes.send_modify(|wish| {
        if wish.goal != Goal::End {
            wish.orders += 1;
        }
    });
}
