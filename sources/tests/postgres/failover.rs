//! Standbys: one takes over, one is followed.

use std::time::Instant;

use cdc_sources::postgres::{Feed, Options};
use cdc_sources::{Feed as _, Remedy};
use cdc_test_servers::Postgres;

use crate::model::{Model, PATIENCE, open, options, until, until_now, wait};

const SYNCED: &str =
    "SELECT count(*) FROM pg_replication_slots WHERE synced AND NOT temporary AND invalidation_reason IS NULL";

/// Every version that is there whose standbys bring slots along.
fn versions() -> impl Iterator<Item = u32> {
    Postgres::available_versions().into_iter().filter(|version| *version >= 17)
}

fn primary(version: u32, settings: &[(&str, &str)]) -> Postgres {
    let server = Postgres::with_version(version, settings);
    server.psql(
        "postgres",
        "CREATE TABLE orders (id int PRIMARY KEY, note text); \
         INSERT INTO orders SELECT i, 'old' FROM generate_series(1, 100) i",
    );
    server
}

/// Follows the primary until its standby has the slot too.
async fn synced(primary: &Postgres, standby: &Postgres, feed: &mut Feed, model: &mut Model) {
    let deadline = Instant::now() + PATIENCE * 2;
    while standby.psql("postgres", SYNCED) != "1" {
        assert!(Instant::now() < deadline, "{}", standby.log());
        // The slot moves on.
        until_now(feed, model, primary, "postgres").await;
    }
}

fn followed(server: &Postgres, other: &Options) -> Options {
    Options { url: server.url("postgres"), ..other.clone() }
}

#[test]
fn a_standby_that_takes_over_with_the_slot_is_followed_without_a_repair() {
    for version in versions() {
        let primary = primary(version, &[("synchronized_standby_slots", "standby")]);
        let standby = primary.standby(&[("sync_replication_slots", "on")]);
        wait(async {
            let mut model = Model::default();
            let before = options(&primary, "postgres");
            let mut feed = open(&before, &model).await.unwrap();
            synced(&primary, &standby, &mut feed, &mut model).await;
            primary
                .psql("postgres", "UPDATE orders SET note = 'before' WHERE id <= 50; DELETE FROM orders WHERE id = 51");
            until(&mut feed, &mut model, |model| model.log.iter().any(|line| line == "Remove public.orders 51 ")).await;
            drop(feed);
            primary.kill();
            // Too early: it is no primary yet.
            let after = followed(&standby, &before);
            let error = Feed::open(after.clone(), model.checkpoint.as_ref()).await.expect_err("it is a standby");
            assert_eq!((error.remedy, error.code), (Remedy::Retry, "standby"));
            standby.promote();
            let mut feed = Feed::open(after.clone(), model.checkpoint.as_ref()).await.unwrap();
            standby.psql("postgres", "UPDATE orders SET note = 'after' WHERE id >= 50");
            until_now(&mut feed, &mut model, &standby, "postgres").await;
            assert!(model.equals(&standby, "postgres", "public.orders"), "{version}");
            let changes = model.log.iter().filter(|line| line.contains("public.orders")).count();
            assert_eq!(changes, 50 + 1 + 50, "nothing came twice");
            // And from there on it is the only one.
            drop(feed);
            let mut feed = open(&after, &model).await.unwrap();
            until_now(&mut feed, &mut model, &standby, "postgres").await;
        });
    }
}

#[test]
fn a_standby_without_the_slot_needs_a_repair() {
    let primary = primary(Postgres::available_versions().into_iter().max().unwrap(), &[]);
    let standby = primary.standby(&[]);
    wait(async {
        let mut model = Model::default();
        let before = options(&primary, "postgres");
        let mut feed = open(&before, &model).await.unwrap();
        until_now(&mut feed, &mut model, &primary, "postgres").await;
        drop(feed);
        primary.kill();
        standby.promote();
        let after = followed(&standby, &before);
        let error = open(&after, &model).await.expect_err("the slot is not there");
        assert_eq!((error.remedy, error.code), (Remedy::Repair, "another-database"), "{error}");
        standby.psql("postgres", "UPDATE orders SET note = 'after' WHERE id = 1");
        let mut feed = open(&Options { repair: true, ..after }, &model).await.unwrap();
        until_now(&mut feed, &mut model, &standby, "postgres").await;
        until(&mut feed, &mut model, |model| model.equals(&standby, "postgres", "public.orders")).await;
    });
}

#[test]
fn what_the_standby_never_had_needs_a_repair() {
    let Some(version) = versions().last() else { return };
    let primary = primary(version, &[]);
    let standby = primary.standby(&[("sync_replication_slots", "on")]);
    wait(async {
        let mut model = Model::default();
        let before = options(&primary, "postgres");
        let mut feed = open(&before, &model).await.unwrap();
        synced(&primary, &standby, &mut feed, &mut model).await;
        standby.kill();
        primary.psql("postgres", "UPDATE orders SET note = 'lost'");
        until_now(&mut feed, &mut model, &primary, "postgres").await;
        drop(feed);
        primary.kill();
        standby.start_again();
        standby.promote();
        let after = followed(&standby, &before);
        let error = open(&after, &model).await.expect_err("what we have is lost there");
        assert_eq!((error.remedy, error.code), (Remedy::Repair, "another-database"), "{error}");
        assert!(error.message.contains("synchronized_standby_slots"), "{error}");
        model.forget_positions();
        let mut feed = open(&Options { repair: true, ..after }, &model).await.unwrap();
        until_now(&mut feed, &mut model, &standby, "postgres").await;
        until(&mut feed, &mut model, |model| model.equals(&standby, "postgres", "public.orders")).await;
    });
}

/// A source at a standby, opened while its primary says which transactions are open, for which a new slot waits.
async fn open_at(standby: &Postgres, primary: &Postgres, options: &Options, model: &Model) -> Feed {
    assert!(standby.psql("postgres", "SELECT pg_is_in_recovery()") == "t");
    std::thread::scope(|scope| {
        let opening = scope.spawn(|| wait(open(options, model)));
        let deadline = Instant::now() + PATIENCE;
        while !opening.is_finished() {
            assert!(Instant::now() < deadline, "{}", standby.log());
            primary.psql("postgres", "SELECT pg_log_standby_snapshot()");
        }
        opening.join().unwrap().unwrap()
    })
}

#[test]
fn a_standby_is_followed_and_read_while_its_primary_is_written_to() {
    for version in Postgres::available_versions().into_iter().filter(|version| *version >= 16) {
        let primary = primary(version, &[]);
        let standby = primary.standby(&[]);
        wait(async {
            let mut options = options(&standby, "postgres");
            options.read_chunk_rows = 50;
            let error = open(&options, &Model::default()).await.expect_err("there is no publication");
            assert_eq!(error.code, "publication");
            let sql = &error.message[error.message.find("CREATE PUBLICATION").unwrap()..];
            primary.psql("postgres", sql);
            primary.psql(
                "postgres",
                "DROP PUBLICATION cdc; CREATE PUBLICATION cdc FOR ALL TABLES; \
                 INSERT INTO orders SELECT i, 'old' FROM generate_series(101, 3000) i",
            );
            let mut model = Model::default();
            let mut feed = open_at(&standby, &primary, &options, &model).await;
            std::thread::scope(|scope| {
                let writing = scope.spawn(|| {
                    for round in 0..40 {
                        primary.psql(
                            "postgres",
                            &format!(
                                "BEGIN; UPDATE orders SET note = 'a{round}' WHERE id % 40 = {round}; \
                                 DELETE FROM orders WHERE id % 100 = {round}; COMMIT; \
                                 INSERT INTO orders VALUES (10000 + {round}, 'new'); \
                                 UPDATE orders SET id = id + 20000 WHERE id % 211 = {round}"
                            ),
                        );
                    }
                });
                wait_for(&mut feed, &mut model, || writing.is_finished());
                writing.join().unwrap();
            });
            until_now(&mut feed, &mut model, &primary, "postgres").await;
            assert!(model.tables["public.orders"].read_done);
            assert!(model.equals(&primary, "postgres", "public.orders"), "{version}");
            // It takes over.
            drop(feed);
            primary.kill();
            standby.promote();
            let mut feed = open(&options, &model).await.unwrap();
            standby.psql("postgres", "UPDATE orders SET note = 'after' WHERE id < 1000");
            until_now(&mut feed, &mut model, &standby, "postgres").await;
            assert!(model.equals(&standby, "postgres", "public.orders"), "{version}");
        });
    }
}

/// Applies what comes until something else is done, from within a runtime.
fn wait_for(feed: &mut Feed, model: &mut Model, done: impl Fn() -> bool + Send + Sync) {
    std::thread::scope(|scope| {
        scope.spawn(|| {
            wait(async {
                while !done() {
                    let next = tokio::time::timeout(std::time::Duration::from_millis(50), feed.next()).await;
                    if let Ok(portion) = next {
                        let portion = portion.unwrap();
                        model.apply(&portion);
                        feed.confirm(&portion.checkpoint);
                    }
                }
            });
        });
    });
}
