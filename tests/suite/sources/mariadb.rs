//! MariaDB, followed.

use std::sync::atomic::{AtomicBool, Ordering};

use cdc_test_servers::MariaDb;
use cdc_tests::harness::{Launch, Server, until};
use cdc_tests::rows;

use super::{events, shop, status, until_following, until_state};

const USERS: &str = "CREATE DATABASE shop; USE shop; CREATE TABLE users (id BIGINT PRIMARY KEY, name VARCHAR(50), \
                     balance DECIMAL(12,2));";

fn until_equal(server: &Server, mariadb: &MariaDb) {
    rows::until_equal(
        "shop.users",
        server,
        || rows::in_mariadb(mariadb, "shop", "users", &["id"]),
        || rows::captured(server, "shop.users", &["id"]),
    );
}

#[test]
fn the_first_five_minutes_need_an_address_and_nothing_else() {
    let mariadb = MariaDb::start();
    mariadb.sql("", &format!("{USERS} INSERT INTO users VALUES (1, 'Ada', 1.10), (2, 'Grace', 2.00);"));
    let server = Launch::new().option("--source", mariadb.url("")).start();
    until_following(&server, "mysql");
    until_equal(&server, &mariadb);
    mariadb.sql(
        "shop",
        "BEGIN; INSERT INTO users VALUES (3, 'Edsger', 3), (4, 'Barbara', 4); \
         UPDATE users SET balance = 5.50 WHERE id = 1; COMMIT; DELETE FROM users WHERE id = 2;",
    );
    let events = until("six events", || Some(events(&server, "shop.users")).filter(|events| events.len() == 6));
    let operations: Vec<_> = events.iter().map(|event| event["operation"].as_str().unwrap()).collect();
    assert_eq!(operations, ["INSERT", "INSERT", "INSERT", "INSERT", "UPDATE", "DELETE"]);
    let metadata = |at: usize, member: &str| events[at]["metadata"][member].clone();
    assert_eq!(metadata(2, "transaction"), metadata(4, "transaction"), "one transaction");
    assert_ne!(metadata(2, "position"), metadata(3, "position"), "rows of one statement are told apart");
    assert_ne!(metadata(4, "transaction"), metadata(5, "transaction"));
    until_equal(&server, &mariadb);
    assert!(!server.log().contains(MariaDb::PASSWORD), "the password is in the log");
}

#[test]
fn a_service_that_is_killed_goes_on_without_loss_and_without_repetition() {
    let mariadb = MariaDb::start();
    mariadb.sql("", &format!("{USERS} INSERT INTO users SELECT seq, CONCAT('n', seq), seq FROM seq_1_to_500;"));
    let stop = AtomicBool::new(false);
    let server = shop(&mariadb.url(""), "").option("--retention-events", "unlimited").start();
    let server = std::thread::scope(|scope| {
        let mut server = server;
        scope.spawn(|| {
            let mut next = 1_000;
            while !stop.load(Ordering::Relaxed) {
                let sql = format!(
                    "BEGIN; INSERT INTO users SELECT seq, CONCAT('n', seq), seq FROM seq_{next}_to_{}; \
                     UPDATE users SET balance = balance + 1 WHERE id % 7 = {}; \
                     DELETE FROM users WHERE id % 11 = {} AND id < {next}; COMMIT;",
                    next + 9,
                    next % 7,
                    next % 11
                );
                mariadb.sql("shop", &sql);
                next += 10;
            }
        });
        for events in [1, 1_000, 3_000] {
            until("events", || (server.current_sequence() >= events).then_some(()));
            server = server.kill().start();
        }
        until("more events", || (server.current_sequence() >= 5_000).then_some(()));
        stop.store(true, Ordering::Relaxed);
        server
    });
    until_equal(&server, &mariadb);
    let mut seen = std::collections::HashMap::new();
    let mut after = 0;
    loop {
        let page = server.get(&format!("/events?after={after}&limit=10000&order=asc")).expect(200).json();
        let events = page["events"].as_array().unwrap();
        for event in events {
            let sequence = event["metadata"]["sequenceNumber"].as_u64().unwrap();
            assert_eq!(sequence, after + 1, "no gap");
            after = sequence;
            if let Some(position) = event["metadata"]["position"].as_str() {
                let earlier = seen.insert(position.to_owned(), event.clone());
                assert!(earlier.is_none(), "twice: {event}\nand {}", earlier.unwrap_or_default());
            }
        }
        if events.is_empty() {
            break;
        }
    }
    assert!(seen.len() > 1_000);
}

#[test]
fn a_binlog_that_was_purged_stops_the_source_and_a_repair_brings_the_rows_back() {
    let mariadb = MariaDb::start();
    mariadb.sql("", &format!("{USERS} INSERT INTO users SELECT seq, CONCAT('n', seq), seq FROM seq_1_to_1000;"));
    let server = shop(&mariadb.url(""), "").start();
    until_following(&server, "shop");
    until_equal(&server, &mariadb);
    let launch = server.stop();
    mariadb.sql(
        "shop",
        "DELETE FROM users WHERE id <= 10; UPDATE users SET name = 'changed' WHERE id BETWEEN 11 AND 15; \
         INSERT INTO users VALUES (2001, 'new', 1), (2002, 'new', 1); FLUSH BINARY LOGS; FLUSH BINARY LOGS;",
    );
    // A binlog that is still being sent is not purged, nor one that a crash would need.
    until("the binlogs to be purged", || {
        let newest = mariadb.sql("", "FLUSH BINARY LOGS; SHOW MASTER STATUS");
        let file = newest.split('\t').next().unwrap();
        mariadb.sql("", &format!("PURGE BINARY LOGS TO '{file}'"));
        (mariadb.sql("", "SHOW BINARY LOGS").lines().count() == 1).then_some(())
    });
    let server = launch.start();
    let stopped = until_state(&server, "shop", "stopped");
    assert_eq!(stopped["code"], "binlog-purged", "{stopped}");
    server.post("/sources/shop/repair", "").expect(200);
    let following = until_following(&server, "shop");
    until_equal(&server, &mariadb);
    let found = ["inserted", "updated", "removed"].map(|member| following["lastRepair"][member].as_u64().unwrap());
    assert_eq!(found, [2, 5, 10], "{following}");
}

#[test]
fn a_server_that_is_killed_is_reached_again() {
    let mariadb = MariaDb::start();
    mariadb.sql("", &format!("{USERS} INSERT INTO users VALUES (1, 'Ada', 1);"));
    let server = shop(&mariadb.url(""), "").start();
    until_following(&server, "shop");
    mariadb.kill();
    until_state(&server, "shop", "reconnecting");
    mariadb.start_again();
    mariadb.sql("shop", "INSERT INTO users VALUES (2, 'Grace', 1)");
    until_equal(&server, &mariadb);
    assert!(status(&server, "shop")["counters"]["reconnects"].as_u64() >= Some(1));
}
