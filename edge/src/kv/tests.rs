//! The store's promises, with a provider that shows every step.
#![allow(clippy::unwrap_used, reason = "test code")]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use super::tree::KEPT_BYTES;
use super::{KeyValue, KeyValueError, KeyValueOptions, KeyValueStore, PageId};
use crate::worker::{Exchange, Worker, WorkerOptions};

#[derive(Debug, Default)]
struct State {
    head: Option<Vec<u8>>,
    pages: BTreeMap<PageId, Vec<u8>>,
    ids: PageId,
    reads: usize,
}

/// One instance's handle on the provider that all share.
#[derive(Debug, Default)]
struct Memory {
    state: Rc<RefCell<State>>,
    expected: RefCell<Option<Vec<u8>>>,
    /// Calls until it fails for good, as after a crash; none for never.
    calls_left: RefCell<Option<usize>>,
    swaps: bool,
}

impl Memory {
    fn new(state: &Rc<RefCell<State>>, calls_left: Option<usize>) -> Self {
        Self { state: state.clone(), calls_left: RefCell::new(calls_left), swaps: true, ..Self::default() }
    }

    fn step(&self) -> Result<(), KeyValueError> {
        match &mut *self.calls_left.borrow_mut() {
            Some(0) => Err(KeyValueError::Failed("crashed".to_owned())),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

impl KeyValue for Memory {
    fn head(&self) -> Result<Option<Vec<u8>>, KeyValueError> {
        self.step()?;
        Ok(self.state.borrow().head.clone())
    }

    fn begin_swap(&self) -> Result<Option<Vec<u8>>, KeyValueError> {
        self.step()?;
        if !self.swaps {
            return Err(KeyValueError::NoSwap("not supported".to_owned()));
        }
        let head = self.state.borrow().head.clone();
        self.expected.borrow_mut().clone_from(&head);
        Ok(head)
    }

    fn swap_head(&self, head: &[u8]) -> Result<(), KeyValueError> {
        self.step()?;
        let mut state = self.state.borrow_mut();
        if state.head != *self.expected.borrow() {
            return Err(KeyValueError::Conflict);
        }
        state.head = Some(head.to_vec());
        Ok(())
    }

    fn page(&self, id: PageId) -> Result<Option<Vec<u8>>, KeyValueError> {
        self.step()?;
        let mut state = self.state.borrow_mut();
        state.reads += 1;
        Ok(state.pages.get(&id).cloned())
    }

    fn write_pages(&self, pages: Vec<(PageId, Vec<u8>)>) -> Result<(), KeyValueError> {
        self.step()?;
        self.state.borrow_mut().pages.extend(pages);
        Ok(())
    }

    fn delete_pages(&self, pages: &[PageId]) -> Result<(), KeyValueError> {
        self.step()?;
        self.state.borrow_mut().pages.retain(|id, _| !pages.contains(id));
        Ok(())
    }

    fn new_page_id(&self) -> PageId {
        let mut state = self.state.borrow_mut();
        state.ids += 1;
        state.ids
    }
}

fn store(memory: Memory, max_events: u64) -> KeyValueStore<Memory> {
    KeyValueStore::new(memory, KeyValueOptions { settings: WorkerOptions::default().settings(), max_events })
}

fn ask_with(memory: Memory, max_events: u64, method: &str, target: &str, body: &str) -> (u16, String) {
    let exchange = Exchange {
        method: method.to_owned(),
        target: target.to_owned(),
        headers: vec![("Content-Type".to_owned(), "application/json".to_owned())],
        body: body.as_bytes().to_vec(),
    };
    let answer = Worker::new(WorkerOptions::default()).answer(&store(memory, max_events), &exchange, 1_000);
    (answer.status, String::from_utf8(answer.body).unwrap())
}

fn ask(state: &Rc<RefCell<State>>, method: &str, target: &str, body: &str) -> (u16, String) {
    ask_with(Memory::new(state, None), 10_000, method, target, body)
}

#[test]
fn what_an_instance_writes_every_other_reads() {
    let state = Rc::default();
    for id in 0..500 {
        let row = format!(r#"{{"id":{id},"text":"{}"}}"#, "x".repeat(200));
        assert_eq!(ask(&state, "POST", "/data/things", &row).0, 200);
    }
    for id in [0, 7, 250, 499] {
        let (status, row) = ask(&state, "GET", &format!("/data/things/{id}"), "");
        assert_eq!(status, 200, "{row}");
        assert!(row.starts_with(&format!(r#"{{"id":{id},"#)));
    }
    assert_eq!(ask(&state, "DELETE", "/data/things/7", "").0, 200);
    assert_eq!(ask(&state, "GET", "/data/things/7", "").0, 404);
    let (_, replayed) = ask(&state, "POST", "/replay", "{}");
    assert!(
        replayed.contains(r#""events":501,"replayedRows":499"#) && replayed.contains(r#""equal":true"#),
        "{replayed}"
    );
    let (_, events) = ask(&state, "GET", "/events?after=499&limit=1", "");
    assert!(events.contains(r#""sequenceNumber":500"#) && events.contains(r#""nextAfter":500"#), "{events}");
    // Replaced pages go: what is left is the tree, and what slow readers may still need.
    assert!(state.borrow().pages.len() < 400, "{}", state.borrow().pages.len());
}

#[test]
fn pages_stay_filled_wherever_rows_are_put() {
    let state: Rc<RefCell<State>> = Rc::default();
    for number in 0..1_000 {
        // A prime step visits every id once, far from the one before.
        let row = format!(r#"{{"id":{},"text":"{}"}}"#, number * 397 % 1_000, "x".repeat(100));
        assert_eq!(ask(&state, "POST", "/data/t", &row).0, 200);
    }
    let reads = |target: &str| {
        let before = state.borrow().reads;
        assert_eq!(ask(&state, "GET", target, "").0, 200);
        state.borrow().reads - before
    };
    // 120 KB of rows and 200 KB of events, in pages of 16 KiB that are half full at the least.
    assert!(reads("/snapshot/t") <= 20, "{}", reads("/snapshot/t"));
    assert!(reads("/events?limit=1000") <= 20, "{}", reads("/events?limit=1000"));
    assert!(reads("/data/t/500") <= 4);
}

#[test]
fn an_instance_that_lives_long_keeps_few_of_the_pages_that_it_has_read() {
    let state: Rc<RefCell<State>> = Rc::default();
    let store = store(Memory::new(&state, None), 10_000);
    let mut worker = Worker::new(WorkerOptions::default());
    let mut ask = |method: &str, target: &str, body: String| {
        let headers = vec![("content-type".to_owned(), "application/json".to_owned())];
        let exchange =
            Exchange { method: method.to_owned(), target: target.to_owned(), headers, body: body.into_bytes() };
        let answer = worker.answer(&store, &exchange, 1_000);
        assert_eq!(answer.status, 200);
        answer.body.len()
    };
    // Every write makes pages anew: those that it replaces go.
    for number in 0..2_000 {
        let row = format!(r#"{{"id":{},"text":"{}"}}"#, number % 100, "x".repeat(100));
        ask("POST", "/data/small?upsert=true", row);
    }
    let live: usize = state.borrow().pages.values().map(Vec::len).sum();
    assert!(store.pages.kept_bytes() <= live, "{} kept of {live}", store.pages.kept_bytes());
    // More than is kept is read all the same.
    for id in 0..60 {
        ask("POST", "/data/large", format!(r#"{{"id":{id},"text":"{}"}}"#, "x".repeat(100_000)));
    }
    for _ in 0..2 {
        assert!(ask("GET", "/snapshot/large", String::new()) > 6_000_000);
        assert!(store.pages.kept_bytes() <= KEPT_BYTES, "{} kept", store.pages.kept_bytes());
    }
}

#[test]
fn a_crash_at_any_step_leaves_all_or_nothing() {
    for steps in 0..40 {
        let state = Rc::default();
        assert_eq!(ask(&state, "POST", "/data/t", r#"{"id":1}"#).0, 200);
        let body = r#"[{"id":2},{"id":3,"n":1}]"#;
        let (_, answer) = ask_with(Memory::new(&state, Some(steps)), 10_000, "POST", "/data/t", body);
        let acknowledged = answer.contains(r#""captured":2"#);
        let (_, events) = ask(&state, "GET", "/events?after=0", "");
        let captured = events.matches(r#""operation""#).count();
        assert!(captured == 3 || (captured == 1 && !acknowledged), "after {steps} steps: {events}");
        let (_, replayed) = ask(&state, "POST", "/replay", "{}");
        assert!(replayed.contains(&format!(r#""liveRows":{captured}"#)) && replayed.contains(r#""equal":true"#));
        // And it goes on.
        let (status, answer) = ask(&state, "POST", "/data/t", r#"{"id":4}"#);
        assert_eq!(status, 200);
        assert!(answer.contains(&format!(r#""sequenceNumber":{}"#, captured + 1)), "{answer}");
    }
}

#[test]
fn retention_drops_the_oldest_events_and_says_so() {
    let state = Rc::default();
    for id in 0..300 {
        let row = format!(r#"{{"id":{id}}}"#);
        assert_eq!(ask_with(Memory::new(&state, None), 100, "POST", "/data/t", &row).0, 200);
    }
    let (status, gone) = ask(&state, "GET", "/events?after=10", "");
    assert_eq!(status, 410, "{gone}");
    let (status, kept) = ask(&state, "GET", "/events?limit=1000", "");
    assert_eq!(status, 200);
    assert!((100..=110).contains(&kept.matches(r#""operation""#).count()), "{kept}");
    assert_eq!(ask(&state, "GET", "/data/t/0", "").0, 200);
}

#[test]
fn a_provider_that_cannot_swap_is_refused_before_anything_is_written() {
    let state: Rc<RefCell<State>> = Rc::default();
    let memory = Memory { swaps: false, ..Memory::new(&state, None) };
    let (status, problem) = ask_with(memory, 10_000, "POST", "/data/t", r#"{"id":1}"#);
    assert_eq!(status, 501);
    assert!(problem.contains(r#""code":"unsafe-store""#) && problem.contains("compare and swap"), "{problem}");
    assert!(state.borrow().pages.is_empty() && state.borrow().head.is_none());
}

#[test]
fn what_is_missing_at_the_edge_says_so() {
    let state = Rc::default();
    for target in ["/subscriptions", "/events/stream", "/sources", "/metrics", "/replica/t", "/components"] {
        let (status, problem) = ask(&state, "GET", target, "");
        assert_eq!(status, 501, "{target}");
        assert!(problem.contains(r#""code":"not-offered""#), "{problem}");
    }
}
