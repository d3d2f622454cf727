//! Whole tables: snapshots and replay.

use cdc_engine::query;
use cdc_engine::snapshot::{self, TableSnapshot};
use cdc_engine::store::{Settings, View};
use cdc_rest::{ReplayRequest, ReplayedTable, SnapshotWriter, TableName, write_replay_report};

use super::convert::rest_schema;
use super::{Outcome, explain, json};

/// Rows and bytes of images that are read from the store at once.
const PAGE_ROWS: u32 = 512;
const PAGE_BYTES: u32 = 256 << 10;

/// `GET /snapshot/:table`.
pub(super) fn snapshot<V: View>(view: V, table: &TableName, at: Option<u64>, settings: &Settings) -> Outcome {
    let mut snapshot =
        TableSnapshot::open(view, table.as_str(), at, settings.max_past_keys).map_err(explain::snapshot)?;
    let mut out = Vec::new();
    let mut writer = SnapshotWriter::begin(&mut out, table.as_str(), snapshot.timestamp_ms());
    loop {
        let rows = snapshot.next(PAGE_ROWS, PAGE_BYTES).map_err(explain::store)?;
        if rows.is_empty() {
            break;
        }
        for row in &rows {
            writer.row(&mut out, row.image.as_bytes());
        }
    }
    writer.end(&mut out, &rest_schema(snapshot.schema().clone()), snapshot.sequence());
    Ok(out)
}

/// `POST /replay`.
pub(super) fn replay<V: View>(view: &V, request: ReplayRequest, settings: &Settings) -> Outcome {
    let tables = match request.table {
        Some(table) => vec![table.into_string()],
        None => {
            let schemas = query::schemas(view).map_err(|error| explain::query(error, ""))?;
            schemas.into_iter().map(|schema| schema.name).collect()
        }
    };
    let mut reports = Vec::with_capacity(tables.len());
    for table in tables {
        let report = snapshot::verify(view, &table, request.from, request.to, settings.max_past_keys);
        let report = report.map_err(explain::snapshot)?;
        reports.push(ReplayedTable {
            table: report.table,
            from_sequence: report.from_sequence,
            to_sequence: report.to_sequence,
            events: report.events,
            replayed_rows: report.replayed_rows,
            replayed_checksum: report.replayed_checksum,
            live_rows: report.live_rows,
            live_checksum: report.live_checksum,
        });
    }
    Ok(json(|out| write_replay_report(out, &reports)))
}
