//! A minute of the random walk, from seeds that found something once; others are looked for with `tests/walk`, which
//! draws a new one each time. What is found here is printed with what walks there again.

use std::time::Duration;

use cdc_tests::walk::{Kind, Options, script, walk};

fn walk_for_half_a_minute(kind: Kind, source: &str, seed: u64) {
    println!("tests/walk --source {source} --seed {seed}");
    let options = Options {
        kind,
        seed,
        time: Duration::from_secs(30),
        steps_max: usize::MAX,
        patience: Duration::from_secs(120),
        verbose: false,
        without: Vec::new(),
        dry: false,
    };
    match walk(&options) {
        Ok(walked) => println!("{walked:?}"),
        Err(deviation) => {
            let again = format!("tests/walk --source {source} --seed {seed} --steps {}", deviation.at);
            let steps = script::write(deviation.since_equal());
            panic!("{again}\n{}\nsince all was equal:\n{steps}\n{}", deviation.what, deviation.logs);
        }
    }
}

#[test]
fn random_schema_work_in_postgres_leaves_every_row_equal() {
    walk_for_half_a_minute(Kind::Postgres(None), "postgres", 11);
}

#[test]
fn random_schema_work_in_mariadb_leaves_every_row_equal() {
    walk_for_half_a_minute(Kind::MariaDb, "mariadb", 7002);
}
