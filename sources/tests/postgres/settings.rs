//! Servers, databases and roles that are set up in ways that would get in the way.

use std::time::{Duration, Instant};

use cdc_sources::postgres::{Feed, Options};
use cdc_sources::{Feed as _, Remedy, TableState};
use cdc_test_servers::Postgres;

use crate::model::{Model, PATIENCE, open, options, until_now, wait};

#[test]
fn timeouts_and_formats_of_a_role_or_a_database_are_not_ours() {
    for version in Postgres::available_versions() {
        let server = Postgres::start_version(version);
        server.psql(
            "postgres",
            "CREATE TABLE orders (id int PRIMARY KEY, at timestamptz, took interval, data bytea, part float8); \
             INSERT INTO orders VALUES (1, '2024-01-02 03:04:05+00', '1 day 2 hours', '\\xdead', 0.1); \
             ALTER DATABASE postgres SET idle_session_timeout = 300; ALTER ROLE postgres SET statement_timeout = 300; \
             ALTER ROLE postgres SET lock_timeout = 300; ALTER DATABASE postgres SET TimeZone = 'Asia/Tokyo'; \
             ALTER ROLE postgres SET idle_in_transaction_session_timeout = 300; \
             ALTER ROLE postgres SET DateStyle = 'German'; ALTER ROLE postgres SET IntervalStyle = 'sql_standard'; \
             ALTER ROLE postgres SET bytea_output = 'escape'; ALTER ROLE postgres SET extra_float_digits = 0; \
             ALTER ROLE postgres SET client_encoding = 'LATIN1'",
        );
        if version >= 17 {
            server.psql("postgres", "ALTER ROLE postgres SET transaction_timeout = 300");
        }
        wait(async {
            let mut model = Model::default();
            // Connections that do nothing.
            let slow = Duration::from_secs(600);
            let options = Options { status_interval: slow, catalog_interval: slow, ..options(&server, "postgres") };
            let mut feed = open(&options, &model).await.unwrap();
            let deadline = Instant::now() + PATIENCE;
            let old = "SELECT count(*) >= 3 AND bool_and(now() - backend_start > '1 s') FROM pg_stat_activity \
                WHERE application_name = 'cdc'";
            while server.psql("postgres", old) != "t" {
                assert!(Instant::now() < deadline, "its connections live on");
                if let Ok(portion) = tokio::time::timeout(Duration::from_millis(50), feed.next()).await {
                    model.apply(&portion.unwrap());
                }
            }
            server.psql("postgres", "INSERT INTO orders SELECT 2, at, took, data, part FROM orders");
            let deadline = Instant::now() + PATIENCE;
            while model.rows("public.orders").len() < 2 {
                assert!(Instant::now() < deadline);
                model.apply(&feed.next().await.unwrap());
            }
            for row in model.rows("public.orders") {
                assert_eq!(row["at"], "2024-01-02T03:04:05Z");
                assert_eq!((row["took"].as_str(), row["data"].as_str()), (Some("P1DT2H"), Some("3q0=")));
            }
        });
    }
}

/// The code and the message of what stops the table `bad`, or the feed.
async fn complaint(feed: &mut Feed, model: &mut Model) -> (String, String) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        assert!(Instant::now() < deadline, "it is said in time");
        match tokio::time::timeout(Duration::from_millis(50), feed.next()).await {
            Ok(Ok(portion)) => model.apply(&portion),
            Ok(Err(error)) => {
                assert_eq!(error.remedy, Remedy::Stop);
                return (error.code.to_owned(), error.message);
            }
            Err(_) => {}
        }
        let stopped = |table: &&cdc_sources::TableProgress| table.state == TableState::Stopped;
        if let Some(reason) = feed.progress().tables.iter().find(stopped).and_then(|table| table.reason.clone()) {
            return (reason.code, reason.message);
        }
    }
}

/// The UPDATE that a message tells.
fn remedy(message: &str) -> &str {
    let from = message.find("UPDATE ").unwrap();
    &message[from..message.find(", and let").unwrap()]
}

#[test]
fn a_text_of_any_bytes_is_named_with_what_mends_it() {
    let server = Postgres::start();
    server
        .psql("postgres", "CREATE DATABASE bytes ENCODING 'SQL_ASCII' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'");
    server.psql(
        "bytes",
        "CREATE TABLE bad (id int PRIMARY KEY, note text); INSERT INTO bad VALUES (1, 'fine'), \
         (7, convert_from('\\x636166e9', 'SQL_ASCII')), (8, 'a\\b')",
    );
    wait(async {
        let options = options(&server, "bytes");
        let mut model = Model::default();
        // Where it is read.
        let mut feed = open(&options, &model).await.unwrap();
        let (code, message) = complaint(&mut feed, &mut model).await;
        assert_eq!(code, "encoding");
        assert!(message.contains("`note` of public.bad") && message.contains("id = 7"), "{message}");
        drop(feed);
        server.psql("bytes", remedy(&message));
        let mut feed = open(&Options { repair: true, ..options.clone() }, &model).await.unwrap();
        until_now(&mut feed, &mut model, &server, "bytes").await;
        assert_eq!(model.rows("public.bad")[1]["note"], "café");
        assert_eq!(model.rows("public.bad")[2]["note"], "a\\b");
        // Where the log tells it.
        server.psql("bytes", "UPDATE bad SET note = convert_from('\\xff', 'SQL_ASCII') WHERE id = 1");
        let (code, message) = complaint(&mut feed, &mut model).await;
        assert_eq!(code, "encoding");
        assert!(message.contains("id = 1"), "{message}");
        server.psql("bytes", remedy(&message));
    });
}

#[test]
fn a_slot_that_nobody_followed_for_too_long_is_lost_for_that_reason() {
    let Some(version) = Postgres::available_versions().into_iter().find(|version| *version >= 18) else { return };
    let server = Postgres::with_version(version, &[("idle_replication_slot_timeout", "1s")]);
    server.psql("postgres", "CREATE TABLE orders (id int PRIMARY KEY)");
    wait(async {
        let options = options(&server, "postgres");
        let mut model = Model::default();
        let mut feed = open(&options, &model).await.unwrap();
        until_now(&mut feed, &mut model, &server, "postgres").await;
        drop(feed);
        let deadline = Instant::now() + PATIENCE;
        let why = "CHECKPOINT; SELECT invalidation_reason FROM pg_replication_slots";
        while server.psql("postgres", why) != "idle_timeout" {
            assert!(Instant::now() < deadline, "the server gives it up in time");
        }
        let error = open(&options, &model).await.expect_err("the slot is lost");
        assert_eq!((error.remedy, error.code), (Remedy::Repair, "slot-lost"));
        assert!(error.message.contains("ALTER SYSTEM SET idle_replication_slot_timeout = 0"), "{error}");
        assert!(!error.message.contains("max_slot_wal_keep_size"), "{error}");
    });
}
