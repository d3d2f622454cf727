//! What becomes of a batch that did not succeed: the one table that decides between trying again and giving up.
//!
//! | what happened | the first event not done | what follows |
//! | --- | --- | --- |
//! | the subscriber says `retry` | waits, ever longer, and as long as it asks for | given up after `maxAttempts`, if there is such a limit |
//! | the subscriber says `reject` | given up at once | the next event follows at once |
//! | a crash (trap, timeout, exit, wrong answer) of several events | tried again in halves | so the guilty one is found |
//! | a crash of one event alone | waits, ever longer | given up after `maxCrashes` |
//!
//! Pauses double from `initialMs` to `maxMs`; each is cut by up to half at random, so that subscriptions which failed
//! together do not come back together. Whatever succeeds starts the count anew.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

use cdc_rest::Retry;

use crate::store::Sequence;

/// What to do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// Try again after this pause, with at most so many events.
    Again { pause: Duration, max_events: usize },
    /// The first event that is not done is given up.
    GiveUp { attempts: u32 },
}

/// The longest pause that a subscriber may ask for.
const LONGEST_WISH: Duration = Duration::from_secs(3_600);

impl Decision {
    /// Leaves the subscriber alone for as long as it has asked for.
    pub(super) fn not_before(self, after: Option<Duration>) -> Self {
        match (self, after) {
            (Self::Again { pause, max_events }, Some(after)) => {
                Self::Again { pause: pause.max(after.min(LONGEST_WISH)), max_events }
            }
            (decision, _) => decision,
        }
    }
}

/// The failures since something last succeeded.
#[derive(Debug)]
pub(super) struct Attempts {
    retry: Retry,
    /// The first event not done when it last failed.
    head: Sequence,
    retries: u32,
    crashes: u32,
    max_events: usize,
}

impl Attempts {
    pub(super) fn new(retry: Retry) -> Self {
        Self { retry, head: 0, retries: 0, crashes: 0, max_events: usize::MAX }
    }

    /// The most events to try at once.
    pub(super) fn max_events(&self) -> usize {
        self.max_events
    }

    /// How often the event has failed that failed last.
    pub(super) fn failures(&self, head: Sequence) -> u32 {
        if head == self.head { self.retries + self.crashes } else { 0 }
    }

    /// Some events are done.
    pub(super) fn succeeded(&mut self) {
        (self.head, self.retries, self.crashes) = (0, 0, 0);
        self.max_events = self.max_events.saturating_mul(2);
    }

    /// The subscriber wants to try again from this event.
    pub(super) fn retry(&mut self, head: Sequence) -> Decision {
        self.at(head);
        self.retries += 1;
        if self.retry.max_attempts.is_some_and(|max| self.retries >= max) {
            return Decision::GiveUp { attempts: self.retries };
        }
        Decision::Again { pause: self.pause(self.retries), max_events: self.max_events }
    }

    /// The call of so many events, this one first, crashed.
    pub(super) fn crash(&mut self, head: Sequence, events: usize) -> Decision {
        self.at(head);
        if events > 1 {
            // Which of them did it shows when each is tried in smaller company.
            self.max_events = events.div_ceil(2);
            return Decision::Again { pause: self.pause(1), max_events: self.max_events };
        }
        self.crashes += 1;
        self.max_events = 1;
        if self.crashes >= self.retry.max_crashes {
            return Decision::GiveUp { attempts: self.crashes };
        }
        Decision::Again { pause: self.pause(self.crashes), max_events: 1 }
    }

    fn at(&mut self, head: Sequence) {
        if self.head != head {
            (self.head, self.retries, self.crashes) = (head, 0, 0);
        }
    }

    /// The pause before another attempt, after so many.
    fn pause(&self, attempts: u32) -> Duration {
        let doubled = u64::from(self.retry.initial_ms).saturating_mul(1 << (attempts - 1).min(40));
        let full = doubled.min(u64::from(self.retry.max_ms));
        let random = RandomState::new().build_hasher().finish();
        Duration::from_millis(full - random % (full / 2 + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempts(max_attempts: Option<u32>) -> Attempts {
        Attempts::new(Retry { initial_ms: 100, max_ms: 1_000, max_attempts, max_crashes: 3 })
    }

    fn pause_ms(decision: Decision) -> u128 {
        match decision {
            Decision::Again { pause, .. } => pause.as_millis(),
            Decision::GiveUp { .. } => panic!("given up"),
        }
    }

    #[test]
    fn pauses_double_up_to_the_longest_and_are_cut_by_up_to_half() {
        let mut attempts = attempts(None);
        for full in [100, 200, 400, 800, 1_000, 1_000] {
            let pause = pause_ms(attempts.retry(7));
            assert!((full / 2..=full).contains(&pause), "{pause} of {full}");
        }
    }

    #[test]
    fn retries_have_no_end_unless_they_are_given_one() {
        let mut endless = attempts(None);
        assert!((0..1_000).all(|_| matches!(endless.retry(7), Decision::Again { .. })));
        let mut bounded = attempts(Some(3));
        assert!((0..2).all(|_| matches!(bounded.retry(7), Decision::Again { .. })));
        assert_eq!(bounded.retry(7), Decision::GiveUp { attempts: 3 });
    }

    #[test]
    fn a_crash_is_cornered_by_halves_and_given_up_when_it_is_alone() {
        let mut attempts = attempts(None);
        let mut events = 256;
        let mut halves = 0;
        while events > 1 {
            match attempts.crash(7, events) {
                Decision::Again { max_events, .. } => events = max_events,
                Decision::GiveUp { .. } => panic!("given up in company"),
            }
            halves += 1;
        }
        assert_eq!(halves, 8);
        assert!((0..2).all(|_| matches!(attempts.crash(7, 1), Decision::Again { max_events: 1, .. })));
        assert_eq!(attempts.crash(7, 1), Decision::GiveUp { attempts: 3 });
    }

    #[test]
    fn a_subscriber_is_left_alone_for_as_long_as_it_asks_within_reason() {
        let again = Decision::Again { pause: Duration::from_millis(100), max_events: 7 };
        assert_eq!(again.not_before(None), again);
        assert_eq!(pause_ms(again.not_before(Some(Duration::from_millis(5)))), 100);
        assert_eq!(pause_ms(again.not_before(Some(Duration::from_secs(30)))), 30_000);
        assert_eq!(pause_ms(again.not_before(Some(Duration::MAX))), LONGEST_WISH.as_millis());
        let given_up = Decision::GiveUp { attempts: 3 };
        assert_eq!(given_up.not_before(Some(Duration::from_secs(30))), given_up);
    }

    #[test]
    fn success_starts_the_count_anew_and_lets_batches_grow_back() {
        let mut attempts = attempts(Some(2));
        attempts.crash(7, 4);
        attempts.retry(8);
        assert_eq!((attempts.failures(8), attempts.failures(9)), (1, 0));
        attempts.succeeded();
        assert_eq!((attempts.failures(8), attempts.max_events()), (0, 4));
        assert!(matches!(attempts.retry(8), Decision::Again { .. }));
    }
}
