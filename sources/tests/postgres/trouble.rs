//! What goes wrong, and what is said about it.

use std::time::{Duration, Instant};

use cdc_sources::postgres::{Feed, Options, check, drop_slot};
use cdc_sources::{Feed as _, FeedError, Finding, Remedy, Severity};
use cdc_test_servers::Postgres;

use crate::model::{Model, PATIENCE, open, options, until, until_now, wait};

fn orders(server: &Postgres) {
    server.psql(
        "postgres",
        "CREATE TABLE orders (id int PRIMARY KEY, note text); \
         INSERT INTO orders SELECT i, 'old' FROM generate_series(1, 100) i",
    );
}

/// A model that has read everything, and whose feed is closed.
async fn followed(server: &Postgres, options: &Options) -> Model {
    let mut model = Model::default();
    let mut feed = open(options, &model).await.unwrap();
    until_now(&mut feed, &mut model, server, "postgres").await;
    drop(feed);
    let deadline = Instant::now() + PATIENCE;
    while server.psql("postgres", "SELECT active FROM pg_replication_slots").trim() == "t" {
        assert!(Instant::now() < deadline, "the slot became free in time");
    }
    model
}

async fn refused(options: &Options, model: &Model) -> FeedError {
    open(options, model).await.expect_err("it can't be opened")
}

async fn repaired(server: &Postgres, options: &Options, model: &mut Model) {
    let options = Options { repair: true, ..options.clone() };
    let mut feed = open(&options, model).await.unwrap();
    until_now(&mut feed, model, server, "postgres").await;
    until(&mut feed, model, |model| model.equals(server, "postgres", "public.orders")).await;
}

#[test]
fn a_slot_that_was_dropped_is_never_skipped_over_and_a_repair_makes_rows_equal() {
    let server = Postgres::start();
    orders(&server);
    wait(async {
        let options = options(&server, "postgres");
        let mut model = followed(&server, &options).await;
        server.psql("postgres", "SELECT pg_drop_replication_slot('cdc')");
        server.psql("postgres", "DELETE FROM orders WHERE id <= 10; UPDATE orders SET note = 'missed' WHERE id = 11");
        let error = refused(&options, &model).await;
        assert_eq!((error.remedy, error.code), (Remedy::Repair, "slot-lost"));
        assert!(!model.equals(&server, "postgres", "public.orders"));
        repaired(&server, &options, &mut model).await;
    });
}

#[test]
fn a_slot_that_was_advanced_or_made_anew_behind_our_back_is_noticed() {
    let server = Postgres::start();
    orders(&server);
    wait(async {
        let options = options(&server, "postgres");
        let mut model = followed(&server, &options).await;
        server.psql("postgres", "UPDATE orders SET note = 'missed' WHERE id = 11");
        server.psql("postgres", "SELECT pg_replication_slot_advance('cdc', pg_current_wal_lsn())");
        let error = refused(&options, &model).await;
        assert_eq!((error.remedy, error.code), (Remedy::Repair, "slot-lost"));
        server.psql("postgres", "SELECT pg_drop_replication_slot('cdc')");
        server.psql("postgres", "SELECT pg_create_logical_replication_slot('cdc', 'pgoutput')");
        assert_eq!(refused(&options, &model).await.code, "slot-lost");
        repaired(&server, &options, &mut model).await;
    });
}

#[test]
fn a_slot_that_the_server_gave_up_is_noticed() {
    let server =
        Postgres::with(&[("max_slot_wal_keep_size", "1MB"), ("min_wal_size", "32MB"), ("max_wal_size", "32MB")]);
    orders(&server);
    wait(async {
        let options = options(&server, "postgres");
        let mut model = followed(&server, &options).await;
        server.psql(
            "postgres",
            "CREATE TABLE filler (t text); DO $$ BEGIN FOR i IN 1..8 LOOP INSERT INTO filler SELECT repeat('x', 1000) \
             FROM generate_series(1, 20000); COMMIT; END LOOP; END $$; CHECKPOINT; SELECT pg_switch_wal(); CHECKPOINT; \
             DROP TABLE filler; UPDATE orders SET note = 'missed' WHERE id = 11",
        );
        assert_eq!(server.psql("postgres", "SELECT wal_status FROM pg_replication_slots").trim(), "lost");
        let error = refused(&options, &model).await;
        assert_eq!((error.remedy, error.code), (Remedy::Repair, "slot-lost"));
        assert!(error.message.contains("max_slot_wal_keep_size"));
        let findings = check(options.clone()).await;
        assert!(findings.iter().any(|finding| finding.code == "slot" && finding.severity == Severity::Missing));
        repaired(&server, &options, &mut model).await;
    });
}

#[test]
fn another_database_is_not_taken_for_the_one_that_was_followed() {
    let server = Postgres::start();
    orders(&server);
    wait(async {
        let model = followed(&server, &options(&server, "postgres")).await;
        server.psql("postgres", "CREATE DATABASE other");
        server.psql("other", "CREATE TABLE orders (id int PRIMARY KEY, note text)");
        let mut other = options(&server, "other");
        other.slot = "other".into();
        let error = refused(&other, &model).await;
        assert_eq!((error.remedy, error.code), (Remedy::Repair, "another-database"));
        // The slot of another database is somebody else's.
        other.slot = "cdc".into();
        assert_eq!(refused(&other, &Model::default()).await.code, "slot-foreign");
    });
}

#[test]
fn a_server_that_is_killed_and_comes_back_is_followed_without_loss() {
    let server = Postgres::start();
    orders(&server);
    wait(async {
        let options = options(&server, "postgres");
        let mut model = Model::default();
        let mut feed = open(&options, &model).await.unwrap();
        for round in 0..3 {
            server.psql("postgres", &format!("UPDATE orders SET note = '{round}' WHERE id % 3 = 0"));
            let portion = feed.next().await.unwrap();
            model.apply(&portion);
            feed.confirm(&portion.checkpoint);
            server.kill();
            let error = loop {
                match feed.next().await {
                    Ok(portion) => model.apply(&portion),
                    Err(error) => break error,
                }
            };
            assert_eq!(error.remedy, Remedy::Retry, "{error:?}");
            server.start_again();
            feed = open(&options, &model).await.unwrap();
        }
        until_now(&mut feed, &mut model, &server, "postgres").await;
        assert!(model.equals(&server, "postgres", "public.orders"));
    });
}

#[test]
fn a_server_shuts_down_while_it_is_followed() {
    let server = Postgres::start();
    orders(&server);
    wait(async {
        let mut model = Model::default();
        let mut options = options(&server, "postgres");
        // As it is by default: an idle feed hands out nothing for longer than anybody wants to wait.
        options.checkpoint_interval = Duration::from_secs(600);
        let mut feed = open(&options, &model).await.unwrap();
        until_now(&mut feed, &mut model, &server, "postgres").await;
        let stopped = std::thread::scope(|scope| {
            let stopping = scope.spawn(|| {
                let began = Instant::now();
                server.stop();
                began.elapsed()
            });
            wait_beside(&mut feed);
            stopping.join().unwrap()
        });
        assert!(stopped < Duration::from_secs(20), "it took {stopped:?}");
    });
}

/// Takes and confirms until the feed ends, from within a runtime.
fn wait_beside(feed: &mut Feed) {
    std::thread::scope(|scope| {
        scope.spawn(|| {
            wait(async {
                while let Ok(portion) = feed.next().await {
                    feed.confirm(&portion.checkpoint);
                }
            });
        });
    });
}

#[test]
fn the_log_is_given_free_while_only_other_tables_are_written_to() {
    let server = Postgres::start();
    orders(&server);
    server.psql("postgres", "CREATE TABLE noise (id serial PRIMARY KEY, t text)");
    wait(async {
        let mut model = Model::default();
        let mut options = options(&server, "postgres");
        options.rules.exclude = vec!["public.noise".into()];
        let mut feed = open(&options, &model).await.unwrap();
        until_now(&mut feed, &mut model, &server, "postgres").await;
        server.psql("postgres", "INSERT INTO noise (t) SELECT repeat('x', 1000) FROM generate_series(1, 2000)");
        let end = server.psql("postgres", "SELECT pg_current_wal_lsn()");
        let deadline = Instant::now() + PATIENCE;
        let behind = || {
            let sql = format!("SELECT confirmed_flush_lsn < '{}' FROM pg_replication_slots", end.trim());
            server.psql("postgres", &sql).trim() == "t"
        };
        while behind() {
            assert!(Instant::now() < deadline, "the slot was confirmed in time");
            let portion = feed.next().await.unwrap();
            assert!(portion.steps.is_empty());
            model.apply(&portion);
            feed.confirm(&portion.checkpoint);
        }
    });
}

#[test]
fn nothing_is_given_free_before_it_is_confirmed() {
    let server = Postgres::start();
    orders(&server);
    wait(async {
        let model = Model::default();
        let options = options(&server, "postgres");
        let mut feed = open(&options, &model).await.unwrap();
        let sql = "SELECT confirmed_flush_lsn FROM pg_replication_slots";
        let before = server.psql("postgres", sql);
        server.psql("postgres", "UPDATE orders SET note = 'new'");
        let updates = |portion: cdc_sources::Portion| {
            portion.steps.iter().filter(|step| format!("{step:?}").contains("position: Some")).count()
        };
        let mut changes = 0;
        while changes < 100 {
            let next = tokio::time::timeout(PATIENCE, feed.next()).await.expect("the updates come in time");
            changes += updates(next.unwrap());
        }
        let deadline = Instant::now() + PATIENCE;
        while feed.progress().newest.is_none_or(|newest| newest == before.trim()) {
            assert!(Instant::now() < deadline, "the end of the log was looked at in time");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(server.psql("postgres", sql), before);
        let progress = feed.progress();
        assert_eq!(progress.confirmed.as_deref(), Some(before.trim()));
        assert!(progress.retained_bytes.unwrap() > 0 && progress.lag_bytes.unwrap() > 0);
    });
}

#[test]
fn a_role_with_the_least_rights_is_enough() {
    let server = Postgres::start();
    orders(&server);
    server.psql(
        "postgres",
        "CREATE ROLE follower LOGIN REPLICATION PASSWORD 'word'; GRANT USAGE ON SCHEMA public TO follower; \
         REVOKE CREATE ON SCHEMA public FROM PUBLIC; GRANT SELECT ON orders TO follower; \
         CREATE PUBLICATION cdc FOR TABLE orders WITH (publish_via_partition_root = true)",
    );
    wait(async {
        let mut options = options(&server, "postgres");
        options.url = format!("postgres://follower:word@127.0.0.1:{}/postgres?sslmode=disable", server.port());
        let findings = check(options.clone()).await;
        assert!(findings.iter().all(|finding| finding.severity != Severity::Missing), "{findings:#?}");
        let mut model = Model::default();
        let mut feed = open(&options, &model).await.unwrap();
        server.psql("postgres", "UPDATE orders SET note = 'new' WHERE id = 1; DELETE FROM orders WHERE id = 2");
        until(&mut feed, &mut model, |model| {
            model.log.len() == 2 && model.tables.get("public.orders").is_some_and(|table| table.read_done)
        })
        .await;
        assert!(model.equals(&server, "postgres", "public.orders"));
    });
}

fn found<'f>(findings: &'f [Finding], code: &str) -> &'f Finding {
    findings.iter().find(|finding| finding.code == code && finding.severity == Severity::Missing).unwrap_or_else(|| {
        panic!("{code} is not missing in {findings:#?}");
    })
}

#[test]
fn what_is_missing_is_told_with_the_sql_that_helps() {
    let server = Postgres::with(&[("wal_level", "replica"), ("max_replication_slots", "0")]);
    server.psql(
        "postgres",
        "CREATE TABLE orders (id int PRIMARY KEY); CREATE TABLE keyless (id int); \
         CREATE TABLE nothing (id int PRIMARY KEY); ALTER TABLE nothing REPLICA IDENTITY NOTHING; \
         CREATE ROLE poor LOGIN PASSWORD 'word'",
    );
    wait(async {
        let mut options = options(&server, "postgres");
        options.url = format!("postgres://poor:word@127.0.0.1:{}/postgres", server.port());
        let findings = check(options.clone()).await;
        let told = |code: &str| {
            let told = findings.iter().find(|finding| finding.code == code && finding.severity != Severity::Good);
            told.and_then(|finding| finding.remedy.clone()).unwrap_or_else(|| panic!("{code} in {findings:#?}"))
        };
        for (code, remedy) in [
            ("wal-level", "ALTER SYSTEM SET wal_level = 'logical';"),
            ("replication-slots", "ALTER SYSTEM SET max_replication_slots = 2;"),
            ("replication", "ALTER ROLE \"poor\" REPLICATION;"),
            ("publication", "CREATE PUBLICATION \"cdc\" FOR TABLE \"public\".\"orders\""),
            ("no-key", "ALTER TABLE \"public\".\"keyless\" ADD COLUMN cdc_row_id"),
            ("replica-identity", "ALTER TABLE \"public\".\"nothing\" REPLICA IDENTITY DEFAULT;"),
            ("privileges", "GRANT SELECT ON \"public\".\"orders\" TO \"poor\";"),
        ] {
            let remedy_told = told(code);
            assert!(remedy_told.contains(remedy), "{code}: {remedy_told}");
        }
        let error = refused(&options, &Model::default()).await;
        assert_eq!((error.remedy, error.code), (Remedy::Stop, "settings"));
        options.url = format!("postgres://poor:wrong@127.0.0.1:{}/postgres", server.port());
        assert_eq!(found(&check(options.clone()).await, "authentication").remedy, None);
        assert_eq!(refused(&options, &Model::default()).await.code, "authentication");
    });
}

#[test]
fn a_table_without_a_key_is_not_published_and_its_writers_are_left_alone() {
    let server = Postgres::start();
    orders(&server);
    server.psql("postgres", "CREATE TABLE keyless (id int); INSERT INTO keyless VALUES (1)");
    wait(async {
        let options = options(&server, "postgres");
        let mut model = Model::default();
        let mut feed = open(&options, &model).await.unwrap();
        until_now(&mut feed, &mut model, &server, "postgres").await;
        assert!(model.equals(&server, "postgres", "public.orders"));
        let tables = feed.progress().tables;
        let keyless = tables.iter().find(|table| table.table == "public.keyless").unwrap();
        assert_eq!(keyless.state, cdc_sources::TableState::Stopped);
        assert_eq!(keyless.reason.as_ref().unwrap().code, "no-key");
        // PostgreSQL refuses updates of such a table once it is published.
        server.psql("postgres", "UPDATE keyless SET id = 2");
    });
}

#[test]
fn another_key_means_that_the_table_is_read_anew() {
    let server = Postgres::start();
    orders(&server);
    wait(async {
        let mut model = Model::default();
        let mut feed = open(&options(&server, "postgres"), &model).await.unwrap();
        until_now(&mut feed, &mut model, &server, "postgres").await;
        server.psql(
            "postgres",
            "UPDATE orders SET note = 'n' || id; ALTER TABLE orders ALTER note SET NOT NULL, DROP CONSTRAINT orders_pkey; \
             ALTER TABLE orders ADD PRIMARY KEY (note); INSERT INTO orders VALUES (1000, 'last')",
        );
        until_now(&mut feed, &mut model, &server, "postgres").await;
        until(&mut feed, &mut model, |model| {
            model.tables["public.orders"].read_done && model.equals(&server, "postgres", "public.orders")
        })
        .await;
        assert!(model.tables["public.orders"].rows.contains_key(&vec!["n1".to_owned()]));
    });
}

#[test]
fn connections_are_encrypted_and_verified_as_the_mode_says() {
    let server = Postgres::with_tls(&[]);
    orders(&server);
    wait(async {
        let mut model = Model::default();
        let mut feed = open(&options(&server, "postgres"), &model).await.unwrap();
        until_now(&mut feed, &mut model, &server, "postgres").await;
        assert!(model.equals(&server, "postgres", "public.orders"));
        let encrypted = "SELECT bool_and(ssl) FROM pg_stat_ssl s JOIN pg_stat_activity a USING (pid) \
            WHERE application_name = 'cdc'";
        assert_eq!(server.psql("postgres", encrypted).trim(), "t");
        drop(feed);
        let url = |host: &str, mode: &str| {
            let login = format!("{}:{}", Postgres::USER, Postgres::PASSWORD);
            format!("postgres://{login}@{host}:{}/postgres?sslmode={mode}", server.port())
        };
        let ca = format!("&sslrootcert={}", server.ca_file().display());
        let mut options = options(&server, "postgres");
        for (url, works) in [
            (url("127.0.0.1", "require"), true),
            (url("127.0.0.1", "prefer"), true),
            (url("127.0.0.1", "verify-ca") + &ca, true),
            (url("127.0.0.1", "verify-full") + &ca, true),
            // Of no public CA.
            (url("127.0.0.1", "verify-ca"), false),
            (url("127.0.0.1", "verify-full"), false),
            // Another name than the certificate's.
            (url("127.0.0.2", "verify-full") + &ca, false),
            (url("127.0.0.1", "disable"), false),
        ] {
            options.url.clone_from(&url);
            let findings = check(options.clone()).await;
            let failed = findings.iter().find(|finding| finding.severity == Severity::Missing);
            assert_eq!(failed.is_none(), works, "{url}: {failed:?}");
        }
    });
}

#[test]
fn a_slot_that_is_no_longer_wanted_is_dropped() {
    let server = Postgres::start();
    orders(&server);
    wait(async {
        let options = options(&server, "postgres");
        followed(&server, &options).await;
        drop_slot(options.clone()).await.unwrap();
        drop_slot(options).await.unwrap();
        assert_eq!(server.psql("postgres", "SELECT count(*) FROM pg_replication_slots").trim(), "0");
    });
}

#[test]
fn a_heartbeat_is_written_where_one_was_asked_for() {
    let server = Postgres::start();
    orders(&server);
    wait(async {
        let mut options = options(&server, "postgres");
        options.heartbeat_write_interval = Some(Duration::from_millis(50));
        let mut model = Model::default();
        let mut feed = open(&options, &model).await.unwrap();
        until_now(&mut feed, &mut model, &server, "postgres").await;
        let before = model.checkpoint.clone();
        for _ in 0..3 {
            let portion = feed.next().await.unwrap();
            model.apply(&portion);
            feed.confirm(&portion.checkpoint);
        }
        assert_ne!(model.checkpoint, before);
        assert!(model.log.iter().all(|line| line.contains("public.mark")));
    });
}

#[test]
fn a_slot_from_before_its_publication_is_named_with_what_to_do_and_that_works() {
    let server = Postgres::start();
    server.psql(
        "postgres",
        "SELECT pg_create_logical_replication_slot('cdc', 'pgoutput'); CREATE TABLE t (id int PRIMARY KEY)",
    );
    server.psql("postgres", "INSERT INTO t SELECT generate_series(1, 5)");
    wait(async {
        let mut model = Model::default();
        let mut options = options(&server, "postgres");
        let mut feed = open(&options, &model).await.unwrap();
        let error = loop {
            match feed.next().await {
                Ok(portion) => model.apply(&portion),
                Err(error) => break error,
            }
        };
        assert_eq!((error.remedy, error.code), (Remedy::Stop, "publication"), "{error}");
        let advice = "SELECT pg_drop_replication_slot(E'cdc')";
        assert!(error.message.contains(advice), "{error}");
        drop(feed);
        // The server notices a little later that nobody follows the slot any more.
        let deadline = Instant::now() + PATIENCE;
        while server.psql("postgres", "SELECT active FROM pg_replication_slots").trim() != "f" {
            assert!(Instant::now() < deadline, "the slot is not free");
        }
        server.psql("postgres", advice);
        options.repair = true;
        let mut feed = open(&options, &model).await.unwrap();
        until_now(&mut feed, &mut model, &server, "postgres").await;
        assert!(model.equals(&server, "postgres", "public.t"));
    });
}
