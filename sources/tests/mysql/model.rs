//! What the tests of the MySQL feed share: a model that takes steps as an engine would, and a way to run a feed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use cdc_sources::mysql::{Feed, Options};
use cdc_sources::{Action, Checkpoint, Feed as _, FeedError, Portion, Rules, Step, TableState};
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
    pub gone: Vec<String>,
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
            Step::Rewrite(_) => panic!("this feed has no rules for rows"),
            Step::Audited(_) | Step::AuditOff { .. } => panic!("nobody asked for an audit"),
            Step::Gone(table) => {
                let rows = self.tables.remove(&table.name).unwrap_or_default();
                assert!(rows.is_empty(), "{} is gone and has rows", table.name);
                self.reading.remove(&table.name);
                self.gone.push(table.name.clone());
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
        let behind = |text: &str| text.lines().any(|line| line.contains(" waiting") || line.contains(" reading ["));
        while self.checkpoint.as_ref().is_none_or(|checkpoint| behind(&checkpoint.0)) {
            self.next().await.expect("a portion");
        }
    }

    /// Takes one portion, however long it takes; may be given up while it waits.
    async fn feed_one(&mut self) {
        let portion = self.feed.next().await.expect("a portion");
        self.model.take(&portion);
        self.checkpoint = Some(portion.checkpoint.clone());
        self.feed.confirm(&portion.checkpoint);
    }

    /// How the tables stand, without those whose changes simply follow.
    pub fn standing(&self) -> Vec<(String, TableState, String)> {
        let tables = self.feed.progress().tables;
        let others = tables.into_iter().filter(|table| table.state != TableState::Following);
        others.map(|t| (t.table, t.state, t.reason.map(|reason| reason.code).unwrap_or_default())).collect()
    }

    /// Takes portions until everything that was done so far is followed, and every table is followed or stands still.
    pub async fn settle(&mut self, server: &MariaDb, database: &str) {
        server.sql(database, "CREATE TABLE IF NOT EXISTS mark (id INT PRIMARY KEY, n INT)");
        let mark = server
            .sql(database, "INSERT INTO mark VALUES (1, 1) ON DUPLICATE KEY UPDATE n = n + 1; SELECT n FROM mark");
        let table = format!("{database}.mark");
        let expected = format!(r#"{{"id":1,"n":{mark}}}"#);
        let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
        let mut what = String::new();
        loop {
            let marked = self.model.tables.get(&table).and_then(|rows| rows.values().next()) == Some(&expected);
            let unsettled: Vec<_> = self
                .standing()
                .into_iter()
                .filter(|(_, state, _)| !matches!(state, TableState::Stopped | TableState::Paused))
                .collect();
            if marked && unsettled.is_empty() {
                break;
            }
            what = format!("marked: {marked}, {unsettled:?}, before {what}").chars().take(1000).collect();
            assert!(tokio::time::Instant::now() < deadline, "{what}");
            let next = tokio::time::timeout(Duration::from_millis(50), self.feed.next()).await;
            if let Ok(portion) = next {
                let portion = portion.expect("a portion");
                self.model.take(&portion);
                self.checkpoint = Some(portion.checkpoint.clone());
                self.feed.confirm(&portion.checkpoint);
            }
        }
        // What was said before the tables stood so.
        while let Ok(portion) = tokio::time::timeout(Duration::from_millis(50), self.feed.next()).await {
            let portion = portion.expect("a portion");
            self.model.take(&portion);
            self.checkpoint = Some(portion.checkpoint.clone());
            self.feed.confirm(&portion.checkpoint);
        }
    }

    /// Compares every row with what another feed reads of the present, and the number of rows with what the server says.
    pub async fn assert_true(&self, server: &MariaDb, options: &Options) {
        let orders = cdc_sources::TableOrders::default();
        let now = present(&Options { orders, ..options.clone() }).await;
        let stopped: Vec<String> = self.standing().into_iter().map(|(table, ..)| table).collect();
        let known = |tables: &BTreeMap<String, Rows>| -> BTreeMap<String, Vec<(Vec<String>, String)>> {
            let followed = tables.iter().filter(|(name, _)| !stopped.contains(name));
            followed.map(|(name, rows)| (name.clone(), comparable(rows))).collect()
        };
        assert_eq!(known(&self.model.tables), known(&now), "the rows are those of the tables");
        for (name, rows) in known(&self.model.tables) {
            let (database, table) = name.split_once('.').expect("a full name");
            let counted = server.sql(database, &format!("SELECT COUNT(*) FROM `{}`", table.replace('`', "``")));
            assert_eq!(counted, rows.len().to_string(), "rows of {name}");
        }
    }

    /// Breaks off as a crash would, and goes on from what was stored.
    pub async fn crash(self, options: &Options) -> Run {
        drop(self.feed);
        Run::resume(options, self.model, self.checkpoint).await
    }

    pub fn rows(&self, table: &str) -> Rows {
        self.model.tables.get(table).cloned().unwrap_or_default()
    }
}

/// Rows with their keys; without ids that the database does not have, and that are others in each reading.
pub fn comparable(rows: &Rows) -> Vec<(Vec<String>, String)> {
    let row = |(key, image): (&Vec<String>, &String)| match cdc_sources::keyless::content(image, &key[0]) {
        Some(content) => (Vec::new(), content.to_owned()),
        None => (key.clone(), image.clone()),
    };
    let mut rows: Vec<_> = rows.iter().map(row).collect();
    rows.sort();
    rows
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

/// Does steps in four ways, each in a database of its own: one after the other while they are followed, with a crash
/// after some of them; all at once; all at once with crashes that lose portions; and all while nobody follows. Afterwards, and after each step, every row has to be
/// right. `setup` makes the tables. What stands still in the end is answered, for each way.
pub async fn in_every_way(server: &MariaDb, setup: &str, steps: &[&str]) -> Vec<Vec<(String, TableState, String)>> {
    let mut standings = Vec::new();
    for way in ["slowly", "at_once", "torn", "away"] {
        server.sql("", &format!("CREATE DATABASE {way}"));
        server.sql(way, setup);
        let append_only = vec!["*.audit*".into()];
        let rules = Rules { include: vec![format!("{way}.*")], append_only, ..Rules::default() };
        let options = Options { rules, ..options(server) };
        let mut run = Run::open(&options).await;
        run.settle(server, way).await;
        run.assert_true(server, &options).await;
        match way {
            "slowly" => {
                for (at, step) in steps.iter().enumerate() {
                    server.sql(way, step);
                    if at % 2 == 1 {
                        run = run.crash(&options).await;
                    }
                    run.settle(server, way).await;
                    run.assert_true(server, &options).await;
                    run = run.crash(&options).await;
                }
            }
            "torn" => {
                let tearing = Options { portion_bytes: 200, chunk_rows: 2, ..options.clone() };
                server.sql(way, &steps.join(";\n"));
                for round in 0..40 {
                    // One that is built and never stored, and one that is.
                    if round % 2 == 1 {
                        let _ = tokio::time::timeout(Duration::from_millis(50), run.feed.next()).await;
                        run = run.crash(&tearing).await;
                    }
                    if tokio::time::timeout(Duration::from_millis(50), run.feed_one()).await.is_err() {
                        continue;
                    }
                }
            }
            "at_once" => server.sql(way, &steps.join(";\n")).clear(),
            _ => {
                let (model, checkpoint) = (run.model, run.checkpoint);
                drop(run.feed);
                server.sql(way, &steps.join(";\n"));
                run = Run::resume(&options, model, checkpoint).await;
            }
        }
        run.settle(server, way).await;
        run.assert_true(server, &options).await;
        standings.push(run.standing());
        server.sql("", &format!("DROP DATABASE {way}"));
    }
    standings
}
