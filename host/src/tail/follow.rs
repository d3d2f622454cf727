//! Where a tail stands and what it does next: a state machine without clock, socket or terminal.
//!
//! It first learns what the log holds, which settles where to begin, and then asks page after page. Every gap is
//! said: when retention has overtaken the tail, and when the log itself has gone back.

use std::time::Duration;

use http::StatusCode;

use super::page::{Page, Problem};
use super::settings::TailSettings;

const BACKOFF_MIN: Duration = Duration::from_millis(200);
const BACKOFF_MAX: Duration = Duration::from_secs(10);

/// What to do after an answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// There may be more: ask at once.
    Ask,
    /// Everything was read: ask again after the interval.
    Wait,
    /// The tail has what it was started for.
    Stop,
}

/// What to do after a request that gave no page.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Setback {
    /// Tell this and ask at once: the position has moved.
    Moved(String),
    /// Wait and try again; tell this, unless it is nothing new.
    Retry(Option<String>, Duration),
    /// Trying again cannot help.
    GiveUp(String),
}

/// A tail's position.
pub(super) struct Follower {
    start: Start,
    /// `table=…&operation=…&key=…`, encoded, each with a leading `&`.
    selection: String,
    once: bool,
    after: After,
    remaining: Option<u64>,
    failures: u32,
}

#[derive(Clone, Copy)]
enum Start {
    Now,
    Oldest,
    After(u64),
}

/// The last event that was read.
#[derive(Clone, Copy)]
enum After {
    /// Not settled: what the log holds is not known yet.
    Unknown,
    /// The sequence number, and the newest event at the beginning.
    Sequence { last: u64, newest_at_start: u64, advanced: bool },
}

impl Follower {
    pub(super) fn new(settings: &TailSettings) -> Self {
        let start = match settings.after {
            Some(sequence) => Start::After(sequence),
            None if settings.from_start || settings.once => Start::Oldest,
            None => Start::Now,
        };
        let conditions = [("table", &settings.table), ("operation", &settings.operation), ("key", &settings.key)];
        let given = conditions.into_iter().filter_map(|(name, value)| Some((name, value.as_deref()?)));
        let selection = given.map(|(name, value)| format!("&{name}={}", encoded(value))).collect();
        let (once, remaining) = (settings.once, settings.limit);
        Self { start, selection, once, after: After::Unknown, remaining, failures: 0 }
    }

    /// What to ask for. The page's size is left to the service, which may allow less than one would think of.
    pub(super) fn path(&self) -> String {
        match self.after {
            After::Unknown => "/events?limit=1".to_owned(),
            After::Sequence { last, .. } => format!("/events?after={last}{}", self.selection),
        }
    }

    /// Takes a page: how many of its events to show, and what to do then.
    pub(super) fn take(&mut self, page: &Page<'_>) -> (usize, Next) {
        self.failures = 0;
        let After::Sequence { last, newest_at_start, advanced } = &mut self.after else {
            let newest = page.next_after;
            let last = match self.start {
                Start::Now => newest,
                Start::Oldest => page.oldest_sequence.saturating_sub(1),
                Start::After(sequence) => sequence,
            };
            self.after = After::Sequence { last, newest_at_start: newest, advanced: false };
            return (0, Next::Ask);
        };
        // Never backwards, whatever is answered: that would show events again and again.
        *last = page.next_after.max(*last);
        *advanced = true;
        let caught_up = page.events.is_empty();
        let done = self.once && (caught_up || *last >= *newest_at_start);
        let mut shown = page.events.len();
        if let Some(remaining) = &mut self.remaining {
            shown = shown.min(usize::try_from(*remaining).unwrap_or(usize::MAX));
            *remaining -= shown as u64;
        }
        match () {
            () if done || self.remaining == Some(0) => (shown, Next::Stop),
            () if caught_up => (shown, Next::Wait),
            () => (shown, Next::Ask),
        }
    }

    /// Takes an answer that is no page.
    pub(super) fn refused(&mut self, status: StatusCode, problem: &Problem, retry_after: Option<Duration>) -> Setback {
        let detail = problem.detail.clone().unwrap_or_else(|| format!("the service answered {status}"));
        match (&mut self.after, problem) {
            (After::Sequence { last, .. }, Problem { oldest_sequence: Some(oldest), .. })
                if status == StatusCode::GONE && *oldest > *last + 1 =>
            {
                let missed = oldest - 1 - *last;
                *last = oldest - 1;
                let events = if missed == 1 { "event was" } else { "events were" };
                Setback::Moved(format!(
                    "{missed} {events} dropped by retention before being read; going on from #{oldest}"
                ))
            }
            // A log that ends before what was read already is another log: restored, or begun anew.
            (After::Sequence { last, advanced: true, .. }, Problem { current_sequence: Some(newest), .. })
                if *newest < *last =>
            {
                let note = format!("the log ends at #{newest} now, before #{last} which was read; going on from there");
                *last = *newest;
                Setback::Moved(note)
            }
            _ if status.is_server_error() || [408, 425, 429].contains(&status.as_u16()) => {
                self.failed(&detail, retry_after)
            }
            _ => Setback::GiveUp(detail),
        }
    }

    /// Takes a failure to get any answer.
    pub(super) fn failed(&mut self, reason: &str, retry_after: Option<Duration>) -> Setback {
        if self.once {
            return Setback::GiveUp(reason.to_owned());
        }
        let delay = BACKOFF_MIN.saturating_mul(1 << self.failures.min(10)).min(BACKOFF_MAX);
        self.failures += 1;
        let note = (self.failures == 1).then(|| format!("{reason}; trying again until it answers"));
        Setback::Retry(note, delay.max(retry_after.unwrap_or_default()))
    }

    /// Whether the last request failed.
    pub(super) fn is_failing(&self) -> bool {
        self.failures > 0
    }
}

/// Percent-encodes everything but what RFC 3986 calls unreserved.
fn encoded(value: &str) -> String {
    let byte = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    };
    value.bytes().map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tail::settings::tests::settings;

    fn page(text: &str) -> Page<'_> {
        serde_json::from_str(text).expect("a page")
    }

    const HOLDS_3_TO_9: &str = r#"{"events":[{}],"count":1,"nextAfter":9,"oldestSequence":3}"#;

    #[test]
    fn it_begins_now_unless_told() {
        for (arguments, expected) in [
            (&[][..], "/events?after=9"),
            (&["--from-start"], "/events?after=2"),
            (&["--once"], "/events?after=2"),
            (&["--after", "5"], "/events?after=5"),
            (&["--once", "--after", "5"], "/events?after=5"),
        ] {
            let mut follower = Follower::new(&settings(arguments));
            assert_eq!(follower.path(), "/events?limit=1");
            assert_eq!(follower.take(&page(HOLDS_3_TO_9)), (0, Next::Ask));
            assert_eq!(follower.path(), expected);
        }
    }

    #[test]
    fn the_selection_is_asked_of_the_service_encoded() {
        let arguments = ["--table", "a&b", "--operation", "update", "--key", "ü/1", "--after", "0"];
        let mut follower = Follower::new(&settings(&arguments));
        follower.take(&page(HOLDS_3_TO_9));
        assert_eq!(follower.path(), "/events?after=0&table=a%26b&operation=UPDATE&key=%C3%BC%2F1");
    }

    #[test]
    fn it_asks_at_once_while_there_is_more_and_waits_when_there_is_not() {
        let mut follower = Follower::new(&settings(&["--from-start"]));
        follower.take(&page(HOLDS_3_TO_9));
        let more = r#"{"events":[{},{}],"count":2,"nextAfter":4,"oldestSequence":3}"#;
        assert_eq!(follower.take(&page(more)), (2, Next::Ask));
        assert_eq!(follower.path(), "/events?after=4");
        let none = r#"{"events":[],"count":0,"nextAfter":12,"oldestSequence":3}"#;
        assert_eq!(follower.take(&page(none)), (0, Next::Wait));
        assert_eq!(follower.path(), "/events?after=12", "events that were not selected are behind it too");
        let behind = r#"{"events":[],"count":0,"nextAfter":0,"oldestSequence":3}"#;
        follower.take(&page(behind));
        assert_eq!(follower.path(), "/events?after=12");
    }

    #[test]
    fn once_stops_at_what_was_newest_at_the_start() {
        let mut follower = Follower::new(&settings(&["--once"]));
        follower.take(&page(HOLDS_3_TO_9));
        let first = r#"{"events":[{}],"count":1,"nextAfter":8,"oldestSequence":3}"#;
        assert_eq!(follower.take(&page(first)), (1, Next::Ask));
        let beyond = r#"{"events":[{}],"count":1,"nextAfter":100,"oldestSequence":3}"#;
        assert_eq!(follower.take(&page(beyond)), (1, Next::Stop));
    }

    #[test]
    fn the_limit_cuts_the_last_page() {
        let mut follower = Follower::new(&settings(&["--limit", "3", "--from-start"]));
        follower.take(&page(HOLDS_3_TO_9));
        let two = r#"{"events":[{},{}],"count":2,"nextAfter":4,"oldestSequence":3}"#;
        assert_eq!(follower.take(&page(two)), (2, Next::Ask));
        assert_eq!(follower.take(&page(two)), (1, Next::Stop));
    }

    #[test]
    fn events_that_retention_dropped_are_counted() {
        let mut follower = Follower::new(&settings(&["--after", "5"]));
        follower.take(&page(HOLDS_3_TO_9));
        let dropped = Problem { oldest_sequence: Some(11), ..Problem::default() };
        let Setback::Moved(note) = follower.refused(StatusCode::GONE, &dropped, None) else { panic!("not moved") };
        assert_eq!(note, "5 events were dropped by retention before being read; going on from #11");
        assert_eq!(follower.path(), "/events?after=10");
        // The same answer again would be no progress: it must not loop.
        assert!(matches!(follower.refused(StatusCode::GONE, &dropped, None), Setback::GiveUp(_)));
    }

    #[test]
    fn a_log_that_went_back_is_told_but_a_wrong_start_is_an_error() {
        let future = Problem {
            detail: Some("the newest event is 2".to_owned()),
            current_sequence: Some(2),
            ..Problem::default()
        };
        let mut follower = Follower::new(&settings(&["--after", "50"]));
        follower.take(&page(HOLDS_3_TO_9));
        let gave_up = follower.refused(StatusCode::BAD_REQUEST, &future, None);
        assert_eq!(gave_up, Setback::GiveUp("the newest event is 2".to_owned()));

        let mut follower = Follower::new(&settings(&[]));
        follower.take(&page(HOLDS_3_TO_9));
        follower.take(&page(r#"{"events":[],"count":0,"nextAfter":9,"oldestSequence":3}"#));
        assert!(matches!(follower.refused(StatusCode::BAD_REQUEST, &future, None), Setback::Moved(_)));
        assert_eq!(follower.path(), "/events?after=2");
    }

    #[test]
    fn failures_back_off_are_told_once_and_end_with_a_page() {
        let mut follower = Follower::new(&settings(&[]));
        let first = follower.failed("no connection", None);
        let note = "no connection; trying again until it answers".to_owned();
        assert_eq!(first, Setback::Retry(Some(note), Duration::from_millis(200)));
        assert_eq!(follower.failed("no connection", None), Setback::Retry(None, Duration::from_millis(400)));
        for _ in 0..100 {
            follower.failed("no connection", None);
        }
        assert_eq!(follower.failed("no connection", None), Setback::Retry(None, BACKOFF_MAX));
        assert!(follower.is_failing());
        follower.take(&page(HOLDS_3_TO_9));
        assert!(!follower.is_failing());
    }

    #[test]
    fn a_busy_service_is_tried_again_and_a_refusal_is_not() {
        let mut follower = Follower::new(&settings(&[]));
        let wait = Some(Duration::from_secs(3));
        let busy = follower.refused(StatusCode::SERVICE_UNAVAILABLE, &Problem::default(), wait);
        assert!(matches!(busy, Setback::Retry(Some(_), delay) if delay == Duration::from_secs(3)));
        let refused = follower.refused(StatusCode::NOT_FOUND, &Problem::default(), None);
        assert_eq!(refused, Setback::GiveUp("the service answered 404 Not Found".to_owned()));
        let mut once = Follower::new(&settings(&["--once"]));
        assert!(matches!(once.failed("no connection", None), Setback::GiveUp(_)));
    }
}
