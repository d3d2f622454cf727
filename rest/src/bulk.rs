//! The answer to a bulk insert: what became of each row, written as it becomes known.
//!
//! The results come before the totals, because the totals are known last and an answer about a million rows must not
//! be held back in memory. The status of the whole is 200: it is sent before the last row is known.

use crate::event::write_id;
use crate::json;
use crate::problem::Problem;

/// The most refused rows whose reasons are kept: a load that fails this often is the wrong load.
pub const MAX_REFUSED: usize = 10_000;

/// The answer to a bulk insert, row by row in the order of the request.
#[derive(Debug)]
#[must_use = "an answer without its end is not JSON"]
pub struct BulkWriter {
    captured: u64,
    failed: u64,
    /// The sequence numbers of the first and the last row that was captured.
    span: Option<(u64, u64)>,
}

impl BulkWriter {
    /// Begins the answer.
    pub fn begin(out: &mut Vec<u8>) -> Self {
        out.extend_from_slice(b"{\"results\":[");
        Self { captured: 0, failed: 0, span: None }
    }

    /// The next row was captured.
    pub fn captured(&mut self, out: &mut Vec<u8>, timestamp_ms: u64, sequence: u64) {
        self.begin_row(out);
        self.captured += 1;
        self.span = Some((self.span.map_or(sequence, |(first, _)| first), sequence));
        out.extend_from_slice(b"200,\"id\":\"");
        write_id(out, timestamp_ms, sequence);
        out.extend_from_slice(b"\",\"sequenceNumber\":");
        json::integer(out, sequence);
        out.push(b'}');
    }

    /// The next row was not captured.
    pub fn refused(&mut self, out: &mut Vec<u8>, problem: &Problem) {
        self.begin_row(out);
        self.failed += 1;
        json::integer(out, problem.status());
        out.extend_from_slice(b",\"code\":");
        json::string(out, problem.code().as_str());
        out.extend_from_slice(b",\"detail\":");
        json::string(out, problem.detail());
        out.push(b'}');
    }

    fn begin_row(&self, out: &mut Vec<u8>) {
        let row = self.rows();
        out.extend_from_slice(if row == 0 { b"{\"row\":" } else { b",{\"row\":" });
        json::integer(out, row);
        out.extend_from_slice(b",\"status\":");
    }

    /// How many rows there have been.
    pub fn rows(&self) -> u64 {
        self.captured + self.failed
    }

    /// Ends the answer. `interruption` says why the rest of the body was not taken, if it was not: what the results
    /// list stands all the same, and what they do not list was not captured.
    pub fn end(self, out: &mut Vec<u8>, interruption: Option<&Problem>) {
        out.extend_from_slice(b"],\"success\":");
        json::boolean(out, self.failed == 0 && interruption.is_none());
        out.extend_from_slice(b",\"count\":");
        json::integer(out, self.rows());
        out.extend_from_slice(b",\"captured\":");
        json::integer(out, self.captured);
        out.extend_from_slice(b",\"failed\":");
        json::integer(out, self.failed);
        if let Some((first, last)) = self.span {
            out.extend_from_slice(b",\"firstSequence\":");
            json::integer(out, first);
            out.extend_from_slice(b",\"lastSequence\":");
            json::integer(out, last);
        }
        if let Some(problem) = interruption {
            out.extend_from_slice(b",\"interruption\":");
            problem.write(out);
        }
        out.push(b'}');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden::assert_golden;
    use crate::{Code, Limits};

    #[test]
    fn every_row_has_its_outcome() {
        let mut out = Vec::new();
        let mut bulk = BulkWriter::begin(&mut out);
        bulk.captured(&mut out, 1_699_380_000_000, 35);
        bulk.refused(&mut out, &Problem::new(Code::RowExists, "a row with key \"1\" exists"));
        bulk.captured(&mut out, 1_699_380_000_000, 36);
        bulk.refused(&mut out, &Problem::row_too_large(&Limits::default()));
        bulk.end(&mut out, None);
        assert_golden("bulk.json", &out);
    }

    #[test]
    fn a_bulk_without_failures_is_a_success() {
        let mut out = Vec::new();
        let mut bulk = BulkWriter::begin(&mut out);
        bulk.captured(&mut out, 1_699_380_000_000, 1);
        bulk.end(&mut out, None);
        assert_golden("bulk-success.json", &out);
    }

    #[test]
    fn a_bulk_may_have_no_rows() {
        let mut out = Vec::new();
        BulkWriter::begin(&mut out).end(&mut out, None);
        assert_golden("bulk-empty.json", &out);
    }

    #[test]
    fn a_bulk_that_is_interrupted_says_what_stands_and_why_it_ended() {
        let mut out = Vec::new();
        let mut bulk = BulkWriter::begin(&mut out);
        bulk.captured(&mut out, 1_699_380_000_000, 1);
        bulk.end(&mut out, Some(&Problem::store_failed()));
        assert_golden("bulk-interrupted.json", &out);
    }
}
