//! Rows that change without row events: by foreign keys, and by statements that are logged instead.

use cdc_sources::mysql::{Options, check};
use cdc_sources::{Feed as _, Reason, Rules, TableOrders, TableState};
use cdc_test_servers::MariaDb;

use crate::model::{Run, in_every_way, options, server};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn children_follow_what_foreign_keys_do_to_them() {
    let server = MariaDb::start();
    let setup = "CREATE TABLE p (id INT PRIMARY KEY, u INT UNIQUE, n INT); INSERT INTO p VALUES (1,1,1), (2,2,2), (3,3,3), (4,4,4), (5,5,5);
        CREATE TABLE c (id INT PRIMARY KEY, p INT, FOREIGN KEY (p) REFERENCES p (id) ON DELETE CASCADE ON UPDATE CASCADE);
        CREATE TABLE g (id INT PRIMARY KEY, c INT, FOREIGN KEY (c) REFERENCES c (id) ON DELETE SET NULL);
        CREATE TABLE s (id INT PRIMARY KEY, u INT, FOREIGN KEY (u) REFERENCES p (u) ON DELETE SET NULL ON UPDATE CASCADE);
        CREATE TABLE tree (id INT PRIMARY KEY, up INT, FOREIGN KEY (up) REFERENCES tree (id) ON DELETE CASCADE);
        INSERT INTO c VALUES (10,1), (20,2), (30,3), (40,4), (50,5); INSERT INTO g SELECT id * 10, id FROM c;
        INSERT INTO s SELECT id, id FROM p; INSERT INTO tree VALUES (1, NULL), (2, 1), (3, 2), (4, NULL)";
    let steps = [
        "DELETE FROM p WHERE id = 1",
        "UPDATE p SET id = 22 WHERE id = 2",
        "UPDATE p SET u = 33 WHERE id = 3",
        "REPLACE INTO p VALUES (4, 4, 44)",
        "DELETE FROM tree WHERE id = 1",
        "BEGIN; DELETE FROM p WHERE id = 3; INSERT INTO p VALUES (6, 6, 6); INSERT INTO c VALUES (60, 6); COMMIT",
        "XA START 'x'; DELETE FROM p WHERE id = 6; XA END 'x'; XA PREPARE 'x'; XA COMMIT 'x'",
        "DELETE FROM p WHERE id = 5; SET FOREIGN_KEY_CHECKS = 0; DELETE FROM p",
    ];
    let standings = in_every_way(&server, setup, &steps).await;
    assert!(standings.iter().all(Vec::is_empty), "{standings:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn children_of_tables_with_system_versioning_follow_deletions_that_are_logged_as_updates() {
    let server = MariaDb::start();
    let setup = "CREATE TABLE p (id INT PRIMARY KEY, n INT) WITH SYSTEM VERSIONING; INSERT INTO p VALUES (1,1), (2,2), (3,3), (4,4);
        CREATE TABLE named (id INT PRIMARY KEY, s TIMESTAMP(6) AS ROW START, e TIMESTAMP(6) AS ROW END,
            PERIOD FOR SYSTEM_TIME (s, e)) WITH SYSTEM VERSIONING; INSERT INTO named (id) VALUES (1), (2), (3);
        CREATE TABLE c (id INT PRIMARY KEY, p INT, FOREIGN KEY (p) REFERENCES p (id) ON DELETE CASCADE);
        CREATE TABLE n (id INT PRIMARY KEY, p INT, FOREIGN KEY (p) REFERENCES named (id) ON DELETE SET NULL ON UPDATE CASCADE);
        INSERT INTO c SELECT id * 10, id FROM p; INSERT INTO n SELECT id * 10, id FROM named";
    let steps = [
        "DELETE FROM p WHERE id = 1",
        "UPDATE p SET n = 5",
        "REPLACE INTO p VALUES (2, 22)",
        "DELETE FROM named WHERE id = 1",
        "UPDATE named SET id = 33 WHERE id = 3",
        "ALTER TABLE named RENAME COLUMN s TO e2, RENAME COLUMN e TO s; DELETE FROM named WHERE id = 2",
        "ALTER TABLE p DROP SYSTEM VERSIONING; DELETE FROM p WHERE id = 3",
    ];
    let standings = in_every_way(&server, setup, &steps).await;
    assert!(standings.iter().all(Vec::is_empty), "{standings:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_what_a_foreign_key_may_change_is_read_anew_and_a_flood_of_it_ends() {
    let server = server(
        "CREATE TABLE p (id INT PRIMARY KEY, n INT); INSERT INTO p SELECT seq, seq FROM seq_1_to_2000;
         CREATE TABLE c (id INT PRIMARY KEY, p INT, FOREIGN KEY (p) REFERENCES p (id) ON DELETE CASCADE ON UPDATE CASCADE);
         INSERT INTO c SELECT id, id FROM p;
         CREATE TABLE r (id INT PRIMARY KEY, p INT, FOREIGN KEY (p) REFERENCES p (id)); INSERT INTO r VALUES (1, 2000)",
    );
    let options = Options { chunk_rows: 100, ..options(&server) };
    let found = check(&options).await;
    let cascades: Vec<&str> = found.iter().filter(|f| f.code == "cascade").map(|f| f.message.as_str()).collect();
    assert_eq!(cascades.len(), 1, "{found:?}");
    assert!(cascades[0].contains("c_ibfk_1") && cascades[0].contains("d.p"), "{cascades:?}");

    let mut run = Run::open(&options).await;
    run.settle(&server, "d").await;
    server.sql("d", "UPDATE p SET n = n + 1; INSERT INTO p VALUES (5000, 1); DELETE FROM r WHERE id = 7");
    run.settle(&server, "d").await;
    assert_eq!(run.model.began.iter().filter(|name| *name == "d.c").count(), 1, "nothing referred to has changed");
    let deletes: String = (1..=1000).map(|id| format!("DELETE FROM p WHERE id = {id};\n")).collect();
    server.sql("d", &deletes);
    run.settle(&server, "d").await;
    run.assert_true(&server, &options).await;
    let read = run.model.began.iter().filter(|name| *name == "d.c").count();
    assert!(read > 1 && read < 100, "{read}");
    assert_eq!(run.model.began.len(), run.model.done.len(), "every reading has ended");
    assert_eq!(run.model.began.iter().filter(|name| *name == "d.r").count(), 1);
    // The parent need not be captured.
    let children =
        Options { rules: Rules { include: vec!["d.c".into(), "d.mark".into()], ..Rules::default() }, ..options };
    let mut run = Run::open(&children).await;
    run.settle(&server, "d").await;
    server.sql("d", "DELETE FROM p WHERE id BETWEEN 1500 AND 1510");
    run.settle(&server, "d").await;
    run.assert_true(&server, &children).await;
    server.sql("d", "ALTER TABLE p ADD SYSTEM VERSIONING; DELETE FROM p WHERE id BETWEEN 1511 AND 1520");
    run.settle(&server, "d").await;
    run.assert_true(&server, &children).await;
    // While it is read anew, it says why.
    server.sql("d", "DELETE FROM p WHERE id = 1600");
    let mut shown = None;
    for _ in 0..1000 {
        let tables = run.feed.progress().tables;
        shown = tables.into_iter().find(|table| table.state == TableState::Rereading);
        if shown.is_some() {
            break;
        }
        let _ = tokio::time::timeout(std::time::Duration::from_millis(2), run.next()).await;
    }
    let shown = shown.expect("a table that is read anew");
    assert_eq!((shown.table.as_str(), shown.reason.unwrap().code.as_str()), ("d.c", "cascade"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_statement_in_the_log_stops_the_tables_that_it_writes_and_no_others() {
    let server = server(
        "CREATE TABLE o (id INT PRIMARY KEY, v INT); INSERT INTO o VALUES (1, 1); CREATE TABLE value (id INT PRIMARY KEY);
         CREATE TABLE a (id INT PRIMARY KEY); CREATE TABLE l (id INT PRIMARY KEY);",
    );
    server.sql(
        "",
        "CREATE DATABASE percona; CREATE TABLE percona.checksums (tbl CHAR(64) PRIMARY KEY, crc CHAR(40));
         CREATE TABLE percona.hb (id INT PRIMARY KEY, value INT); CREATE TABLE percona.told (id INT PRIMARY KEY);
         CREATE TRIGGER percona.x AFTER INSERT ON percona.told FOR EACH ROW INSERT INTO d.l VALUES (NEW.id)",
    );
    let options = options(&server);
    let mut run = Run::open(&options).await;
    run.settle(&server, "d").await;
    let statement = "SET SESSION binlog_format = 'STATEMENT';";
    server.sql(
        "percona",
        &format!(
            "{statement} REPLACE INTO checksums (tbl, crc) SELECT 'o', BIT_XOR(CRC32(CONCAT_WS('#', id, v))) FROM d.o"
        ),
    );
    server.sql("percona", &format!("{statement} INSERT INTO hb (id, value) VALUES (1, 1); UPDATE hb SET value = 2"));
    server.sql("d", "INSERT INTO o VALUES (2, 2)");
    run.settle(&server, "d").await;
    assert_eq!(run.standing(), []);
    run.assert_true(&server, &options).await;

    server.sql("d", &format!("{statement} UPDATE o SET v = v + 1 WHERE id = 1; INSERT INTO percona.told VALUES (3)"));
    server.sql("d", "INSERT INTO a VALUES (1); INSERT INTO o VALUES (3, 3)");
    run.settle(&server, "d").await;
    let stopped = |table: &str| (table.to_owned(), TableState::Stopped, "row-format".to_owned());
    assert_eq!(run.standing(), [stopped("d.l"), stopped("d.o")]);
    run.assert_true(&server, &options).await;
    let reason =
        run.feed.progress().tables.into_iter().find(|table| table.table == "d.o").and_then(|table| table.reason);
    let reason = reason.unwrap().message;
    assert!(reason.contains("UPDATE o SET v = v + 1") && reason.contains("binlog_format"), "{reason}");
    // It stays so over a restart, and what was said to be done works.
    let mut run = run.crash(&options).await;
    run.settle(&server, "d").await;
    assert_eq!(run.standing().len(), 2);
    let reread = ["d.o", "d.l"].map(|table| (table.to_owned(), Reason::new("asked", "somebody asked for it")));
    let orders = TableOrders { reread: reread.into(), ..TableOrders::default() };
    let mut run = run.crash(&Options { orders, ..options.clone() }).await;
    run.settle(&server, "d").await;
    assert_eq!(run.standing(), []);
    run.assert_true(&server, &options).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_logs_parts_of_rows_has_its_tables_read_anew() {
    let server = MariaDb::start();
    let setup = "CREATE TABLE t (id INT PRIMARY KEY, v INT DEFAULT 7)";
    let steps = ["SET SESSION binlog_row_image = 'MINIMAL'; INSERT INTO t (id) VALUES (5); DELETE FROM t WHERE id = 9"];
    in_every_way(&server, setup, &steps).await;
}
