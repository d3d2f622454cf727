//! pgbench against a captured PostgreSQL.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use cdc_test_servers::Postgres;
use cdc_tests::harness::Server;
use serde_json::Value;

use super::{Database, drained, history, kill_everything, launch, load};

/// The tables of TPC-B as pgbench has them, and their columns. The history's key is ours: pgbench gives it none.
const TABLES: [(&str, &str, &[&str]); 4] = [
    ("pgbench_accounts", "aid", &["aid", "bid", "abalance", "filler"]),
    ("pgbench_branches", "bid", &["bid", "bbalance", "filler"]),
    ("pgbench_tellers", "tid", &["tid", "bid", "tbalance", "filler"]),
    ("pgbench_history", "id", &["tid", "bid", "aid", "delta", "mtime", "filler", "id"]),
];

struct Bank(Postgres);

impl Bank {
    fn open() -> Bank {
        let bank = Bank(Postgres::start());
        let init = bank.pgbench(&["--initialize", "--scale=1", "--quiet"]).status().unwrap();
        assert!(init.success());
        bank.0.psql(
            "postgres",
            "ALTER TABLE pgbench_history ADD COLUMN id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY",
        );
        bank
    }

    fn pgbench(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.0.bin("pgbench"));
        command.arg("--host").arg(self.0.folder()).args(["--port", &self.0.port().to_string()]);
        command.args(["--username", Postgres::USER]).args(arguments).arg("postgres");
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command
    }
}

impl Database for Bank {
    fn crash(&self) {
        self.0.kill();
        self.0.start_again();
    }

    fn work(&self) {
        // It ends early when the server is killed.
        let arguments = ["--client=4", "--jobs=1", "--time=2", "--no-vacuum", "--rate=400"];
        let _ = self.pgbench(&arguments).status().unwrap();
    }
}

#[test]
fn pgbench_survives_kills_of_service_database_and_sink_with_every_row_equal() {
    let bank = Bank::open();
    let replica = Postgres::start();
    let source = format!("[sources.bank]\nurl = \"{}\"\ntable-name = \"{{relation}}\"\n", bank.0.url("postgres"));
    let server = launch(&source, &replica).start();
    let stop = AtomicBool::new(false);
    let server = std::thread::scope(|scope| {
        scope.spawn(|| load(&bank, &stop));
        let server = kill_everything(server, &bank, &replica, 41);
        stop.store(true, Ordering::Relaxed);
        server
    });
    bank.0.psql("postgres", "UPDATE pgbench_branches SET filler = 'the end' WHERE bid = 1");
    drained(
        &server,
        &replica,
        "/data/pgbench_branches/1",
        |row| row["filler"].as_str().is_some_and(|filler| filler.starts_with("the end")),
        "SELECT bool_and(filler LIKE 'the end%') FROM pgbench_branches",
    );

    for (table, key, columns) in TABLES {
        let select = format!("SELECT {} FROM {table} ORDER BY {key}", columns.join(", "));
        let wanted = bank.0.psql("postgres", &select);
        assert!(wanted.lines().count() > 0, "{table} has rows");
        let replicated = replica.psql("postgres", &select);
        assert!(wanted == replicated, "the replica of {table} is not equal: {}", difference(&wanted, &replicated));
        let state = row_state(&server, table, key, columns);
        assert!(wanted == state, "the row state of {table} is not equal: {}", difference(&wanted, &state));
    }
    let log = history::check(&server, |position| {
        let (lsn, ordinal) = position.rsplit_once('/').expect("a position is an LSN and a number");
        let (high, low) = lsn.split_once('/').expect("an LSN is two numbers");
        let hex = |text: &str| u64::from_str_radix(text, 16).expect("an LSN is hexadecimal");
        (hex(high) << 32 | hex(low), ordinal.parse::<u64>().expect("the ordinal is a number"))
    });
    let transfers: u64 = bank.0.psql("postgres", "SELECT count(*) FROM pgbench_history").parse().unwrap();
    assert!(transfers > 1_000, "{transfers} transfers are a load");
    assert_eq!(log.count("pgbench_history", "INSERT"), transfers, "each transfer is one event");
    // The history tells how often balances changed, unless the change is part of what was read first.
    for table in ["pgbench_accounts", "pgbench_tellers", "pgbench_branches"] {
        assert!(log.count(table, "UPDATE") <= transfers + 1, "no update of {table} is there twice");
        assert_eq!(log.count(table, "DELETE"), 0);
    }
    server.stop();
}

/// The first line that differs.
fn difference(wanted: &str, found: &str) -> String {
    let mut lines = wanted.lines().zip(found.lines());
    let first = lines.find(|(wanted, found)| wanted != found);
    let (wanted_lines, found_lines) = (wanted.lines().count(), found.lines().count());
    format!("{first:?}; {wanted_lines} and {found_lines} rows")
}

/// The row state as psql shows the table.
fn row_state(server: &Server, table: &str, key: &str, columns: &[&str]) -> String {
    let snapshot = server.get(&format!("/snapshot/{table}")).expect(200).json();
    let mut rows = BTreeMap::new();
    for row in snapshot["data"].as_array().expect("a snapshot has rows") {
        let shown = columns.iter().map(|column| match &row[*column] {
            Value::Null => String::new(),
            Value::String(text) if *column == "mtime" => text.replace('T', " "),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        });
        rows.insert(row[key].as_u64().expect("keys are numbers"), shown.collect::<Vec<_>>().join("|"));
    }
    rows.into_values().collect::<Vec<_>>().join("\n")
}
