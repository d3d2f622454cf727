//! `GET /stats`.

use std::io::Write;

use crate::json;

/// Counts since the log began, and the present rate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Statistics<'a> {
    /// Every event ever captured.
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
    pub tables: &'a [(String, u64)],
    /// When the newest event was captured; none before any.
    pub last_event_time_ms: Option<u64>,
    /// The rate over the last seconds.
    pub events_per_second: f64,
    /// The newest event.
    pub current_sequence: u64,
    /// What waits for the stream publisher.
    pub buffer_size: u64,
}

/// Writes the answer to `GET /stats`. `TRUNCATE`, which the seed does not have, shows only once there was one.
pub fn write_statistics(out: &mut Vec<u8>, statistics: &Statistics<'_>) {
    out.extend_from_slice(b"{\"stats\":{\"totalEvents\":");
    json::integer(out, statistics.total_events);
    out.extend_from_slice(b",\"eventsByOperation\":{\"INSERT\":");
    json::integer(out, statistics.inserts);
    out.extend_from_slice(b",\"UPDATE\":");
    json::integer(out, statistics.updates);
    out.extend_from_slice(b",\"DELETE\":");
    json::integer(out, statistics.deletes);
    if statistics.truncates > 0 {
        out.extend_from_slice(b",\"TRUNCATE\":");
        json::integer(out, statistics.truncates);
    }
    out.extend_from_slice(b"},\"eventsByTable\":{");
    json::list(out, statistics.tables, |out, (table, events)| {
        json::string(out, table);
        out.push(b':');
        json::integer(out, *events);
    });
    out.extend_from_slice(b"},\"lastEventTime\":");
    match statistics.last_event_time_ms {
        Some(time) => json::integer(out, time),
        None => out.extend_from_slice(b"null"),
    }
    out.extend_from_slice(b",\"eventsPerSecond\":");
    rate(out, statistics.events_per_second);
    out.extend_from_slice(b",\"currentSequence\":");
    json::integer(out, statistics.current_sequence);
    out.extend_from_slice(b"},\"bufferSize\":");
    json::integer(out, statistics.buffer_size);
    out.push(b'}');
}

/// A rate to two places: what lies beyond is noise, and JSON has no NaN.
fn rate(out: &mut Vec<u8>, rate: f64) {
    let rounded = (rate * 100.0).round() / 100.0;
    let shown = if rounded.is_finite() && rounded > 0.0 { rounded } else { 0.0 };
    // Writing to a Vec cannot fail.
    let _ = write!(out, "{shown}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden::assert_golden;

    #[test]
    fn statistics_are_the_seeds() {
        let tables = [("orders".to_owned(), 434), ("users".to_owned(), 800)];
        let mut statistics = Statistics {
            total_events: 1234,
            inserts: 500,
            updates: 600,
            deletes: 134,
            truncates: 0,
            tables: &tables,
            last_event_time_ms: Some(1_699_380_000_000),
            events_per_second: 125.5,
            current_sequence: 1234,
            buffer_size: 45,
        };
        let mut out = Vec::new();
        write_statistics(&mut out, &statistics);
        assert_golden("stats.json", &out);

        statistics.truncates = 1;
        statistics.total_events += 1;
        out.clear();
        write_statistics(&mut out, &statistics);
        assert_golden("stats-truncate.json", &out);
    }

    #[test]
    fn before_any_event_there_is_no_last_one() {
        let statistics = Statistics {
            total_events: 0,
            inserts: 0,
            updates: 0,
            deletes: 0,
            truncates: 0,
            tables: &[],
            last_event_time_ms: None,
            events_per_second: 0.0,
            current_sequence: 0,
            buffer_size: 0,
        };
        let mut out = Vec::new();
        write_statistics(&mut out, &statistics);
        assert_golden("stats-empty.json", &out);
    }

    #[test]
    fn rates_are_numbers_whatever_happens() {
        for (value, text) in [
            (f64::NAN, "0"),
            (f64::INFINITY, "0"),
            (-0.0, "0"),
            (-1.0, "0"),
            (100.0, "100"),
            (1.0 / 3.0, "0.33"),
            (0.1 + 0.2, "0.3"),
        ] {
            let mut out = Vec::new();
            rate(&mut out, value);
            assert_eq!(String::from_utf8_lossy(&out), text);
        }
    }
}
