//! One feed, from its opening to its end: portions in, commits out, and the feed told what is durable.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use cdc_sources::{Change, Checkpoint, FeedError, Portion, Remedy, Step, Table};
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use super::door::{InFlight, Settled};
use super::feeds::AnyFeed;
use super::reading::Readings;
use super::repair::{Repair, sweep};
use super::runner::{Backoff, Runner};
use super::spec::OnMaxRetained;
use super::state::{Phase, Source, Wish, now_ms};
use crate::store::StoreError;

/// Portions that may wait for the disk at once.
const IN_FLIGHT_MAX: usize = 4;
/// How often a feed is asked how far it is.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// How a session ended.
pub(super) enum Ended {
    /// Somebody wishes something else.
    ByWish,
    ByFailure(Failure),
}

/// Why a session cannot go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// It may pass: another session is tried after a pause.
    Retry { code: String, message: String },
    /// Somebody has to act.
    Stop { code: String, message: String },
}

impl Failure {
    pub(super) fn retry(code: &str, message: impl Into<String>) -> Self {
        Self::Retry { code: code.to_owned(), message: message.into() }
    }

    pub(super) fn stop(code: &str, message: impl Into<String>) -> Self {
        Self::Stop { code: code.to_owned(), message: message.into() }
    }

    /// What a feed's error asks for.
    fn of_feed(error: &FeedError, name: &str) -> Self {
        let mut message = error.message.clone();
        let mut cause = std::error::Error::source(error);
        while let Some(found) = cause {
            // Many an error repeats what lies behind it.
            let told = found.to_string();
            if !message.contains(&told) {
                message = format!("{message}: {told}");
            }
            cause = found.source();
        }
        match error.remedy {
            Remedy::Retry => Self::retry(error.code, message),
            Remedy::Stop => {
                let way_out = format!("{message}; when it is mended, POST /sources/{name}/resume goes on");
                Self::stop(error.code, way_out)
            }
            Remedy::Repair => {
                let way_out = format!(
                    "{message}; what happened since then cannot be followed any more: POST /sources/{name}/repair reads \
                     the tables anew and captures what differs"
                );
                Self::stop(error.code, way_out)
            }
        }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Full(_) | StoreError::GivenUp(_) => Self::retry("storage-full", error.to_string()),
            StoreError::TooLarge(_) => Self::stop("portion-too-large", error.to_string()),
            _ => Self::retry("store-failed", error.to_string()),
        }
    }
}

/// A feed that is open.
pub(super) struct Session<'a> {
    runner: &'a Runner,
    in_flight: &'a mut InFlight,
    feed: AnyFeed,
    readings: Readings,
    /// Tables that were met, began to be read, and were read in this session.
    met: HashSet<String>,
    begun: HashSet<String>,
    read: HashSet<String>,
    repair: Option<Repair>,
    last_transaction: Option<Arc<str>>,
    /// Whether the feed has said anything, so that it knows its tables.
    has_begun: bool,
}

impl<'a> Session<'a> {
    /// Opens a feed and follows it until a wish or a failure.
    pub(super) async fn run(
        runner: &'a Runner,
        in_flight: &'a mut InFlight,
        wishes: &mut watch::Receiver<Wish>,
        backoff: &mut Backoff,
    ) -> Ended {
        // What the session before has left, should it have panicked.
        while in_flight.settle_next().await.is_some() {}
        let opening = tokio::select! {
            opening = Self::open(runner, in_flight) => opening,
            _ = wishes.changed() => return Ended::ByWish,
        };
        let mut session = match opening {
            Ok(session) => session,
            Err(failure) => return Ended::ByFailure(failure),
        };
        let ended = session.follow(wishes, backoff).await;
        let settled = session.settle_all(backoff).await;
        let failure = match (ended, settled) {
            (Err(failure), _) | (Ok(()), Err(failure)) => failure,
            (Ok(()), Ok(())) => {
                session.look_at_progress();
                return Ended::ByWish;
            }
        };
        let is_over_budget = failure == over_budget(&runner.source);
        drop(session);
        if is_over_budget && runner.source.spec.on_max_retained == OnMaxRetained::DropSlot {
            return Ended::ByFailure(drop_slot(runner, failure).await);
        }
        Ended::ByFailure(failure)
    }

    async fn open(runner: &'a Runner, in_flight: &'a mut InFlight) -> Result<Self, Failure> {
        let source = &runner.source;
        let reads_anew = source.kept.lock().await.needs_reading();
        // An empty position is one that was forgotten.
        let position = runner.store.view()?.position(source.name()).filter(|position| !position.is_empty());
        let position = position.map(Checkpoint);
        in_flight.begin(position.as_ref());
        let opened = runner.opener.open(position, reads_anew).await;
        let feed = opened.map_err(|error| Failure::of_feed(&error, source.name()))?;
        let repair = reads_anew.then(Repair::default);
        tracing::info!(source = source.name(), repair = reads_anew, "the source is connected");
        let (readings, met, begun, read) = (Readings::default(), HashSet::new(), HashSet::new(), HashSet::new());
        Ok(Self {
            runner,
            in_flight,
            feed,
            readings,
            met,
            begun,
            read,
            repair,
            last_transaction: None,
            has_begun: false,
        })
    }

    /// Until somebody wishes something else.
    async fn follow(&mut self, wishes: &mut watch::Receiver<Wish>, backoff: &mut Backoff) -> Result<(), Failure> {
        // Its tables first, so that it is not shown to follow what it has to read yet.
        let failure = self.look_at_progress();
        self.runner.source.enter(if self.repair.is_some() { Phase::Repairing } else { Phase::Open });
        if let Some(failure) = failure {
            return Err(failure);
        }
        let mut looks = tokio::time::interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                _ = wishes.changed() => return Ok(()),
                Some(settled) = self.in_flight.settle_next() => self.settled(settled, backoff)?,
                portion = self.feed.next(), if self.in_flight.len() < IN_FLIGHT_MAX => {
                    let portion = portion.map_err(|error| Failure::of_feed(&error, self.runner.source.name()))?;
                    self.take(portion, backoff).await?;
                }
                _ = looks.tick() => {
                    if let Some(failure) = self.look_at_progress() {
                        return Err(failure);
                    }
                    if self.has_begun {
                        self.finish_repair().await?;
                    }
                }
            }
        }
    }

    /// Hands a portion on. One in which a table's reading begins or ends is waited for.
    async fn take(&mut self, portion: Portion, backoff: &mut Backoff) -> Result<(), Failure> {
        self.meet(&portion).await?;
        let mut read: Vec<Arc<Table>> = Vec::new();
        for at in 0..portion.steps.len() {
            match &portion.steps[at] {
                Step::Describe(_) => {}
                Step::Change(change) => self.readings.see(change),
                Step::ReadBegan(table) => self.reading_begins(table, &portion.steps[..at], backoff).await?,
                Step::ReadDone(table) => read.push(table.clone()),
                Step::Rewrite(_) | Step::Gone(_) => {}
            }
        }
        self.has_begun = true;
        self.count_transactions(&portion);
        self.in_flight.send(&self.runner.ingest, self.runner.source.name(), portion).await?;
        if read.is_empty() {
            return Ok(());
        }
        // Nothing of this feed is in the log beyond the portion, so the rows here are those at its end.
        self.settle_all(backoff).await?;
        for table in read {
            self.reading_ends(&table).await?;
        }
        self.look_at_progress();
        self.finish_repair().await
    }

    /// Notes tables that are new here before anything of them is.
    async fn meet(&mut self, portion: &Portion) -> Result<(), Failure> {
        for step in &portion.steps {
            let (Step::Describe(table) | Step::ReadBegan(table)) = step else { continue };
            if self.met.contains(&table.name) {
                continue;
            }
            // What is in flight is of tables that were met.
            if self.runner.store.view()?.schema(&table.name, None).is_none() {
                self.runner.keep(|kept| kept.unread.extend([(table.name.clone(), table.key.clone())])).await?;
            }
            self.met.insert(table.name.clone());
        }
        Ok(())
    }

    async fn reading_begins(&mut self, table: &Table, before: &[Step], backoff: &mut Backoff) -> Result<(), Failure> {
        let is_first = self.begun.insert(table.name.clone());
        if is_first && self.repair.is_none() {
            let kept = self.runner.source.kept.lock().await;
            if kept.unread.get(&table.name) == Some(&table.key) {
                return Ok(());
            }
        }
        self.settle_all(backoff).await?;
        let view = self.runner.store.view()?;
        let is_of_it = |step: &Step| matches!(step, Step::Change(change) if change.table.name == table.name);
        if view.scan(&table.name, None, 1, 1)?.is_empty() && !before.iter().any(is_of_it) {
            return Ok(());
        }
        if self.repair.is_none() {
            // Noted before the reading can begin: a restart in the middle of it has to start over.
            self.runner.keep(|kept| kept.unswept.extend([table.name.clone()])).await?;
        }
        self.readings.begin(&table.name);
        Ok(())
    }

    async fn reading_ends(&mut self, table: &Arc<Table>) -> Result<(), Failure> {
        self.read.insert(table.name.clone());
        if self.runner.source.kept.lock().await.unread.contains_key(&table.name) {
            self.runner.keep(|kept| kept.unread.retain(|unread, _| *unread != table.name)).await?;
        }
        if let Some(keys) = self.readings.end(&table.name) {
            let removed = sweep(self.runner, self.in_flight, table, keys).await?;
            if let Some(repair) = &mut self.repair {
                repair.removed += removed;
            } else {
                self.runner.keep(|kept| kept.unswept.retain(|unswept| *unswept != table.name)).await?;
            }
        }
        if let Some(repair) = &mut self.repair {
            repair.tables += 1;
        }
        Ok(())
    }

    /// A repair is done when every table has been read.
    async fn finish_repair(&mut self) -> Result<(), Failure> {
        let Some(repair) = &self.repair else { return Ok(()) };
        let tables = self.feed.progress().tables;
        if !self.readings.is_empty() || tables.iter().any(|table| !self.read.contains(&table.table)) {
            return Ok(());
        }
        let found = repair.found(now_ms());
        let source = &self.runner.source;
        self.runner
            .keep(|kept| {
                kept.is_repairing = false;
                kept.unswept.clear();
            })
            .await?;
        tracing::info!(
            source = source.name(),
            tables = found.tables,
            inserted = found.inserted,
            updated = found.updated,
            removed = found.removed,
            "the repair is done"
        );
        source.repaired(found);
        self.repair = None;
        source.enter(Phase::Open);
        self.look_at_progress();
        Ok(())
    }

    fn count_transactions(&mut self, portion: &Portion) {
        let changes = portion.steps.iter().filter_map(|step| match step {
            Step::Change(Change { transaction: Some(transaction), .. }) => Some(transaction),
            _ => None,
        });
        let mut count = 0;
        for transaction in changes {
            if self.last_transaction.as_ref() != Some(transaction) {
                count += 1;
                self.last_transaction = Some(transaction.clone());
            }
        }
        self.runner.source.counts.transactions.fetch_add(count, Ordering::Relaxed);
    }

    /// Waits until every portion has met its fate.
    async fn settle_all(&mut self, backoff: &mut Backoff) -> Result<(), Failure> {
        let mut outcome = Ok(());
        while let Some(settled) = self.in_flight.settle_next().await {
            let settled = self.settled(settled, backoff);
            outcome = outcome.and(settled);
        }
        outcome
    }

    /// A portion is durable, or not.
    fn settled(&mut self, settled: Settled, backoff: &mut Backoff) -> Result<(), Failure> {
        let stored = settled.outcome?;
        self.feed.confirm(&settled.checkpoint);
        backoff.reset();
        let source = &self.runner.source;
        source.counts.portions.fetch_add(1, Ordering::Relaxed);
        source.counts.events.fetch_add(u64::from(stored.events), Ordering::Relaxed);
        source.counts.rows_read.fetch_add(settled.rows_read, Ordering::Relaxed);
        if let Some((oldest, newest)) = settled.committed_ms {
            source.delay.observe_ms(now_ms().saturating_sub(oldest));
            source.captured(newest);
        }
        if let Some(repair) = &mut self.repair {
            repair.inserted += u64::from(stored.read_inserts);
            repair.updated += u64::from(stored.read_updates);
        }
        Ok(())
    }

    /// Shows how far the feed is; the failure that its budget of retained log asks for, if it does.
    fn look_at_progress(&self) -> Option<Failure> {
        let source = &self.runner.source;
        let is_over = source.progressed(self.feed.progress())?;
        if !is_over {
            tracing::info!(source = source.name(), "the database keeps less log for the source than it may again");
            return None;
        }
        let failure = over_budget(source);
        let Failure::Stop { message, .. } = &failure else { return None };
        match source.spec.on_max_retained {
            OnMaxRetained::Warn => {
                tracing::warn!(source = source.name(), "{message}");
                None
            }
            OnMaxRetained::Stop | OnMaxRetained::DropSlot => Some(failure),
        }
    }
}

/// What is said when more is retained than may be.
pub(super) fn over_budget(source: &Source) -> Failure {
    let budget = source.spec.max_retained_bytes.unwrap_or_default();
    Failure::stop(
        "retained-budget",
        format!("the database keeps more log for the source than max-retained-bytes ({budget}) allows"),
    )
}

/// Saves the database from the log that it keeps for the source.
pub(super) async fn drop_slot(runner: &Runner, failure: Failure) -> Failure {
    let name = runner.source.name();
    let Failure::Stop { message, .. } = failure else { return failure };
    match runner.opener.drop_slot().await {
        Ok(()) => Failure::stop(
            "slot-lost",
            format!(
                "{message}, so its slot was dropped (on-max-retained = \"drop-slot\"); POST /sources/{name}/repair reads \
                 the tables anew and captures what differs"
            ),
        ),
        Err(error) => {
            Failure::stop("retained-budget", format!("{message}, and its slot could not be dropped: {error}"))
        }
    }
}
