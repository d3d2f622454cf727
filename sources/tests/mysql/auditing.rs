//! Tables compared with the database while they are followed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use cdc_sources::mysql::{Feed, Options};
use cdc_sources::{AuditPace, AuditScope, Feed as _, TableState};

use crate::auditor::{Auditor, Difference};
use crate::model::{options, server};
use crate::reading::load;

const FAST: AuditPace = AuditPace { rows_per_second: 1_000_000, statement_ms_max: 5_000 };

async fn following(options: &Options) -> (Feed, Auditor) {
    let mut feed = Feed::open(options.clone(), None).await.expect("a feed that opens");
    let mut auditor = Auditor::default();
    let follows = |feed: &Feed| {
        let tables = feed.progress().tables;
        !tables.is_empty() && tables.iter().all(|table| table.state == TableState::Following)
    };
    while !follows(&feed) {
        auditor.settle(&mut feed).await;
    }
    (feed, auditor)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_value_is_equal_as_it_was_read_and_as_the_log_told_it() {
    let server = server(include_str!("types.sql"));
    let (mut feed, mut auditor) = following(&options(&server)).await;
    assert_eq!(auditor.audit(&mut feed, "d.types", AuditScope::Sums, FAST).await, Ok(Vec::new()));
    server.sql("d", "UPDATE types SET id = id + 100");
    auditor.settle(&mut feed).await;
    assert_eq!(auditor.audit(&mut feed, "d.types", AuditScope::Images, FAST).await, Ok(Vec::new()));
    let rows: usize = auditor.pieces.iter().map(|(rows, _)| rows).sum();
    assert_eq!(rows, 2 * auditor.tables["d.types"].len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_changed_past_the_log_is_found_with_both_images() {
    let server = server(
        "CREATE TABLE t (a VARCHAR(20), b INT, note TEXT, PRIMARY KEY (a, b)); \
         INSERT INTO t SELECT CONCAT('k ', seq % 7), seq, 'as it was' FROM seq_1_to_3000",
    );
    let (mut feed, mut auditor) = following(&options(&server)).await;
    server.sql(
        "d",
        "SET sql_log_bin = 0; UPDATE t SET note = 'past' WHERE b = 10; DELETE FROM t WHERE b = 2000; \
         INSERT INTO t VALUES ('new', 1, NULL)",
    );
    let image = |a: &str, b: u32, note: &str| Some(format!(r#"{{"a":"{a}","b":{b},"note":{note}}}"#));
    let was = r#""as it was""#;
    let of = |a: &str, b: u32, here, there| Difference { key: vec![a.to_owned(), b.to_string()], here, there };
    let expected = [
        of("k 3", 10, image("k 3", 10, was), image("k 3", 10, r#""past""#)),
        of("k 5", 2000, image("k 5", 2000, was), None),
        of("new", 1, None, image("new", 1, "null")),
    ];
    let mut found = auditor.audit(&mut feed, "d.t", AuditScope::Sums, FAST).await.unwrap();
    found.sort_by(|a, b| a.key.cmp(&b.key));
    assert_eq!(found, expected);
    assert!(auditor.pieces.len() > 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_is_written_to_while_it_is_compared_has_no_difference() {
    let server = Arc::new(server(
        "CREATE TABLE t (id INT PRIMARY KEY, v VARCHAR(50), n INT NOT NULL);
         INSERT INTO t SELECT seq, CONCAT('row ', seq), 0 FROM seq_0_to_3999;
         CREATE TABLE soon (id INT PRIMARY KEY); CREATE TABLE empty (id INT PRIMARY KEY)",
    ));
    let (mut feed, mut auditor) = following(&options(&server)).await;
    let stop = Arc::new(AtomicBool::new(false));
    let loads: Vec<_> = (0..2)
        .map(|remainder| {
            let (server, stop) = (Arc::clone(&server), Arc::clone(&stop));
            std::thread::spawn(move || load(&server, remainder, &stop))
        })
        .collect();
    let pace = AuditPace { rows_per_second: 2_000, ..FAST };
    for _ in 0..2 {
        assert_eq!(auditor.audit(&mut feed, "d.t", AuditScope::Sums, pace).await, Ok(Vec::new()));
    }
    assert!(auditor.changes > 100, "it was written to: {}", auditor.changes);
    assert!(auditor.pieces.iter().all(|(rows, _)| *rows <= 500), "{:?}", auditor.pieces);
    stop.store(true, Ordering::Relaxed);
    loads.into_iter().for_each(|load| load.join().unwrap());
    let again = Arc::clone(&server);
    auditor.then = Some(Box::new(move || drop(again.sql("d", "TRUNCATE t; INSERT INTO t VALUES (1, 'new', 1)"))));
    assert_eq!(auditor.audit(&mut feed, "d.t", AuditScope::Sums, pace).await, Ok(Vec::new()));
    assert_eq!(auditor.tables["d.t"].len(), 1);
    assert_eq!(auditor.audit(&mut feed, "d.empty", AuditScope::Sums, FAST).await, Ok(Vec::new()));
    server.sql("d", "DROP TABLE soon");
    let called_off = auditor.audit(&mut feed, "d.soon", AuditScope::Sums, FAST).await;
    assert_eq!(called_off.unwrap_err().code, "missing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_somebody_has_locked_is_given_up_after_a_while() {
    let server = Arc::new(server("CREATE TABLE t (id INT PRIMARY KEY); INSERT INTO t VALUES (1)"));
    let (mut feed, mut auditor) = following(&options(&server)).await;
    let again = Arc::clone(&server);
    let holder = std::thread::spawn(move || again.sql("d", "LOCK TABLES t WRITE; SELECT SLEEP(600)"));
    let sleeping = "SELECT id FROM information_schema.processlist WHERE info LIKE 'SELECT SLEEP(600)%'";
    let id = loop {
        let id = server.sql("", sleeping);
        if !id.is_empty() {
            break id;
        }
    };
    let hasty = AuditPace { statement_ms_max: 50, ..FAST };
    let called_off = auditor.audit(&mut feed, "d.t", AuditScope::Sums, hasty).await;
    assert_eq!(called_off.unwrap_err().code, "too-slow");
    server.sql("", &format!("KILL QUERY {}", id.trim()));
    // To be killed is an error to it.
    assert!(holder.join().is_err());
    assert_eq!(auditor.audit(&mut feed, "d.t", AuditScope::Sums, FAST).await, Ok(Vec::new()));
}
