//! What the suite wants of a receiver.

use std::collections::{BTreeMap, BTreeSet};

use cdc_sinks::{AnySink, Place, Settings};
use cdc_test_servers::Proxy;

use crate::events::Item;

/// What goes wrong between a sink and its receiver; see [`Proxy`].
pub trait Faults {
    fn refuse(&self);
    fn hang(&self);
    fn swallow_answers(&self);
    fn cut_after(&self, bytes: u64);
    fn pass(&self);
}

impl Faults for Proxy {
    fn refuse(&self) {
        self.refuse();
    }

    fn hang(&self) {
        self.hang();
    }

    fn swallow_answers(&self) {
        self.swallow_answers();
    }

    fn cut_after(&self, bytes: u64) {
        self.cut_after(bytes);
    }

    fn pass(&self) {
        self.pass();
    }
}

/// A real receiver behind a proxy of faults.
pub trait Receiver: Sized {
    /// Whether an event may be there twice after a failure.
    const MAY_REPEAT: bool;
    /// Whether a sink that is made anew passes over what is there.
    const PASSES_OVER: bool;
    /// Whether changes to the same row within a batch may be written as one.
    const COALESCES: bool = false;

    /// Starts it.
    async fn start() -> Self;

    /// What stands before it, or what it does itself.
    fn faults(&self) -> &dyn Faults;

    /// The settings of a sink that goes through the proxy.
    fn settings(&self, timeout_ms: u32) -> Settings;

    /// `kill -9`.
    fn kill(&self);

    /// Starts it after `kill`, with what it had.
    async fn start_again(&self);

    /// What was written, in its order: keys and `n` of rows of `items`.
    async fn held(&self) -> Vec<(String, u64)>;

    /// A sink in this epoch.
    fn sink(&self, timeout_ms: u32, epoch: u64) -> AnySink {
        AnySink::open(&self.settings(timeout_ms), Default::default(), place(epoch))
    }

    /// The receiver holds these events, and nothing else.
    async fn assert_holds(&self, items: &[Item]) {
        let held = self.held().await;
        let expected: Vec<(String, u64)> = items.iter().map(Item::written_row).collect();
        if Self::COALESCES {
            assert_coalesced(&held, &expected);
        } else if Self::MAY_REPEAT {
            assert_same(&without_repetitions(&held), &expected);
        } else {
            assert_same(&held, &expected);
        }
    }
}

pub fn place(epoch: u64) -> Place {
    Place { subscription: "contract".into(), lane: 3, epoch }
}

/// The first of each: order is kept if what came again came in order too.
fn without_repetitions(held: &[(String, u64)]) -> Vec<(String, u64)> {
    let mut seen = BTreeSet::new();
    held.iter().filter(|write| seen.insert(*write)).cloned().collect()
}

/// Equal; if they are not, shows where they part.
fn assert_same(held: &[(String, u64)], expected: &[(String, u64)]) {
    let parting = held.iter().zip(expected).position(|(held, expected)| held != expected);
    if parting.is_some() || held.len() != expected.len() {
        let at = parting.unwrap_or(held.len().min(expected.len()));
        let around = |writes: &[(String, u64)]| {
            format!("{:?}", writes.iter().skip(at.saturating_sub(3)).take(12).collect::<Vec<_>>())
        };
        panic!(
            "{} held, {} expected, apart at {at}: {} instead of {}",
            held.len(),
            expected.len(),
            around(held),
            around(expected)
        );
    }
}

/// Of each key some of the writes, in order, none twice, the last among them; and nothing of other keys.
fn assert_coalesced(held: &[(String, u64)], expected: &[(String, u64)]) {
    let by_key = |writes: &[(String, u64)]| {
        let mut by_key: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        for (key, n) in writes {
            by_key.entry(key.clone()).or_default().push(*n);
        }
        by_key
    };
    let (held, expected) = (by_key(held), by_key(expected));
    assert_eq!(held.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    for (key, writes) in &held {
        let of_key = &expected[key];
        assert_eq!(writes.last(), of_key.last(), "{key}: {writes:?} of {of_key:?}");
        let mut rest = of_key.iter();
        assert!(writes.iter().all(|n| rest.any(|other| other == n)), "{key}: {writes:?} of {of_key:?}");
    }
}
