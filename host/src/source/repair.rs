//! Bringing rows here to what a table that was read has: counting what that changed, and removing what is gone.

use std::sync::Arc;

use cdc_rest::LastRepair;
use cdc_sources::{Action, Checkpoint, Portion, Step, Table};

use super::door::InFlight;
use super::failure::Failure;
use super::reading::Keys;
use super::runner::Runner;
use super::stored;

/// What a repair under way has found.
#[derive(Debug, Default)]
pub(super) struct Repair {
    pub(super) tables: u64,
    pub(super) inserted: u64,
    pub(super) updated: u64,
    pub(super) removed: u64,
}

impl Repair {
    pub(super) fn found(&self, ended_at_ms: u64) -> LastRepair {
        let Self { tables, inserted, updated, removed } = *self;
        LastRepair { ended_at_ms, tables, inserted, updated, removed }
    }
}

/// Removes the rows of a table whose keys were not seen, and answers how many those were. Nothing of the source may be
/// in flight. The checkpoint stays what it is.
pub(super) async fn sweep(
    runner: &Runner,
    in_flight: &mut InFlight,
    table: &Arc<Table>,
    mut keys: Keys,
) -> Result<u64, Failure> {
    let view = runner.store.view()?;
    let checkpoint = Checkpoint(view.position(runner.source.name()).unwrap_or_default());
    let mut after: Option<String> = None;
    let mut removed = 0;
    loop {
        let (view, name, from) = (view.clone(), table.name.clone(), after.take());
        let page = stored::blocking(move || {
            let rows = stored::page(&*view, &name, from.as_deref())?;
            let last = rows.last().map(|row| String::from_utf8_lossy(&row.key).into_owned());
            let unseen = rows.into_iter().filter(|row| keys.lack(&row.key, &row.image)).map(|row| row.key);
            Ok((last, unseen.collect::<Vec<_>>(), keys))
        });
        let (last, unseen, same) = page.await?;
        keys = same;
        let Some(last) = last else { return Ok(removed) };
        after = Some(last);
        if unseen.is_empty() {
            continue;
        }
        removed += unseen.len() as u64;
        let removal = |key| Step::Change(stored::change(table, Action::Remove, Some(key), None));
        let steps = unseen.iter().map(removal).collect();
        let portion = Portion { steps, checkpoint: checkpoint.clone() };
        in_flight.send(&runner.ingest, runner.source.name(), portion).await?;
        while let Some(settled) = in_flight.settle_next(runner.source.name()).await {
            settled.outcome?;
        }
    }
}
