//! PostgreSQL, followed.

use std::sync::atomic::{AtomicBool, Ordering};

use cdc_test_servers::{Postgres, Proxy};
use cdc_tests::harness::{Launch, Server, until};
use serde_json::{Value, json};

use super::{events, shop, status, until_equal, until_following, until_slots_are_free, until_state};

const USERS: &str = "CREATE TABLE users (id bigint PRIMARY KEY, name text, balance numeric(30,2));";

fn shop_with(postgres: &Postgres, lines: &str) -> Launch {
    shop(&postgres.url("postgres"), lines)
}

fn slots(postgres: &Postgres) -> String {
    postgres.psql("postgres", "SELECT slot_name FROM pg_replication_slots")
}

#[test]
fn the_first_five_minutes_need_an_address_and_nothing_else() {
    let postgres = Postgres::start();
    postgres.psql("postgres", &format!("{USERS} INSERT INTO users VALUES (1, 'Ada', 1.10), (2, 'Grace', 2.00);"));
    let server = Launch::new().option("--source", postgres.url("postgres")).start();
    until_following(&server, "postgres");
    until_equal(&server, &postgres, "public.users", &["id"]);

    postgres.psql(
        "postgres",
        "BEGIN; INSERT INTO users VALUES (3, 'Edsger', 9223372036854775.07); \
         UPDATE users SET balance = 5.50 WHERE id = 1; COMMIT; DELETE FROM users WHERE id = 2;",
    );
    let events = until("five events", || Some(events(&server, "public.users")).filter(|events| events.len() == 5));
    let shown: Vec<_> =
        events.iter().map(|event| (event["operation"].clone(), event["metadata"]["snapshot"].clone())).collect();
    let read = (json!("INSERT"), json!(true));
    let expected = [
        read.clone(),
        read,
        (json!("INSERT"), Value::Null),
        (json!("UPDATE"), Value::Null),
        (json!("DELETE"), Value::Null),
    ];
    assert_eq!(shown, expected);
    assert_eq!(
        events[3]["before"]["balance"].to_string(),
        "1.1",
        "what was there before is known without REPLICA IDENTITY FULL"
    );
    assert_eq!(events[4]["before"], json!({"id": 2, "name": "Grace", "balance": 2.0}));
    let metadata = |at: usize, member: &str| events[at]["metadata"][member].clone();
    assert_eq!(metadata(2, "source"), "postgres");
    assert_eq!(metadata(2, "transaction"), metadata(3, "transaction"), "one transaction");
    assert_ne!(metadata(3, "transaction"), metadata(4, "transaction"));
    assert!(metadata(2, "committedAt").as_u64() > Some(1_600_000_000_000));
    let mut positions: Vec<_> = (2..5).map(|at| metadata(at, "position").as_str().unwrap().to_owned()).collect();
    positions.dedup();
    assert_eq!(positions.len(), 3, "each change has a place of its own: {positions:?}");
    // Every digit is kept on the way.
    let text = server.get("/data/public.users/3").expect(200);
    assert!(text.text().contains("9223372036854775.07"), "{}", text.text());

    let listed = server.get("/sources").expect(200).json();
    assert_eq!((&listed["count"], &listed["sources"][0]["kind"]), (&json!(1), &json!("postgres")));
    let metrics = server.get("/metrics").expect(200);
    assert!(metrics.text().contains("cdc_source_state{source=\"postgres\"} 2"), "{}", metrics.text());
    assert!(metrics.text().contains("cdc_source_snapshot_rows_total{source=\"postgres\"} 2"));
    assert!(!server.log().contains(Postgres::PASSWORD), "the password is in the log");
}

#[test]
fn a_captured_table_is_written_in_its_database_only() {
    let postgres = Postgres::start();
    postgres.psql("postgres", &format!("{USERS} INSERT INTO users VALUES (1, 'Ada', 1);"));
    let server = shop_with(&postgres, "").start();
    until_equal(&server, &postgres, "public.users", &["id"]);
    for answer in [
        server.post("/data/public.users", r#"{"id":2,"name":"x"}"#),
        server.put("/data/public.users/1", r#"{"name":"x"}"#),
        server.delete("/data/public.users/1"),
    ] {
        answer.expect_problem(409, "captured-table");
    }
    server.post("/data/notes", r#"{"id":1}"#).expect(200);
}

/// Writes without end, in transactions of several rows, until told to stop.
fn load(postgres: &Postgres, stop: &AtomicBool) {
    let mut next = 1_000;
    while !stop.load(Ordering::Relaxed) {
        let sql = format!(
            "BEGIN; INSERT INTO users SELECT g, 'n' || g, g FROM generate_series({next}, {}) g; \
             UPDATE users SET balance = balance + 1 WHERE id % 7 = {}; \
             DELETE FROM users WHERE id % 11 = {} AND id < {next}; COMMIT;",
            next + 9,
            next % 7,
            next % 11
        );
        postgres.psql("postgres", &sql);
        next += 10;
    }
}

#[test]
fn a_service_that_is_killed_goes_on_without_loss_and_without_repetition() {
    let postgres = Postgres::start();
    postgres
        .psql("postgres", &format!("{USERS} INSERT INTO users SELECT g, 'n' || g, g FROM generate_series(1, 500) g;"));
    let stop = AtomicBool::new(false);
    let server = shop_with(&postgres, "").option("--retention-events", "unlimited").start();
    let server = std::thread::scope(|scope| {
        let mut server = server;
        scope.spawn(|| load(&postgres, &stop));
        // Once while tables are being read, and then while their changes follow.
        for events in [1, 1_000, 3_000] {
            until("events", || (server.current_sequence() >= events).then_some(()));
            server = server.kill().start();
        }
        until("more events", || (server.current_sequence() >= 5_000).then_some(()));
        stop.store(true, Ordering::Relaxed);
        server
    });
    until_equal(&server, &postgres, "public.users", &["id"]);
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
    let launch = server.stop();
    launch.data().verify().expect_success();
}

#[test]
fn a_slot_that_was_dropped_stops_the_source_and_a_repair_brings_the_rows_back() {
    let postgres = Postgres::start();
    postgres
        .psql("postgres", &format!("{USERS} INSERT INTO users SELECT g, 'n' || g, g FROM generate_series(1, 1000) g;"));
    let server = shop_with(&postgres, "").start();
    until_following(&server, "shop");
    until_equal(&server, &postgres, "public.users", &["id"]);
    let launch = server.stop();

    until_slots_are_free(&postgres);
    postgres.psql("postgres", "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots");
    postgres.psql(
        "postgres",
        "DELETE FROM users WHERE id <= 10; UPDATE users SET name = 'changed' WHERE id BETWEEN 11 AND 15; \
         INSERT INTO users VALUES (2001, 'new', 1), (2002, 'new', 1);",
    );
    let server = launch.start();
    let stopped = until_state(&server, "shop", "stopped");
    assert_eq!(stopped["code"], "slot-lost", "{stopped}");
    assert!(stopped["reason"].as_str().unwrap().contains("POST /sources/shop/repair"), "{stopped}");
    assert_eq!(server.get("/data/public.users/1").status, 200, "nothing happens before somebody asks for it");

    server.post("/sources/shop/repair", "").expect(200);
    let following = until_following(&server, "shop");
    until_equal(&server, &postgres, "public.users", &["id"]);
    let repair = &following["lastRepair"];
    let found = ["inserted", "updated", "removed"].map(|member| repair[member].as_u64().unwrap());
    assert_eq!(found, [2, 5, 10], "{repair}");
    // And it follows again.
    postgres.psql("postgres", "UPDATE users SET name = 'after' WHERE id = 2001");
    until_equal(&server, &postgres, "public.users", &["id"]);
    let launch = server.stop();
    launch.data().verify().expect_success();
}

#[test]
fn a_database_that_goes_away_is_reached_again() {
    let postgres = Postgres::start();
    postgres.psql("postgres", &format!("{USERS} INSERT INTO users VALUES (1, 'Ada', 1);"));
    let proxy = Proxy::to(postgres.port());
    let url = postgres.url("postgres").replace(&postgres.port().to_string(), &proxy.port().to_string());
    let server = shop(&url, "").start();
    until_following(&server, "shop");
    proxy.refuse();
    proxy.cut();
    let away = until_state(&server, "shop", "reconnecting");
    assert_eq!(away["code"], "connection", "{away}");
    postgres.psql("postgres", "INSERT INTO users VALUES (2, 'Grace', 1)");
    proxy.pass();
    until_following(&server, "shop");
    until_equal(&server, &postgres, "public.users", &["id"]);
    postgres.kill();
    until_state(&server, "shop", "reconnecting");
    postgres.start_again();
    postgres.psql("postgres", "INSERT INTO users VALUES (3, 'Edsger', 1)");
    until_equal(&server, &postgres, "public.users", &["id"]);
    assert!(status(&server, "shop")["counters"]["reconnects"].as_u64() >= Some(2));
}

fn versions(server: &Server) -> Vec<Vec<String>> {
    let history = server.get("/schema/public.users/history").expect(200).json();
    let names = |version: &Value| {
        let columns = version["columns"].as_array().unwrap().iter();
        columns.map(|column| column["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    history["versions"].as_array().unwrap().iter().map(names).collect()
}

#[test]
fn a_table_that_changes_its_form_is_followed_without_a_stop() {
    let postgres = Postgres::start();
    postgres.psql("postgres", &format!("{USERS} INSERT INTO users VALUES (1, 'Ada', 1);"));
    let server = shop_with(&postgres, "").start();
    until_following(&server, "shop");
    until_equal(&server, &postgres, "public.users", &["id"]);
    for change in [
        "ALTER TABLE users ADD COLUMN email text; INSERT INTO users VALUES (2, 'Grace', 1, 'g@x');",
        "ALTER TABLE users RENAME COLUMN name TO full_name; INSERT INTO users VALUES (3, 'Edsger', 1, 'e@x');",
        "ALTER TABLE users DROP COLUMN balance; INSERT INTO users VALUES (4, 'Barbara', 'b@x');",
    ] {
        postgres.psql("postgres", change);
    }
    until("the last row", || (server.get("/data/public.users/4").status == 200).then_some(()));
    let versions = versions(&server);
    let expected = [
        &["id", "name", "balance"][..],
        &["id", "name", "balance", "email"],
        &["id", "full_name", "balance", "email"],
        &["id", "full_name", "email"],
    ];
    assert_eq!(versions, expected);
    assert_eq!(status(&server, "shop")["counters"]["reconnects"], 0);
    // TRUNCATE is one event, whatever was there.
    postgres.psql("postgres", "TRUNCATE users; INSERT INTO users VALUES (5, 'Radia', 'r@x')");
    until_equal(&server, &postgres, "public.users", &["id"]);
    let events = events(&server, "public.users");
    assert_eq!(events.iter().filter(|event| event["operation"] == "TRUNCATE").count(), 1);
}

#[test]
fn a_table_that_is_added_later_is_read_and_followed() {
    let postgres = Postgres::start();
    postgres.psql("postgres", &format!("{USERS} INSERT INTO users VALUES (1, 'Ada', 1);"));
    let server = shop_with(&postgres, "").start();
    until_following(&server, "shop");
    postgres.psql(
        "postgres",
        "CREATE TABLE orders (user_id bigint, number int, total text, PRIMARY KEY (user_id, number)); \
         INSERT INTO orders SELECT 1, g, 't' || g FROM generate_series(1, 50) g;",
    );
    until_equal(&server, &postgres, "public.orders", &["user_id", "number"]);
    postgres.psql("postgres", "UPDATE orders SET total = 'x' WHERE number = 7; DELETE FROM orders WHERE number = 8");
    until_equal(&server, &postgres, "public.orders", &["user_id", "number"]);
    assert_eq!(server.get("/data/public.orders/1/7").expect(200).json()["total"], "x");
}

#[test]
fn a_paused_source_takes_nothing_and_then_everything() {
    let postgres = Postgres::start();
    postgres.psql("postgres", &format!("{USERS} INSERT INTO users VALUES (1, 'Ada', 1);"));
    let server = shop_with(&postgres, "").start();
    until_following(&server, "shop");
    until_equal(&server, &postgres, "public.users", &["id"]);
    assert_eq!(server.post("/sources/shop/pause", "").expect(200).json()["state"], "paused");
    server.post("/sources/shop/pause", "").expect_problem(409, "wrong-source-state");
    server.post("/sources/shop/repair", "").expect_problem(409, "wrong-source-state");
    server.get("/sources/other").expect_problem(404, "unknown-source");
    until("the walsender to go", || {
        (postgres.psql("postgres", "SELECT count(*) FROM pg_stat_replication") == "0").then_some(())
    });
    postgres.psql("postgres", "INSERT INTO users VALUES (2, 'Grace', 1)");
    let server = server.stop().start();
    assert_eq!(status(&server, "shop")["state"], "paused", "over a restart too");
    assert_eq!(server.get("/data/public.users/2").status, 404);
    until("what is retained to be looked at", || {
        (status(&server, "shop")["retainedBytes"].as_u64() > Some(0)).then_some(())
    });
    server.post("/sources/shop/resume", "").expect(200);
    until_following(&server, "shop");
    until_equal(&server, &postgres, "public.users", &["id"]);
    server.post("/sources/shop/resume", "").expect_problem(409, "wrong-source-state");
}

#[test]
fn a_budget_of_retained_log_can_save_the_database() {
    let postgres = Postgres::with(&[("max_prepared_transactions", "2")]);
    postgres.psql("postgres", &format!("{USERS} INSERT INTO users VALUES (1, 'Ada', 1);"));
    // A transaction that stays open keeps the log from its beginning on, whoever follows it.
    let hold = |id: u32| {
        let open = format!("BEGIN; INSERT INTO users VALUES ({id}, 'open', 1); PREPARE TRANSACTION 'open';");
        let more = "UPDATE users SET name = repeat('x', 1000) WHERE id = 1";
        postgres.psql("postgres", &format!("{open} {more}; {more}; {more};"));
    };
    let server = shop_with(&postgres, "max-retained-bytes = \"1KiB\"\non-max-retained = \"drop-slot\"").start();
    until_following(&server, "shop");
    hold(2);
    let stopped = until_state(&server, "shop", "stopped");
    assert_eq!((&stopped["code"], &stopped["retainedBudget"]), (&json!("slot-lost"), &json!(1024)), "{stopped}");
    assert_eq!(slots(&postgres), "", "the slot is gone");
    // The way back.
    postgres.psql("postgres", "ROLLBACK PREPARED 'open'");
    server.post("/sources/shop/repair", "").expect(200);
    until_following(&server, "shop");
    until_equal(&server, &postgres, "public.users", &["id"]);
    drop(server);

    // By default it is only said.
    let server = shop_with(&postgres, "slot = \"other\"\nmax-retained-bytes = \"1KiB\"").start();
    until_following(&server, "shop");
    hold(3);
    let over =
        until("the budget to be passed", || Some(status(&server, "shop")).filter(|now| now["overBudget"] == true));
    assert_eq!(over["state"], "following", "{over}");
    until("a warning", || server.log().contains("max-retained-bytes").then_some(()));
    until_equal(&server, &postgres, "public.users", &["id"]);
}

#[test]
fn what_is_masked_never_reaches_the_log() {
    let postgres = Postgres::start();
    postgres.psql(
        "postgres",
        "CREATE TABLE people (id int PRIMARY KEY, mail text, note text, secret text); \
         INSERT INTO people VALUES (1, 'ada@plain.example', 'note-in-plain', 'secret-in-plain');",
    );
    let lines = "exclude-columns = [\"public.people.secret\"]\nmask.hash = [\"public.people.mail\"]\n\
                 mask.redact = [\"*.note\"]\nmask.salt = \"${PEPPER}\"\n";
    let server = shop_with(&postgres, lines).variable("PEPPER", "salt").start();
    until("the row", || (server.get("/data/public.people/1").status == 200).then_some(()));
    postgres.psql("postgres", "UPDATE people SET note = 'again-in-plain', secret = 'other-in-plain' WHERE id = 1");
    postgres.psql("postgres", "INSERT INTO people VALUES (2, 'ada@plain.example', NULL, NULL)");
    until("the second row", || (server.get("/data/public.people/2").status == 200).then_some(()));
    let row = server.get("/data/public.people/1").expect(200).json();
    let other = server.get("/data/public.people/2").expect(200).json();
    assert_eq!(row["note"], "[redacted]");
    assert_eq!(row["mail"], other["mail"], "equal values have equal hashes");
    assert_eq!(row["mail"].as_str().map(str::len), Some(64));
    assert!(row.get("secret").is_none() && other["note"].is_null());
    let page = server.get("/events?table=public.people&after=0").expect(200);
    assert!(!page.text().contains("in-plain") && !page.text().contains("plain.example"), "{}", page.text());
    let launch = server.stop();
    for file in launch.data().segments() {
        let bytes = std::fs::read(&file).unwrap();
        let holds = |text: &str| bytes.windows(text.len()).any(|part| part == text.as_bytes());
        assert!(!holds("in-plain") && !holds("plain.example"), "{}", file.display());
    }
}

#[test]
fn what_the_service_cannot_take_stops_its_table_with_the_row_and_the_limit() {
    let postgres = Postgres::start();
    postgres.psql(
        "postgres",
        &format!("{USERS} INSERT INTO users VALUES (1, 'Ada', 1); CREATE TABLE orders (id int PRIMARY KEY);"),
    );
    let limit = |limit: &str| format!("[limits]\nmax-row-bytes = \"{limit}\"\n");
    let server = shop_with(&postgres, &limit("1KiB")).start();
    until_following(&server, "shop");
    postgres.psql(
        "postgres",
        "INSERT INTO users VALUES (7, repeat('x', 2000), 1); INSERT INTO users VALUES (8, 'y', 1); \
         INSERT INTO orders VALUES (1)",
    );
    // The others go on.
    until_equal(&server, &postgres, "public.orders", &["id"]);
    let until_table = |server: &Server, state: &str| {
        until(&format!("users to be {state}"), || {
            let table = server.get("/sources/shop/tables/public.users").expect(200).json();
            (table["state"] == state).then_some(table)
        })
    };
    let stopped = until_table(&server, "stopped");
    assert_eq!(stopped["code"], "row-too-large", "{stopped}");
    let reason = stopped["reason"].as_str().unwrap();
    assert!(reason.contains("row 7 of table public.users") && reason.contains("1024"), "{reason}");
    assert_eq!(server.get("/data/public.users/8").status, 404, "nothing is skipped");
    let status = until_following(&server, "shop");
    assert_eq!(status["stoppedTables"], 1, "{status}");
    let launch = server.stop();
    // With what the reason says, the table is taken up again.
    let file = launch.data().beside("cdc.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace(&limit("1KiB"), &limit("4KiB"))).unwrap();
    let server = launch.start();
    until_table(&server, "stopped");
    server.post("/sources/shop/tables/public.users/reread", "").expect(200);
    until_equal(&server, &postgres, "public.users", &["id"]);
    until_table(&server, "following");
}
