//! Whole tables, row by row: snapshots and the replica. They are streamed, so each has a beginning, rows and an end;
//! the caller sends its buffer on whenever it has grown large enough.

use crate::json;
use crate::schema::{TableSchema, write_schema};

/// The answer to `GET /snapshot/:table`.
#[derive(Debug)]
#[must_use = "an answer without its end is not JSON"]
pub struct SnapshotWriter {
    rows: u64,
}

impl SnapshotWriter {
    /// Begins the answer.
    pub fn begin(out: &mut Vec<u8>, table: &str, timestamp_ms: u64) -> Self {
        out.extend_from_slice(b"{\"table\":");
        json::string(out, table);
        out.extend_from_slice(b",\"timestamp\":");
        json::integer(out, timestamp_ms);
        out.extend_from_slice(b",\"data\":[");
        Self { rows: 0 }
    }

    /// Adds a row's image. Must be JSON: it is copied as it is.
    pub fn row(&mut self, out: &mut Vec<u8>, image: &[u8]) {
        write_row(out, &mut self.rows, image);
    }

    /// Ends the answer: the snapshot plus the events after `sequence` is exact.
    pub fn end(self, out: &mut Vec<u8>, schema: &TableSchema, sequence: u64) {
        out.extend_from_slice(b"],\"schema\":");
        write_schema(out, schema);
        out.extend_from_slice(b",\"sequenceNumber\":");
        json::integer(out, sequence);
        out.push(b'}');
    }
}

/// The answer to `GET /replica/:table`.
#[derive(Debug)]
#[must_use = "an answer without its end is not JSON"]
pub struct ReplicaWriter {
    rows: u64,
}

impl ReplicaWriter {
    /// Begins the answer.
    pub fn begin(out: &mut Vec<u8>, table: &str) -> Self {
        out.extend_from_slice(b"{\"table\":");
        json::string(out, table);
        out.extend_from_slice(b",\"data\":[");
        Self { rows: 0 }
    }

    /// Adds a row's image. Must be JSON: it is copied as it is.
    pub fn row(&mut self, out: &mut Vec<u8>, image: &[u8]) {
        write_row(out, &mut self.rows, image);
    }

    /// Ends the answer.
    pub fn end(self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"],\"count\":");
        json::integer(out, self.rows);
        out.push(b'}');
    }
}

fn write_row(out: &mut Vec<u8>, rows: &mut u64, image: &[u8]) {
    if *rows > 0 {
        out.push(b',');
    }
    *rows += 1;
    out.extend_from_slice(image);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden::assert_golden;
    use crate::schema::tests::users;

    const ROWS: [&[u8]; 2] = [br#"{"id":"user_1","balance":10000000000000000000000.10}"#, br#"{"id":"user_2"}"#];

    #[test]
    fn a_snapshot_has_rows_then_schema_then_sequence() {
        let mut out = Vec::new();
        let mut snapshot = SnapshotWriter::begin(&mut out, "users", 1_699_380_000_000);
        for row in ROWS {
            snapshot.row(&mut out, row);
        }
        snapshot.end(&mut out, &users(1), 7);
        assert_golden("snapshot.json", &out);
    }

    #[test]
    fn a_snapshot_may_have_no_rows() {
        let mut out = Vec::new();
        SnapshotWriter::begin(&mut out, "users", 0).end(&mut out, &users(1), 0);
        assert_golden("snapshot-empty.json", &out);
    }

    #[test]
    fn a_replica_counts_its_rows_at_the_end() {
        let mut out = Vec::new();
        let mut replica = ReplicaWriter::begin(&mut out, "users");
        for row in ROWS {
            replica.row(&mut out, row);
        }
        replica.end(&mut out);
        assert_golden("replica.json", &out);
    }

    #[test]
    fn a_replica_may_have_no_rows() {
        let mut out = Vec::new();
        ReplicaWriter::begin(&mut out, "users").end(&mut out);
        assert_golden("replica-empty.json", &out);
    }
}
