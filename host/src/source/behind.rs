//! Tables that were left behind: rows of them are here, and the source does not follow them any more.
//!
//! What the rules leave out, or somebody dropped, is emptied by a truncate event: that is known without the database. A
//! table that the rules would capture is never emptied here, whatever the database shows at the moment: a privilege that
//! was revoked takes no row away. Such a table is shown as missing, until the feed says that it is gone, shows it again,
//! or somebody drops it.

use std::collections::BTreeSet;
use std::sync::Arc;

use cdc_sources::{Action, Checkpoint, Portion, Rules, Step, Table};

use super::door::InFlight;
use super::failure::Failure;
use super::kept::{Held, Kept};
use super::runner::Runner;
use super::stored;

/// Removes the rows of tables that are left out, before a feed is opened. Nothing of the source may be in flight.
pub(super) async fn empty(runner: &Runner, in_flight: &mut InFlight, rules: Rules, kept: &Kept) -> Result<(), Failure> {
    let source = runner.source.name();
    let (view, name) = (runner.store.view()?, source.to_owned());
    let position = Checkpoint(view.position(source).unwrap_or_default());
    let dropped: BTreeSet<String> =
        kept.held.iter().filter(|(_, held)| **held == Held::Dropped).map(|(table, _)| table.clone()).collect();
    let left_out = stored::blocking(move || {
        let mut left_out: Vec<(Arc<Table>, bool)> = Vec::new();
        for table in stored::tables(&*view, &name)? {
            let is_dropped = dropped.contains(&table.name);
            if (is_dropped || is_left_out(&rules, &table)) && stored::has_rows(&*view, &table.name)? {
                left_out.push((table, is_dropped));
            }
        }
        Ok(left_out)
    });
    for (table, is_dropped) in left_out.await? {
        // First, so that a table that is captured again after a crash is read anew.
        if runner.source.spec.snapshot && !is_dropped {
            runner
                .keep(|kept| {
                    kept.forget(&table.name);
                    kept.left_out.insert(table.name.clone());
                })
                .await?;
        }
        let why = if is_dropped { "somebody dropped it from the source" } else { "the rules leave it out" };
        tracing::warn!(source, table = table.name, "the table's rows are removed here: {why}");
        let truncate = Step::Change(stored::change(&table, Action::Truncate, None, None));
        let portion = Portion { steps: vec![truncate], checkpoint: position.clone() };
        in_flight.send(&runner.ingest, source, portion).await?;
        while let Some(settled) = in_flight.settle_next(source).await {
            settled.outcome?;
        }
    }
    Ok(())
}

/// Whether the rules leave a table out, or have it captured under another name.
fn is_left_out(rules: &Rules, table: &Table) -> bool {
    let Table { name, database, namespace, relation, .. } = table;
    !rules.captures(namespace, relation) || rules.captured_name(database, namespace, relation) != *name
}

/// Looks for tables that have rows here and that a feed, which knows its tables, does not list.
pub(super) async fn look(runner: &Runner, listed: BTreeSet<String>) -> Result<(), Failure> {
    let source = runner.source.name();
    let (view, name) = (runner.store.view()?, source.to_owned());
    let (held, reread) = {
        let kept = runner.source.kept().await;
        (kept.held.keys().cloned().collect::<BTreeSet<_>>(), kept.reread.keys().cloned().collect::<BTreeSet<_>>())
    };
    let unknown = move |table: &String| !listed.contains(table) && !held.contains(table);
    let (missing, empty) = stored::blocking(move || {
        let mut missing = BTreeSet::new();
        for table in stored::tables(&*view, &name)?.into_iter().filter(|table| unknown(&table.name)) {
            if stored::has_rows(&*view, &table.name)? {
                missing.insert(table.name.clone());
            }
        }
        let empty: Vec<_> = reread.into_iter().filter(|table| unknown(table) && !missing.contains(table)).collect();
        Ok((missing, empty))
    })
    .await?;
    if !empty.is_empty() {
        // There is nothing to compare, and nobody to compare it with.
        runner.keep(|kept| empty.iter().for_each(|table| kept.forget(table))).await?;
    }
    for table in runner.source.miss(missing) {
        tracing::warn!(source, table, "the database no longer shows the table; its rows here stay as they were");
    }
    Ok(())
}
