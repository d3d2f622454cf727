//! Tables that stop, are held and are taken up again, each alone.

use cdc_sources::mysql::Options;
use cdc_sources::{Feed as _, Hold, Reason, Rules, TableOrders, TableState};
use cdc_test_servers::MariaDb;

use crate::model::{Run, options, server};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_cannot_be_captured_stops_alone_and_is_taken_up_once_it_can() {
    let server =
        server("CREATE TABLE o (id INT PRIMARY KEY); CREATE TABLE first (msg TEXT); INSERT INTO first VALUES ('a')");
    let options = options(&server);
    let mut run = Run::open(&options).await;
    run.settle(&server, "d").await;
    let stopped = |table: &str, code: &str| (table.to_owned(), TableState::Stopped, code.to_owned());
    assert_eq!(run.standing(), [stopped("d.first", "no-key")]);
    server.sql("d", "CREATE TABLE applog (msg TEXT); INSERT INTO applog VALUES ('x'); INSERT INTO o VALUES (1)");
    run.settle(&server, "d").await;
    assert_eq!(run.standing(), [stopped("d.applog", "no-key"), stopped("d.first", "no-key")]);
    assert_eq!(run.rows("d.o").len(), 1);
    server.sql("d", "ALTER TABLE applog ADD id INT AUTO_INCREMENT PRIMARY KEY; INSERT INTO applog (msg) VALUES ('y')");
    run.settle(&server, "d").await;
    assert_eq!(run.standing(), [stopped("d.first", "no-key")]);
    assert_eq!(run.rows("d.applog").len(), 2);
    // One that loses its key keeps its rows until it has another.
    server.sql("d", "ALTER TABLE applog MODIFY id INT NOT NULL, DROP PRIMARY KEY; INSERT INTO applog VALUES ('z', 9)");
    let mut run = run.crash(&options).await;
    run.settle(&server, "d").await;
    assert_eq!(run.standing(), [stopped("d.applog", "no-key"), stopped("d.first", "no-key")]);
    assert_eq!(run.rows("d.applog").len(), 2);
    server.sql("d", "CREATE UNIQUE INDEX u ON applog (id); DROP TABLE first");
    run.settle(&server, "d").await;
    run.assert_true(&server, &options).await;
    assert_eq!((run.standing(), run.rows("d.applog").len()), (Vec::new(), 3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_may_not_be_read_stops_and_keeps_its_rows() {
    let server =
        server("CREATE TABLE t (id INT PRIMARY KEY); INSERT INTO t VALUES (1); CREATE TABLE k (id INT PRIMARY KEY)");
    server.sql(
        "",
        "CREATE TABLE d.mark (id INT PRIMARY KEY, n INT); CREATE USER cdc@'%' IDENTIFIED BY 'p';
         GRANT REPLICATION SLAVE, BINLOG MONITOR ON *.* TO cdc@'%';
         GRANT SELECT ON d.t TO cdc@'%'; GRANT SELECT ON d.k TO cdc@'%'; GRANT SELECT ON d.mark TO cdc@'%'",
    );
    let url = format!("mysql://cdc:p@127.0.0.1:{}", server.port());
    let options = Options { url, ..options(&server) };
    let mut run = Run::open(&options).await;
    run.settle(&server, "d").await;
    server.sql("d", "REVOKE SELECT ON d.t FROM cdc@'%'; ALTER TABLE t ADD c INT; INSERT INTO t VALUES (2, 2); INSERT INTO k VALUES (1)");
    run.settle(&server, "d").await;
    assert_eq!(run.standing(), [("d.t".to_owned(), TableState::Stopped, "privileges".to_owned())]);
    assert_eq!((run.rows("d.t").len(), run.rows("d.k").len()), (1, 1));
    let repairing = Options { repair: true, ..options.clone() };
    let mut run = run.crash(&repairing).await;
    run.settle(&server, "d").await;
    assert_eq!(run.rows("d.t").len(), 1);
    let reason = run.feed.progress().tables.into_iter().find_map(|table| table.reason).unwrap();
    let sql = reason.message.split_once("run ").and_then(|(_, rest)| rest.split_once(", or")).unwrap().0;
    server.sql("", sql);
    // Nobody tells; it is looked at now and then.
    run.until("the table", |model| model.tables["d.t"].len() == 2).await;
    run.settle(&server, "d").await;
    run.assert_true(&server, &options).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_are_held_dropped_and_read_anew_as_somebody_wants() {
    let server = server("CREATE TABLE a (id INT PRIMARY KEY); INSERT INTO a VALUES (1); CREATE TABLE b LIKE a; INSERT INTO b VALUES (1);
        CREATE TABLE c LIKE a; INSERT INTO c VALUES (1)");
    let plain = options(&server);
    let mut run = Run::open(&plain).await;
    run.settle(&server, "d").await;
    let refused = Reason::new("row-too-large", "a row is too large");
    let held = [("d.a", Hold::Paused), ("d.b", Hold::Stopped(refused)), ("d.c", Hold::Dropped)];
    let held = held.map(|(table, hold)| (table.to_owned(), hold)).into();
    let holding = Options { orders: TableOrders { held, ..TableOrders::default() }, ..plain.clone() };
    let mut run = run.crash(&holding).await;
    server.sql("d", "INSERT INTO a VALUES (2); INSERT INTO b VALUES (2); INSERT INTO c VALUES (2); TRUNCATE b; ALTER TABLE a ADD x INT");
    run.settle(&server, "d").await;
    let standing = |table: &str, state, code: &str| (table.to_owned(), state, code.to_owned());
    let expected = [standing("d.a", TableState::Paused, ""), standing("d.b", TableState::Stopped, "row-too-large")];
    assert_eq!(run.standing(), expected);
    assert_eq!((run.rows("d.a").len(), run.rows("d.b").len()), (1, 1));
    assert_eq!(run.model.gone, ["d.c"]);
    let reread = ["d.a", "d.b", "d.c"].map(|table| (table.to_owned(), Reason::new("asked", "somebody asked for it")));
    let orders = TableOrders { reread: reread.into(), ..TableOrders::default() };
    let again = Options { orders, ..plain.clone() };
    let mut run = run.crash(&again).await;
    run.settle(&server, "d").await;
    run.assert_true(&server, &plain).await;
    assert_eq!(run.rows("d.a").len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_that_the_rules_leave_out_go_and_say_so() {
    let server = server(
        "CREATE TABLE a (id INT PRIMARY KEY); INSERT INTO a VALUES (1); CREATE TABLE b LIKE a; INSERT INTO b VALUES (1)",
    );
    let before = options(&server);
    let mut run = Run::open(&before).await;
    run.settle(&server, "d").await;
    let rules = Rules { include: vec!["d.*".into()], exclude: vec!["d.b".into()], ..Rules::default() };
    let after = Options { rules, ..before };
    let mut run = run.crash(&after).await;
    run.settle(&server, "d").await;
    run.assert_true(&server, &after).await;
    assert_eq!(run.model.gone, ["d.b"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_is_read_says_how_large_it_is() {
    let server = MariaDb::start();
    server.sql("", "CREATE DATABASE d; USE d; CREATE TABLE t (id INT PRIMARY KEY); INSERT INTO t SELECT seq FROM seq_1_to_5000; ANALYZE TABLE t");
    let options = Options { chunk_rows: 50, portion_bytes: 1_000, ..options(&server) };
    let mut run = Run::open(&options).await;
    let estimated = loop {
        run.next().await.unwrap();
        if let Some(table) = run.feed.progress().tables.into_iter().find(|table| table.state == TableState::Reading) {
            break table.rows_estimated;
        }
    };
    assert!(estimated.is_some_and(|rows| (2_500..10_000).contains(&rows)), "{estimated:?}");
}
