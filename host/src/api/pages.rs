//! Answers of `GET /events` that can be given again.
//!
//! A page is decided by its query and by what the log holds: events never change, and the log's bounds say which there
//! are. So while the bounds stay as they are, the same question has the same answer, to the byte. Whoever polls a quiet
//! table costs no engine call.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use cdc_rest::EventQuery;

use crate::store::Bounds;

/// What all kept pages may take, and one of them.
const KEEP_BYTES: usize = 4 << 20;
const PAGE_BYTES: usize = 128 << 10;
/// What a page costs beside its bytes: query and map.
const ENTRY_BYTES: usize = 256;

/// Pages of the log as it is.
#[derive(Debug, Default)]
pub(super) struct Pages(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    /// The oldest and the newest event that the pages were made of.
    bounds: (u64, u64),
    pages: HashMap<EventQuery, Bytes>,
    bytes: usize,
}

impl Pages {
    /// The answer to a query, if it was given before and the log's bounds are still the same.
    pub(super) fn get(&self, query: &EventQuery, bounds: &Bounds) -> Option<Bytes> {
        let kept = self.lock();
        if kept.bounds != (bounds.oldest, bounds.newest) {
            return None;
        }
        kept.pages.get(query).cloned()
    }

    /// Keeps an answer that was made of a log with these bounds.
    pub(super) fn put(&self, query: EventQuery, oldest: u64, newest: u64, page: &Bytes) {
        let cost = page.len() + query.key.as_ref().map_or(0, String::len) + ENTRY_BYTES;
        if cost > PAGE_BYTES {
            return;
        }
        let mut kept = self.lock();
        let bounds = (oldest, newest);
        if kept.bounds != bounds {
            // Bounds only grow: the later answer may be of the earlier log.
            if oldest < kept.bounds.0 || newest < kept.bounds.1 {
                return;
            }
            *kept = Kept { bounds, ..Kept::default() };
        } else if kept.bytes + cost > KEEP_BYTES {
            kept.pages.clear();
            kept.bytes = 0;
        }
        if kept.pages.insert(query, page.clone()).is_none() {
            kept.bytes += cost;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(after: u64) -> EventQuery {
        EventQuery {
            table: None,
            operation: None,
            key: None,
            since_ms: None,
            after: Some(after),
            limit: 10,
            order: cdc_rest::Order::Ascending,
            format: cdc_rest::envelope::Format::Native,
        }
    }

    fn bounds(oldest: u64, newest: u64) -> Bounds {
        Bounds { oldest, newest, newest_timestamp_ms: 0 }
    }

    #[test]
    fn an_answer_is_given_again_until_the_log_grows_or_is_shortened() {
        let pages = Pages::default();
        let page = Bytes::from_static(b"{}");
        pages.put(query(0), 1, 5, &page);
        assert_eq!(pages.get(&query(0), &bounds(1, 5)), Some(page.clone()));
        assert_eq!(pages.get(&query(1), &bounds(1, 5)), None);
        assert_eq!(pages.get(&query(0), &bounds(1, 6)), None);
        assert_eq!(pages.get(&query(0), &bounds(2, 5)), None);
        // What was asked before the log grew and is done only now is nobody's answer any more.
        pages.put(query(0), 1, 6, &page);
        pages.put(query(1), 1, 5, &page);
        assert_eq!(pages.get(&query(0), &bounds(1, 6)), Some(page));
        assert_eq!(pages.get(&query(1), &bounds(1, 6)), None);
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let pages = Pages::default();
        let page = Bytes::from(vec![b' '; PAGE_BYTES - ENTRY_BYTES]);
        for after in 0..1_000 {
            pages.put(query(after), 1, 1_000, &page);
            let kept = pages.lock();
            assert!(kept.bytes <= KEEP_BYTES);
            assert_eq!(kept.pages.len() * PAGE_BYTES, kept.bytes);
        }
        assert!(pages.get(&query(999), &bounds(1, 1_000)).is_some());
        pages.put(query(0), 1, 1_000, &Bytes::from(vec![b' '; PAGE_BYTES]));
        assert!(pages.get(&query(0), &bounds(1, 1_000)).is_none());
    }
}
