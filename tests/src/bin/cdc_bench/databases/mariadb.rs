//! MariaDB in: a binary log drained, beside `mariadb-binlog`, which copies the same events as they are.

use std::fs;
use std::process::Command;
use std::time::Duration;

use cdc_test_servers::MariaDb;

use super::{Sides, configured, drain, follow_once, in_turns, timed};
use crate::Scale;
use crate::table::{Table, grouped};

/// As applications write: a statement a row; and as loads do: a statement for thousands of rows.
const TABLE: &str = "\
    CREATE DATABASE bench; USE bench; \
    CREATE TABLE changes (id BIGINT PRIMARY KEY, name VARCHAR(100) NOT NULL, email VARCHAR(100) NOT NULL, \
      balance DECIMAL(12,2) NOT NULL, active BOOLEAN NOT NULL, created DATETIME(6) NOT NULL);\n\
    DELIMITER //\n\
    CREATE PROCEDURE fill_rows(first BIGINT, how_many BIGINT, per_transaction BIGINT)\n\
    BEGIN\n\
      DECLARE at BIGINT DEFAULT first;\n\
      WHILE at < first + how_many DO\n\
        START TRANSACTION;\n\
        FOR id IN at .. LEAST(at + per_transaction, first + how_many) - 1 DO\n\
          INSERT INTO changes VALUES (id, CONCAT('User number ', id), CONCAT('user', id, '@example.com'), \
            MOD(id, 1000000) / 100, MOD(id, 2), '2024-01-01 12:30:15.25');\n\
        END FOR;\n\
        COMMIT;\n\
        SET at = at + per_transaction;\n\
      END WHILE;\n\
    END//\n\
    CREATE PROCEDURE fill_sets(first BIGINT, how_many BIGINT, per_transaction BIGINT)\n\
    BEGIN\n\
      DECLARE at BIGINT DEFAULT first;\n\
      WHILE at < first + how_many DO\n\
        INSERT INTO changes SELECT seq, CONCAT('User number ', seq), CONCAT('user', seq, '@example.com'), \
          MOD(seq, 1000000) / 100, MOD(seq, 2), '2024-01-01 12:30:15.25' FROM seq_1_to_100000000 \
          WHERE seq BETWEEN at AND LEAST(at + per_transaction, first + how_many) - 1;\n\
        SET at = at + per_transaction;\n\
      END WHILE;\n\
    END//\n\
    DELIMITER ;\n";

pub(crate) fn measure(scale: Scale, table: &mut Table) {
    let changes = scale.database_changes;
    let mariadb = MariaDb::with(&["--max-binlog-size=1G", "--innodb-buffer-pool-size=256M"]);
    mariadb.sql("", TABLE);
    let text = format!("[sources.bench]\nurl = \"{}\"\ntables = [\"bench.*\"]\n", mariadb.url(""));
    let mut launch = follow_once(&configured(&text));
    let (mut sequence, mut next) = (0, 1);
    let kinds = [
        ("fill_rows", 100, "100 a transaction, one a statement"),
        ("fill_sets", 10_000, "10,000 a transaction and statement"),
    ];
    for (procedure, per_transaction, how) in kinds {
        let mut sides = Sides::default();
        for round in 0..scale.database_rounds {
            // What is copied begins with a file of its own.
            let newest = mariadb.sql("", "FLUSH BINARY LOGS; SHOW MASTER STATUS");
            let file = newest.split('\t').next().expect("the file is named first").to_owned();
            mariadb.sql("bench", &format!("CALL {procedure}({next}, {changes}, {per_transaction})"));
            next += changes;
            sequence += changes;
            let (drained, copied) = in_turns(round, || drain(&launch, sequence), || copy(&mariadb, &file));
            sides.add(changes, &drained, copied);
            launch = drained.launch;
        }
        let what = format!("MariaDB: {} inserts, {how}, durable (peer: mariadb-binlog --raw)", grouped(changes as f64));
        sides.row(table, &what, 0.6);
    }
}

/// How long `mariadb-binlog` takes to copy the binary logs from this file on.
fn copy(mariadb: &MariaDb, file: &str) -> Duration {
    let folder = tempfile::tempdir().expect("the temp folder is writable");
    let mut command = Command::new(mariadb.bin("mariadb-binlog"));
    command.args(["--no-defaults", "--read-from-remote-server", "--raw", "--to-last-log", "--host=127.0.0.1"]);
    command.arg(format!("--port={}", mariadb.port()));
    command.arg(format!("--user={}", MariaDb::USER)).arg(format!("--password={}", MariaDb::PASSWORD));
    command.arg(format!("--result-file={}/", folder.path().display())).arg(file);
    let took = timed(&mut command);
    let copied = fs::read_dir(folder.path()).expect("the folder is ours").count();
    assert!(copied > 0, "something was copied");
    took
}
