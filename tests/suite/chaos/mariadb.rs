//! A load like pgbench's against a captured MariaDB.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use cdc_test_servers::{MariaDb, Postgres};
use cdc_tests::harness::Server;
use serde_json::Value;

use super::{Database, drained, history, kill_everything, launch, load};

const SCHEMA: &str = "
CREATE DATABASE bank;
USE bank;
CREATE TABLE branches (id INT PRIMARY KEY, balance BIGINT NOT NULL, filler VARCHAR(84));
CREATE TABLE tellers (id INT PRIMARY KEY, branch INT NOT NULL, balance BIGINT NOT NULL, filler VARCHAR(84));
CREATE TABLE accounts (id INT PRIMARY KEY, branch INT NOT NULL, balance BIGINT NOT NULL, filler VARCHAR(84));
CREATE TABLE history (id BIGINT AUTO_INCREMENT PRIMARY KEY, teller INT, branch INT, account INT, delta BIGINT,
                      at DATETIME(6), filler VARCHAR(22));
INSERT INTO branches VALUES (1, 0, '');
INSERT INTO tellers SELECT seq, 1, 0, '' FROM seq_1_to_10;
INSERT INTO accounts SELECT seq, 1, 0, REPEAT(' ', 84) FROM seq_1_to_20000;
DELIMITER //
CREATE PROCEDURE transfers(IN until_time DATETIME(6))
BEGIN
  WHILE NOW(6) < until_time DO
    SET @delta = FLOOR(RAND() * 10000) - 5000, @teller = 1 + FLOOR(RAND() * 10), @account = 1 + FLOOR(RAND() * 20000);
    START TRANSACTION;
    UPDATE accounts SET balance = balance + @delta WHERE id = @account;
    UPDATE tellers SET balance = balance + @delta WHERE id = @teller;
    UPDATE branches SET balance = balance + @delta WHERE id = 1;
    INSERT INTO history (teller, branch, account, delta, at) VALUES (@teller, 1, @account, @delta, NOW(6));
    COMMIT;
    DO SLEEP(0.004);
  END WHILE;
END //
DELIMITER ;
";

const TABLES: [(&str, &[&str]); 4] = [
    ("accounts", &["id", "branch", "balance", "filler"]),
    ("branches", &["id", "balance", "filler"]),
    ("tellers", &["id", "branch", "balance", "filler"]),
    ("history", &["id", "teller", "branch", "account", "delta", "at", "filler"]),
];

struct Bank(MariaDb);

impl Database for Bank {
    fn crash(&self) {
        self.0.kill();
        self.0.start_again();
    }

    fn work(&self) {
        let client = || {
            let mut command = Command::new(self.0.bin("mariadb"));
            command.args(["--no-defaults", "--protocol=tcp", "--host=127.0.0.1"]);
            command.arg(format!("--port={}", self.0.port())).arg(format!("--user={}", MariaDb::USER));
            command.arg(format!("--password={}", MariaDb::PASSWORD));
            command.args(["--database=bank", "--execute=CALL transfers(NOW(6) + INTERVAL 2 SECOND)"]);
            command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
        };
        // They end early when the server is killed.
        let clients: Vec<_> = (0..2).map(|_| client()).collect();
        for mut client in clients {
            let _ = client.wait().unwrap();
        }
    }
}

#[test]
fn a_bank_in_mariadb_survives_kills_of_service_database_and_sink_with_every_row_equal() {
    let bank = Bank(MariaDb::start());
    bank.0.sql("", SCHEMA);
    let replica = Postgres::start();
    let source = format!(
        "[sources.bank]\nurl = \"{}\"\ntables = [\"bank.*\"]\ntable-name = \"{{relation}}\"\n",
        bank.0.url("bank")
    );
    let server = launch(&source, &replica).start();
    let stop = AtomicBool::new(false);
    let server = std::thread::scope(|scope| {
        scope.spawn(|| load(&bank, &stop));
        let server = kill_everything(server, &bank, &replica, 43);
        stop.store(true, Ordering::Relaxed);
        server
    });
    bank.0.sql("bank", "UPDATE branches SET filler = 'the end' WHERE id = 1");
    drained(
        &server,
        &replica,
        "/data/branches/1",
        |row| row["filler"] == "the end",
        "SELECT bool_and(filler = 'the end') FROM branches",
    );

    for (table, columns) in TABLES {
        let shown = columns.iter().map(|column| format!("IFNULL(`{column}`, '')")).collect::<Vec<_>>().join(", '|', ");
        let wanted = bank.0.sql("bank", &format!("SELECT CONCAT({shown}) FROM {table} ORDER BY id"));
        // PostgreSQL has no type for MariaDB's `datetime`, so the replica keeps the text of the event.
        let of_replica: Vec<_> =
            columns.iter().map(|column| if *column == "at" { "replace(at, 'T', ' ')" } else { column }).collect();
        let replicated =
            replica.psql("postgres", &format!("SELECT {} FROM {table} ORDER BY id", of_replica.join(", ")));
        assert_same(&format!("the replica of {table}"), &wanted, &replicated);
        assert_same(&format!("the row state of {table}"), &wanted, &row_state(&server, table, columns));
    }
    let log = history::check(&server, |position| {
        // Transactions are in the order of their GTIDs, rows in the order of their numbers.
        let (gtid, row) = position.rsplit_once('/').expect("a position is a GTID and a number");
        let sequence = gtid.rsplit(['-', ':']).next().expect("a GTID ends in a number");
        (sequence.parse::<u64>().expect("a number"), row.parse::<u64>().expect("a number"))
    });
    let transfers: u64 = bank.0.sql("bank", "SELECT COUNT(*) FROM history").parse().unwrap();
    assert!(transfers > 1_000, "{transfers} transfers are a load");
    assert_eq!(log.count("history", "INSERT"), transfers, "each transfer is one event");
    server.stop();
}

fn assert_same(what: &str, wanted: &str, found: &str) {
    let differing = wanted.lines().zip(found.lines()).find(|(wanted, found)| wanted.trim_end() != found.trim_end());
    assert_eq!(differing, None, "{what}");
    assert_eq!(wanted.lines().count(), found.lines().count(), "{what}");
}

/// The row state as the client shows the table.
fn row_state(server: &Server, table: &str, columns: &[&str]) -> String {
    let snapshot = server.get(&format!("/snapshot/{table}")).expect(200).json();
    let mut rows = BTreeMap::new();
    for row in snapshot["data"].as_array().expect("a snapshot has rows") {
        let shown = columns.iter().map(|column| match &row[*column] {
            Value::Null => String::new(),
            Value::String(text) if *column == "at" => text.replace('T', " "),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        });
        rows.insert(row["id"].as_u64().expect("keys are numbers"), shown.collect::<Vec<_>>().join("|"));
    }
    rows.into_values().collect::<Vec<_>>().join("\n")
}
