//! What the engine makes of steps, in memory: rows of tables, compared with the database's own.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use cdc_sources::postgres::{Feed, Options};
use cdc_sources::{Action, Change, Checkpoint, Feed as _, FeedError, Portion, Rewrite, Step};
use cdc_test_servers::Postgres;
use serde_json::{Map, Value};

/// Patience with what should take no time.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) fn wait<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

#[derive(Clone, Debug, Default)]
pub(crate) struct TableModel {
    pub(crate) rows: BTreeMap<Vec<String>, Map<String, Value>>,
    /// Values of rows that nobody told.
    pub(crate) unknown: BTreeSet<(Vec<String>, String)>,
    /// Keys that were neither read nor changed since reading began; None while nothing is read.
    unseen: Option<BTreeSet<Vec<String>>>,
    pub(crate) read_done: bool,
}

/// Applies steps, and holds the feed to what it promises about them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Model {
    pub(crate) tables: BTreeMap<String, TableModel>,
    described: BTreeMap<String, std::sync::Arc<cdc_sources::Table>>,
    positions: BTreeSet<String>,
    removed_before: Option<(Vec<String>, Map<String, Value>)>,
    /// All changes that were no reads, as text.
    pub(crate) log: Vec<String>,
    pub(crate) checkpoint: Option<Checkpoint>,
}

impl Model {
    pub(crate) fn apply(&mut self, portion: &Portion) {
        for step in &portion.steps {
            match step {
                Step::Describe(table) => {
                    self.described.insert(table.name.clone(), table.clone());
                }
                Step::ReadBegan(table) => {
                    let model = self.tables.entry(table.name.clone()).or_default();
                    model.unseen = Some(model.rows.keys().cloned().collect());
                    model.read_done = false;
                }
                Step::ReadDone(table) => {
                    let model = self.tables.entry(table.name.clone()).or_default();
                    for key in model.unseen.take().expect("reading ended that had begun") {
                        model.rows.remove(&key);
                    }
                    model.read_done = true;
                }
                Step::Change(change) => self.change(change),
                Step::Rewrite(rule) => self.rewrite(rule, std::ptr::eq(step, &portion.steps[0])),
                Step::Audited(_) | Step::AuditOff { .. } => panic!("nobody asked for an audit"),
                Step::Gone(table) => {
                    let model = self.tables.remove(&table.name);
                    assert!(model.is_none_or(|model| model.rows.is_empty()), "a truncate comes before");
                    self.described.remove(&table.name);
                }
            }
        }
        self.checkpoint = Some(portion.checkpoint.clone());
    }

    fn rewrite(&mut self, rule: &Rewrite, is_first: bool) {
        assert!(is_first, "a rewrite begins its portion");
        self.log.push(format!("Rewrite {} {}", rule.table.name, rule.reason));
        let model = self.tables.entry(rule.table.name.clone()).or_default();
        for row in model.rows.values_mut() {
            let image = serde_json::to_string(row).unwrap();
            *row = serde_json::from_str(&rule.apply(&image).unwrap()).unwrap();
        }
        // What nobody told keeps its place under its new name.
        let renamed = |column: &String| rule.renamed.iter().find(|(_, old)| old == column).map(|(new, _)| new.clone());
        let unknown = std::mem::take(&mut model.unknown);
        model.unknown = unknown.into_iter().map(|(key, column)| (key, renamed(&column).unwrap_or(column))).collect();
        self.described.insert(rule.table.name.clone(), rule.table.clone());
    }

    /// The tables as the service would give them to a feed that is opened.
    pub(crate) fn known(&self) -> Vec<std::sync::Arc<cdc_sources::Table>> {
        self.described.values().cloned().collect()
    }

    fn change(&mut self, change: &Change) {
        let name = &change.table.name;
        assert_eq!(self.described.get(name), Some(&change.table), "a table is described before its changes");
        if let Some(position) = &change.position {
            assert!(self.positions.insert(position.clone()), "{position} came twice");
            let image = change.image.as_deref().unwrap_or("");
            self.log.push(format!("{:?} {name} {} {image}", change.action, change.key.join("/")));
        } else {
            assert!(matches!(change.action, Action::Read | Action::Truncate), "{change:?}");
        }
        let model = self.tables.entry(name.clone()).or_default();
        if let Some(unseen) = &mut model.unseen {
            if change.action == Action::Truncate {
                unseen.clear();
            }
            unseen.remove(&change.key);
        }
        let removed_before = self.removed_before.take();
        match change.action {
            Action::Truncate => model.rows.clear(),
            Action::Remove => {
                assert!(change.image.is_none());
                if let Some(row) = model.rows.remove(&change.key) {
                    self.removed_before = Some((change.key.clone(), row));
                }
                model.unknown.retain(|(key, _)| *key != change.key);
            }
            Action::Replace | Action::Read => {
                let image: Map<String, Value> = serde_json::from_str(change.image.as_deref().unwrap()).unwrap();
                let mut row = Map::new();
                let old = match &change.previous_key {
                    Some(previous) => removed_before.filter(|(key, _)| key == previous).map(|(_, row)| row),
                    None => model.rows.get(&change.key).cloned(),
                };
                model.unknown.retain(|(key, _)| *key != change.key);
                for column in &change.table.columns {
                    if let Some(value) = image.get(&column.name) {
                        row.insert(column.name.clone(), value.clone());
                    } else {
                        assert!(change.unchanged.contains(&column.name), "{} is missing in {image:?}", column.name);
                        match old.as_ref().and_then(|old| old.get(&column.name)) {
                            Some(value) => {
                                row.insert(column.name.clone(), value.clone());
                            }
                            None => {
                                model.unknown.insert((change.key.clone(), column.name.clone()));
                            }
                        }
                    }
                }
                model.rows.insert(change.key.clone(), row);
            }
        }
    }

    /// From here on another database may say what one of before said, as after a failover that lost something.
    pub(crate) fn forget_positions(&mut self) {
        self.positions.clear();
    }

    /// Rows of a table as JSON objects, in the order of their keys; without ids that the database does not have.
    pub(crate) fn rows(&self, table: &str) -> Vec<Value> {
        let Some(model) = self.tables.get(table) else { return Vec::new() };
        assert!(model.unknown.is_empty(), "nobody told {:?}", model.unknown);
        let has_ids = self.described.get(table).is_some_and(|table| table.is_append_only());
        let row = |row: &Map<String, Value>| {
            let mut row = row.clone();
            if has_ids {
                row.remove(cdc_sources::keyless::ROW_ID);
            }
            Value::Object(row)
        };
        model.rows.values().map(row).collect()
    }

    /// Whether its rows are the database's; none where there is no such table. False while something is not known.
    pub(crate) fn agrees(&self, server: &Postgres, database: &str, table: &str) -> bool {
        if self.tables.get(table).is_some_and(|table| !table.unknown.is_empty()) {
            return false;
        }
        let there = server.psql(database, &format!("SELECT to_regclass('{table}') IS NOT NULL"));
        if there.trim() == "t" { self.equals(server, database, table) } else { self.rows(table).is_empty() }
    }

    /// Whether its rows are the database's.
    pub(crate) fn equals(&self, server: &Postgres, database: &str, table: &str) -> bool {
        sorted(self.rows(table)) == database_rows(server, database, table)
    }
}

fn sorted(rows: Vec<Value>) -> Vec<String> {
    // Members in one order, whichever the column had when it came.
    let mut rows: Vec<String> = rows
        .into_iter()
        .map(|row| {
            let Value::Object(members) = row else { unreachable!() };
            serde_json::to_string(&members.into_iter().collect::<BTreeMap<_, _>>()).unwrap()
        })
        .collect();
    rows.sort();
    rows
}

fn database_rows(server: &Postgres, database: &str, table: &str) -> Vec<String> {
    let text = server.psql(database, &format!("SELECT to_jsonb(t) FROM {table} t"));
    sorted(text.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
}

/// Options with short intervals.
pub(crate) fn options(server: &Postgres, database: &str) -> Options {
    Options {
        catalog_interval: Duration::from_millis(200),
        status_interval: Duration::from_millis(200),
        checkpoint_interval: Duration::from_millis(200),
        ..Options::new(server.url(database))
    }
}

pub(crate) async fn open(options: &Options, model: &Model) -> Result<Feed, FeedError> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let options = Options { known: model.known(), ..options.clone() };
        match Feed::open(options, model.checkpoint.as_ref()).await {
            Err(error) if error.remedy == cdc_sources::Remedy::Retry && Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            other => return other,
        }
    }
}

/// Applies and confirms portions until `enough` says so.
pub(crate) async fn until(feed: &mut Feed, model: &mut Model, mut enough: impl FnMut(&Model) -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !enough(model) {
        match tokio::time::timeout_at(deadline, feed.next()).await {
            Ok(portion) => {
                let portion = portion.unwrap();
                model.apply(&portion);
                feed.confirm(&portion.checkpoint);
            }
            Err(_) => {
                let log = &model.log[model.log.len().saturating_sub(20)..];
                panic!("not in time; the end of what came: {log:#?}; {:#?}", feed.progress())
            }
        }
    }
}

/// Until a row is written to the table `mark`, made here, after everything else.
pub(crate) async fn until_now(feed: &mut Feed, model: &mut Model, server: &Postgres, database: &str) {
    let id = server.psql(
        database,
        "CREATE TABLE IF NOT EXISTS mark (id serial PRIMARY KEY); SET client_min_messages = error; \
         INSERT INTO mark DEFAULT VALUES RETURNING id",
    );
    until(feed, model, |model| {
        model.tables.get("public.mark").is_some_and(|table| table.rows.contains_key(&vec![id.trim().to_owned()]))
            && model.tables.values().all(|table| table.unseen.is_none())
    })
    .await;
}
