//! Tables without a key that are captured as rows that are only ever inserted.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use cdc_sources::mysql::{Options, check};
use cdc_sources::{Feed as _, Reason, Rules, Severity, TableState};
use cdc_test_servers::MariaDb;

use crate::model::{Run, comparable, in_every_way, options, present, server};

fn appending(server: &MariaDb) -> Options {
    let rules = Rules { include: vec!["d.*".into()], append_only: vec!["d.audit*".into()], ..Rules::default() };
    Options { rules, ..options(server) }
}

/// Rows that are alike, several in a transaction, some taken back, and now and then none any more.
fn load(server: &MariaDb, kind: u64, stop: &AtomicBool) {
    let mut round = 0;
    while !stop.load(Ordering::Relaxed) {
        round += 1;
        let mut sql = String::new();
        for turn in 0..15 {
            sql.push_str(&match (round * 15 + turn) % 7 {
                0 => format!("BEGIN; INSERT INTO audit VALUES ({kind}, 'not'); ROLLBACK;\n"),
                1 => format!("INSERT INTO audit SELECT {kind}, REPEAT('m', 300) FROM seq_1_to_9;\n"),
                2 => format!(
                    "BEGIN; INSERT INTO audit VALUES ({kind}, 'a'); SAVEPOINT s; INSERT INTO audit VALUES (1, 's'); \
                     ROLLBACK TO s; INSERT INTO audit VALUES ({kind}, NULL); COMMIT;\n"
                ),
                _ => format!("INSERT INTO audit VALUES ({kind}, 'one'), ({kind}, 'one');\n"),
            });
        }
        if round % 8 == 0 && kind == 0 {
            sql.push_str("TRUNCATE audit;\n");
        }
        server.sql("d", &sql);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_row_comes_once_however_often_the_feed_is_left_while_rows_are_inserted() {
    let server = Arc::new(server(
        "CREATE TABLE audit (kind INT, what VARCHAR(400));
         INSERT INTO audit SELECT seq % 5, 'old' FROM seq_1_to_30000;
         CREATE TABLE last (id INT PRIMARY KEY)",
    ));
    let options = Options { portion_bytes: 20_000, chunk_rows: 500, ..appending(&server) };
    let stop = Arc::new(AtomicBool::new(false));
    let loads: Vec<_> = (0..2)
        .map(|kind| {
            let (server, stop) = (Arc::clone(&server), Arc::clone(&stop));
            std::thread::spawn(move || load(&server, kind, &stop))
        })
        .collect();
    let mut run = Run::open(&options).await;
    let (mut restarts, mut follows) = (0, 0);
    for round in 0_u32.. {
        if let Err(error) = run.next().await {
            panic!("{error:?}\n{}", server.log());
        }
        let state = run.feed.progress().tables.into_iter().find(|table| table.table == "d.audit");
        follows += u32::from(state.is_some_and(|table| table.state == TableState::Following));
        if follows >= 20 && restarts >= 12 {
            break;
        }
        // Some portions are built but never stored: a crash. Others come when it had begun to follow.
        if (restarts < 12 && round % 11 == 10) || follows == 10 {
            follows += 1;
            let (model, checkpoint) = (run.model.clone(), run.checkpoint.clone());
            let _ = run.feed.next().await;
            drop(run);
            run = Run::resume(&options, model, checkpoint).await;
            restarts += 1;
        }
    }
    stop.store(true, Ordering::Relaxed);
    loads.into_iter().for_each(|load| load.join().unwrap());
    server.sql("d", "INSERT INTO last VALUES (1)");
    run.until("the last row", |model| model.tables.get("d.last").is_some_and(|rows| !rows.is_empty())).await;
    run.until_following().await;
    let rows = comparable(&run.rows("d.audit"));
    assert_eq!(rows.len().to_string(), server.sql("d", "SELECT COUNT(*) FROM audit"), "after {restarts} restarts");
    assert_eq!(rows, comparable(&present(&options).await["d.audit"]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_is_committed_while_the_snapshot_is_taken_comes_once() {
    let server = Arc::new(server(
        "CREATE TABLE audit (n INT); INSERT INTO audit VALUES (0); CREATE TABLE last (id INT PRIMARY KEY)",
    ));
    let options = appending(&server);
    for round in 0..4 {
        let stop = Arc::new(AtomicBool::new(false));
        let loads: Vec<_> = (0..3)
            .map(|kind| {
                let (server, stop) = (Arc::clone(&server), Arc::clone(&stop));
                let insert = format!("INSERT INTO audit VALUES ({kind});\n").repeat(500);
                std::thread::spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        server.sql("d", &insert);
                    }
                })
            })
            .collect();
        let mut run = Run::open(&options).await;
        run.until("its rows", |model| model.done.iter().any(|name| name == "d.audit")).await;
        stop.store(true, Ordering::Relaxed);
        loads.into_iter().for_each(|load| load.join().unwrap());
        server.sql("d", &format!("INSERT INTO last VALUES ({round})"));
        run.until("the last row", |model| model.tables.get("d.last").is_some_and(|rows| rows.len() > round)).await;
        let counts = server.sql("d", "SELECT n, COUNT(*) FROM audit GROUP BY n ORDER BY n");
        let rows = comparable(&run.rows("d.audit"));
        let of = |n: u32| rows.iter().filter(|(_, image)| image.ends_with(&format!(":{n}}}"))).count();
        let here: Vec<String> = (0..3).map(|n| format!("{n}\t{}", of(n))).collect();
        assert_eq!(counts.lines().collect::<Vec<_>>(), here, "in round {round}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_is_changed_or_deleted_stops_its_table_until_it_is_read_anew() {
    let server = server(
        "CREATE TABLE audit (n INT); INSERT INTO audit VALUES (1), (1), (2); CREATE TABLE other (id INT PRIMARY KEY)",
    );
    let mut options = appending(&server);
    let mut run = Run::open(&options).await;
    run.settle(&server, "d").await;
    for (at, change) in ["UPDATE audit SET n = 3 WHERE n = 2", "DELETE FROM audit WHERE n = 1"].into_iter().enumerate()
    {
        let before = run.rows("d.audit");
        server.sql("d", &format!("{change}; INSERT INTO audit VALUES (9); INSERT INTO other VALUES ({at})"));
        run.settle(&server, "d").await;
        assert_eq!(run.standing(), [("d.audit".into(), TableState::Stopped, "rows-changed".into())], "{change}");
        assert_eq!(run.rows("d.audit"), before, "nothing is guessed");
        assert_eq!(run.rows("d.other").len(), at + 1);
        options.orders.reread.insert("d.audit".into(), Reason::new("requested", "somebody asked"));
        run = run.crash(&options).await;
        run.settle(&server, "d").await;
        run.assert_true(&server, &options).await;
        options.orders.reread.clear();
        run = run.crash(&options).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_done_to_the_table_its_rows_are_the_databases() {
    let server = MariaDb::start();
    let standings = in_every_way(
        &server,
        "CREATE TABLE audit (n INT, what TEXT); INSERT INTO audit VALUES (1, 'a'), (1, 'a'), (2, NULL)",
        &[
            "INSERT INTO audit VALUES (1, 'a'); INSERT INTO audit SELECT * FROM audit",
            "ALTER TABLE audit ADD COLUMN x INT DEFAULT 7; INSERT INTO audit VALUES (1, 'a', 8)",
            "ALTER TABLE audit RENAME COLUMN what TO why, DROP COLUMN x; INSERT INTO audit VALUES (5, 'a')",
            "INSERT INTO audit VALUES (6, 'before'); TRUNCATE audit; INSERT INTO audit VALUES (7, 'after')",
            "RENAME TABLE audit TO audit_2024; INSERT INTO audit_2024 VALUES (8, 'moved'); CREATE TABLE audit (n INT)",
            "INSERT INTO audit VALUES (1), (1); ALTER TABLE audit ADD COLUMN id INT AUTO_INCREMENT PRIMARY KEY",
            "UPDATE audit SET n = 5 WHERE id = 1; INSERT INTO audit (n) VALUES (5)",
            "ALTER TABLE audit MODIFY id INT, DROP PRIMARY KEY; INSERT INTO audit VALUES (5, 3)",
            "XA START 'x'; INSERT INTO audit VALUES (9, 9); XA END 'x'; XA PREPARE 'x'; XA COMMIT 'x'",
            "DROP TABLE audit_2024",
        ],
    )
    .await;
    assert!(standings.iter().all(Vec::is_empty), "{standings:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_can_not_be_captured_so_says_why_and_is_no_fault_of_who_named_a_pattern() {
    let server = server(
        "CREATE TABLE audit (n INT); CREATE TABLE audit_old (n INT) ENGINE=MyISAM; CREATE TABLE audit_taken (_row INT);
         CREATE TABLE other (n INT); INSERT INTO audit VALUES (1), (1)",
    );
    let findings = check(&appending(&server)).await;
    let told = |code: &str, table: &str, text: &str| {
        let is_it = |finding: &&cdc_sources::Finding| finding.code == code && finding.message.contains(table);
        let finding = findings.iter().find(is_it).unwrap_or_else(|| panic!("{code} of {table} in {findings:#?}"));
        assert_eq!(finding.severity, Severity::Warning);
        assert!(finding.message.contains(text), "{}", finding.message);
    };
    told("append-only", "d.audit ", "stops it");
    told("table-refused", "d.audit_old ", "InnoDB");
    told("table-refused", "d.audit_taken ", "`_row`");
    told("no-key", "d.other ", "append-only = [\"d.other\"]");
    assert!(findings.iter().all(|finding| finding.severity != Severity::Missing), "{findings:#?}");
    let mut named = appending(&server);
    named.rules.include = vec!["d.audit".into(), "d.other".into()];
    let findings = check(&named).await;
    let missing: Vec<_> = findings.iter().filter(|finding| finding.severity == Severity::Missing).collect();
    assert!(matches!(missing.as_slice(), [finding] if finding.code == "no-key"), "{missing:#?}");

    let mut run = Run::open(&appending(&server)).await;
    run.settle(&server, "d").await;
    let mut standing: Vec<_> = run.standing().into_iter().map(|(table, _, code)| (table, code)).collect();
    standing.sort();
    let expected = [("d.audit_old", "table-refused"), ("d.audit_taken", "table-refused"), ("d.other", "no-key")];
    assert_eq!(standing, expected.map(|(table, code)| (table.to_owned(), code.to_owned())));
    assert_eq!(run.rows("d.audit").len(), 2);
    // Chosen later, it is taken up, and the others are not read for that.
    server.sql("d", "INSERT INTO other VALUES (3)");
    let mut options = appending(&server);
    options.rules.append_only.push("d.other".into());
    let began = run.model.began.len();
    run = run.crash(&options).await;
    run.until("the other table", |model| model.done.iter().any(|name| name == "d.other")).await;
    assert_eq!((run.rows("d.other").len(), run.model.began.len()), (1, began + 1));
}
