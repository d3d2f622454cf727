//! When a source is settled: everything that the database has committed has come through, and each table says that it is
//! followed, or stopped with a reason.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{Difference, Table, Truth, captured, differences};
use crate::harness::{PATIENCE, Server};

/// How a source fares, as its API shows it.
#[derive(Clone, Debug)]
pub struct Progress {
    pub state: String,
    pub code: String,
    pub reason: String,
    pub tables: BTreeMap<String, TableProgress>,
    /// The whole answer.
    pub answer: String,
}

/// How one table fares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableProgress {
    pub state: String,
    pub code: String,
    pub reason: String,
}

/// Asks how a source fares.
pub fn progress(server: &Server, source: &str) -> Progress {
    let answer = server.get(&format!("/sources/{source}")).expect(200);
    let json = answer.json();
    let tables = json["tables"].as_array().expect("tables are listed").iter();
    let tables = tables.map(|table| {
        let (code, reason) = reason_of(table);
        let name = table["table"].as_str().expect("a table has a name").to_owned();
        (name, TableProgress { state: text(&table["state"]), code, reason })
    });
    let (code, reason) = reason_of(&json);
    Progress { state: text(&json["state"]), code, reason, tables: tables.collect(), answer: answer.text().to_owned() }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// Code and message, beside the state or as one member.
fn reason_of(of: &Value) -> (String, String) {
    match &of["reason"] {
        Value::Object(reason) => (text(&reason["code"]), text(&reason["message"])),
        reason => (text(&of["code"]), text(reason)),
    }
}

/// A source that is settled, and equal.
#[derive(Clone, Debug, Default)]
pub struct Settled {
    /// Tables that are not followed, with what they say of it. Their rows were not compared.
    pub stopped: Vec<(String, TableProgress)>,
    /// How long everything claimed to be followed while rows differed: changes that the database's log does not tell of
    /// are noticed by looking, some time later.
    pub silent: Duration,
}

/// A source that is not settled in time, or not equal, or stopped.
#[derive(Clone, Debug)]
pub struct Unsettled {
    pub what: String,
    pub differences: Vec<Difference>,
    pub progress: Progress,
}

impl fmt::Display for Unsettled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.what)?;
        self.differences.iter().try_for_each(|difference| difference.fmt(f))?;
        writeln!(f, "the source: {}", self.progress.answer)
    }
}

/// Waits until a source is settled and all its tables are equal; fails the test when they are not in time.
#[track_caller]
pub fn settle(server: &Server, source: &str, truth: &Truth, arrived: impl Fn() -> bool) -> Settled {
    match settle_within(PATIENCE, server, source, truth, arrived) {
        Ok(settled) => settled,
        Err(unsettled) => panic!("{unsettled}\n{}", server.log()),
    }
}

/// Waits until a source is settled and all its tables are equal to the truth, which must not change meanwhile. `arrived`
/// says whether the last change that was made has come through.
///
/// A table without a key may be stopped, and one that is not published; they are told. A source that is stopped, paused or repairing is
/// an error at once.
pub fn settle_within(
    patience: Duration,
    server: &Server,
    source: &str,
    truth: &Truth,
    arrived: impl Fn() -> bool,
) -> Result<Settled, Box<Unsettled>> {
    let deadline = Instant::now() + patience;
    let mut silent_since: Option<Instant> = None;
    let mut pause = Duration::from_millis(5);
    let mut told = Instant::now();
    loop {
        let progress = progress(server, source);
        if progress.state == "stopped" {
            let what = format!("the source stopped ({}): {}", progress.code, progress.reason);
            return Err(Box::new(Unsettled { what, differences: differing(server, truth, &[]), progress }));
        }
        let stopped: Vec<(String, TableProgress)> = progress
            .tables
            .iter()
            .filter(|(_, table)| table.state == "stopped" || table.state == "paused")
            .map(|(name, table)| (name.clone(), table.clone()))
            .collect();
        let unfinished = unfinished(&progress, truth, &stopped);
        let arrived = arrived();
        let is_late = Instant::now() > deadline;
        if unfinished.is_none() && arrived {
            let differences = differing(server, truth, &stopped);
            if differences.is_empty() {
                let silent = silent_since.map(|since| since.elapsed()).unwrap_or_default();
                return Ok(Settled { stopped, silent });
            }
            silent_since.get_or_insert_with(Instant::now);
            if is_late {
                let what = "rows differ, and all tables say that they are followed".to_owned();
                return Err(Box::new(Unsettled { what, differences, progress }));
            }
        } else if is_late {
            let what = match unfinished {
                Some(why) => format!("not settled after {patience:?}: {why}"),
                None => format!("a change has not come through after {patience:?}, though all say that they follow"),
            };
            return Err(Box::new(Unsettled { what, differences: differing(server, truth, &stopped), progress }));
        } else {
            silent_since = None;
        }
        if told.elapsed() > Duration::from_secs(20) {
            told = Instant::now();
            eprintln!("source {source} is not settled yet (arrived: {arrived}): {}", progress.answer);
            for difference in differing(server, truth, &[]) {
                eprint!("{difference}");
            }
        }
        // Asking costs the service what it is waited for to do.
        std::thread::sleep(pause);
        pause = (pause * 3 / 2).min(Duration::from_millis(100));
    }
}

/// Why a source is not settled, by its own words.
fn unfinished(progress: &Progress, truth: &Truth, stopped: &[(String, TableProgress)]) -> Option<String> {
    if progress.state != "following" {
        return Some(format!("the source is {} ({} {})", progress.state, progress.code, progress.reason));
    }
    if let Some((name, table)) = stopped.iter().find(|(_, table)| table.code.is_empty() || table.reason.is_empty()) {
        return Some(format!("the table {name} is {} and says no reason", table.state));
    }
    let mut waited_for = truth.iter().filter(|(_, table)| table.is_captured());
    let lacks = |(name, table): &(&String, &Table)| match progress.tables.get(*name) {
        Some(now) => now.state != "following" && (table.is_published || now.code != "unpublished"),
        None => true,
    };
    waited_for.find(lacks).map(|(name, _)| match progress.tables.get(name) {
        Some(table) => format!("the table {name} is {} ({} {})", table.state, table.code, table.reason),
        None => format!("the table {name} is not among those of the source"),
    })
}

fn differing(server: &Server, truth: &Truth, stopped: &[(String, TableProgress)]) -> Vec<Difference> {
    let found = differences(truth, &captured(server));
    found.into_iter().filter(|difference| !stopped.iter().any(|(name, _)| *name == difference.table)).collect()
}
