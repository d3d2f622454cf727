//! Slots that somebody made with `two_phase`: transactions are told when they are prepared.

use std::time::{Duration, Instant};

use cdc_sources::postgres::Options;
use cdc_sources::{Feed as _, Remedy};
use cdc_test_servers::Postgres;

use crate::model::{Model, PATIENCE, open, options, until, until_now, wait};

const SETTINGS: &[(&str, &str)] = &[("max_prepared_transactions", "10"), ("logical_decoding_work_mem", "64kB")];

/// Every version that is there whose plugin knows prepared transactions.
fn versions() -> impl Iterator<Item = u32> {
    Postgres::available_versions().into_iter().filter(|version| *version >= 15)
}

/// A server with a table that has a hundred rows, and a slot of somebody else.
fn server(version: u32) -> Postgres {
    let server = Postgres::with_version(version, SETTINGS);
    server.psql(
        "postgres",
        "CREATE TABLE orders (id int PRIMARY KEY, note text); \
         INSERT INTO orders SELECT i, 'old' FROM generate_series(1, 100) i",
    );
    server.psql("postgres", "SELECT pg_create_logical_replication_slot('cdc', 'pgoutput', false, true)");
    server
}

fn changes(model: &Model) -> Vec<&String> {
    model.log.iter().filter(|line| line.contains("public.orders")).collect()
}

#[test]
fn a_prepared_transaction_counts_when_it_is_committed() {
    for version in versions() {
        let server = server(version);
        wait(async {
            let mut model = Model::default();
            let mut feed = open(&options(&server, "postgres"), &model).await.unwrap();
            until_now(&mut feed, &mut model, &server, "postgres").await;
            server.psql(
                "postgres",
                "BEGIN; INSERT INTO orders VALUES (101, 'kept'); UPDATE orders SET note = 'kept' WHERE id = 1; \
                 PREPARE TRANSACTION 'kept';\n\
                 BEGIN; INSERT INTO orders VALUES (102, 'lost'); PREPARE TRANSACTION 'lost';\n\
                 BEGIN; INSERT INTO orders SELECT i, 'large' FROM generate_series(1001, 4000) i; \
                 SAVEPOINT s; INSERT INTO orders SELECT i, 'lost' FROM generate_series(5001, 7000) i; ROLLBACK TO s; \
                 PREPARE TRANSACTION 'large';\n\
                 UPDATE orders SET note = 'between' WHERE id = 2",
            );
            until_now(&mut feed, &mut model, &server, "postgres").await;
            assert_eq!(changes(&model), [r#"Replace public.orders 2 {"id":2,"note":"between"}"#], "{version}");
            assert!(model.equals(&server, "postgres", "public.orders"));
            server.psql("postgres", "ROLLBACK PREPARED 'lost'; COMMIT PREPARED 'large'; COMMIT PREPARED 'kept'");
            until_now(&mut feed, &mut model, &server, "postgres").await;
            assert!(model.equals(&server, "postgres", "public.orders"), "{version}");
            assert_eq!(changes(&model).len(), 1 + 3000 + 2);
            // The slot is given free again.
            server.psql("postgres", "UPDATE orders SET note = 'after' WHERE id = 3");
            until_now(&mut feed, &mut model, &server, "postgres").await;
            assert!(!model.checkpoint.as_ref().unwrap().0.contains("\"prepared\""));
        });
    }
}

#[test]
fn what_was_prepared_before_a_restart_of_either_side_is_there_when_it_is_committed() {
    for version in versions() {
        let server = server(version);
        wait(async {
            let options = Options { portion_changes: 50, ..options(&server, "postgres") };
            let mut model = Model::default();
            let mut feed = open(&options, &model).await.unwrap();
            until_now(&mut feed, &mut model, &server, "postgres").await;
            server.psql(
                "postgres",
                "BEGIN; INSERT INTO orders VALUES (101, 'small'); PREPARE TRANSACTION 'small';\n\
                 BEGIN; INSERT INTO orders SELECT i, 'large' FROM generate_series(1001, 4000) i; \
                 PREPARE TRANSACTION 'large';\n\
                 UPDATE orders SET note = 'between' WHERE id <= 10",
            );
            until_now(&mut feed, &mut model, &server, "postgres").await;
            let between = changes(&model).len();
            // Ours, then the server's; then one that is in the middle of handing out.
            drop(feed);
            feed = open(&options, &model).await.unwrap();
            until_now(&mut feed, &mut model, &server, "postgres").await;
            server.kill();
            server.start_again();
            drop(feed);
            feed = open(&options, &model).await.unwrap();
            until_now(&mut feed, &mut model, &server, "postgres").await;
            assert_eq!(changes(&model).len(), between, "nothing comes twice, and nothing too early");
            server.psql("postgres", "COMMIT PREPARED 'large'");
            until(&mut feed, &mut model, |model| changes(model).len() > between + 200).await;
            drop(feed);
            feed = open(&options, &model).await.unwrap();
            server.psql("postgres", "UPDATE orders SET note = 'after' WHERE id = 2000; COMMIT PREPARED 'small'");
            until_now(&mut feed, &mut model, &server, "postgres").await;
            assert!(model.equals(&server, "postgres", "public.orders"), "{version}");
            assert_eq!(changes(&model).len(), between + 3000 + 1 + 1);
        });
    }
}

#[test]
fn a_relation_that_is_first_described_inside_of_one_is_known_to_others() {
    let server = server(versions().last().unwrap());
    server.psql("postgres", "CREATE TABLE other (id int PRIMARY KEY)");
    wait(async {
        let mut model = Model::default();
        let options = options(&server, "postgres");
        let mut feed = open(&options, &model).await.unwrap();
        until_now(&mut feed, &mut model, &server, "postgres").await;
        server.psql(
            "postgres",
            "BEGIN; INSERT INTO other VALUES (1); INSERT INTO orders VALUES (101, 'b'); PREPARE TRANSACTION 'b';\n\
             INSERT INTO other VALUES (2); UPDATE orders SET note = 'between' WHERE id = 1",
        );
        until_now(&mut feed, &mut model, &server, "postgres").await;
        assert!(model.equals(&server, "postgres", "public.other"));
        server.psql(
            "postgres",
            "COMMIT PREPARED 'b'; ALTER TABLE other ADD n int; INSERT INTO other VALUES (3, 3); UPDATE other SET n = 1",
        );
        until_now(&mut feed, &mut model, &server, "postgres").await;
        assert!(model.equals(&server, "postgres", "public.other"));
        assert!(model.equals(&server, "postgres", "public.orders"));
    });
}

#[test]
fn a_server_shuts_down_while_a_prepared_transaction_is_open() {
    let server = server(versions().last().unwrap());
    wait(async {
        let mut model = Model::default();
        let options = options(&server, "postgres");
        let mut feed = open(&options, &model).await.unwrap();
        until_now(&mut feed, &mut model, &server, "postgres").await;
        server.psql("postgres", "BEGIN; INSERT INTO orders VALUES (101, 'open'); PREPARE TRANSACTION 'open'");
        until_now(&mut feed, &mut model, &server, "postgres").await;
        let took = std::thread::scope(|scope| {
            let stopping = scope.spawn(|| {
                let began = Instant::now();
                server.stop();
                began.elapsed()
            });
            scope.spawn(|| {
                wait(async {
                    let error = loop {
                        match feed.next().await {
                            Ok(portion) => {
                                model.apply(&portion);
                                feed.confirm(&portion.checkpoint);
                            }
                            Err(error) => break error,
                        }
                    };
                    assert_eq!(error.remedy, Remedy::Retry, "{error:?}");
                });
            });
            stopping.join().unwrap()
        });
        assert!(took < Duration::from_secs(20), "it took {took:?}");
        server.start_again();
        let mut feed = open(&options, &model).await.unwrap();
        server.psql("postgres", "COMMIT PREPARED 'open'");
        until_now(&mut feed, &mut model, &server, "postgres").await;
        assert!(model.equals(&server, "postgres", "public.orders"));
    });
}

#[test]
fn what_somebody_else_skipped_is_not_lost_in_silence() {
    let server = server(versions().last().unwrap());
    server.psql("postgres", "BEGIN; INSERT INTO orders VALUES (101, 'skipped'); PREPARE TRANSACTION 'skipped'");
    server.psql("postgres", "SELECT pg_replication_slot_advance('cdc', pg_current_wal_lsn())");
    wait(async {
        let mut model = Model::default();
        let options = options(&server, "postgres");
        let mut feed = open(&options, &model).await.unwrap();
        server.psql("postgres", "COMMIT PREPARED 'skipped'");
        // Reading waited for it.
        until_now(&mut feed, &mut model, &server, "postgres").await;
        assert!(model.equals(&server, "postgres", "public.orders"));

        // The same without reading.
        drop(feed);
        let deadline = Instant::now() + PATIENCE;
        while server.psql("postgres", "SELECT active FROM pg_replication_slots") == "t" {
            assert!(Instant::now() < deadline, "the slot became free in time");
        }
        server.psql("postgres", "BEGIN; INSERT INTO orders VALUES (102, 'skipped'); PREPARE TRANSACTION 'skipped'");
        server.psql("postgres", "SELECT pg_replication_slot_advance('cdc', pg_current_wal_lsn())");
        let fresh = Options { snapshot: false, ..options.clone() };
        let mut feed = open(&fresh, &Model::default()).await.unwrap();
        server.psql("postgres", "COMMIT PREPARED 'skipped'");
        let error = loop {
            match tokio::time::timeout(PATIENCE, feed.next()).await.unwrap() {
                Ok(portion) => feed.confirm(&portion.checkpoint),
                Err(error) => break error,
            }
        };
        assert_eq!((error.remedy, error.code), (Remedy::Repair, "slot-lost"));
        assert!(error.message.contains("`skipped`"), "{}", error.message);
    });
}
