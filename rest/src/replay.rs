//! `POST /replay`: what to rebuild from the log, and how it compares.

use std::io::Write;

use serde::Deserialize;

use crate::declaration::object;
use crate::insert_body::trim;
use crate::problem::Problem;
use crate::{Code, Limits, TableName, json};

/// What to replay.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReplayRequest {
    /// This table; every table, if none.
    pub table: Option<TableName>,
    /// The first event to apply; the oldest that is kept, if none.
    pub from: Option<u64>,
    /// The last event to apply; the newest, if none.
    pub to: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    table: Option<String>,
    from: Option<u64>,
    to: Option<u64>,
}

impl ReplayRequest {
    /// Takes a whole body. An empty one asks for everything.
    pub fn parse(body: &[u8], limits: &Limits) -> Result<Self, Problem> {
        if trim(body).is_empty() {
            return Ok(Self::default());
        }
        let Body { table, from, to } = object(body, Code::InvalidBody, "what to replay")?;
        let table = table.map(|name| TableName::parse(&name, limits)).transpose()?;
        if from == Some(0) || to == Some(0) {
            return Err(Problem::new(Code::InvalidBody, "`from` and `to` are sequence numbers, which begin at 1"));
        }
        if let (Some(from), Some(to)) = (from, to)
            && from > to
        {
            return Err(Problem::new(Code::InvalidBody, format!("`from` ({from}) comes after `to` ({to})")));
        }
        Ok(Self { table, from, to })
    }
}

/// A table rebuilt from the log, held against the live one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplayedTable {
    /// The table.
    pub table: String,
    /// The first event that was applied.
    pub from_sequence: u64,
    /// The last event that was applied.
    pub to_sequence: u64,
    /// How many events of the table were applied.
    pub events: u64,
    /// How many rows came of it.
    pub replayed_rows: u64,
    /// Their checksum.
    pub replayed_checksum: u64,
    /// How many rows there are.
    pub live_rows: u64,
    /// Their checksum.
    pub live_checksum: u64,
}

impl ReplayedTable {
    /// Whether the rebuilt table is the live one.
    pub fn equal(&self) -> bool {
        self.replayed_rows == self.live_rows && self.replayed_checksum == self.live_checksum
    }
}

/// Writes the answer to `POST /replay`. Its status is 200 in any case: the comparison was made.
pub fn write_replay_report(out: &mut Vec<u8>, tables: &[ReplayedTable]) {
    let equal = tables.iter().all(ReplayedTable::equal);
    out.extend_from_slice(b"{\"success\":");
    json::boolean(out, equal);
    out.extend_from_slice(b",\"equal\":");
    json::boolean(out, equal);
    out.extend_from_slice(b",\"tables\":[");
    json::list(out, tables, |out, table| {
        out.extend_from_slice(b"{\"table\":");
        json::string(out, &table.table);
        out.extend_from_slice(b",\"fromSequence\":");
        json::integer(out, table.from_sequence);
        out.extend_from_slice(b",\"toSequence\":");
        json::integer(out, table.to_sequence);
        out.extend_from_slice(b",\"events\":");
        json::integer(out, table.events);
        out.extend_from_slice(b",\"replayedRows\":");
        json::integer(out, table.replayed_rows);
        out.extend_from_slice(b",\"replayedChecksum\":");
        checksum(out, table.replayed_checksum);
        out.extend_from_slice(b",\"liveRows\":");
        json::integer(out, table.live_rows);
        out.extend_from_slice(b",\"liveChecksum\":");
        checksum(out, table.live_checksum);
        out.extend_from_slice(b",\"equal\":");
        json::boolean(out, table.equal());
        out.push(b'}');
    });
    out.extend_from_slice(b"]}");
}

/// A checksum as 16 hexadecimal digits: as a number it would lose its last bits in many a JSON parser.
fn checksum(out: &mut Vec<u8>, checksum: u64) {
    // Writing to a Vec cannot fail.
    let _ = write!(out, "\"{checksum:016x}\"");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden::assert_golden;

    fn parse(body: &str) -> Result<ReplayRequest, Code> {
        ReplayRequest::parse(body.as_bytes(), &Limits::default()).map_err(|problem| problem.code())
    }

    #[test]
    fn nothing_said_means_everything() {
        for body in ["", " \n", "{}", r#"{"table":null}"#] {
            assert_eq!(parse(body), Ok(ReplayRequest::default()));
        }
    }

    #[test]
    fn a_table_and_a_range_are_taken() {
        let request = parse(r#"{"table":"users","from":2,"to":2}"#).unwrap_or_else(|code| panic!("{code}"));
        assert_eq!(request.table.as_ref().map(TableName::as_str), Some("users"));
        assert_eq!((request.from, request.to), (Some(2), Some(2)));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for body in [
            "[]",
            r#"["users",1,2]"#,
            r#"{"tables":[]}"#,
            r#"{"from":-1}"#,
            r#"{"from":1.5}"#,
            r#"{"from":"1"}"#,
            r#"{"to":0}"#,
            r#"{"from":3,"to":2}"#,
            r#"{"to":18446744073709551616}"#,
            r#"{"from":1,"from":2}"#,
        ] {
            assert_eq!(parse(body), Err(Code::InvalidBody), "{body}");
        }
        assert_eq!(parse(r#"{"table":"a/b"}"#), Err(Code::InvalidTableName));
        assert_eq!(parse("{\"table\":"), Err(Code::InvalidJson));
    }

    #[test]
    fn a_report_compares_table_by_table() {
        let same = ReplayedTable {
            table: "users".into(),
            from_sequence: 1,
            to_sequence: 9,
            events: 9,
            replayed_rows: 3,
            replayed_checksum: 0xabc,
            live_rows: 3,
            live_checksum: 0xabc,
        };
        let other = ReplayedTable { table: "orders".into(), live_rows: 4, live_checksum: u64::MAX, ..same.clone() };
        let mut out = Vec::new();
        write_replay_report(&mut out, std::slice::from_ref(&same));
        assert_golden("replay.json", &out);
        out.clear();
        write_replay_report(&mut out, &[same, other]);
        assert_golden("replay-different.json", &out);
        out.clear();
        write_replay_report(&mut out, &[]);
        assert_golden("replay-empty.json", &out);
    }
}
