//! A feed that says what a test has written down, for tests of what follows it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use cdc_sources::{
    Action, AuditOrder, Change, Checkpoint, Column, FeedError, Kind, Portion, Progress, Reason, Remedy, Table,
    TableOrders, TableProgress, TableState,
};

use tokio::sync::Notify;

use super::feeds::Wanted;

/// What a feed says next.
pub(super) enum Line {
    Portion(Portion),
    Fails(FeedError),
    Panics,
}

/// A database that follows a script. Each opening takes the next scene; without one, feeds wait.
#[derive(Default)]
pub(super) struct Script {
    inner: Mutex<Inner>,
    more: Notify,
}

#[derive(Default)]
struct Inner {
    scenes: VecDeque<Result<Vec<Line>, FeedError>>,
    /// Lines for the feed that is open.
    live: VecDeque<Line>,
    openings: Vec<(Option<String>, Wanted)>,
    confirmed: Vec<String>,
    progress: Progress,
    slots_dropped: usize,
    audits: Vec<AuditOrder>,
}

impl Script {
    pub(super) fn new(scenes: Vec<Result<Vec<Line>, FeedError>>) -> Arc<Self> {
        let script = Self::default();
        script.lock().scenes = scenes.into();
        Arc::new(script)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the next opening does.
    pub(super) fn add_scene(&self, scene: Result<Vec<Line>, FeedError>) {
        self.lock().scenes.push_back(scene);
    }

    pub(super) fn set_progress(&self, progress: Progress) {
        self.lock().progress = progress;
    }

    /// The checkpoints that feeds were opened with, and whether to read anew.
    pub(super) fn openings(&self) -> Vec<(Option<String>, bool)> {
        self.lock().openings.iter().map(|(checkpoint, wanted)| (checkpoint.clone(), wanted.repair)).collect()
    }

    /// What the feed was last opened with.
    pub(super) fn wanted(&self) -> Wanted {
        self.lock().openings.last().map(|(_, wanted)| wanted.clone()).unwrap_or_default()
    }

    /// The orders that the feed was last opened with.
    pub(super) fn orders(&self) -> TableOrders {
        self.wanted().orders
    }

    /// The feed that is open says more.
    pub(super) fn go_on(&self, line: Line) {
        let mut inner = self.lock();
        inner.live.push_back(line);
        self.more.notify_one();
    }

    pub(super) fn confirmed(&self) -> Vec<String> {
        self.lock().confirmed.clone()
    }

    /// What was to be compared.
    pub(super) fn audits(&self) -> Vec<AuditOrder> {
        self.lock().audits.clone()
    }

    pub(super) fn slots_dropped(&self) -> usize {
        self.lock().slots_dropped
    }

    pub(super) async fn open(
        self: &Arc<Self>,
        checkpoint: Option<Checkpoint>,
        wanted: Wanted,
    ) -> Result<ScriptedFeed, FeedError> {
        let mut inner = self.lock();
        inner.openings.push((checkpoint.map(|checkpoint| checkpoint.0), wanted));
        let lines = inner.scenes.pop_front().unwrap_or_else(|| Ok(Vec::new()))?;
        inner.live = lines.into();
        Ok(ScriptedFeed(self.clone()))
    }

    pub(super) fn retained(&self) -> Progress {
        self.lock().progress.clone()
    }

    pub(super) async fn drop_slot(&self) -> Result<(), FeedError> {
        self.lock().slots_dropped += 1;
        Ok(())
    }
}

pub(super) struct ScriptedFeed(Arc<Script>);

impl ScriptedFeed {
    pub(super) async fn next(&mut self) -> Result<Portion, FeedError> {
        loop {
            let line = self.0.lock().live.pop_front();
            match line {
                Some(Line::Portion(portion)) => return Ok(portion),
                Some(Line::Fails(error)) => return Err(error),
                Some(Line::Panics) => panic!("as the script says"),
                None => self.0.more.notified().await,
            }
        }
    }

    pub(super) fn confirm(&mut self, checkpoint: &Checkpoint) {
        self.0.lock().confirmed.push(checkpoint.0.clone());
    }

    pub(super) fn audit(&mut self, order: AuditOrder) {
        self.0.lock().audits.push(order);
    }

    pub(super) fn progress(&self) -> Progress {
        self.0.lock().progress.clone()
    }
}

/// A table with a key `id` and a nullable `v`.
pub(super) fn table(name: &str) -> Arc<Table> {
    let column = |name: &str, kind, nullable| Column { name: name.into(), kind, nullable, native_type: "x".into() };
    Arc::new(Table {
        name: name.into(),
        connector: "postgresql",
        database: "d".into(),
        namespace: "public".into(),
        relation: name.into(),
        columns: vec![column("id", Kind::Number, false), column("v", Kind::Any, true)],
        key: vec!["id".into()],
    })
}

/// A change of the row with this key, whose `v` is `v<key>`.
pub(super) fn change(table: &Arc<Table>, action: Action, key: &str) -> Change {
    with_value(table, action, key, &format!("v{key}"))
}

/// A change of the row with this key to a value.
pub(super) fn with_value(table: &Arc<Table>, action: Action, key: &str, value: &str) -> Change {
    let has_image = matches!(action, Action::Replace | Action::Read);
    let is_logged = action != Action::Read;
    Change {
        table: table.clone(),
        action,
        key: if action == Action::Truncate { Vec::new() } else { vec![key.into()] },
        image: has_image.then(|| format!("{{\"id\":{key},\"v\":\"{value}\"}}")),
        unchanged: Vec::new(),
        previous_key: None,
        before: None,
        position: is_logged.then(|| format!("0/{key}")),
        transaction: is_logged.then(|| format!("tx{key}").into()),
        committed_at_ms: is_logged.then_some(1_000),
    }
}

pub(super) fn error(remedy: Remedy, code: &'static str) -> FeedError {
    FeedError { remedy, code, message: format!("the script says {code}"), source: None }
}

/// A feed's progress with these tables followed.
pub(super) fn following(tables: &[&str]) -> Progress {
    progress(&tables.iter().map(|table| (*table, TableState::Following)).collect::<Vec<_>>())
}

/// A feed's progress with tables in these states.
pub(super) fn progress(tables: &[(&str, TableState)]) -> Progress {
    let table = |(name, state): &(&str, TableState)| TableProgress {
        table: (*name).into(),
        state: *state,
        reason: (*state != TableState::Following).then(|| Reason::new("scripted", "as the script says")),
        rows_read: 0,
        rows_estimated: None,
    };
    Progress { tables: tables.iter().map(table).collect(), ..Progress::default() }
}
