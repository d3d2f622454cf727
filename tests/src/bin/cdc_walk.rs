//! A random walk through a database, with every captured table compared at each pause. See `tests/src/walk`.
#![allow(clippy::unwrap_used, reason = "what is wrong on the command line shall stop the run")]

use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cdc_tests::walk::{self, Deviation, Kind, Options, script};

const USAGE: &str = "\
tests/walk --source postgres|mariadb [--minutes 10 | --seconds N | --steps N] [--seed N]
           [--postgres-version 18] [--verbose] [--dry] [--patience SECONDS] [--without TEXT]
           [--shrink MINUTES] [--replay FILE]

Draws statements, transactions, kills and restarts from the seed, and compares every captured table with the
database at each pause. What it finds is written down as a script.
  --steps N         ends after so many steps: with the seed, the walk that is to be seen again
  --dry             without the service: shows what the database takes of what is drawn
  --patience N      how long a source may take to be settled: 60 s
  --without TEXT    draws no statement that contains it: to go on past what is known (may be given again)
  --shrink MINUTES  looks for a shorter script that finds something too
  --replay FILE     walks by a script instead of a seed";

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let (mut source, mut version, mut replay) = (None, None, None);
    let mut shrink = Duration::ZERO;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let mut options = Options {
        kind: Kind::MariaDb,
        seed: now.as_millis() as u64 % 1_000_000,
        time: Duration::from_secs(600),
        steps_max: usize::MAX,
        patience: Duration::from_secs(60),
        verbose: false,
        without: Vec::new(),
        dry: false,
    };
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().unwrap_or_else(|| panic!("{argument} needs a value\n{USAGE}"));
        match argument.as_str() {
            "--source" => source = Some(value()),
            "--minutes" => options.time = Duration::from_secs(60 * value().parse::<u64>().unwrap()),
            "--seconds" => options.time = Duration::from_secs(value().parse().unwrap()),
            "--steps" => {
                options.steps_max = value().parse().unwrap();
                options.time = Duration::MAX;
            }
            "--seed" => options.seed = value().parse().unwrap(),
            "--postgres-version" => version = Some(value().parse().unwrap()),
            "--verbose" => options.verbose = true,
            "--patience" => options.patience = Duration::from_secs(value().parse().unwrap()),
            "--without" => options.without.push(value()),
            "--dry" => options.dry = true,
            "--shrink" => shrink = Duration::from_secs(60 * value().parse::<u64>().unwrap()),
            "--replay" => replay = Some(value()),
            _ => {
                eprintln!("{USAGE}");
                return ExitCode::from(2);
            }
        }
    }
    options.kind = match source.as_deref() {
        Some("postgres") => Kind::Postgres(version),
        Some("mariadb") => Kind::MariaDb,
        _ => {
            eprintln!("--source is postgres or mariadb\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let (result, name) = match &replay {
        Some(file) => {
            let steps = script::parse(&std::fs::read_to_string(file).unwrap());
            (walk::replay(&options, &steps), format!("replay-{}", std::process::id()))
        }
        None => {
            println!("seed {} on {:?}", options.seed, options.kind);
            (walk::walk(&options), format!("{}-{}", source.unwrap_or_default(), options.seed))
        }
    };
    match result {
        Ok(walked) => {
            println!(
                "equal at {} comparisons after {} steps, of which the database refused {}; rows differed unsaid for {} ms at most",
                walked.comparisons,
                walked.steps,
                walked.refused,
                walked.silent.as_millis()
            );
            ExitCode::SUCCESS
        }
        Err(deviation) => {
            let seed = options.seed;
            println!("{}", found(&deviation, &format!("--seed {seed} --steps {}", deviation.at)));
            println!("script and logs: {}", deviation.keep(&name).display());
            if !shrink.is_zero() {
                let tell = |shorter: &Deviation| println!("… {} steps: {}", shorter.steps.len(), first_line(shorter));
                let shortest = walk::shrink(&options, *deviation, shrink, tell);
                println!(
                    "{}",
                    found(&shortest, &format!("--replay {}", shortest.keep(&format!("{name}-short")).display()))
                );
            }
            ExitCode::FAILURE
        }
    }
}

fn first_line(deviation: &Deviation) -> &str {
    deviation.what.lines().next().unwrap_or_default()
}

fn found(deviation: &Deviation, again: &str) -> String {
    let steps = script::write(deviation.since_equal());
    format!("step {} ({again}): {}\nsince all was equal:\n{steps}", deviation.at, deviation.what)
}
