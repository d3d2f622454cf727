//! A source's task: one session after another, and what is done between them.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use cdc_sources::Reason;
use futures_util::FutureExt;
use tokio::sync::watch;

use super::budget::{OVER, drop_slot, over_budget};
use super::door::InFlight;
use super::failure::Failure;
use super::feeds::Opener;
use super::kept::{Held, Kept, Why};
use super::session::{Ended, Session};
use super::spec::OnMaxRetained;
use super::state::{Goal, Phase, Source, Wish};
use crate::ingest::Ingest;
use crate::store::{Store, StoreError};

/// The first pause before a feed is opened again.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest one.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// The same where a login was refused; half of it is the shortest.
const FIRST_SLOW_PAUSE: Duration = if cfg!(test) { Duration::from_millis(20) } else { Duration::from_secs(60) };
const LONGEST_SLOW_PAUSE: Duration = if cfg!(test) { Duration::from_millis(100) } else { Duration::from_secs(300) };
/// How often a database is looked at whose source is paused or stopped.
const REST_LOOK: Duration = if cfg!(test) { Duration::from_millis(10) } else { Duration::from_secs(30) };

/// What a source's task owns.
pub(super) struct Runner {
    pub(super) source: Arc<Source>,
    pub(super) opener: Opener,
    pub(super) store: Arc<dyn Store>,
    pub(super) ingest: Ingest,
}

impl Runner {
    /// Changes what is kept, durably. One change at a time.
    pub(super) async fn keep(&self, change: impl FnOnce(&mut Kept)) -> Result<(), StoreError> {
        let mut kept = self.source.kept().await;
        self.source.change(&mut kept, &self.ingest, change).await
    }

    /// Follows until the service ends.
    pub(super) async fn run(self) {
        let mut wishes = self.source.wishes.subscribe();
        let mut backoff = Backoff::default();
        let mut in_flight = InFlight::default();
        // So that whoever finds the source gone from the configuration is told of what it has left.
        if let Err(error) = self.keep(|_| ()).await {
            tracing::warn!(source = self.source.name(), %error, "what is kept of the source cannot be written yet");
        }
        loop {
            let wish = *wishes.borrow_and_update();
            match wish.goal {
                Goal::End => return,
                Goal::Pause => {
                    self.source.enter(Phase::Paused);
                    self.end_audit(Reason::new("paused", "the source was paused")).await;
                    if self.rest(&mut wishes, wish, false).await {
                        return;
                    }
                    continue;
                }
                Goal::Follow => {}
            }
            let failure = match self.session(wish, &mut in_flight, &mut wishes, &mut backoff).await {
                Ended::ByWish => continue,
                Ended::ByFailure(failure) => failure,
            };
            let failure = match failure {
                Failure::Table { table, code, message } => match self.hold(&table, code, message).await {
                    Ok(()) => continue,
                    Err(failure) => failure,
                },
                failure => failure,
            };
            let is_over = match failure {
                Failure::Retry { code, message } => {
                    let pause = backoff.next(rand_u64());
                    self.pause(&code, &message, pause, &mut wishes).await
                }
                Failure::RetrySlowly { code, message } => {
                    let pause = backoff.next_slow(rand_u64());
                    let message = format!("{message}; the login is tried again every half minute to five minutes");
                    self.pause(&code, &message, pause, &mut wishes).await
                }
                Failure::Stop { code, message } | Failure::Table { code, message, .. } => {
                    tracing::error!(source = self.source.name(), code, "the source stopped: {message}");
                    self.source.enter_because(Phase::Stopped, &code, &message);
                    self.end_audit(Reason::new(&*code, format!("the source stopped: {message}"))).await;
                    backoff = Backoff::default();
                    // What the budget asks for has been done if that is why it stopped.
                    self.rest(&mut wishes, wish, matches!(code.as_str(), OVER | "slot-lost")).await
                }
            };
            if is_over {
                return;
            }
        }
    }

    /// One table holds what can't be captured: it is not followed any more, and the others are. Fails if the feed goes on
    /// telling of the table all the same.
    async fn hold(&self, table: &str, code: String, message: String) -> Result<(), Failure> {
        if self.source.kept().await.held.contains_key(table) {
            return Err(Failure::Stop { code, message });
        }
        tracing::error!(source = self.source.name(), table, code, "the table stopped: {message}");
        let held = Held::Stopped(Why { code, message });
        self.keep(|kept| kept.hold(table, held)).await?;
        self.source.counts.table_stops.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// One session, whatever ends it: a panic is a failure that may pass.
    async fn session(
        &self,
        wish: Wish,
        in_flight: &mut InFlight,
        wishes: &mut watch::Receiver<Wish>,
        backoff: &mut Backoff,
    ) -> Ended {
        let session = Session::run(self, wish, in_flight, wishes, backoff);
        match AssertUnwindSafe(session).catch_unwind().await {
            Ok(ended) => ended,
            Err(panic) => {
                let said = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
                let said = said.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
                let message = format!("the source's task panicked, which is a bug of the service: {said}");
                Ended::ByFailure(Failure::Retry { code: "panic".into(), message })
            }
        }
    }

    /// Waits for another wish than `before` that is one to a source that rests, and looks at times how much log the database keeps meanwhile: nobody else would notice that a
    /// source which rests fills its disk. `is_told` says that it keeps too much and that this has been acted on. Answers
    /// whether the task is over.
    async fn rest(&self, wishes: &mut watch::Receiver<Wish>, before: Wish, mut is_told: bool) -> bool {
        loop {
            let looking = async {
                self.look_at_retained(&mut is_told).await;
                tokio::time::sleep(REST_LOOK).await;
            };
            tokio::select! {
                biased;
                changed = wishes.changed() => {
                    if changed.is_err() {
                        return true;
                    }
                    if !wishes.borrow().rests_on(before) {
                        return false;
                    }
                }
                () = looking => {}
            }
        }
    }

    async fn look_at_retained(&self, is_told: &mut bool) {
        let source = &self.source;
        let found = match self.opener.retained().await {
            Ok(Some(found)) => found,
            Ok(None) => return,
            Err(error) => {
                // It may be away because of what the source stopped for, which has been said.
                tracing::debug!(source = source.name(), %error, "what the database keeps for the source is not known");
                return;
            }
        };
        let was_told = std::mem::replace(is_told, source.retains(found));
        if was_told || !*is_told {
            return;
        }
        let mut failure = over_budget(source);
        if source.spec.on_max_retained == OnMaxRetained::DropSlot {
            failure = drop_slot(self, failure).await;
        }
        let Failure::Stop { code, message } = failure else { return };
        tracing::warn!(source = source.name(), code, "{message}");
        if source.spec.on_max_retained == OnMaxRetained::DropSlot {
            source.enter_because(Phase::Stopped, &code, &message);
        }
    }

    /// Waits before the next session; a wish ends the wait. Answers whether the task is over.
    async fn pause(&self, code: &str, message: &str, pause: Duration, wishes: &mut watch::Receiver<Wish>) -> bool {
        self.source.counts.reconnects.fetch_add(1, Ordering::Relaxed);
        self.source.enter_because(Phase::Reconnecting, code, message);
        tracing::warn!(
            source = self.source.name(),
            code,
            "the source is tried again in {} ms: {message}",
            pause.as_millis()
        );
        tokio::select! {
            () = tokio::time::sleep(pause) => false,
            changed = wishes.changed() => changed.is_err(),
        }
    }
}

/// Pauses that double, with jitter, so that many services do not come back to a database at once.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// Something worked.
    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }

    /// The next pause: between half of a step and the whole step.
    fn next(&mut self, random: u64) -> Duration {
        self.of(FIRST_PAUSE, LONGEST_PAUSE, random)
    }

    /// The next pause where asking often does harm. Asking once more does none, and what was changed in the database may
    /// have been changed here too by now.
    fn next_slow(&mut self, random: u64) -> Duration {
        if self.failures == 0 {
            return self.next(random);
        }
        self.of(FIRST_SLOW_PAUSE / 2, LONGEST_SLOW_PAUSE, random)
    }

    fn of(&mut self, first: Duration, longest: Duration, random: u64) -> Duration {
        let step = first.saturating_mul(1 << self.failures.min(16)).min(longest);
        self.failures += 1;
        let half = step / 2;
        half + Duration::from_millis(random % (u64::try_from(half.as_millis()).unwrap_or(0) + 1))
    }
}

/// Good enough to spread pauses.
fn rand_u64() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_that_is_refused_is_tried_once_more_and_then_slowly() {
        let mut backoff = Backoff::default();
        assert!(backoff.next_slow(7) <= FIRST_PAUSE);
        let pauses: Vec<_> = (0..9).map(|_| backoff.next_slow(0)).collect();
        assert!(pauses.is_sorted() && pauses[0] >= FIRST_SLOW_PAUSE / 2, "{pauses:?}");
        assert_eq!(pauses[8], LONGEST_SLOW_PAUSE / 2);
    }

    #[test]
    fn pauses_double_up_to_half_a_minute_and_begin_anew_after_a_success() {
        let mut backoff = Backoff::default();
        let longest: Vec<_> = (0..12).map(|_| backoff.next(u64::MAX / 2).as_millis()).collect();
        assert!(longest[0] <= 100 && longest[11] <= 30_000, "{longest:?}");
        backoff.reset();
        assert_eq!(backoff.next(0), Duration::from_millis(50));
        assert_eq!(backoff.next(0), Duration::from_millis(100));
        for _ in 0..40 {
            assert!(backoff.next(7) <= LONGEST_PAUSE);
        }
        assert_eq!(backoff.next(0), LONGEST_PAUSE / 2);
    }
}
