//! Rewriting the stored rows of a table by a rule, where the database changed its columns without a word in its log.
//!
//! The rows go through the engine as rows that were read: what differs becomes an event, and what was rewritten before
//! a crash does not, so the rule may be applied again from the start.

use cdc_sources::{Action, Checkpoint, Portion, Rewrite, Step};

use super::door::{IN_FLIGHT_MAX, InFlight};
use super::failure::Failure;
use super::runner::Runner;
use super::stored;

/// Rewrites every row that is here. Nothing of the source may be in flight. The checkpoint stays what it is. Answers
/// whether every row could be rewritten: one that could not is none that the service wrote.
pub(super) async fn rewrite(runner: &Runner, in_flight: &mut InFlight, rule: &Rewrite) -> Result<bool, Failure> {
    let source = runner.source.name();
    let view = runner.store.view()?;
    let checkpoint = Checkpoint(view.position(source).unwrap_or_default());
    let (mut rows, mut is_whole) = (0, true);
    let mut after: Option<String> = None;
    loop {
        let (view, name, from) = (view.clone(), rule.table.name.clone(), after.take());
        let page = stored::blocking(move || stored::page(&*view, &name, from.as_deref())).await?;
        let Some(last) = page.last() else { break };
        after = Some(String::from_utf8_lossy(&last.key).into_owned());
        let mut steps = Vec::with_capacity(page.len());
        for row in &page {
            let image = String::from_utf8_lossy(&row.image);
            match rule.apply(&image) {
                Some(rewritten) if rewritten == image => {}
                Some(rewritten) => {
                    steps.push(Step::Change(stored::change(
                        &rule.table,
                        Action::Read,
                        Some(&row.key),
                        Some(rewritten),
                    )));
                }
                None => is_whole = false,
            }
        }
        if steps.is_empty() {
            continue;
        }
        rows += steps.len();
        while in_flight.len() >= IN_FLIGHT_MAX
            && let Some(settled) = in_flight.settle_next(source).await
        {
            settled.outcome?;
        }
        in_flight.send(&runner.ingest, source, Portion { steps, checkpoint: checkpoint.clone() }).await?;
    }
    while let Some(settled) = in_flight.settle_next(source).await {
        settled.outcome?;
    }
    tracing::info!(source, table = rule.table.name, rows, "the table's rows were rewritten: {}", rule.reason);
    Ok(is_whole)
}
