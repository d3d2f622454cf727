//! Queries: events by selection and range, rows, schemas, statistics. All from one unchanging view each.

use crate::capture::check_address;
use crate::event::{Operation, TableSchema};
use crate::key;
use crate::store::{Bounds, Entry, EventRange, StoreError, View};
use crate::texts::Texts;

/// The most bytes of images in one page of events.
const MAX_PAGE_BYTES: u32 = 16 << 20;
/// Over how many seconds the present rate is measured.
const RATE_SECONDS: u64 = 10;

/// In which order events are answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// Oldest first.
    #[default]
    Ascending,
    /// Newest first.
    Descending,
}

/// Which events. Every condition given must hold.
#[derive(Clone, Debug, Default)]
pub struct EventQuery {
    /// Of this table.
    pub table: Option<String>,
    /// Of this kind.
    pub operation: Option<Operation>,
    /// Of the row with this key.
    pub key: Option<String>,
    /// Later than this, in ms since 1970.
    pub since_ms: Option<u64>,
    /// After this sequence number.
    pub after: Option<u64>,
    /// The most events, at least one.
    pub limit: u32,
    /// The order of the answer.
    pub order: Order,
}

/// One page of events.
#[derive(Clone, Debug)]
pub struct EventPage {
    /// The events.
    pub entries: Vec<Entry>,
    /// What the spans of the entries are spans of.
    pub texts: Texts,
    /// Ask on after this.
    pub next_after: u64,
    /// What the log holds.
    pub bounds: Bounds,
}

/// Why a query has no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QueryError {
    /// There is no such table.
    UnknownTable(String),
    /// There is no such row; says which.
    UnknownRow(String),
    /// The table's schema has no such version.
    UnknownVersion(u32),
    /// The sequence number lies beyond the newest event, which is named.
    InTheFuture(u64),
    /// The store failed, or retention has dropped what was asked for.
    Store(StoreError),
}

impl From<StoreError> for QueryError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// Events by selection and range. With `after` and ascending the first ones behind it, else the newest ones.
pub fn events<V: View>(view: &V, query: EventQuery) -> Result<EventPage, QueryError> {
    let bounds = view.bounds();
    if let Some(after) = query.after {
        // A log that was lost or restored is behind its readers; saying "nothing new" would hide that.
        if after > bounds.newest {
            return Err(QueryError::InTheFuture(bounds.newest));
        }
        if after + 1 < bounds.oldest {
            return Err(StoreError::Dropped(bounds.oldest).into());
        }
    }
    let forward = query.after.is_some() && query.order == Order::Ascending;
    let slice = view.events(&EventRange {
        after: query.after.unwrap_or(bounds.oldest.saturating_sub(1)),
        until: bounds.newest,
        since_ms: query.since_ms,
        table: query.table,
        operation: query.operation,
        key: query.key,
        max_events: query.limit.max(1),
        max_bytes: MAX_PAGE_BYTES,
        newest_first: !forward,
    })?;
    let mut entries = slice.entries;
    let next_after = match entries.last() {
        Some(last) if forward && !slice.complete => last.sequence,
        _ => bounds.newest,
    };
    if !forward && query.order == Order::Ascending {
        entries.reverse();
    }
    Ok(EventPage { entries, texts: slice.texts, next_after, bounds })
}

/// One row's image.
pub fn row<V: View>(view: &V, table: &str, address: &[String]) -> Result<String, QueryError> {
    let schema = schema(view, table, None)?;
    let unknown = |refusal: crate::refusal::Refusal| QueryError::UnknownRow(refusal.message);
    check_address(address, &schema).map_err(unknown)?;
    // A key over the limit cannot have been stored, so it is simply not found.
    let key = key::canonical(address, usize::MAX).map_err(unknown)?;
    view.row(table, &key)?.ok_or_else(|| {
        let shown: String = key.chars().take(128).collect();
        QueryError::UnknownRow(format!("table `{table}` has no row {shown:?}"))
    })
}

/// A version of a table's schema, or the one in force.
pub fn schema<V: View>(view: &V, table: &str, version: Option<u32>) -> Result<TableSchema, QueryError> {
    if let Some(schema) = view.schema(table, version)? {
        return Ok(schema);
    }
    match version {
        Some(version) if view.schema(table, None)?.is_some() => Err(QueryError::UnknownVersion(version)),
        _ => Err(QueryError::UnknownTable(table.to_owned())),
    }
}

/// The schema in force of every table, by name.
pub fn schemas<V: View>(view: &V) -> Result<Vec<TableSchema>, QueryError> {
    Ok(view.schemas()?)
}

/// Every version of a table's schema, oldest first.
pub fn schema_history<V: View>(view: &V, table: &str) -> Result<Vec<TableSchema>, QueryError> {
    let history = view.schema_history(table)?;
    if history.is_empty() { Err(QueryError::UnknownTable(table.to_owned())) } else { Ok(history) }
}

/// Counts since the log began, and the present rate.
#[derive(Clone, Debug, PartialEq)]
pub struct Statistics {
    /// All events.
    pub total_events: u64,
    /// Inserts among them.
    pub inserts: u64,
    /// Updates among them.
    pub updates: u64,
    /// Deletes among them.
    pub deletes: u64,
    /// Truncates among them.
    pub truncates: u64,
    /// Events per table, by name.
    pub tables: Vec<(String, u64)>,
    /// None before any event.
    pub last_event_time_ms: Option<u64>,
    /// Over the last ten seconds.
    pub events_per_second: f64,
    /// 0 before any event.
    pub current_sequence: u64,
}

/// The statistics at the time `now_ms`.
pub fn statistics<V: View>(view: &V, now_ms: u64) -> Result<Statistics, QueryError> {
    let bounds = view.bounds();
    let counters = view.counters()?;
    let mut statistics = Statistics {
        total_events: 0,
        inserts: 0,
        updates: 0,
        deletes: 0,
        truncates: 0,
        tables: Vec::with_capacity(counters.tables.len()),
        last_event_time_ms: (bounds.newest > 0).then_some(bounds.newest_timestamp_ms),
        events_per_second: 0.0,
        current_sequence: bounds.newest,
    };
    for table in counters.tables {
        let events = table.inserts + table.updates + table.deletes + table.truncates;
        statistics.total_events += events;
        statistics.inserts += table.inserts;
        statistics.updates += table.updates;
        statistics.deletes += table.deletes;
        statistics.truncates += table.truncates;
        // A table that was declared and never written to has no events to count.
        if events > 0 {
            statistics.tables.push((table.table, events));
        }
    }
    let now = now_ms / 1_000;
    let recent: u64 = counters
        .recent
        .iter()
        .filter(|(second, _)| *second + RATE_SECONDS > now && *second <= now)
        .map(|(_, events)| events)
        .sum();
    statistics.events_per_second = recent as f64 / RATE_SECONDS as f64;
    Ok(statistics)
}

#[cfg(test)]
#[path = "query_tests.rs"]
mod tests;
