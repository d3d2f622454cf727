//! The sources of the service: started, looked at, steered, stopped.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cdc_rest::{SourceName, SourceState, SourceStatus};
use tokio::task::JoinHandle;

use super::audit::Audit;
use super::error::SourceError;
use super::feeds::Opener;
use super::kept::Kept;
use super::runner::Runner;
use super::spec::SourceSpec;
use super::state::{Goal, Phase, Source, SourceFigures};
use crate::ingest::Ingest;
use crate::store::{Counters, Store};

/// All sources.
pub struct Sources {
    pub(super) entries: BTreeMap<SourceName, Entry>,
    pub(super) store: Arc<dyn Store>,
    pub(super) ingest: Ingest,
}

pub(super) struct Entry {
    source: Arc<Source>,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl std::fmt::Debug for Sources {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sources").finish_non_exhaustive()
    }
}

impl Sources {
    /// Starts to follow. Returns without waiting for any database; must be called within a runtime. What sources have to
    /// keep for a while goes below `folder`.
    pub fn start(
        store: Arc<dyn Store>,
        ingest: Ingest,
        specs: Vec<SourceSpec>,
        folder: &Path,
    ) -> Result<Self, SourceError> {
        let with_openers = specs.into_iter().map(|spec| (Opener::new(&spec, folder), spec));
        Self::start_with(store, ingest, with_openers.collect())
    }

    pub(super) fn start_with(
        store: Arc<dyn Store>,
        ingest: Ingest,
        specs: Vec<(Opener, SourceSpec)>,
    ) -> Result<Self, SourceError> {
        let view = store.view()?;
        for (name, kept) in Kept::read_all(&*view)? {
            if !specs.iter().any(|(_, spec)| spec.name.as_str() == name) {
                tracing::warn!(
                    source = name,
                    "the source is no longer configured, and its database ({}) may keep log for it without end; \
                     configure it again, or stop the service and run: cdc source drop {name} --source URL",
                    kept.url
                );
            }
        }
        let mut entries = BTreeMap::new();
        for (opener, spec) in specs {
            let mut kept = Kept::read(&*view, spec.name.as_str())?.unwrap_or_default();
            kept.url = spec.url.to_string();
            kept.slot.clone_from(&spec.slot);
            kept.publication.clone_from(&spec.publication);
            let name = spec.name.clone();
            let audit = Audit::read(&*view, spec.name.as_str())?;
            let source = Arc::new(Source::new(spec, kept, audit));
            let runner = Runner { source: source.clone(), opener, store: store.clone(), ingest: ingest.clone() };
            let task = Mutex::new(Some(tokio::spawn(runner.run())));
            entries.insert(name, Entry { source, task });
        }
        Ok(Self { entries, store, ingest })
    }

    pub(super) fn get(&self, name: &SourceName) -> Result<&Arc<Source>, SourceError> {
        let entry = self.entries.get(name).ok_or_else(|| SourceError::Unknown(name.clone()))?;
        Ok(&entry.source)
    }

    /// How a source fares.
    pub fn status(&self, name: &SourceName) -> Result<SourceStatus, SourceError> {
        Ok(self.get(name)?.status(self.counters().as_ref()))
    }

    /// How every source fares, by name.
    #[must_use]
    pub fn statuses(&self) -> Vec<SourceStatus> {
        let counters = self.counters();
        self.entries.values().map(|entry| entry.source.status(counters.as_ref())).collect()
    }

    /// What the log has of each table; none if the store cannot tell at the moment.
    pub(super) fn counters(&self) -> Option<Counters> {
        self.store.view().map(|view| view.counters()).ok()
    }

    /// The figures of every source, by name.
    #[must_use]
    pub fn figures(&self) -> Vec<SourceFigures> {
        self.entries.values().map(|entry| entry.source.figures()).collect()
    }

    /// Follows no further until it is resumed, over restarts too.
    pub async fn pause(&self, name: &SourceName) -> Result<(), SourceError> {
        let source = self.get(name)?;
        let mut kept = source.kept().await;
        match source.state() {
            SourceState::Stopped => {
                return Err(wrong(name, SourceState::Stopped, "it follows nothing as it is; resume it to go on"));
            }
            state @ SourceState::Paused => return Err(wrong(name, state, "it is paused already")),
            _ => {}
        }
        source.change(&mut kept, &self.ingest, |kept| kept.is_paused = true).await?;
        source.wishes.send_modify(|wish| {
            if wish.goal != Goal::End {
                wish.goal = Goal::Pause;
            }
        });
        source.enter(Phase::Paused);
        Ok(())
    }

    /// Goes on after a pause or a stop.
    pub async fn resume(&self, name: &SourceName) -> Result<(), SourceError> {
        let source = self.get(name)?;
        let mut kept = source.kept().await;
        // A source that waits to connect again does so at once.
        if let state @ (SourceState::Reading | SourceState::Following | SourceState::Repairing) = source.state() {
            return Err(wrong(name, state, "there is nothing to resume"));
        }
        source.change(&mut kept, &self.ingest, |kept| kept.is_paused = false).await?;
        begin_again(source);
        source.enter(Phase::Starting);
        Ok(())
    }

    /// Reads every table anew, and brings the rows here to what is read.
    pub async fn repair(&self, name: &SourceName) -> Result<(), SourceError> {
        let source = self.get(name)?;
        let mut kept = source.kept().await;
        match source.state() {
            state @ SourceState::Paused => return Err(wrong(name, state, "resume it first")),
            state if kept.is_repairing && state != SourceState::Stopped => {
                return Err(wrong(name, SourceState::Repairing, "a repair is under way already"));
            }
            _ => {}
        }
        source.change(&mut kept, &self.ingest, |kept| kept.is_repairing = true).await?;
        begin_again(source);
        source.enter(Phase::Repairing);
        Ok(())
    }

    /// Ends every source after what it is at, and waits for that; answers how many did not within the time. What those
    /// had under way will come again.
    pub async fn stop(&self, timeout: Duration) -> usize {
        for entry in self.entries.values() {
            entry.source.wishes.send_modify(|wish| wish.goal = Goal::End);
        }
        let deadline = tokio::time::Instant::now() + timeout;
        let mut stuck = 0;
        for entry in self.entries.values() {
            let task = entry.task.lock().unwrap_or_else(PoisonError::into_inner).take();
            let Some(mut task) = task else { continue };
            if tokio::time::timeout_at(deadline, &mut task).await.is_err() {
                task.abort();
                stuck += 1;
            }
        }
        stuck
    }
}

fn begin_again(source: &Source) {
    source.wishes.send_modify(|wish| {
        if wish.goal != Goal::End {
            wish.goal = Goal::Follow;
        }
        wish.attempt += 1;
    });
}

fn wrong(name: &SourceName, state: SourceState, hint: &'static str) -> SourceError {
    SourceError::WrongState { name: name.clone(), state, hint }
}
