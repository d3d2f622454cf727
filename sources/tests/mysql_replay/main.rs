//! The MySQL feed over logs that real servers of 5.1 to 9.6 wrote, sent by a server that replays them: every value is
//! right, or what can't be captured is refused by name. Where the logs come from is in `logs/README.md`.
#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

mod damaged;
mod log;
mod maps;
mod refused;
mod server;
mod tagged;
mod values;

use std::time::Duration;

use cdc_sources::mysql::{Feed, Options};
use cdc_sources::{Checkpoint, Feed as _, FeedError, Portion, Step, TableState};
use server::Replay;

/// How long a portion may take before a test gives up.
const DEADLINE: Duration = Duration::from_secs(60);

pub fn options(replay: &Replay) -> Options {
    Options { url: replay.url(), snapshot: false, heartbeat_ms: 60_000, look_ms: 60_000, ..Options::default() }
}

/// A feed and what it said.
pub struct Run {
    pub feed: Feed,
    pub steps: Vec<Step>,
    pub changes: usize,
    pub checkpoint: Option<Checkpoint>,
}

impl Run {
    pub async fn open(replay: &Replay) -> Run {
        let feed = Feed::open(options(replay), None).await.unwrap();
        Run { feed, steps: Vec::new(), changes: 0, checkpoint: None }
    }

    fn take(&mut self, portion: Portion) {
        self.changes += portion.steps.iter().filter(|step| matches!(step, Step::Change(_))).count();
        self.steps.extend(portion.steps);
        self.checkpoint = Some(portion.checkpoint);
    }

    pub async fn next(&mut self) -> Result<(), FeedError> {
        let portion = tokio::time::timeout(DEADLINE, self.feed.next()).await.expect("a portion in time")?;
        self.take(portion);
        Ok(())
    }

    /// Takes portions until so many changes have come.
    pub async fn until(&mut self, changes: usize) {
        while self.changes < changes {
            if let Err(error) = self.next().await {
                panic!("after {} changes of {changes}: {error:?}\n{}", self.changes, self.told());
            }
        }
        assert_eq!(self.changes, changes, "{}", self.told());
    }

    /// Takes portions until the feed, or one of its tables, has stopped; answers why.
    pub async fn refusal(&mut self) -> String {
        let waiting = async {
            loop {
                let stopped = self.feed.progress().tables.into_iter().find(|table| table.state == TableState::Stopped);
                if let Some(reason) = stopped.and_then(|table| table.reason) {
                    return format!("{}: {}", reason.code, reason.message);
                }
                match tokio::time::timeout(Duration::from_millis(50), self.feed.next()).await {
                    Ok(Ok(portion)) => self.take(portion),
                    Ok(Err(error)) => return format!("{}: {}", error.code, error.message),
                    Err(_) => {}
                }
            }
        };
        tokio::time::timeout(DEADLINE, waiting).await.expect("a refusal in time")
    }

    /// What was said, a line a step.
    pub fn told(&self) -> String {
        self.steps.iter().map(|step| line(step) + "\n").collect()
    }

    /// The images of what was put in, in order.
    pub fn images(&self) -> Vec<&str> {
        let images = self.steps.iter().filter_map(|step| match step {
            Step::Change(change) => change.image.as_deref(),
            _ => None,
        });
        images.collect()
    }
}

fn line(step: &Step) -> String {
    match step {
        Step::Describe(table) => {
            let columns = table.columns.iter().map(|column| {
                let nullable = if column.nullable { " null" } else { "" };
                format!("{} {} {:?}{nullable}", column.name, column.native_type, column.kind)
            });
            format!("describe {}: {}; key {}", table.name, columns.collect::<Vec<_>>().join(", "), table.key.join(", "))
        }
        Step::Change(change) => {
            let mut line = format!(
                "{:?} {} {:?} {}",
                change.action,
                change.table.name,
                change.key,
                change.position.as_deref().unwrap_or("-")
            );
            let mut part = |name: &str, text: Option<&String>| {
                if let Some(text) = text {
                    line.push_str(&format!("\n  {name} {text}"));
                }
            };
            part("before", change.before.as_ref());
            part("image ", change.image.as_ref());
            part("unchanged", (!change.unchanged.is_empty()).then(|| change.unchanged.join(",")).as_ref());
            part("previous key", change.previous_key.as_ref().map(|key| key.join(",")).as_ref());
            part("committed at", change.committed_at_ms.map(|at| at.to_string()).as_ref());
            line
        }
        Step::ReadBegan(table) => format!("read began {}", table.name),
        Step::ReadDone(table) => format!("read done {}", table.name),
        Step::Rewrite(rule) => format!("rewrite {}", rule.table.name),
        Step::Audited(_) | Step::AuditOff { .. } => "audit".to_owned(),
        Step::Gone(table) => format!("gone {}", table.name),
    }
}

pub fn golden(name: &str, text: &str) {
    let path = format!("{}/../tests/golden/sources/mysql-logs/{name}.txt", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("CDC_UPDATE_GOLDEN").is_some() {
        std::fs::create_dir_all(std::path::Path::new(&path).parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(text, kept, "{name} is not as it was; run with CDC_UPDATE_GOLDEN=1 if it should be");
}
