//! Debezium's change events, as its connectors for PostgreSQL, MariaDB and MySQL write them through Kafka Connect's JSON
//! converter (<https://debezium.io/documentation/reference/stable/connectors/postgresql.html>).
//!
//! Where this tells more or less than Debezium does:
//! - `before` is the whole row, whatever the table's replica identity is.
//! - Times in `source` are exact to the millisecond.
//! - `lsn` is that of the transaction's commit, the same in all its events; `sequence` has it as its second item.
//! - Of a binlog position `gtid`, `row` and the server that a GTID of MariaDB names are told; `file` and `pos` only
//!   where the server has no GTIDs.
//! - A row that was read from its table is `r`, with `snapshot` `"true"`.
//! - Tables that are written through our own door have the connector `cdc`.

mod form;
mod schema;
mod value;

use std::borrow::Cow;

use super::image::{Member, Members};
use super::position::{BinlogPlace, PostgresPlace};
use super::{Message, Subject, Tombstones};
use crate::{Column, Operation, TableSchema, json};
use form::ColumnForm;

/// The connector of tables that are written through our own door.
const OWN_CONNECTOR: &str = "cdc";

/// Whether `schema` stands beside `payload`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Schemas {
    Left,
    Shown,
}

/// Which connector's form a table's events have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    Postgres,
    Binlog,
    Own,
}

impl Family {
    fn of(schema: &TableSchema) -> Self {
        match schema.relation.as_ref().map(|relation| relation.connector.as_str()) {
            Some("postgresql") => Self::Postgres,
            Some("mysql" | "mariadb") => Self::Binlog,
            _ => Self::Own,
        }
    }
}

/// Adds an event's messages.
pub(super) fn messages(subject: &Subject<'_>, schemas: Schemas, tombstones: Tombstones, out: &mut Vec<Message>) {
    let mut value = Vec::new();
    write(&mut value, subject, schemas);
    let key = (subject.event.operation != Operation::Truncate).then(|| {
        let mut key = Vec::new();
        write_key(&mut key, subject, schemas);
        key
    });
    let message = Message { key, value: Some(value), headers: Vec::new(), content_type: crate::JSON };
    if subject.event.operation == Operation::Delete && tombstones == Tombstones::On {
        let tombstone = Message { value: None, ..message.clone() };
        out.extend([message, tombstone]);
    } else {
        out.push(message);
    }
}

/// Writes an event's value.
pub(super) fn write(out: &mut Vec<u8>, subject: &Subject<'_>, schemas: Schemas) {
    if schemas == Schemas::Left {
        write_payload(out, subject);
        return;
    }
    out.extend_from_slice(b"{\"schema\":");
    schema::write_value(out, subject);
    out.extend_from_slice(b",\"payload\":");
    write_payload(out, subject);
    out.push(b'}');
}

/// Writes the key of an event that is not a truncate: an object of the key's columns.
fn write_key(out: &mut Vec<u8>, subject: &Subject<'_>, schemas: Schemas) {
    if schemas == Schemas::Shown {
        out.extend_from_slice(b"{\"schema\":");
        schema::write_key(out, subject);
        out.extend_from_slice(b",\"payload\":");
    }
    let is_postgres = Family::of(subject.schema) == Family::Postgres;
    let image = subject.event.after.or(subject.event.before).unwrap_or_default();
    out.push(b'{');
    json::list(out, &subject.schema.primary_key, |out, name| {
        json::string(out, name);
        out.push(b':');
        let column = subject.schema.columns.iter().find(|column| column.name == *name);
        match (Members::of(image).find(|member| member.is_named(name)), column) {
            (Some(member), Some(column)) => value::write(out, member.value, ColumnForm::of(column, is_postgres)),
            (Some(member), None) => out.extend_from_slice(member.value),
            (None, _) => out.extend_from_slice(b"null"),
        }
    });
    out.push(b'}');
    if schemas == Schemas::Shown {
        out.push(b'}');
    }
}

fn write_payload(out: &mut Vec<u8>, subject: &Subject<'_>) {
    let event = &subject.event;
    let is_read = subject.is_read();
    let unavailable = subject.unavailable();
    out.reserve(512 + event.before.map_or(0, <[u8]>::len) + event.after.map_or(0, <[u8]>::len));
    let is_postgres = Family::of(subject.schema) == Family::Postgres;
    let columns: Vec<_> =
        subject.schema.columns.iter().map(|column| (column, ColumnForm::of(column, is_postgres))).collect();
    for (name, image) in [("{\"before\":", event.before.filter(|_| !is_read)), (",\"after\":", event.after)] {
        out.extend_from_slice(name.as_bytes());
        match image {
            Some(image) => write_row(out, image, &columns, &unavailable),
            None => out.extend_from_slice(b"null"),
        }
    }
    out.extend_from_slice(b",\"source\":");
    write_source(out, subject);
    out.extend_from_slice(b",\"transaction\":null,\"op\":\"");
    out.push(match event.operation {
        Operation::Truncate => b't',
        Operation::Delete => b'd',
        _ if is_read => b'r',
        Operation::Insert => b'c',
        Operation::Update => b'u',
    });
    out.push(b'"');
    write_times(out, event.timestamp_ms, [",\"ts_ms\":", ",\"ts_us\":", ",\"ts_ns\":"]);
    out.push(b'}');
}

/// Writes a row, every column of it: what the image lacks is null or stands in for what nobody knows.
fn write_row(out: &mut Vec<u8>, image: &[u8], columns: &[(&Column, ColumnForm)], unavailable: &[Cow<'_, str>]) {
    let mut is_written = vec![false; columns.len()];
    let mut expected = 0;
    let mut count = 0;
    let mut begin = |out: &mut Vec<u8>| {
        out.push(if count == 0 { b'{' } else { b',' });
        count += 1;
    };
    for member in Members::of(image) {
        begin(out);
        out.extend_from_slice(member.name);
        out.push(b':');
        match column_of(&member, columns, expected) {
            Some(at) => {
                is_written[at] = true;
                expected = at + 1;
                value::write(out, member.value, columns[at].1);
            }
            None => out.extend_from_slice(member.value),
        }
    }
    for ((column, form), _) in columns.iter().zip(is_written).filter(|(_, is_written)| !is_written) {
        begin(out);
        json::string(out, &column.name);
        out.push(b':');
        if unavailable.iter().any(|name| *name == column.name) {
            value::write_unavailable(out, *form);
        } else {
            out.extend_from_slice(b"null");
        }
    }
    out.extend_from_slice(if count == 0 { b"{}" } else { b"}" });
}

/// The column of a member. Images mostly have the columns' order, so the search begins where the last one ended.
fn column_of(member: &Member<'_>, columns: &[(&Column, ColumnForm)], expected: usize) -> Option<usize> {
    let expected = expected.min(columns.len());
    (expected..columns.len()).chain(0..expected).find(|&at| member.is_named(&columns[at].0.name))
}

fn write_source(out: &mut Vec<u8>, subject: &Subject<'_>) {
    let event = &subject.event;
    let (position, transaction) = event.origin.map_or((None, None), |origin| (origin.position, origin.transaction));
    let relation = subject.schema.relation.as_ref();
    out.extend_from_slice(concat!("{\"version\":\"", env!("CARGO_PKG_VERSION"), "\",\"connector\":").as_bytes());
    json::string(out, relation.map_or(OWN_CONNECTOR, |relation| &relation.connector));
    out.extend_from_slice(b",\"name\":");
    json::string(out, subject.source());
    let committed_at_ms = subject.committed_at_ms();
    out.extend_from_slice(b",\"ts_ms\":");
    json::integer(out, committed_at_ms);
    out.extend_from_slice(b",\"snapshot\":");
    json::string(out, if event.origin.is_some_and(|origin| origin.snapshot) { "true" } else { "false" });
    out.extend_from_slice(b",\"db\":");
    json::string(out, relation.map_or("", |relation| &relation.database));
    match Family::of(subject.schema) {
        Family::Postgres => {
            let place = position.and_then(PostgresPlace::parse);
            out.extend_from_slice(b",\"sequence\":");
            match place {
                Some(place) => json::string(out, &format!("[null,\"{}\"]", place.lsn)),
                None => out.extend_from_slice(b"null"),
            }
            write_fine_times(out, committed_at_ms);
            write_relation(out, subject);
            out.extend_from_slice(b",\"txId\":");
            optional(out, transaction.and_then(|transaction| transaction.parse().ok()));
            out.extend_from_slice(b",\"lsn\":");
            optional(out, place.map(|place| place.lsn));
            out.extend_from_slice(b",\"xmin\":null");
        }
        Family::Binlog => {
            let place = BinlogPlace::parse(position, transaction);
            out.extend_from_slice(b",\"sequence\":null");
            write_fine_times(out, committed_at_ms);
            out.extend_from_slice(b",\"table\":");
            json::string(out, subject.relation_name());
            out.extend_from_slice(b",\"server_id\":");
            json::integer(out, place.server());
            out.extend_from_slice(b",\"gtid\":");
            match place.gtid {
                Some(gtid) => json::string(out, gtid),
                None => out.extend_from_slice(b"null"),
            }
            out.extend_from_slice(b",\"file\":");
            json::string(out, place.file);
            out.extend_from_slice(b",\"pos\":");
            json::integer(out, place.offset);
            out.extend_from_slice(b",\"row\":");
            json::integer(out, place.row);
            out.extend_from_slice(b",\"thread\":null,\"query\":null");
        }
        Family::Own => {
            out.extend_from_slice(b",\"sequence\":");
            json::string(out, &format!("[\"{}\"]", event.sequence));
            write_fine_times(out, committed_at_ms);
            write_relation(out, subject);
        }
    }
    out.push(b'}');
}

fn write_relation(out: &mut Vec<u8>, subject: &Subject<'_>) {
    out.extend_from_slice(b",\"schema\":");
    json::string(out, subject.schema.relation.as_ref().map_or("", |relation| &relation.namespace));
    out.extend_from_slice(b",\"table\":");
    json::string(out, subject.relation_name());
}

fn write_fine_times(out: &mut Vec<u8>, time_ms: u64) {
    write_times(out, time_ms, ["", ",\"ts_us\":", ",\"ts_ns\":"]);
}

/// Writes a time in ms, µs and ns after their names; not at all where the name is empty.
fn write_times(out: &mut Vec<u8>, time_ms: u64, names: [&str; 3]) {
    let times = [time_ms, time_ms.saturating_mul(1_000), time_ms.saturating_mul(1_000_000)];
    for (name, time) in names.into_iter().zip(times).filter(|(name, _)| !name.is_empty()) {
        out.extend_from_slice(name.as_bytes());
        json::integer(out, time);
    }
}

fn optional(out: &mut Vec<u8>, number: Option<u64>) {
    match number {
        Some(number) => json::integer(out, number),
        None => out.extend_from_slice(b"null"),
    }
}
