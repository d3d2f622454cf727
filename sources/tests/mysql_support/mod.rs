//! What the tests of the MySQL feed share: a model that takes steps as an engine would, and a way to run a feed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use cdc_sources::mysql::{Feed, Options};
use cdc_sources::{Action, Checkpoint, Feed as _, FeedError, Portion, Rules, Step};
use cdc_test_servers::MariaDb;

pub type Rows = BTreeMap<Vec<String>, String>;

/// Tables as an engine would have them after the steps that it was given.
#[derive(Clone, Debug, Default)]
pub struct Model {
    pub tables: BTreeMap<String, Rows>,
    /// Keys that were read or changed since a table's reading began.
    reading: BTreeMap<String, BTreeSet<Vec<String>>>,
    /// Positions of every change so far.
    pub positions: BTreeSet<String>,
    /// Columns that each table was described with, in order of the descriptions.
    pub described: Vec<(String, Vec<String>)>,
    pub began: Vec<String>,
    pub done: Vec<String>,
    pub truncates: usize,
    pub changes: usize,
}

impl Model {
    pub fn take(&mut self, portion: &Portion) {
        for step in &portion.steps {
            self.step(step);
        }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Describe(table) => {
                let columns = table.columns.iter().map(|column| column.name.clone()).collect();
                self.described.push((table.name.clone(), columns));
            }
            Step::ReadBegan(table) => {
                self.began.push(table.name.clone());
                self.reading.insert(table.name.clone(), BTreeSet::new());
                self.tables.entry(table.name.clone()).or_default();
            }
            Step::ReadDone(table) => {
                self.done.push(table.name.clone());
                let seen = self.reading.remove(&table.name).expect("a reading that is done has begun");
                let rows = self.tables.entry(table.name.clone()).or_default();
                rows.retain(|key, _| seen.contains(key));
            }
            Step::Rewrite(_) => unreachable!("this feed reads anew instead"),
            Step::Gone(table) => {
                self.tables.remove(&table.name);
                self.reading.remove(&table.name);
            }
            Step::Change(change) => {
                let name = change.table.name.clone();
                assert!(
                    self.described.iter().any(|(known, _)| *known == name) || change.action == Action::Truncate,
                    "{name} was not described"
                );
                if let Some(position) = &change.position {
                    assert!(self.positions.insert(position.clone()), "{position} came twice");
                    self.changes += 1;
                }
                let rows = self.tables.entry(name.clone()).or_default();
                if let Some(seen) = self.reading.get_mut(&name) {
                    seen.insert(change.key.clone());
                }
                match change.action {
                    Action::Replace | Action::Read => {
                        assert!(change.unchanged.is_empty(), "whole rows were expected");
                        rows.insert(change.key.clone(), change.image.clone().expect("an image"));
                    }
                    Action::Remove => {
                        rows.remove(&change.key);
                    }
                    Action::Truncate => {
                        self.truncates += 1;
                        rows.clear();
                    }
                }
            }
        }
    }
}

/// A feed with what it has said so far.
pub struct Run {
    pub feed: Feed,
    pub model: Model,
    pub checkpoint: Option<Checkpoint>,
}

impl Run {
    pub async fn open(options: &Options) -> Run {
        Run::resume(options, Model::default(), None).await
    }

    pub async fn resume(options: &Options, model: Model, checkpoint: Option<Checkpoint>) -> Run {
        let feed = Feed::open(options.clone(), checkpoint.as_ref()).await.expect("a feed that opens");
        Run { feed, model, checkpoint }
    }

    pub async fn next(&mut self) -> Result<Portion, FeedError> {
        let next = tokio::time::timeout(Duration::from_secs(60), self.feed.next()).await;
        let portion = next.expect("a portion in time")?;
        self.model.take(&portion);
        self.checkpoint = Some(portion.checkpoint.clone());
        self.feed.confirm(&portion.checkpoint);
        Ok(portion)
    }

    /// Takes portions until the model is as it should be.
    pub async fn until(&mut self, what: &str, mut reached: impl FnMut(&Model) -> bool) {
        while !reached(&self.model) {
            if let Err(error) = self.next().await {
                panic!("while waiting for {what}: {error:?}");
            }
        }
    }

    /// Takes portions until the feed fails.
    pub async fn until_error(&mut self) -> FeedError {
        loop {
            if let Err(error) = self.next().await {
                return error;
            }
        }
    }

    /// Takes portions until every table that is known has been read.
    pub async fn until_following(&mut self) {
        let behind = |text: &str| text.contains(" waiting\n") || text.contains(" reading [");
        while self.checkpoint.as_ref().is_none_or(|checkpoint| behind(&checkpoint.0)) {
            self.next().await.expect("a portion");
        }
    }

    pub fn rows(&self, table: &str) -> Rows {
        self.model.tables.get(table).cloned().unwrap_or_default()
    }
}

/// Options that suit a test: everything small, so that borders are met.
pub fn options(server: &MariaDb) -> Options {
    Options {
        url: server.url(""),
        rules: Rules { include: vec!["d.*".into()], ..Rules::default() },
        heartbeat_ms: 300,
        look_ms: 200,
        ..Options::default()
    }
}

/// Every row of the captured tables as they are now, read by a feed of its own.
pub async fn present(options: &Options) -> BTreeMap<String, Rows> {
    let options = Options { server_id: Some(77), ..options.clone() };
    let mut run = Run::open(&options).await;
    run.until_following().await;
    run.model.tables
}

pub fn server(sql: &str) -> MariaDb {
    let server = MariaDb::start();
    server.sql("", &format!("CREATE DATABASE d; USE d; {sql}"));
    server
}
