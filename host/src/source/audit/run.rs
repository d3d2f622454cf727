//! The audit of one table after the other, within a session.
//!
//! The first pass over a table is by sums, where its database has them. Rows whose sums differ, and rows here of which the
//! pass told nothing, are suspects: a second pass fetches just those. If there are too many, the table is compared once
//! more by its rows.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use cdc_sources::{
    Action, AuditOrder, AuditPace, AuditPiece, AuditRows, AuditScope, Change, Checkpoint, Portion, Reason, Step, Table,
};

use super::super::failure::Failure;
use super::super::reading::{Keys, canonical};
use super::super::runner::{Backoff, Runner};
use super::super::session::Session;
use super::super::state::{Source, now_ms};
use super::super::stored;
use super::compare::{Found, compare, parts};
use super::record::Difference;
use crate::ingest::Ingest;
use crate::store::StoreError;

/// So many rows are looked at once more by their keys.
const SUSPECTS_MAX: usize = if cfg!(test) { 3 } else { 1_000 };

/// About how many bytes of rows are mended at once.
const MEND_BYTES: usize = 512 << 10;

/// The audit of a table that a feed is at.
pub(in crate::source) struct Auditing {
    table: String,
    pass: Pass,
    /// Keys that the database has, or that the log has told of, since the pass began.
    seen: Keys,
}

enum Pass {
    /// By sums, where there are any.
    First { suspects: Vec<Vec<String>> },
    /// By rows, all of them.
    Rows,
    /// By rows, those that were asked for.
    Suspects { asked: Vec<Vec<String>> },
}

impl Auditing {
    /// Takes in a change of any table.
    pub(in crate::source) fn see(&mut self, change: &Change) {
        if change.table.name == self.table {
            self.seen.see(change);
        }
    }
}

impl Source {
    /// Changes what is known of its audits, durably. Two changes are written in the order in which they were made.
    pub(in crate::source) async fn audit_durably(
        &self,
        ingest: &Ingest,
        change: impl FnOnce(&mut super::Audit),
    ) -> Result<(), StoreError> {
        let (tell, told) = tokio::sync::oneshot::channel();
        {
            let mut audit = self.audit();
            change(&mut audit);
            // Whoever asked may have given up waiting.
            let tell = Box::new(move |outcome| drop(tell.send(outcome)));
            ingest.record(vec![audit.document(self.name())], Vec::new(), tell);
        }
        told.await.unwrap_or_else(|_| Err(StoreError::Failed("the service is stopping".into())))
    }
}

impl Runner {
    /// Nothing is compared any more, because the source does not follow.
    pub(in crate::source) async fn end_audit(&self, reason: Reason) {
        if !self.source.audit().is_running() {
            return;
        }
        let ended = self.source.audit_durably(&self.ingest, |audit| audit.call_all_off(&reason, now_ms())).await;
        if let Err(error) = ended {
            tracing::warn!(source = self.source.name(), %error, "the end of an audit cannot be written");
        }
    }
}

impl Session<'_> {
    /// Has the feed compare the next table, if one waits and none is being compared.
    pub(in crate::source) fn next_audit(&mut self) {
        if self.auditing.is_some() {
            return;
        }
        let source = &self.runner.source;
        let table = {
            let mut audit = source.audit();
            let Some(table) = audit.next().map(str::to_owned) else { return };
            audit.start(&table, now_ms());
            table
        };
        tracing::info!(source = source.name(), table, "the table's rows are compared with the database's");
        self.auditing = Some(Auditing { table, pass: Pass::First { suspects: Vec::new() }, seen: Keys::default() });
        self.order_audit(AuditScope::Sums);
    }

    /// Begins an audit of every table if the time for it has come.
    pub(in crate::source) async fn audit_when_due(&mut self) -> Result<(), Failure> {
        let source = &self.runner.source;
        let (schedule, mends) = (source.spec.audit, source.spec.audit_mends);
        if !source.is_following() || !source.audit().is_due(schedule, now_ms()) {
            return Ok(());
        }
        let tables = source.table_names();
        source
            .audit_durably(&self.runner.ingest, |audit| audit.begin(tables, mends, true, now_ms()))
            .await
            .map_err(Failure::from)
    }

    fn order_audit(&mut self, scope: AuditScope) {
        let Some(auditing) = &mut self.auditing else { return };
        auditing.seen = Keys::default();
        let rows_per_second = self.runner.source.spec.audit_rows_per_second;
        let pace = AuditPace { rows_per_second, ..AuditPace::default() };
        self.feed.audit(AuditOrder { table: auditing.table.clone(), scope, pace });
    }

    /// Rows of a table as the database has them here. Nothing of the portion has been sent, and everything before it is
    /// waited for.
    pub(in crate::source) async fn audited(
        &mut self,
        piece: &Arc<AuditPiece>,
        backoff: &mut Backoff,
    ) -> Result<(), Failure> {
        let Some(auditing) = &self.auditing else { return Ok(()) };
        let is_by_sums = matches!(piece.rows, AuditRows::Sums { .. });
        // What was still on its way when the order was replaced by another one.
        let is_stale = auditing.table != piece.table.name || is_by_sums && !matches!(auditing.pass, Pass::First { .. });
        if is_stale {
            return Ok(());
        }
        self.settle_all(backoff).await?;
        let view = self.runner.store.view()?;
        let compared = piece.clone();
        let found = stored::blocking(move || compare(&*view, &compared)).await?;
        self.compared(piece, found, is_by_sums, backoff).await?;
        if piece.is_last {
            self.pass_ends(&piece.table, backoff).await?;
        }
        Ok(())
    }

    async fn compared(
        &mut self,
        piece: &AuditPiece,
        found: Found,
        is_by_sums: bool,
        backoff: &mut Backoff,
    ) -> Result<(), Failure> {
        let Some(auditing) = &mut self.auditing else { return Ok(()) };
        match &piece.rows {
            AuditRows::Sums { rows, .. } => rows.iter().for_each(|(key, _)| auditing.seen.add(key)),
            AuditRows::Images(rows) => rows.iter().for_each(|(key, _)| auditing.seen.add(key)),
        }
        let rows = piece.rows.len() as u64;
        if !matches!(auditing.pass, Pass::Suspects { .. }) {
            self.runner.source.audit().compared(&auditing.table, rows, is_by_sums);
            self.runner.source.counts.audit_rows.fetch_add(rows, Ordering::Relaxed);
        }
        if let Pass::First { suspects } = &mut auditing.pass {
            suspects.extend(found.suspects);
            if suspects.len() > SUSPECTS_MAX {
                self.compare_by_rows();
                return Ok(());
            }
        }
        let differences: Vec<_> = found.differences.into_iter().map(|(key, row)| (Some(key), row)).collect();
        self.differ(&piece.table, differences, backoff).await
    }

    /// Too much differs to be looked at by its keys.
    fn compare_by_rows(&mut self) {
        let Some(auditing) = &mut self.auditing else { return };
        auditing.pass = Pass::Rows;
        self.runner.source.audit().start(&auditing.table, now_ms());
        self.order_audit(AuditScope::Images);
    }

    /// The last piece of a pass has been compared.
    async fn pass_ends(&mut self, table: &Arc<Table>, backoff: &mut Backoff) -> Result<(), Failure> {
        let Some(auditing) = &mut self.auditing else { return Ok(()) };
        match &mut auditing.pass {
            Pass::First { suspects } => {
                let mut suspects = std::mem::take(suspects);
                let by_sums = self.runner.source.audit().was_by_sums(&table.name);
                if !by_sums && suspects.is_empty() {
                    self.find_unseen(table, backoff).await?;
                    return self.audit_ends().await;
                }
                if !by_sums {
                    // It was altered on the way.
                    self.compare_by_rows();
                    return Ok(());
                }
                let unseen = self.unseen(&table.name, None).await?;
                suspects.extend(unseen.rows.into_iter().map(|(key, _)| parts(&key, table.key.len())));
                if suspects.is_empty() {
                    return self.audit_ends().await;
                }
                if suspects.len() > SUSPECTS_MAX {
                    self.compare_by_rows();
                    return Ok(());
                }
                if let Some(auditing) = &mut self.auditing {
                    auditing.pass = Pass::Suspects { asked: suspects.clone() };
                }
                self.order_audit(AuditScope::Keys(suspects));
                Ok(())
            }
            Pass::Rows => {
                self.find_unseen(table, backoff).await?;
                self.audit_ends().await
            }
            Pass::Suspects { asked } => {
                let asked = std::mem::take(asked);
                let asked = asked.into_iter().filter(|key| !auditing.seen.has(key));
                let asked: Vec<String> = asked.map(|key| canonical(&key).into_owned()).collect();
                let (view, name) = (self.runner.store.view()?, table.name.clone());
                let rows = stored::blocking(move || {
                    let mut rows = Vec::new();
                    for key in asked {
                        if let Some(image) = view.row(&name, &key)? {
                            rows.push((key, String::from_utf8_lossy(&image).into_owned()));
                        }
                    }
                    Ok(rows)
                });
                let rows = only_here(rows.await?);
                self.differ(table, rows, backoff).await?;
                self.audit_ends().await
            }
        }
    }

    /// Rows here that the database does not have.
    async fn find_unseen(&mut self, table: &Arc<Table>, backoff: &mut Backoff) -> Result<(), Failure> {
        let mut after = None;
        loop {
            let unseen = self.unseen(&table.name, Some(after)).await?;
            self.differ(table, only_here(unseen.rows), backoff).await?;
            match unseen.last {
                Some(last) => after = Some(last),
                None => return Ok(()),
            }
        }
    }

    /// Rows here that were not seen: all of them, up to one more than are looked at by their keys; or those of one page.
    async fn unseen(&mut self, table: &str, page: Option<Option<String>>) -> Result<Unseen, Failure> {
        let Some(auditing) = &mut self.auditing else { return Ok(Unseen::default()) };
        let seen = std::mem::take(&mut auditing.seen);
        let (view, name) = (self.runner.store.view()?, table.to_owned());
        let (seen, unseen) = stored::blocking(move || {
            let mut unseen = Unseen { last: page.clone().flatten(), ..Unseen::default() };
            loop {
                let rows = stored::page(&*view, &name, unseen.last.as_deref())?;
                unseen.last = rows.last().map(|row| String::from_utf8_lossy(&row.key).into_owned());
                let rows = rows.into_iter().filter(|row| !seen.contains(&row.key));
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                unseen.rows.extend(rows.map(|row| (text(&row.key), text(&row.image))));
                if page.is_some() || unseen.last.is_none() || unseen.rows.len() > SUSPECTS_MAX {
                    return Ok((seen, unseen));
                }
            }
        })
        .await?;
        if let Some(auditing) = &mut self.auditing {
            auditing.seen = seen;
        }
        Ok(unseen)
    }

    /// Notes rows that differ, and mends them if that is asked for.
    async fn differ(
        &mut self,
        table: &Arc<Table>,
        rows: Vec<(Option<Vec<String>>, Difference)>,
        backoff: &mut Backoff,
    ) -> Result<(), Failure> {
        if rows.is_empty() {
            return Ok(());
        }
        let source = self.runner.source.clone();
        let (count, mends) = (rows.len() as u64, source.audit().mends());
        source.counts.audit_differences.fetch_add(count, Ordering::Relaxed);
        tracing::warn!(
            source = source.name(),
            table = table.name,
            rows = count,
            mended = mends,
            "rows here are not the database's: GET /sources/{}/audit shows them",
            source.name()
        );
        let (mut steps, mut bytes) = (Vec::new(), 0);
        for (key, difference) in rows {
            if mends {
                bytes += difference.bytes();
                steps.push(Step::Change(match key {
                    Some(key) => Change::unlogged(table.clone(), Action::Read, key, difference.there().cloned()),
                    None => {
                        let key = bytes::Bytes::copy_from_slice(difference.key.as_bytes());
                        stored::change(table, Action::Remove, Some(&key), None)
                    }
                }));
            }
            source.audit().differs(&table.name, difference, mends);
            if steps.len() >= stored::PAGE_ROWS || bytes >= MEND_BYTES {
                self.mend(std::mem::take(&mut steps), backoff).await?;
                bytes = 0;
            }
        }
        self.mend(steps, backoff).await
    }

    /// Brings rows here to what the database has. The checkpoint stays what it is.
    async fn mend(&mut self, steps: Vec<Step>, backoff: &mut Backoff) -> Result<(), Failure> {
        if steps.is_empty() {
            return Ok(());
        }
        let (source, count) = (self.runner.source.clone(), steps.len() as u64);
        let checkpoint = Checkpoint(self.runner.store.view()?.position(source.name()).unwrap_or_default());
        self.in_flight.send(&self.runner.ingest, source.name(), Portion { steps, checkpoint }).await?;
        self.settle_all(backoff).await?;
        source.counts.audit_mended.fetch_add(count, Ordering::Relaxed);
        Ok(())
    }

    /// The table has been compared.
    async fn audit_ends(&mut self) -> Result<(), Failure> {
        let Some(auditing) = self.auditing.take() else { return Ok(()) };
        let source = &self.runner.source;
        source.audit_durably(&self.runner.ingest, |audit| audit.finish(&auditing.table, now_ms())).await?;
        tracing::info!(source = source.name(), table = auditing.table, "the table's rows have been compared");
        Ok(())
    }

    /// The feed cannot compare the table.
    pub(in crate::source) async fn audit_off(&mut self, table: &str, reason: &Reason) -> Result<(), Failure> {
        let Some(auditing) = self.auditing.take_if(|auditing| auditing.table == table) else { return Ok(()) };
        let source = &self.runner.source;
        tracing::warn!(
            source = source.name(),
            table,
            code = reason.code,
            "the table's rows could not be compared: {}",
            reason.message
        );
        source.audit_durably(&self.runner.ingest, |audit| audit.call_off(&auditing.table, reason, now_ms())).await?;
        Ok(())
    }
}

/// Rows here of which a pass told nothing.
#[derive(Default)]
struct Unseen {
    rows: Vec<(String, String)>,
    /// The last key that was looked at; none at the end.
    last: Option<String>,
}

fn only_here(rows: Vec<(String, String)>) -> Vec<(Option<Vec<String>>, Difference)> {
    rows.into_iter().map(|(key, image)| (None, Difference::new(key, Some(image), None))).collect()
}
