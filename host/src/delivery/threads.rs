//! The threads that lanes run on.
//!
//! - A lane begins with what is durable, and again with that when it ends otherwise than it was told to: a log that could
//!   not be read, a defect in the service. It is then shown as trying again, with the reason, for as long as it takes.
//! - Few lanes have the priority of everybody else, so that they keep up with a load. Many would starve whoever captures:
//!   they go behind it, as do the parts of the service that get every event.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use cdc_rest::Subscriber;

use super::builtin::{self, BuiltIn};
use super::deps::{Deps, now_ms};
use super::error::SubscriptionError;
use super::lane::{Beginning, Ended, Lane};
use super::records;
use super::sink::SinkTarget;
use super::subscription::{LaneState, LastFailure, Subscription};
use super::subscriptions::read_progress;
use super::target::{GuestSetup, GuestTarget, Part, Source, Target, guest_limits, log_lines};
use crate::guest::Usage;
use crate::store::{Sequence, StoreError, View};

/// How much lower the priority of a lane's thread is when there are many, or when it is a part of the service.
const NICE: i32 = 15;
/// So many lanes are few.
pub(super) const FEW_LANES: usize = 8;
/// The first pause before a lane begins again; each doubles the one before.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Counts the threads of a subscription.
#[derive(Default)]
pub(super) struct Running {
    threads: Mutex<usize>,
    ended: Condvar,
}

impl Running {
    /// Waits until no thread is left; answers whether that is so in time.
    pub(super) fn wait(&self, longest: Duration) -> bool {
        let threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.ended.wait_timeout_while(threads, longest, |threads| *threads > 0);
        let (threads, _) = waited.unwrap_or_else(PoisonError::into_inner);
        *threads == 0
    }
}

/// A lane that begins with what is durable.
pub(super) fn open(
    deps: &Arc<Deps>,
    subscription: &Arc<Subscription>,
    lane: usize,
) -> Result<Box<Lane>, SubscriptionError> {
    let view = deps.store.view()?;
    let cursor = records::cursor(&subscription.id, u16::try_from(lane).unwrap_or(u16::MAX));
    let progress = read_progress(&*view, &cursor)?;
    let (filter, target) = target(deps, subscription, lane, progress.filter_usage(), progress.usage())?;
    let (started_after, stopped) = {
        let definition = subscription.definition();
        (definition.started_after, definition.stopped.clone())
    };
    let position = view.cursor(&cursor).unwrap_or(started_after);
    // An event that delivery stopped at is listed as a dead letter too, until it is done after all.
    let stopped_at = match stopped {
        Some(_) => first_dead_letter(&*view, subscription, position)?,
        None => None,
    };
    subscription.lanes[lane].set(stopped.map_or(LaneState::Running, |reason| LaneState::Stopped { reason }));
    let beginning = Beginning { lane, position, progress, filter, target, stopped_at };
    Ok(Box::new(Lane::new(subscription.clone(), deps.clone(), beginning)))
}

fn first_dead_letter(
    view: &dyn View,
    subscription: &Subscription,
    after: Sequence,
) -> Result<Option<Vec<u8>>, StoreError> {
    // Keys begin with the sequence number, and every number has eight bytes.
    let after = [after.to_be_bytes().as_slice(), &[0xff; 2048]].concat();
    let page = view.documents(&records::dead_letters(&subscription.id), Some(&after), 1, 1)?;
    Ok(page.first().map(|row| row.key.to_vec()))
}

fn target(
    deps: &Arc<Deps>,
    subscription: &Arc<Subscription>,
    lane: usize,
    filter_usage: Usage,
    usage: Usage,
) -> Result<(Option<GuestTarget>, Target), SubscriptionError> {
    let spec = &subscription.spec;
    let is_declared = subscription.definition().is_declared;
    let setup = |source, is_filter| GuestSetup {
        id: subscription.id.clone(),
        source,
        is_filter,
        grants: spec.grants.clone(),
        reach: deps.reach(is_declared),
        is_unlimited: false,
        limits: guest_limits(&spec.limits),
        write_line: log_lines(&subscription.id),
        figures: subscription.figures.clone(),
    };
    let guest = |setup, usage| GuestTarget::new(setup, deps.clone(), usage);
    let filter = spec.filter.clone().map(|filter| guest(setup(Source::Named(filter), true), filter_usage));
    let target = match &spec.subscriber {
        Subscriber::Component(component) => {
            Target::Guest(Box::new(guest(setup(Source::Named(component.clone()), false), usage)))
        }
        Subscriber::Sink(spec) => Target::Sink(Box::new(SinkTarget::open(spec, subscription, lane, deps))),
        Subscriber::Builtin(name) => match BuiltIn::parse(name)? {
            BuiltIn::Console => Target::Part(Part::Console),
            BuiltIn::Publisher => Target::Part(Part::Publisher { published: 0 }),
            BuiltIn::Replication => {
                let setup = GuestSetup {
                    grants: builtin::replication_grants(),
                    is_unlimited: true,
                    ..setup(Source::BuiltIn(deps.replica.clone()), false)
                };
                Target::Guest(Box::new(guest(setup, usage)))
            }
        },
    };
    Ok((filter, target))
}

/// Runs a lane on a thread of its own, and on another one when that has stepped back.
pub(super) fn spawn(lane: Box<Lane>, running: &Arc<Running>) -> std::io::Result<()> {
    *running.threads.lock().unwrap_or_else(PoisonError::into_inner) += 1;
    on_new_thread(lane, Counted(running.clone()))
}

fn on_new_thread(lane: Box<Lane>, counted: Counted) -> std::io::Result<()> {
    let (deps, subscription, number) = lane.belongs_to();
    let thread = std::thread::Builder::new().name(format!("sub-{}", subscription.id.as_str()));
    let run = move || {
        let Some(lane) = work(lane, &deps, &subscription, number) else { return drop(counted) };
        if let Err(error) = on_new_thread(lane, counted) {
            let id = subscription.id.as_str();
            tracing::error!(subscription = id, %error, "delivery ended: no thread can be started");
        }
    };
    thread.spawn(run).map(drop)
}

/// Puts this thread, which is a lane's, in its place among the others.
pub(super) fn take_place(deps: &Deps, subscription: &Subscription) {
    let is_part = matches!(subscription.spec.subscriber, Subscriber::Builtin(_));
    if is_part || deps.lanes() > FEW_LANES {
        crate::native_code::lower_priority(NICE);
    }
}

/// Runs a lane until it is told to stop, beginning anew whenever it fails. Answers the lane if it is to go on in another
/// thread.
fn work(mut lane: Box<Lane>, deps: &Arc<Deps>, subscription: &Arc<Subscription>, number: usize) -> Option<Box<Lane>> {
    let mut attempts = 0;
    loop {
        let delivered = subscription.figures.counts().delivered;
        let problem = match catch_unwind(AssertUnwindSafe(|| lane.run())) {
            Ok(Ended::Stopped) => return None,
            Ok(Ended::NewThread(lane)) => return Some(lane),
            // The service stops.
            Ok(Ended::Store(StoreError::Failed(_))) => return None,
            Ok(Ended::Store(error)) => error.to_string(),
            Err(panic) => format!("a defect in the service, please report it: {}", message(&*panic)),
        };
        if subscription.figures.counts().delivered > delivered {
            attempts = 0;
        }
        lane = loop {
            attempts += 1;
            if !pause(deps, subscription, number, attempts, &problem) {
                return None;
            }
            match open(deps, subscription, number) {
                Ok(lane) => break lane,
                Err(error) => {
                    tracing::error!(subscription = subscription.id.as_str(), %error, "delivery cannot begin again");
                }
            }
        };
    }
}

/// What a panic said.
fn message(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("it said nothing")
}

/// Shows what went wrong and waits; answers whether to begin again.
fn pause(deps: &Deps, subscription: &Subscription, number: usize, attempts: u32, problem: &str) -> bool {
    let pause = FIRST_PAUSE.saturating_mul(1 << (attempts - 1).min(16)).min(LONGEST_PAUSE);
    tracing::error!(
        subscription = subscription.id.as_str(),
        lane = number,
        problem,
        pause_ms = pause.as_millis() as u64,
        "delivery was interrupted and begins again with what was acknowledged last"
    );
    let shown = &subscription.lanes[number];
    let sequence = shown.position.load(std::sync::atomic::Ordering::Acquire) + 1;
    let (kind, now_ms) = ("service", now_ms());
    subscription.figures.failed(LastFailure { kind, message: problem.to_owned(), at_ms: now_ms, sequence });
    let next_ms = now_ms + pause.as_millis() as u64;
    shown.set(LaneState::Retrying { sequence, attempts, kind, message: problem.to_owned(), next_ms });
    let mut changed = subscription.control.changed();
    deps.tasks.block_on(async {
        let stopping = async {
            while !subscription.control.is_stopping() {
                if changed.changed().await.is_err() {
                    return;
                }
            }
        };
        // Only a stop is worth an answer before its time.
        let _ = tokio::time::timeout(pause, stopping).await;
    });
    !subscription.control.is_stopping()
}

/// Counts a thread until it is dropped.
struct Counted(Arc<Running>);

impl Drop for Counted {
    fn drop(&mut self) {
        *self.0.threads.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        self.0.ended.notify_all();
    }
}
