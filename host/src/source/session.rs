//! One feed, from its opening to its end: portions in, commits out, and the feed told what is durable.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use cdc_sources::{Change, Checkpoint, Portion, Rewrite, Step, Table, TableState};
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use super::audit::Auditing;
use super::behind;
use super::budget::{drop_slot, over_budget};
use super::door::{IN_FLIGHT_MAX, InFlight, Settled};
use super::failure::Failure;
use super::feeds::{self, AnyFeed, Wanted};
use super::kept::{Kept, Why};
use super::matching::{Contents, changes_of};
use super::reading::Readings;
use super::repair::{Repair, sweep};
use super::rewriting::rewrite;
use super::runner::{Backoff, Runner};
use super::spec::OnMaxRetained;
use super::state::{Phase, Wish, now_ms};
use super::stored;

/// How often a feed is asked how far it is.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How long a table may be here and not be listed by the feed before that is said: its removal may be on its way.
const MISSING_AFTER: Duration = if cfg!(test) { Duration::from_millis(300) } else { Duration::from_secs(5) };

/// How a session ended.
pub(super) enum Ended {
    /// Somebody wishes something else, or the feed is to be opened with other orders.
    ByWish,
    ByFailure(Failure),
}

/// A feed that is open.
pub(super) struct Session<'a> {
    pub(super) runner: &'a Runner,
    pub(super) in_flight: &'a mut InFlight,
    pub(super) feed: AnyFeed,
    readings: Readings,
    /// The audit that the feed is at.
    pub(super) auditing: Option<Auditing>,
    /// Tables that were met, began to be read, and were read in this session.
    met: HashSet<String>,
    begun: HashSet<String>,
    read: HashSet<String>,
    repair: Option<Repair>,
    last_transaction: Option<Arc<str>>,
    /// Whether the feed has said anything, so that it knows its tables.
    has_begun: bool,
    /// The wish that it was opened under: orders that came since are not its.
    wish: Wish,
    /// Whether other orders are kept than the feed was opened with, so that it has to be opened anew.
    is_outdated: bool,
    /// The tables that the feed listed last, and when to look for tables that it does not list.
    listed: BTreeSet<String>,
    look_for_missing_at: Option<Instant>,
}

/// How the reading of a table came to an end.
enum Over {
    Done(Arc<Table>),
    /// The table is not captured any more.
    Gone(Arc<Table>),
}

impl Over {
    fn table(&self) -> &Table {
        let (Self::Done(table) | Self::Gone(table)) = self;
        table
    }
}

impl<'a> Session<'a> {
    /// Opens a feed and follows it until a wish or a failure.
    pub(super) async fn run(
        runner: &'a Runner,
        wish: Wish,
        in_flight: &'a mut InFlight,
        wishes: &mut watch::Receiver<Wish>,
        backoff: &mut Backoff,
    ) -> Ended {
        // What the session before has left, should it have panicked.
        while in_flight.settle_next(runner.source.name()).await.is_some() {}
        let opening = tokio::select! {
            opening = Self::open(runner, in_flight, wish) => opening,
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

    async fn open(runner: &'a Runner, in_flight: &'a mut InFlight, wish: Wish) -> Result<Self, Failure> {
        let source = &runner.source;
        let kept = source.kept().await.clone();
        // An empty position is one that was forgotten.
        let position = runner.store.view()?.position(source.name()).filter(|position| !position.is_empty());
        let position = position.map(Checkpoint);
        in_flight.begin(position.as_ref());
        behind::empty(runner, in_flight, feeds::rules(&source.spec.selection, kept.selected.as_ref()), &kept).await?;
        let mut wanted = Wanted::of(&*source.kept().await);
        let (view, name) = (runner.store.view()?, source.name().to_owned());
        wanted.known = stored::blocking(move || stored::with_rows(&*view, &name)).await?;
        let reads_anew = wanted.repair;
        let opened = runner.opener.open(position, wanted).await;
        let feed = opened.map_err(|error| Failure::of_feed(&error, source.name()))?;
        let repair = reads_anew.then(Repair::default);
        tracing::info!(source = source.name(), repair = reads_anew, "the source is connected");
        let (readings, met, begun, read) = (Readings::default(), HashSet::new(), HashSet::new(), HashSet::new());
        Ok(Self {
            runner,
            in_flight,
            feed,
            readings,
            auditing: None,
            met,
            begun,
            read,
            repair,
            last_transaction: None,
            has_begun: false,
            wish,
            is_outdated: false,
            listed: BTreeSet::new(),
            look_for_missing_at: Some(Instant::now() + MISSING_AFTER),
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
        while !self.is_outdated {
            self.next_audit();
            tokio::select! {
                biased;
                _ = wishes.changed() => return Ok(()),
                Some(settled) = self.in_flight.settle_next(self.runner.source.name()) => {
                    self.settled(settled, backoff)?;
                }
                portion = self.feed.next(), if self.in_flight.len() < IN_FLIGHT_MAX => {
                    let portion = portion.map_err(|error| Failure::of_feed(&error, self.runner.source.name()))?;
                    self.take(portion, backoff).await?;
                }
                () = self.runner.source.audits.notified() => {}
                _ = looks.tick() => {
                    if let Some(failure) = self.look_at_progress() {
                        return Err(failure);
                    }
                    if self.has_begun {
                        self.finish_repair().await?;
                        self.look_for_missing().await?;
                        self.audit_when_due().await?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Hands a portion on. One in which a table's reading begins or ends is waited for.
    async fn take(&mut self, mut portion: Portion, backoff: &mut Backoff) -> Result<(), Failure> {
        self.meet(&portion).await?;
        let mut over: Vec<Over> = Vec::new();
        // Rows that are here already under other names.
        let mut here: Vec<usize> = Vec::new();
        for at in 0..portion.steps.len() {
            match &portion.steps[at] {
                Step::Describe(_) => {}
                Step::Change(change) => {
                    if self.readings.see(change) {
                        here.push(at);
                    }
                    if let Some(auditing) = &mut self.auditing {
                        auditing.see(change);
                    }
                }
                Step::Audited(piece) => self.audited(piece, backoff).await?,
                Step::AuditOff { table, reason } => self.audit_off(table, reason).await?,
                Step::ReadBegan(table) => {
                    // A table that is gone, and is there again under its name, keeps what is noted of it; one that had
                    // been read is not yet read again.
                    over.retain(|over| over.table().name != table.name);
                    self.reading_begins(table, &portion.steps[..at], &here, backoff).await?;
                }
                Step::ReadDone(table) => over.push(Over::Done(table.clone())),
                Step::Rewrite(rule) => self.rewrite(rule, backoff).await?,
                Step::Gone(table) => {
                    self.readings.end(&table.name);
                    self.begun.remove(&table.name);
                    over.retain(|over| !matches!(over, Over::Done(read) if read.name == table.name));
                    over.push(Over::Gone(table.clone()));
                }
            }
        }
        if !here.is_empty() {
            let mut places = 0..;
            portion.steps.retain(|_| places.next().is_none_or(|at| here.binary_search(&at).is_err()));
        }
        self.has_begun = true;
        self.count_transactions(&portion);
        self.in_flight.send(&self.runner.ingest, self.runner.source.name(), portion).await?;
        if over.is_empty() {
            return Ok(());
        }
        // Nothing of this feed is in the log beyond the portion, so the rows here are those at its end.
        self.settle_all(backoff).await?;
        for over in over {
            match over {
                Over::Done(table) => self.reading_ends(&table).await?,
                Over::Gone(table) => self.gone(&table).await?,
            }
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

    async fn reading_begins(
        &mut self,
        table: &Table,
        before: &[Step],
        here: &[usize],
        backoff: &mut Backoff,
    ) -> Result<(), Failure> {
        let is_first = self.begun.insert(table.name.clone());
        // Without a key each reading names all rows anew.
        if is_first && self.repair.is_none() && !table.is_append_only() {
            let kept = self.runner.source.kept().await;
            let is_new = kept.unread.get(&table.name) == Some(&table.key) && !kept.reread.contains_key(&table.name);
            drop(kept);
            if is_new {
                // Only this once: what begins anew later finds rows of this reading.
                return Ok(self.runner.keep(|kept| drop(kept.unread.remove(&table.name))).await?);
            }
        }
        self.settle_all(backoff).await?;
        let view = self.runner.store.view()?;
        let is_of_it = |step: &Step| matches!(step, Step::Change(change) if change.table.name == table.name);
        if !stored::has_rows(&*view, &table.name)? && !before.iter().any(is_of_it) {
            return Ok(());
        }
        if self.repair.is_none() && !self.runner.source.kept().await.reread.contains_key(&table.name) {
            // Noted before the reading can begin: a restart in the middle of it has to start over.
            let why = self.why_reread(&table.name);
            self.runner.keep(|kept| drop(kept.reread.insert(table.name.clone(), why))).await?;
        }
        if table.is_append_only() {
            let name = table.name.clone();
            let mut contents = stored::blocking(move || Contents::stored(&*view, &name)).await?;
            changes_of(before, &table.name, here).for_each(|change| contents.add(change));
            self.readings.begin_without_key(&table.name, contents);
        } else {
            self.readings.begin(&table.name);
        }
        Ok(())
    }

    /// Why a table is read anew, by the feed's own account.
    fn why_reread(&self, table: &str) -> Why {
        let progress = self.feed.progress();
        let found = progress.tables.into_iter().find(|progress| progress.table == table);
        found.and_then(|progress| progress.reason).map_or_else(Why::interrupted, Why::from)
    }

    async fn reading_ends(&mut self, table: &Arc<Table>) -> Result<(), Failure> {
        self.read.insert(table.name.clone());
        if let Some(keys) = self.readings.end(&table.name) {
            let removed = sweep(self.runner, self.in_flight, table, keys).await?;
            if let Some(repair) = &mut self.repair {
                repair.removed += removed;
            }
        }
        if let Some(repair) = &mut self.repair {
            repair.tables += 1;
        }
        let name = &table.name;
        let is_noted = |kept: &Kept| {
            kept.unread.contains_key(name) || kept.reread.contains_key(name) || kept.left_out.contains(name)
        };
        if is_noted(&*self.runner.source.kept().await) {
            let is_current = self.is_current();
            self.runner
                .keep(|kept| {
                    kept.unread.remove(name);
                    // An order that came meanwhile is one for the next feed.
                    if is_current() {
                        kept.reread.remove(name);
                        kept.left_out.remove(name);
                    }
                })
                .await?;
        }
        Ok(())
    }

    /// Tells whether nothing else is wanted of the source than when the feed was opened.
    fn is_current(&self) -> impl Fn() -> bool + use<> {
        let (source, wish) = (self.runner.source.clone(), self.wish);
        move || *source.wishes.borrow() == wish
    }

    /// The rows here follow a rule. Everything before the portion is durable, and nothing of it is sent yet.
    async fn rewrite(&mut self, rule: &Rewrite, backoff: &mut Backoff) -> Result<(), Failure> {
        self.settle_all(backoff).await?;
        if rewrite(self.runner, self.in_flight, rule).await? {
            return Ok(());
        }
        let table = &rule.table.name;
        if !self.runner.source.kept().await.reread.contains_key(table) {
            let why = Why::new("rewritten", format!("{}: not every row here could follow that", rule.reason));
            self.runner.keep(|kept| drop(kept.reread.insert(table.clone(), why))).await?;
            self.is_outdated = true;
        }
        Ok(())
    }

    /// The table is not captured any more, which is durable.
    async fn gone(&mut self, table: &Table) -> Result<(), Failure> {
        let source = &self.runner.source;
        tracing::info!(source = source.name(), table = table.name, "the table is gone, and so are its rows");
        self.met.remove(&table.name);
        self.look_for_missing_at = Some(Instant::now());
        let kept = source.kept().await.clone();
        let mut without = kept.clone();
        without.forget(&table.name);
        if without != kept {
            self.runner.keep(|kept| kept.forget(&table.name)).await?;
            // A table that comes under this name is not what was held.
            self.is_outdated |= without.held != kept.held;
        }
        Ok(())
    }

    /// Looks for tables that are here and that the feed does not list, some time after its list has changed.
    async fn look_for_missing(&mut self) -> Result<(), Failure> {
        let listed: BTreeSet<_> = self.feed.progress().tables.into_iter().map(|table| table.table).collect();
        let now = Instant::now();
        if listed != self.listed {
            self.listed = listed;
            self.look_for_missing_at = Some(now + MISSING_AFTER);
        }
        if self.look_for_missing_at.is_some_and(|at| at <= now) {
            self.look_for_missing_at = None;
            behind::look(self.runner, self.listed.clone()).await?;
        }
        Ok(())
    }

    /// A repair is done when every table has been read that can be.
    async fn finish_repair(&mut self) -> Result<(), Failure> {
        let Some(repair) = &self.repair else { return Ok(()) };
        let tables = self.feed.progress().tables;
        let is_awaited = |state| !matches!(state, TableState::Paused | TableState::Stopped);
        let awaited = || tables.iter().filter(|table| is_awaited(table.state)).map(|table| table.table.as_str());
        // Of the others nobody will say that they have been read.
        self.readings.retain(|reading| awaited().any(|table| table == reading));
        if !self.readings.is_empty() || awaited().any(|table| !self.read.contains(table)) {
            return Ok(());
        }
        let found = repair.found(now_ms());
        let source = &self.runner.source;
        let is_current = self.is_current();
        self.runner
            .keep(|kept| {
                kept.is_repairing = false;
                if is_current() {
                    kept.reread.retain(|table, _| !self.read.contains(table));
                }
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
    pub(super) async fn settle_all(&mut self, backoff: &mut Backoff) -> Result<(), Failure> {
        let mut outcome = Ok(());
        while let Some(settled) = self.in_flight.settle_next(self.runner.source.name()).await {
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
