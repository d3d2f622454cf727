//! Sequin's change message (<https://sequinstream.com/docs/reference/messages>).
//!
//! Where this tells more or less than Sequin does:
//! - A truncate, which Sequin does not tell of, has the action `truncate` and no record.
//! - `commit_lsn` and `commit_idx` are those of PostgreSQL; for other sources the event's sequence number, and the
//!   row's number in its transaction where it is known. Rows that were read have neither, as Sequin's backfills.
//! - `database` names the source; its host is not told.

use std::borrow::Cow;

use super::image::Members;
use super::position::{BinlogPlace, PostgresPlace};
use super::{Subject, time};
use crate::{Operation, json};

/// Writes an event's message.
pub(super) fn write(out: &mut Vec<u8>, subject: &Subject<'_>) {
    let event = &subject.event;
    out.reserve(1024 + event.before.map_or(0, <[u8]>::len) + event.after.map_or(0, <[u8]>::len));
    out.extend_from_slice(b"{\"record\":");
    out.extend_from_slice(event.after.or(event.before).unwrap_or(b"null"));
    out.extend_from_slice(b",\"changes\":");
    let action = match event.operation {
        Operation::Truncate => "truncate",
        Operation::Delete => "delete",
        _ if subject.is_read() => "read",
        Operation::Insert => "insert",
        Operation::Update => "update",
    };
    match (action, event.before, event.after) {
        ("update", Some(before), Some(after)) => write_changes(out, before, after, &subject.unavailable()),
        ("update", ..) => out.extend_from_slice(b"{}"),
        _ => out.extend_from_slice(b"null"),
    }
    out.extend_from_slice(b",\"action\":");
    json::string(out, action);
    out.extend_from_slice(b",\"metadata\":");
    write_metadata(out, subject);
    out.push(b'}');
}

/// Writes what members had before that have something else now, or are gone. Of those that nobody knows it can't be
/// said that they changed.
fn write_changes(out: &mut Vec<u8>, before: &[u8], after: &[u8], unavailable: &[Cow<'_, str>]) {
    let now: Vec<_> = Members::of(after).collect();
    let mut expected = 0;
    let changed = Members::of(before).filter(|member| {
        let order = (expected..now.len()).chain(0..expected);
        let Some(at) = order.into_iter().find(|&at| now[at].is_named_as(member)) else {
            return !unavailable.iter().any(|name| member.is_named(name));
        };
        expected = at + 1;
        now[at].value != member.value
    });
    out.push(b'{');
    json::list(out, changed, |out, member| {
        out.extend_from_slice(member.name);
        out.push(b':');
        out.extend_from_slice(member.value);
    });
    out.push(b'}');
}

fn write_metadata(out: &mut Vec<u8>, subject: &Subject<'_>) {
    let event = &subject.event;
    let relation = subject.schema.relation.as_ref();
    let origin = event.origin.as_ref();
    let position = origin.and_then(|origin| origin.position);
    let (lsn, index) = match (relation.map(|relation| relation.connector.as_str()), position) {
        (Some("postgresql"), Some(position)) => match PostgresPlace::parse(position) {
            Some(place) => (Some(place.lsn), place.ordinal),
            None => (None, None),
        },
        (Some("mysql" | "mariadb"), Some(_)) => {
            let place = BinlogPlace::parse(position, origin.and_then(|origin| origin.transaction));
            (Some(event.sequence), Some(place.row))
        }
        _ if subject.is_read() => (None, None),
        _ => (Some(event.sequence), Some(0)),
    };
    out.extend_from_slice(b"{\"table_schema\":");
    json::string(out, relation.map_or("", |relation| &relation.namespace));
    out.extend_from_slice(b",\"table_name\":");
    json::string(out, subject.relation_name());
    out.extend_from_slice(b",\"commit_timestamp\":");
    json::string(out, &time::rfc3339(subject.committed_at_ms()));
    for (name, number) in [(",\"commit_lsn\":", lsn), (",\"commit_idx\":", index)] {
        out.extend_from_slice(name.as_bytes());
        match number {
            Some(number) => json::integer(out, number),
            None => out.extend_from_slice(b"null"),
        }
    }
    out.extend_from_slice(b",\"database_name\":");
    json::string(out, subject.source());
    out.extend_from_slice(b",\"transaction_annotations\":null,\"idempotency_key\":");
    match position {
        Some(position) => json::string(out, &format!("{}:{position}", subject.source())),
        None => json::string(out, subject.id),
    }
    out.extend_from_slice(b",\"record_pks\":[");
    json::list(out, key_parts(subject), |out, part| json::string(out, &part));
    out.extend_from_slice(b"],\"enrichment\":null,\"consumer\":");
    match subject.subscription {
        Some(subscription) => {
            write_named(out, subscription);
            out.push(b'}');
        }
        None => out.extend_from_slice(b"null"),
    }
    out.extend_from_slice(b",\"database\":");
    write_named(out, subject.source());
    out.extend_from_slice(b",\"database\":");
    json::string(out, relation.map_or("", |relation| &relation.database));
    out.extend_from_slice(b",\"hostname\":null}}");
}

/// Writes the beginning of an object that has a name for an id.
fn write_named(out: &mut Vec<u8>, name: &str) {
    out.extend_from_slice(b"{\"id\":");
    json::string(out, name);
    out.extend_from_slice(b",\"name\":");
    json::string(out, name);
    out.extend_from_slice(b",\"annotations\":{}");
}

/// The texts of the key's columns.
fn key_parts(subject: &Subject<'_>) -> Vec<String> {
    match (subject.event.operation, subject.schema.primary_key.len()) {
        (Operation::Truncate, _) => Vec::new(),
        (_, 0 | 1) => vec![subject.key.to_owned()],
        _ => subject.key.split('/').map(|part| part.replace("%2F", "/").replace("%25", "%")).collect(),
    }
}
