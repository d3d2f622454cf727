//! Rows, events, statistics and schemas.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use cdc_engine::query::{self, EventQuery, Order};
use cdc_engine::store::{StoreError, View};
use cdc_rest::envelope::{Format, Subject};
use cdc_rest::{
    EventsWriter, Problem, RowKey, Statistics, TableName, TableSchema, event_id, write_schema, write_schema_history,
    write_schemas, write_statistics,
};

use super::convert::{core_operation, event_ref, rest_schema};
use super::{Outcome, explain, json};

/// `GET /data/:table/:key`.
pub(super) fn row<V: View>(view: &V, table: &TableName, key: &RowKey) -> Outcome {
    let image = query::row(view, table.as_str(), key.parts());
    image.map(String::into_bytes).map_err(|error| explain::query(error, table.as_str()))
}

/// `GET /events`.
pub(super) fn events<V: View>(view: &V, asked: cdc_rest::EventQuery) -> Outcome {
    let asked_for = EventQuery {
        table: asked.table.map(TableName::into_string),
        operation: asked.operation.map(core_operation),
        key: asked.key,
        since_ms: asked.since_ms,
        after: asked.after,
        limit: asked.limit,
        order: match asked.order {
            cdc_rest::Order::Ascending => Order::Ascending,
            cdc_rest::Order::Descending => Order::Descending,
        },
    };
    let page = query::events(view, asked_for).map_err(|error| explain::query(error, ""))?;
    let mut out = Vec::with_capacity(128 + page.texts.len() + page.entries.len() * 256);
    let mut schemas: HashMap<(&str, u32), TableSchema> = HashMap::new();
    let mut writer = EventsWriter::begin(&mut out);
    for entry in &page.entries {
        let event = event_ref(entry, &page.texts).map_err(explain::store)?;
        if asked.format == Format::Native {
            writer.event(&mut out, &event);
            continue;
        }
        let version = (event.table, event.schema_version);
        let schema = match schemas.entry(version) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(unknown) => unknown.insert(schema_of(view, version)?),
        };
        let key = page.texts.text(entry.key).map_err(explain::store)?;
        let id = event_id(event.timestamp_ms, event.sequence);
        writer.envelope(&mut out, asked.format, &Subject { event, id: &id, key, schema, subscription: None });
    }
    writer.end(&mut out, page.next_after, page.bounds.oldest);
    Ok(out)
}

/// The schema that an event was captured under.
fn schema_of<V: View>(view: &V, (table, version): (&str, u32)) -> Result<TableSchema, Problem> {
    let found = view.schema(table, Some(version)).map_err(explain::store)?;
    let missing = || explain::store(StoreError::Failed(format!("version {version} of `{table}` is not there")));
    found.map(rest_schema).ok_or_else(missing)
}

/// `GET /stats`.
pub(super) fn statistics<V: View>(view: &V, now_ms: u64) -> Outcome {
    let found = query::statistics(view, now_ms).map_err(|error| explain::query(error, ""))?;
    Ok(json(|out| {
        write_statistics(
            out,
            &Statistics {
                total_events: found.total_events,
                inserts: found.inserts,
                updates: found.updates,
                deletes: found.deletes,
                truncates: found.truncates,
                tables: &found.tables,
                last_event_time_ms: found.last_event_time_ms,
                events_per_second: found.events_per_second,
                current_sequence: found.current_sequence,
                // There is no stream publisher for which anything could wait.
                buffer_size: 0,
            },
        );
    }))
}

/// `GET /schemas`.
pub(super) fn schemas<V: View>(view: &V) -> Outcome {
    let schemas = query::schemas(view).map_err(|error| explain::query(error, ""))?;
    let schemas: Vec<_> = schemas.into_iter().map(rest_schema).collect();
    Ok(json(|out| write_schemas(out, &schemas)))
}

/// `GET /schema/:table`.
pub(super) fn schema<V: View>(view: &V, table: &TableName, version: Option<u32>) -> Outcome {
    let schema = query::schema(view, table.as_str(), version);
    let schema = schema.map_err(|error| explain::schema_query(error, table.as_str()))?;
    Ok(json(|out| write_schema(out, &rest_schema(schema))))
}

/// `GET /schema/:table/history`.
pub(super) fn schema_history<V: View>(view: &V, table: &TableName) -> Outcome {
    let history = query::schema_history(view, table.as_str());
    let history = history.map_err(|error| explain::schema_query(error, table.as_str()))?;
    let history: Vec<_> = history.into_iter().map(rest_schema).collect();
    Ok(json(|out| write_schema_history(out, table.as_str(), &history)))
}
