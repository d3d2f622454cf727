//! A replica in PostgreSQL compared with the rows here, as of the event that it is at.
//!
//! Each table is compared in a snapshot of the replica's database. The place in that snapshot says which event the replica
//! is at, and the engine's view of the past says which rows it should have then, so that nothing has to rest meanwhile. A
//! lane without a place has been given nothing yet, and one whose place lies behind its cursor has been given no event in
//! between: then the cursor, read before the snapshot, says where it is.
//!
//! It is not a repair: nothing is written to the replica, and nothing here. What is found is kept until the service ends
//! or the subscription is changed.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use cdc_rest::{
    AuditDifference, AuditState, DifferenceKind, SourceAudit, Subscriber, SubscriptionId, SubscriptionSpec, TableAudit,
    TableSchema,
};
use cdc_sinks::Settings;
use cdc_sinks::postgres::{AuditProblem, LanePlace, ReplicaAudit, Target};

use super::deps::{Deps, now_ms};
use super::error::SubscriptionError;
use super::records;
use super::rows;
use super::sink;
use super::subscription::Subscription;
use super::subscriptions::{Subscriptions, read_progress};
use crate::sandbox::Snapshot;
use crate::store::{Sequence, StoreError};

/// Rows that are compared at once.
const ROWS: u32 = 1_000;
const BYTES: u32 = 1 << 20;
/// So many rows a second are read at the most.
const ROWS_PER_SECOND: u64 = 20_000;
/// How many differing rows of a table are shown.
const SHOWN_MAX: usize = 20;
/// The longest image that is shown.
const IMAGE_BYTES_MAX: usize = 16 << 10;
/// How often lanes are waited for that are at different events.
const LANES_TRIES: u32 = 20;
const LANES_PAUSE: Duration = Duration::from_millis(100);

/// The last audit of a subscription.
#[derive(Clone, Debug, Default)]
pub(super) struct Audit {
    began_at_ms: u64,
    ended_at_ms: Option<u64>,
    tables: Vec<TableAudit>,
}

/// Why a table could not be compared.
struct Reason {
    code: &'static str,
    message: String,
}

impl From<StoreError> for Reason {
    fn from(error: StoreError) -> Self {
        Reason { code: "store", message: error.to_string() }
    }
}

impl From<AuditProblem> for Reason {
    fn from(error: AuditProblem) -> Self {
        let mut message = error.to_string();
        if error.is_no_table() {
            message.push_str("; its rows are gone with it: rewind the subscription to \"beginning\", or make it anew");
        }
        Reason { code: "replica", message }
    }
}

impl Subscriptions {
    /// What the audit of a subscription has found, that goes on or was the last one.
    pub fn audit(&self, id: &SubscriptionId) -> Result<SourceAudit, SubscriptionError> {
        let subscription = self.get(id)?;
        let audit = subscription.audit.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Ok(shown(id, audit))
    }

    /// Begins to compare these tables of a replica with the rows here; all that the subscription selects, if none is
    /// named.
    pub fn begin_audit(&self, id: &SubscriptionId, tables: &[String]) -> Result<(), SubscriptionError> {
        let subscription = self.get(id)?;
        let refused = |reason: String| SubscriptionError::NotAudited { id: id.clone(), reason };
        let options = comparable(&subscription.spec).map_err(refused)?;
        let selected = self.selected_tables(&subscription)?;
        if let Some(other) = tables.iter().find(|table| !selected.contains(table)) {
            return Err(refused(format!("its selection has no table {other}, or no row of that was ever captured")));
        }
        if selected.is_empty() {
            return Err(refused(
                "it selects no table of which a row was ever captured: look at its `tables`".to_owned(),
            ));
        }
        let names = if tables.is_empty() { selected } else { tables.to_vec() };
        {
            let mut audit = subscription.audit.lock().unwrap_or_else(PoisonError::into_inner);
            if audit.as_ref().is_some_and(|audit| audit.ended_at_ms.is_none()) {
                return Err(refused("an audit of it goes on already".to_owned()));
            }
            let tables = names.iter().map(|name| waiting(name)).collect();
            *audit = Some(Audit { began_at_ms: now_ms(), ended_at_ms: None, tables });
        }
        let auditor = Auditor { deps: self.deps.clone(), subscription };
        let thread = std::thread::Builder::new().name("audit".to_owned());
        let ending = Ending(auditor.subscription.clone());
        let spawned = thread.spawn(move || {
            // However it ends.
            let _ending = ending;
            auditor.run(&options, &names);
        });
        spawned.map(drop).map_err(SubscriptionError::Thread)
    }

    fn selected_tables(&self, subscription: &Subscription) -> Result<Vec<String>, SubscriptionError> {
        let view = self.deps.store.view()?;
        let all = view.schemas();
        let selected = all.iter().filter(|schema| subscription.selection.selects_table(&schema.table));
        let mut tables: Vec<String> = selected.map(|schema| schema.table.to_string()).collect();
        tables.sort_unstable();
        Ok(tables)
    }
}

/// The options of the replica, if its rows are to be those that are here.
fn comparable(spec: &SubscriptionSpec) -> Result<cdc_sinks::postgres::Options, String> {
    let Subscriber::Sink(sink) = &spec.subscriber else {
        return Err("its subscriber is no sink: only a PostgreSQL replica can be compared".to_owned());
    };
    let settings = sink::settings(sink).map_err(|error| format!("subscriber.{error}"))?;
    let Settings::Postgres(options) = settings else {
        return Err("only a PostgreSQL replica can be compared, because other sinks keep no rows".to_owned());
    };
    let selects = [
        (spec.condition.is_some(), "where"),
        (spec.filter.is_some(), "filter"),
        (!spec.operations.is_empty() && spec.operations.len() < 4, "operations"),
    ];
    if let Some((_, member)) = selects.iter().find(|(selects, _)| *selects) {
        return Err(format!(
            "its `{member}` keeps events from the replica, so that its rows are not those that are here"
        ));
    }
    if matches!(spec.start, cdc_rest::Start::Now | cdc_rest::Start::At(_)) {
        return Err(
            "it began with later events, without the rows that were there: \"snapshot\" or \"beginning\" as `start` \
                    would have had them"
                .to_owned(),
        );
    }
    Ok(options)
}

/// Says that an audit has ended when it is dropped.
struct Ending(Arc<Subscription>);

impl Drop for Ending {
    fn drop(&mut self) {
        let mut audit = self.0.audit.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(audit) = audit.as_mut() else { return };
        audit.ended_at_ms = Some(now_ms());
        for table in audit.tables.iter_mut().filter(|table| !table.state.is_over()) {
            table.state = AuditState::Unfinished;
            table.code = Some("interrupted".to_owned());
            table.reason = Some("the audit failed; the service's log may say why: begin again".to_owned());
        }
    }
}

struct Auditor {
    deps: Arc<Deps>,
    subscription: Arc<Subscription>,
}

/// A table of the replica that is being compared.
struct Comparing<'a> {
    replica: &'a ReplicaAudit,
    name: &'a str,
    /// The event that the snapshot is at.
    at: Sequence,
    began: Instant,
    /// Rows that were read, over all passes.
    read: u64,
}

impl Auditor {
    fn run(&self, options: &cdc_sinks::postgres::Options, names: &[String]) {
        let id = self.subscription.id.as_str();
        let reach = self.deps.reach(self.subscription.definition().is_declared);
        let replica = self.deps.tasks.block_on(ReplicaAudit::open(options, id, reach)).map_err(Reason::from);
        let mut targets: BTreeMap<String, &str> = BTreeMap::new();
        for name in names {
            self.change(name, |table| {
                table.state = AuditState::Running;
                table.began_at_ms = Some(now_ms());
            });
            let outcome = match &replica {
                Ok(replica) => self.table(replica, name, &mut targets),
                Err(reason) => Err(Reason { code: reason.code, message: reason.message.clone() }),
            };
            self.change(name, |table| {
                table.ended_at_ms = Some(now_ms());
                table.state = match &outcome {
                    // What differs is known all the same.
                    _ if table.differences > 0 => AuditState::Different,
                    Err(_) => AuditState::Unfinished,
                    Ok(()) => AuditState::Equal,
                };
                if let Err(reason) = outcome {
                    (table.code, table.reason) = (Some(reason.code.to_owned()), Some(reason.message));
                }
                let (rows, differences) = (table.rows, table.differences);
                match &table.reason {
                    Some(why) => tracing::warn!(subscription = id, table = name, "the replica is not compared: {why}"),
                    None if differences > 0 => tracing::warn!(
                        subscription = id,
                        table = name,
                        rows,
                        differences,
                        "rows of the replica are not those here: GET /subscriptions/{id}/audit shows them"
                    ),
                    None => tracing::info!(subscription = id, table = name, rows, "the replica's rows are equal"),
                }
            });
        }
    }

    fn change(&self, name: &str, change: impl FnOnce(&mut TableAudit)) {
        let mut audit = self.subscription.audit.lock().unwrap_or_else(PoisonError::into_inner);
        let table = audit.as_mut().and_then(|audit| audit.tables.iter_mut().find(|table| table.table == name));
        if let Some(table) = table {
            change(table);
        }
    }

    fn table<'n>(
        &self,
        replica: &ReplicaAudit,
        name: &'n str,
        targets: &mut BTreeMap<String, &'n str>,
    ) -> Result<(), Reason> {
        let target_name = replica.target(name).ok_or_else(|| Reason {
            code: "not-comparable",
            message: "the name of its table in the replica depends on the operation".to_owned(),
        })?;
        if let Some(other) = targets.insert(target_name.clone(), name) {
            let message = format!("the rows of {other} go to the same table {target_name}");
            return Err(Reason { code: "not-comparable", message });
        }
        let at = self.begin(replica)?;
        let mut comparing = Comparing { replica, name, at, began: Instant::now(), read: 0 };
        let mut target: Option<(Target, Arc<TableSchema>)> = None;
        let mut present = 0;
        self.rows(&mut comparing, |comparing, schema, rows| {
            if target.is_none() {
                let looked = self.deps.tasks.block_on(replica.look(&target_name, schema))?;
                target = Some((looked, schema.clone()));
            }
            let Some((target, schema)) = &target else { return Ok(()) };
            let images: Vec<&str> = rows.iter().map(|(_, image)| image.as_str()).collect();
            let found = self.deps.tasks.block_on(replica.compare(target, schema, &images))?;
            let missing = found.iter().filter(|found| found.there.is_none()).count();
            present += (rows.len() - missing) as u64;
            self.compared(comparing.name, rows.len());
            for found in found {
                let Some((key, image)) = rows.get(found.index) else { continue };
                let kind = if found.there.is_none() { DifferenceKind::OnlyHere } else { DifferenceKind::Differs };
                self.differs(comparing.name, 1, Some((key.clone(), kind, Some(image.clone()), found.there)));
            }
            Ok(())
        })?;
        let Some((target, schema)) = target else { return self.of_no_row(replica, name, &target_name, at) };
        let count = self.deps.tasks.block_on(replica.count(&target))?;
        if count > present {
            self.find_others(&mut comparing, &target, &schema, count - present)?;
        }
        Ok(self.deps.tasks.block_on(replica.end())?)
    }

    /// A table of which there is no row here.
    fn of_no_row(&self, replica: &ReplicaAudit, name: &str, target_name: &str, at: Sequence) -> Result<(), Reason> {
        let version = self.deps.store.view()?.schemas().iter().find(|schema| &*schema.table == name).map(|s| s.version);
        let version = version
            .ok_or_else(|| Reason { code: "missing", message: "there is no such table here any more".to_owned() })?;
        let schema = self.deps.schemas.get(name, version)?;
        let target = match self.deps.tasks.block_on(replica.look(target_name, &schema)) {
            // Where nothing was ever written there need not be a table.
            Err(error) if error.is_no_table() => return Ok(()),
            other => other?,
        };
        let count = self.deps.tasks.block_on(replica.count(&target))?;
        if count > 0 {
            let mut comparing = Comparing { replica, name, at, began: Instant::now(), read: 0 };
            self.find_others(&mut comparing, &target, &schema, count)?;
        }
        Ok(())
    }

    /// Takes a snapshot of the replica in which all lanes are at one event, and says which.
    fn begin(&self, replica: &ReplicaAudit) -> Result<Sequence, Reason> {
        let (epoch, lanes) = {
            let definition = self.subscription.definition();
            (definition.epoch, definition.lanes)
        };
        let mut tries = 0;
        loop {
            let view = self.deps.store.view()?;
            for lane in 0..lanes {
                if read_progress(&*view, &records::cursor(&self.subscription.id, lane))?.snapshot.is_some() {
                    let message = "the rows that it begins with are still being delivered: try again later".to_owned();
                    return Err(Reason { code: "delivering", message });
                }
            }
            // Before the snapshot: what is written after it is told by a place.
            let cursors: Vec<Sequence> =
                self.subscription.lanes.iter().map(|lane| lane.position.load(Ordering::Acquire)).collect();
            let places = self.deps.tasks.block_on(replica.begin())?;
            let at = cursors.iter().enumerate().map(|(lane, cursor)| {
                let place = places.iter().find(|place| usize::from(place.lane) == lane);
                at(place, epoch, *cursor)
            });
            let at = at.collect::<Result<Vec<Sequence>, Reason>>()?;
            // One lane empties a table for all of them, so each has to be where the others are.
            if let Some(first) = at.first().filter(|first| at.iter().all(|of| of == *first)) {
                return Ok(*first);
            }
            if tries >= LANES_TRIES {
                let message = "its lanes are at different events all the time: try again when less is written, or with \
                               one lane";
                return Err(Reason { code: "delivering", message: message.to_owned() });
            }
            tries += 1;
            std::thread::sleep(LANES_PAUSE);
        }
    }

    /// Reads the rows that the replica should have, page by page.
    fn rows(
        &self,
        comparing: &mut Comparing<'_>,
        mut take: impl FnMut(&Comparing<'_>, &Arc<TableSchema>, Vec<(String, String)>) -> Result<(), Reason>,
    ) -> Result<(), Reason> {
        let Some(mut snapshot) = rows::open(&self.deps, comparing.name, comparing.at)? else { return Ok(()) };
        let schema = self.deps.schemas.get(comparing.name, snapshot.info().schema.version)?;
        while let Some(rows) = self.page(&mut snapshot)? {
            comparing.read += rows.len() as u64;
            take(comparing, &schema, rows)?;
            let due = Duration::from_millis(comparing.read * 1_000 / ROWS_PER_SECOND);
            std::thread::sleep(due.saturating_sub(comparing.began.elapsed()));
        }
        Ok(())
    }

    fn page(&self, snapshot: &mut Snapshot) -> Result<Option<Vec<(String, String)>>, Reason> {
        if self.subscription.control.is_stopping() {
            let message = "the service stops, or the subscription was changed: begin again".to_owned();
            return Err(Reason { code: "interrupted", message });
        }
        let rows = snapshot.next(ROWS, BYTES).map_err(rows::failed)?;
        let rows = rows.map_err(|error| rows::failed(format!("{error:?}")))?;
        let rows: Vec<(String, String)> = rows.into_iter().map(|row| (row.key, row.image)).collect();
        Ok((!rows.is_empty()).then_some(rows))
    }

    /// Shows rows of the replica that are not here, of which there are so many.
    fn find_others(
        &self,
        comparing: &mut Comparing<'_>,
        target: &Target,
        schema: &Arc<TableSchema>,
        count: u64,
    ) -> Result<(), Reason> {
        let replica = comparing.replica;
        self.deps.tasks.block_on(replica.begin_keys(target, schema))?;
        self.rows(comparing, |_, _, rows| {
            let images: Vec<&str> = rows.iter().map(|(_, image)| image.as_str()).collect();
            Ok(self.deps.tasks.block_on(replica.gather(target, schema, &images))?)
        })?;
        let others = self.deps.tasks.block_on(replica.others(target, schema, SHOWN_MAX))?;
        self.differs(comparing.name, count - others.len() as u64, None);
        for (parts, row) in others {
            let key = cdc_rest::joined_key(&parts);
            self.differs(comparing.name, 1, Some((key, DifferenceKind::MissingHere, None, Some(row))));
        }
        Ok(())
    }

    fn compared(&self, name: &str, rows: usize) {
        self.subscription.figures.add(|figures| &figures.audited_rows, rows as u64);
        self.change(name, |table| table.rows += rows as u64);
    }

    fn differs(&self, name: &str, count: u64, row: Option<(String, DifferenceKind, Option<String>, Option<String>)>) {
        self.subscription.figures.add(|figures| &figures.audit_differences, count);
        self.change(name, |table| {
            table.differences += count;
            let Some((key, kind, here, there)) = row.filter(|_| table.shown.len() < SHOWN_MAX) else { return };
            let short = |image: Option<String>| image.filter(|image| image.len() <= IMAGE_BYTES_MAX);
            table.shown.push(AuditDifference { key, kind, here: short(here), there: short(there) });
        });
    }
}

/// At which event a lane is, by its place and the cursor that was read before.
fn at(place: Option<&LanePlace>, epoch: u64, cursor: Sequence) -> Result<Sequence, Reason> {
    match place.map(|place| (place.epoch, place.sequence)) {
        None | Some((None, _)) => Ok(cursor),
        Some((Some(of), sequence)) if of == epoch => Ok(sequence.max(cursor)),
        Some(_) => {
            let message =
                "it was moved, and a lane has delivered nothing since: try again after its next event".to_owned();
            Err(Reason { code: "delivering", message })
        }
    }
}

fn waiting(name: &str) -> TableAudit {
    TableAudit {
        table: name.to_owned(),
        state: AuditState::Waiting,
        code: None,
        reason: None,
        by: Some("rows"),
        rows: 0,
        differences: 0,
        mended: 0,
        began_at_ms: None,
        ended_at_ms: None,
        shown: Vec::new(),
    }
}

fn shown(id: &SubscriptionId, audit: Option<Audit>) -> SourceAudit {
    let name = id.as_str().to_owned();
    let Some(Audit { began_at_ms, ended_at_ms, tables }) = audit else {
        let (began_at_ms, ended_at_ms, tables) = (None, None, Vec::new());
        return SourceAudit { source: name, state: AuditState::None, mends: false, began_at_ms, ended_at_ms, tables };
    };
    let any = |state: AuditState| tables.iter().any(|table| table.state == state);
    let state = match ended_at_ms {
        None => AuditState::Running,
        Some(_) if any(AuditState::Different) => AuditState::Different,
        Some(_) if any(AuditState::Unfinished) => AuditState::Unfinished,
        Some(_) => AuditState::Equal,
    };
    SourceAudit { source: name, state, mends: false, began_at_ms: Some(began_at_ms), ended_at_ms, tables }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_is_at_its_place_or_behind_what_was_passed_over_since() {
        let place = |epoch, sequence| LanePlace { lane: 0, epoch, sequence };
        assert_eq!(at(None, 7, 5).ok(), Some(5));
        assert_eq!(at(Some(&place(None, 0)), 7, 5).ok(), Some(5));
        assert_eq!(at(Some(&place(Some(7), 9)), 7, 5).ok(), Some(9), "the cursor comes after the place");
        assert_eq!(at(Some(&place(Some(7), 3)), 7, 5).ok(), Some(5), "no event was selected in between");
        assert_eq!(at(Some(&place(Some(6), 9)), 7, 0).err().map(|reason| reason.code), Some("delivering"));
    }
}
