//! A minute of the random walk. The seeds are fixed for as long as walks from others still find rows that differ, which
//! are looked for with `tests/walk`; what is found here is printed with what walks there again.

use std::time::Duration;

use cdc_tests::walk::{Kind, Options, script, walk};

fn walk_for_half_a_minute(kind: Kind, source: &str, seed: u64, without: &[&str]) {
    println!("tests/walk --source {source} --seed {seed}");
    let options = Options {
        kind,
        seed,
        time: Duration::from_secs(30),
        steps_max: usize::MAX,
        patience: Duration::from_secs(120),
        verbose: false,
        without: without.iter().map(|&text| text.to_owned()).collect(),
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
    walk_for_half_a_minute(Kind::Postgres(None), "postgres", 11, &["PUBLICATION"]);
}

#[test]
fn random_schema_work_in_mariadb_leaves_every_row_equal() {
    walk_for_half_a_minute(Kind::MariaDb, "mariadb", 1, &[]);
}
