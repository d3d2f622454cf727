//! A random walk through a database: statements of all kinds, transactions, kills and restarts are drawn from a seed, and
//! at every pause each captured table is compared with the database, row by row.
//!
//! What is drawn depends on the seed and on what the database has, and on nothing that takes time: the same seed draws
//! the same steps. A walk that finds a deviation is written down as a script, a line for each step, which can be cut
//! down by hand or by itself and run again.
//!
//! What counts as a deviation: rows that differ from SELECT's when everything has come through, a source that stops, a
//! table that has a key or is captured without one and is not followed in the end, a service that ends by itself. Tables
//! without a key are captured where their names begin with `log`; what their reasons say is done before a comparison.

mod draw;
mod mariadb;
mod postgres;
pub mod script;
mod session;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use std::{env, fs};

use cdc_test_servers::{MariaDb, Postgres};

use self::draw::Walker;
use self::script::Step;
use self::world::{Database, Outcome, World};

/// Which database is walked through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// PostgreSQL of this version, or the newest that Debian has here.
    Postgres(Option<u32>),
    MariaDb,
}

/// How a walk goes.
#[derive(Clone, Debug)]
pub struct Options {
    pub kind: Kind,
    pub seed: u64,
    /// How long steps are drawn.
    pub time: Duration,
    /// At most so many steps.
    pub steps_max: usize,
    /// How long a source may take to be settled.
    pub patience: Duration,
    /// Whether each step is shown while it is taken.
    pub verbose: bool,
    /// Statements that contain one of these are not drawn: to go on past what is known already.
    pub without: Vec<String>,
    /// Whether there is no service, so that nothing is compared: shows what the database takes of what is drawn.
    pub dry: bool,
}

/// A walk that found nothing.
#[derive(Clone, Debug, Default)]
pub struct Walked {
    pub steps: usize,
    /// Statements that the database refused.
    pub refused: usize,
    pub comparisons: usize,
    /// How long rows differed while all tables said that they were followed, at most.
    pub silent: Duration,
}

/// What a walk found.
#[derive(Clone, Debug)]
pub struct Deviation {
    /// All steps up to it.
    pub steps: Vec<Step>,
    /// The step, counted from 1.
    pub at: usize,
    pub what: String,
    pub logs: String,
}

fn start(kind: Kind) -> Database {
    match kind {
        Kind::Postgres(version) => {
            let settings = [("max_prepared_transactions", "10")];
            Database::Postgres(match version {
                Some(version) => Postgres::with_version(version, &settings),
                None => Postgres::with(&settings),
            })
        }
        Kind::MariaDb => Database::MariaDb(MariaDb::with(&mariadb::SETTINGS)),
    }
}

/// Walks.
pub fn walk(options: &Options) -> Result<Walked, Box<Deviation>> {
    let mut walker = Walker::new(options.kind, options.seed, options.without.clone());
    let began = Instant::now();
    run(options, |world, so_far| {
        if began.elapsed() > options.time || so_far >= options.steps_max {
            return None;
        }
        Some(walker.turn(world))
    })
}

/// Walks a way that is known.
pub fn replay(options: &Options, steps: &[Step]) -> Result<Walked, Box<Deviation>> {
    let mut rest = Some(steps.to_vec());
    run(options, |_, _| rest.take())
}

/// A way of few steps that still ends in a deviation, found by leaving out ever smaller parts of it, within a time.
pub fn shrink(options: &Options, deviation: Deviation, time: Duration, tell: impl Fn(&Deviation)) -> Deviation {
    let options = Options { verbose: false, ..options.clone() };
    let deadline = Instant::now() + time;
    let mut shortest = deviation;
    let mut part = shortest.steps.len() / 2;
    while part > 0 && Instant::now() < deadline {
        // From the end: what came last is what deviated.
        let mut end = shortest.steps.len().saturating_sub(1);
        while end > 0 && Instant::now() < deadline {
            let begin = end.saturating_sub(part);
            let rest: Vec<Step> = [&shortest.steps[..begin], &shortest.steps[end..]].concat();
            if let Err(again) = replay(&options, &rest) {
                shortest = *again;
                tell(&shortest);
            }
            end = begin.min(shortest.steps.len().saturating_sub(1));
        }
        part = if part > 8 { part / 3 } else { part / 2 };
    }
    shortest
}

/// Takes the steps that it is given, turn by turn, and in the end those that settle everything.
fn run(
    options: &Options,
    mut next: impl FnMut(&mut World, usize) -> Option<Vec<Step>>,
) -> Result<Walked, Box<Deviation>> {
    let mut taken: Vec<Step> = Vec::new();
    let mut walked = Walked::default();
    let mut world = World::new(start(options.kind), !options.dry, options.patience);
    let ended = catch_unwind(AssertUnwindSafe(|| -> Result<(), String> {
        loop {
            let turn = next(&mut world, taken.len());
            let is_last = turn.is_none();
            for step in turn.unwrap_or_else(|| vec![Step::Compare]) {
                taken.push(step.clone());
                if options.verbose {
                    println!("{:>5} {step}", taken.len());
                }
                walked.comparisons += usize::from(step == Step::Compare);
                match world.perform(&step).map_err(|unsettled| unsettled.to_string())? {
                    Outcome::Done => {}
                    Outcome::Refused(why) => {
                        walked.refused += 1;
                        if options.verbose {
                            println!("      -- refused: {why}");
                        }
                    }
                    Outcome::Lost => {}
                }
            }
            if is_last {
                return Ok(());
            }
        }
    }));
    walked.steps = taken.len();
    walked.silent = world.silent;
    let what = match ended {
        Ok(Ok(())) => return Ok(walked),
        Ok(Err(what)) => what,
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
        }
    };
    let logs = world.logs().into_iter().map(|(of, log)| format!("--- the log of the {of} ---\n{log}\n")).collect();
    Err(Box::new(Deviation { at: taken.len(), steps: taken, what, logs }))
}

impl Deviation {
    /// Writes script and logs into a folder of their own; answers where.
    pub fn keep(&self, name: &str) -> PathBuf {
        let folder = env::temp_dir().join("cdc-walk").join(name);
        fs::create_dir_all(&folder).expect("the temp folder is writable");
        let remark: String = self.what.lines().map(|line| format!("-- {line}\n")).collect();
        fs::write(folder.join("script"), format!("{}{remark}", script::write(&self.steps))).expect("it is ours");
        fs::write(folder.join("logs"), &self.logs).expect("it is ours");
        folder
    }

    /// The steps since all was equal for the last time.
    pub fn since_equal(&self) -> &[Step] {
        let before = self.steps.len().saturating_sub(1);
        let equal = self.steps[..before].iter().rposition(|step| *step == Step::Compare);
        &self.steps[equal.map_or(0, |at| at + 1)..]
    }
}
