//! The MySQL feed against a real MariaDB: what it says of rows, tables and places, and over restarts.
#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

mod mysql_support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use cdc_sources::mysql::{Feed, Options, check};
use cdc_sources::{Action, Feed as _, Remedy, Rules, Severity, Step, TableState};
use cdc_test_servers::MariaDb;
use mysql_support::{Run, options, present, server};

const TYPES: &str = include_str!("mysql_support/types.sql");

fn golden(name: &str, text: &str) {
    let path = format!("{}/../tests/golden/sources/{name}", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("CDC_UPDATE_GOLDEN").is_some() {
        std::fs::create_dir_all(std::path::Path::new(&path).parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(text, kept, "{name} is not as it was; run with CDC_UPDATE_GOLDEN=1 if it should be");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_type_is_written_the_same_from_the_log_and_from_the_table() {
    let server = server(TYPES);
    let options = options(&server);
    let mut run = Run::open(&options).await;
    run.until_following().await;
    let read = run.rows("d.types");
    // The same rows once more, now through the log.
    server.sql("d", "UPDATE types SET id = id + 100; UPDATE types SET id = id - 100");
    run.until("the rows in the log", |model| {
        let rows = model.tables.get("d.types");
        model.changes >= read.len() * 4 && rows.is_some_and(|rows| rows.len() == read.len())
    })
    .await;
    assert_eq!(run.rows("d.types"), read);
    let types: Vec<String> = {
        let mut again = Run::open(&Options { server_id: Some(9), ..options.clone() }).await;
        let mut described = None;
        while described.is_none() {
            let portion = again.next().await.unwrap();
            described = portion.steps.iter().find_map(|step| match step {
                Step::Describe(table) if table.relation == "types" => Some(Arc::clone(table)),
                _ => None,
            });
        }
        let table = described.unwrap();
        let line = |column: &cdc_sources::Column| {
            format!("{}\t{}\t{:?}\t{}", column.name, column.native_type, column.kind, column.nullable)
        };
        table.columns.iter().map(line).collect()
    };
    let images: Vec<String> = read.values().map(|image| image.replace(",\"", ",\n\"")).collect();
    golden("mysql-types.txt", &format!("{}\n\n{}\n", types.join("\n"), images.join("\n")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_of_one_statement_are_told_apart_and_belong_together() {
    let server = server("CREATE TABLE t (id INT PRIMARY KEY, v VARCHAR(20))");
    let mut run = Run::open(&options(&server)).await;
    run.until_following().await;
    server.sql("d", "INSERT INTO t VALUES (1,'a'),(2,'b'),(3,'c')");
    server.sql(
        "d",
        "UPDATE t SET id = id + 10 WHERE id = 3; UPDATE t SET v = 'x' WHERE id < 3; DELETE FROM t WHERE id = 1",
    );
    let mut changes = Vec::new();
    while changes.len() < 8 {
        let portion = run.next().await.unwrap();
        changes.extend(portion.steps.into_iter().filter_map(|step| match step {
            Step::Change(change) if change.action != Action::Read => Some(change),
            _ => None,
        }));
    }
    let told: Vec<String> = changes
        .iter()
        .map(|change| {
            let position = change.position.as_deref().unwrap();
            let (transaction, place) = position.split_once('/').unwrap();
            assert_eq!(Some(transaction), change.transaction.as_deref());
            assert!(change.committed_at_ms.unwrap() > 1_700_000_000_000);
            let previous = change.previous_key.as_ref().map(|key| key.join(","));
            format!(
                "{:?} {} {place} {} {} {}",
                change.action,
                change.key.join(","),
                change.before.as_deref().unwrap_or("-"),
                change.image.as_deref().unwrap_or("-"),
                previous.as_deref().unwrap_or("-")
            )
        })
        .collect();
    let expected = [
        r#"Replace 1 0 - {"id":1,"v":"a"} -"#,
        r#"Replace 2 1 - {"id":2,"v":"b"} -"#,
        r#"Replace 3 2 - {"id":3,"v":"c"} -"#,
        r#"Remove 3 0.old {"id":3,"v":"c"} - -"#,
        r#"Replace 13 0 {"id":3,"v":"c"} {"id":13,"v":"c"} 3"#,
        r#"Replace 1 0 {"id":1,"v":"a"} {"id":1,"v":"x"} -"#,
        r#"Replace 2 1 {"id":2,"v":"b"} {"id":2,"v":"x"} -"#,
        r#"Remove 1 0 {"id":1,"v":"x"} - -"#,
    ];
    assert_eq!(told, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_transaction_comes_in_portions_and_goes_on_in_its_middle() {
    let server = server(
        "CREATE TABLE t (id INT PRIMARY KEY, v VARCHAR(100)); CREATE DATABASE other; CREATE TABLE other.u (id INT)",
    );
    let options = Options { portion_bytes: 20_000, ..options(&server) };
    let mut run = Run::open(&options).await;
    run.until_following().await;
    let sql = "BEGIN; INSERT INTO t SELECT seq, REPEAT('x', 50) FROM seq_1_to_3000; INSERT INTO other.u SELECT seq FROM \
        seq_1_to_500; UPDATE t SET v = 'y' WHERE id % 2; DELETE FROM t WHERE id > 2900; COMMIT";
    server.sql("d", sql);
    // Opened anew after every single portion.
    let mut portions = 0;
    let mut skips = 0;
    while run.model.changes < 3000 + 1500 + 100 {
        let portion = run.next().await.unwrap();
        portions += 1;
        skips += usize::from(portion.checkpoint.0.contains("\nskip "));
        let (model, checkpoint) = (run.model.clone(), run.checkpoint.clone());
        drop(run);
        run = Run::resume(&options, model, checkpoint).await;
    }
    assert!(portions > 20 && skips > 20, "{portions} portions, {skips} in the middle");
    assert_eq!(run.model.changes, 3000 + 1500 + 100);
    assert_eq!(run.model.tables, present(&options).await);
    // What comes after it is whole.
    server.sql("d", "INSERT INTO t VALUES (5000, 'z')");
    run.until("the next row", |model| model.changes == 4601).await;
    assert!(run.model.positions.iter().filter(|position| position.ends_with("/0")).count() == 2);
}

/// A small load: inserts, updates (of keys too) and deletes, in transactions of several statements. Loads with different
/// remainders touch different rows, so that they don't lock each other out.
fn load(server: &MariaDb, remainder: u64, stop: &AtomicBool) {
    let mut state = remainder;
    let mut random = move |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    while !stop.load(Ordering::Relaxed) {
        let mut sql = String::from("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED;\n");
        for _ in 0..20 {
            sql.push_str("BEGIN;\n");
            for _ in 0..=random(4) {
                let mut key = || random(2000) * 2 + remainder;
                let (key, other) = (key(), key());
                sql.push_str(&match random(5) {
                    0 => format!("INSERT IGNORE INTO t VALUES ({key}, 'new {other}', {other});\n"),
                    1 => format!("DELETE FROM t WHERE id = {key};\n"),
                    2 => format!("UPDATE IGNORE t SET id = {other} WHERE id = {key};\n"),
                    _ => format!("UPDATE t SET n = n + 1, v = 'changed' WHERE id IN ({key}, {other});\n"),
                });
            }
            sql.push_str(if random(10) == 0 { "ROLLBACK;\n" } else { "COMMIT;\n" });
        }
        server.sql("d", &sql);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_is_read_while_it_is_written_and_over_restarts_at_any_checkpoint() {
    let server = Arc::new(server(
        "CREATE TABLE t (id INT PRIMARY KEY, v VARCHAR(50), n INT NOT NULL);
         INSERT INTO t SELECT seq, CONCAT('row ', seq), 0 FROM seq_0_to_3999",
    ));
    let options = Options { portion_bytes: 4_000, chunk_rows: 150, ..options(&server) };
    let stop = Arc::new(AtomicBool::new(false));
    let loads: Vec<_> = (0..2)
        .map(|remainder| {
            let (server, stop) = (Arc::clone(&server), Arc::clone(&stop));
            std::thread::spawn(move || load(&server, remainder, &stop))
        })
        .collect();
    let mut run = Run::open(&options).await;
    let mut restarts = 0;
    for round in 0_u32.. {
        if let Err(error) = run.next().await {
            panic!("{error:?}\n{}", server.log());
        }
        let following = run.feed.progress().tables.iter().any(|table| table.state == TableState::Following);
        if following && restarts >= 8 {
            break;
        }
        // Some portions are built but never stored: a crash.
        if round % 7 == 6 {
            let (model, checkpoint) = (run.model.clone(), run.checkpoint.clone());
            let _ = run.feed.next().await;
            drop(run);
            run = Run::resume(&options, model, checkpoint).await;
            restarts += 1;
        }
    }
    stop.store(true, Ordering::Relaxed);
    loads.into_iter().for_each(|load| load.join().unwrap());
    server.sql("d", "INSERT INTO t VALUES (9999, 'the last', 1)");
    run.until("the last row", |model| model.tables["d.t"].contains_key(&vec!["9999".to_owned()])).await;
    run.until_following().await;
    assert_eq!(run.model.tables, present(&options).await);
    assert_eq!(run.model.began, ["d.t"], "it went on where it was");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_change_their_form_are_emptied_renamed_and_come_and_go() {
    let server = server(
        "CREATE TABLE t (id INT PRIMARY KEY, a INT, b VARCHAR(10)); INSERT INTO t VALUES (1, 1, 'x'), (2, 2, 'y');
         CREATE TABLE gone (id INT PRIMARY KEY); INSERT INTO gone VALUES (1)",
    );
    let options = options(&server);
    let mut run = Run::open(&options).await;
    run.until_following().await;
    for (sql, last) in [
        ("ALTER TABLE t ADD COLUMN c INT NOT NULL DEFAULT 7; INSERT INTO t (id) VALUES (3)", "3"),
        ("ALTER TABLE t DROP COLUMN a; INSERT INTO t (id) VALUES (4)", "4"),
        ("ALTER TABLE t RENAME COLUMN b TO bb; INSERT INTO t (id) VALUES (5)", "5"),
        ("ALTER TABLE t MODIFY c VARCHAR(20); INSERT INTO t (id, c) VALUES (6, 'text')", "6"),
        ("ALTER TABLE t ADD INDEX (c); INSERT INTO t (id) VALUES (7)", "7"),
    ] {
        server.sql("d", sql);
        run.until(sql, |model| model.tables["d.t"].contains_key(&vec![last.to_owned()])).await;
        run.until("its rows", |model| model.began.len() == model.done.len()).await;
    }
    run.until("the last reading", |model| model.done.iter().filter(|name| *name == "d.t").count() == 5).await;
    assert_eq!(run.model.tables, present(&options).await);
    let forms: Vec<String> =
        run.model.described.iter().filter(|(name, _)| name == "d.t").map(|(_, columns)| columns.join(" ")).collect();
    for form in ["id a b", "id a b c", "id b c", "id bb c"] {
        assert!(forms.iter().any(|described| described == form), "{form} in {forms:?}");
    }

    server.sql("d", "TRUNCATE TABLE t; INSERT INTO t (id) VALUES (100)");
    run.until("the row after the truncate", |model| model.tables["d.t"].len() == 1).await;
    assert_eq!(run.model.truncates, 1);
    server.sql(
        "d",
        "RENAME TABLE t TO s; CREATE TABLE t (id INT PRIMARY KEY); INSERT INTO t VALUES (1); DROP TABLE gone",
    );
    server.sql("d", "ALTER TABLE s DROP PRIMARY KEY, ADD COLUMN k INT NOT NULL DEFAULT 5, ADD PRIMARY KEY (k, id)");
    server.sql("d", "CREATE TABLE part (id INT PRIMARY KEY) PARTITION BY RANGE (id) (PARTITION p0 VALUES LESS THAN (10), PARTITION p1 VALUES LESS THAN MAXVALUE); INSERT INTO part VALUES (1), (20)");
    run.until("the partitioned table", |model| model.tables.get("d.part").is_some_and(|rows| rows.len() == 2)).await;
    server.sql("d", "ALTER TABLE part DROP PARTITION p0; INSERT INTO part VALUES (30)");
    run.until("the last row", |model| model.tables["d.part"].contains_key(&vec!["30".to_owned()])).await;
    run.until_following().await;
    let mut tables = run.model.tables.clone();
    assert_eq!(tables.remove("d.gone"), Some(Default::default()));
    assert_eq!(tables, present(&options).await);
    assert_eq!(tables["d.s"].keys().next().unwrap(), &["5", "100"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_was_purged_or_replaced_is_told_and_repaired() {
    let server = server("CREATE TABLE t (id INT PRIMARY KEY, v INT); INSERT INTO t VALUES (1, 1), (2, 2), (3, 3)");
    let options = options(&server);
    let mut run = Run::open(&options).await;
    run.until_following().await;
    let (model, checkpoint) = (run.model.clone(), run.checkpoint.clone());
    drop(run);
    server.sql("d", "DELETE FROM t WHERE id = 1; UPDATE t SET v = 20 WHERE id = 2; FLUSH LOGS");
    server.sql("d", "INSERT INTO t VALUES (4, 4); FLUSH LOGS");
    // The server keeps what a replica reads until it has noticed that it is gone.
    while server.sql("d", "PURGE BINARY LOGS BEFORE NOW() + INTERVAL 1 DAY; SHOW BINARY LOGS").lines().count() > 1 {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let error = match Feed::open(options.clone(), checkpoint.as_ref()).await {
        Err(error) => error,
        Ok(feed) => Run { feed, model: model.clone(), checkpoint: checkpoint.clone() }.until_error().await,
    };
    assert_eq!((error.remedy, error.code), (Remedy::Repair, "binlog-purged"), "{error:?}");

    let repairing = Options { repair: true, ..options.clone() };
    let mut run = Run::resume(&repairing, model, checkpoint).await;
    run.until("the second reading", |model| model.done.len() == 2).await;
    assert_eq!(run.model.tables, present(&options).await);
    assert_eq!(run.model.began, ["d.t", "d.t"]);

    let (model, checkpoint) = (run.model.clone(), run.checkpoint.clone());
    drop(run);
    server.sql("d", "RESET MASTER; INSERT INTO t VALUES (5, 5)");
    let error = match Feed::open(options.clone(), checkpoint.as_ref()).await {
        Err(error) => error,
        Ok(feed) => Run { feed, model, checkpoint }.until_error().await,
    };
    assert_eq!((error.remedy, error.code), (Remedy::Repair, "server-replaced"), "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_rules_hide_leaves_the_feed_in_neither_way() {
    let server = server(
        "CREATE TABLE t (id INT PRIMARY KEY, mail VARCHAR(50), note TEXT, secret BLOB, plain INT);
         INSERT INTO t VALUES (1, 'a@b', 'private', 'top', 5), (2, NULL, NULL, NULL, NULL);
         CREATE TABLE users (mail VARCHAR(50) PRIMARY KEY); INSERT INTO users VALUES ('a@b'), ('c@d');
         CREATE TABLE tmp_x (id INT PRIMARY KEY)",
    );
    let rules = Rules {
        include: vec!["d.*".into()],
        exclude: vec!["d.tmp_*".into()],
        exclude_columns: vec!["*.secret".into()],
        hash_columns: vec!["*.mail".into()],
        redact_columns: vec!["d.t.note".into()],
        salt: "s".into(),
        name: "{relation}".into(),
    };
    let options = Options { rules: rules.clone(), ..options(&server) };
    let mut run = Run::open(&options).await;
    run.until_following().await;
    server.sql("d", "INSERT INTO t VALUES (3, 'a@b', 'private', 'top', 5); INSERT INTO tmp_x VALUES (1); INSERT INTO users VALUES ('e@f')");
    run.until("the rows", |model| model.tables["users"].len() == 3).await;
    let hash = rules.hash("a@b");
    let rows = run.rows("t");
    let expected = |id| format!(r#"{{"id":{id},"mail":"{hash}","note":"[redacted]","plain":5}}"#);
    assert_eq!(rows[&vec!["1".to_owned()]], expected(1));
    assert_eq!(rows[&vec!["3".to_owned()]], expected(3));
    assert_eq!(rows[&vec!["2".to_owned()]], r#"{"id":2,"mail":null,"note":null,"plain":null}"#);
    assert!(run.rows("users").contains_key(&vec![hash]));
    assert!(!run.model.tables.contains_key("tmp_x"));
    let everything = format!("{:?} {:?}", run.model, run.checkpoint);
    for hidden in ["a@b", "e@f", "private", "dG9w", "top"] {
        assert!(!everything.contains(hidden), "{hidden}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_killed_is_followed_again_without_loss() {
    let server = server("CREATE TABLE t (id INT PRIMARY KEY AUTO_INCREMENT, v INT)");
    let options = options(&server);
    let mut run = Run::open(&options).await;
    run.until_following().await;
    for round in 0..3 {
        server.sql("d", "INSERT INTO t (v) SELECT seq FROM seq_1_to_50; UPDATE t SET v = v + 1");
        if round % 2 == 0 {
            run.next().await.unwrap();
        }
        server.kill();
        let error = run.until_error().await;
        assert_eq!(error.remedy, Remedy::Retry, "{error:?}");
        let away = Feed::open(options.clone(), run.checkpoint.as_ref()).await.unwrap_err();
        assert_eq!((away.remedy, away.code), (Remedy::Retry, "connection"), "{away:?}");
        server.start_again();
        run = Run::resume(&options, run.model, run.checkpoint).await;
    }
    server.sql("d", "INSERT INTO t (id, v) VALUES (100000, 1)");
    run.until("the last row", |model| model.tables["d.t"].contains_key(&vec!["100000".to_owned()])).await;
    assert_eq!(run.model.tables, present(&options).await);
    assert_eq!(run.model.changes, 3 * 50 + 50 + 100 + 150 + 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_come_from_the_information_schema_where_the_log_has_none() {
    let server = MariaDb::with(&["--binlog-row-metadata=NO_LOG"]);
    server.sql("", "CREATE DATABASE d; CREATE TABLE d.t (id INT UNSIGNED PRIMARY KEY, v VARCHAR(10) CHARACTER SET latin1, e ENUM('a','b'))");
    let options = options(&server);
    let mut run = Run::open(&options).await;
    run.until_following().await;
    server.sql("d", "INSERT INTO t VALUES (4294967295, 'é', 'b')");
    run.until("the row", |model| model.changes == 1).await;
    assert_eq!(run.rows("d.t").values().next().unwrap(), r#"{"id":4294967295,"v":"é","e":"b"}"#);
    // The log has a row of a form that the information schema no longer has.
    let (model, checkpoint) = (run.model.clone(), run.checkpoint.clone());
    drop(run);
    server.sql("d", "INSERT INTO t VALUES (1, 'x', 'a'); ALTER TABLE t ADD COLUMN more INT FIRST");
    let error = Run::resume(&options, model, checkpoint).await.until_error().await;
    assert_eq!((error.remedy, error.code), (Remedy::Stop, "row-metadata"), "{error:?}");
    assert!(error.message.contains("binlog_row_metadata"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_log_does_not_show_stops_the_feed() {
    let server = server("CREATE TABLE t (id INT PRIMARY KEY, v INT); CREATE TABLE keyless (a INT)");
    let keyed = Rules { include: vec!["d.t".into()], ..Rules::default() };
    let everything = options(&server);
    let error = Run::open(&everything).await.until_error().await;
    assert_eq!((error.remedy, error.code), (Remedy::Stop, "table"), "{error:?}");
    assert!(error.message.contains("d.keyless"));

    let options = Options { rules: keyed, ..everything };
    let mut run = Run::open(&options).await;
    run.until_following().await;
    server.sql("d", "SET SESSION binlog_format = 'STATEMENT'; INSERT INTO t VALUES (1, 1)");
    let error = run.until_error().await;
    assert_eq!((error.remedy, error.code), (Remedy::Stop, "row-format"), "{error:?}");

    let mut run = Run::open(&options).await;
    run.until_following().await;
    server.sql("d", "SET SESSION binlog_row_image = 'MINIMAL'; UPDATE t SET v = 2; INSERT INTO t (id) VALUES (5)");
    let error = run.feed.next().await.err();
    let error = match error {
        Some(error) => error,
        None => loop {
            if let Err(error) = run.feed.next().await {
                break error;
            }
        },
    };
    assert_eq!((error.remedy, error.code), (Remedy::Stop, "row-image"), "{error:?}");
    server.sql("", "SET GLOBAL binlog_format = 'STATEMENT'");
    let error = Feed::open(options.clone(), None).await.unwrap_err();
    assert_eq!((error.remedy, error.code), (Remedy::Stop, "row-format"), "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn xa_transactions_and_mixed_engines_end_as_the_tables_are() {
    let server = server(
        "CREATE TABLE t (id INT PRIMARY KEY, v INT); CREATE TABLE m (id INT PRIMARY KEY) ENGINE=MyISAM;
         INSERT INTO m VALUES (1); INSERT INTO t VALUES (1, 1)",
    );
    let options = options(&server);
    let mut run = Run::open(&options).await;
    run.until_following().await;
    server.sql(
        "d",
        "XA START 'a'; INSERT INTO t VALUES (2, 2); UPDATE t SET v = 9 WHERE id = 1; XA END 'a'; XA PREPARE 'a'",
    );
    server.sql("d", "INSERT INTO t VALUES (3, 3)");
    run.until("the plain row", |model| model.tables["d.t"].contains_key(&vec!["3".to_owned()])).await;
    assert_eq!(run.rows("d.t").len(), 2, "what is prepared does not count yet");
    let (model, checkpoint) = (run.model, run.checkpoint);
    drop(run.feed);
    let mut run = Run::resume(&options, model, checkpoint).await;
    server.sql("d", "XA COMMIT 'a'");
    run.until("the prepared row", |model| model.tables["d.t"].len() == 3).await;
    server.sql("d", "XA START 'b'; INSERT INTO t VALUES (7, 7); XA END 'b'; XA PREPARE 'b'; XA ROLLBACK 'b'");
    server.sql(
        "d",
        "BEGIN; INSERT INTO t VALUES (8, 8); INSERT INTO m VALUES (8); ROLLBACK; INSERT INTO t VALUES (10, 10)",
    );
    server.sql("d", "CREATE TABLE ctas (PRIMARY KEY (id)) SELECT id FROM t; INSERT INTO m VALUES (11)");
    run.until("the last row", |model| model.tables["d.m"].contains_key(&vec!["11".to_owned()])).await;
    run.until_following().await;
    assert_eq!(run.model.tables, present(&options).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_with_any_key_is_read_in_chunks() {
    let server = server(
        "CREATE TABLE a (e ENUM('z','a'), s SET('x','y'), d DATE, n DECIMAL(10,3), PRIMARY KEY (e, s, d, n));
         INSERT INTO a SELECT IF(seq % 2, 'a', 'z'), IF(seq % 3, 'x,y', 'x'), '2024-01-01' + INTERVAL seq % 7 DAY, seq / 8
           FROM seq_1_to_300;
         CREATE TABLE b (f FLOAT PRIMARY KEY); INSERT INTO b SELECT seq / 7 FROM seq_1_to_300;
         CREATE TABLE c (k VARBINARY(4), t TIMESTAMP(3), u UUID, PRIMARY KEY (k, t, u));
         INSERT INTO c SELECT UNHEX(LPAD(HEX(seq % 5), 2, '0')), FROM_UNIXTIME(1700000000 + seq % 11 + 0.123), UUID() FROM seq_1_to_300;
         CREATE TABLE g (v VARCHAR(20) CHARACTER SET latin1 COLLATE latin1_german1_ci PRIMARY KEY);
         INSERT INTO g SELECT CONCAT(CHAR(200 + seq % 50 USING latin1), seq) FROM seq_1_to_300;
         SET sql_mode = ''; CREATE TABLE h (y YEAR, b BIT(9), t TIME(2), dt DATETIME, i BIGINT UNSIGNED, PRIMARY KEY (y, b, t, dt, i));
         INSERT INTO h SELECT 2000 + seq % 3, seq % 500, SEC_TO_TIME(CAST(seq AS SIGNED) - 100), '0000-00-00', 18446744073709551615 - seq FROM seq_1_to_300;
         CREATE TABLE none (id INT PRIMARY KEY);
         CREATE TABLE `we``ird tab.le` (`k ey` INT, v INT, UNIQUE (v), UNIQUE `u` (`k ey`)); ALTER TABLE `we``ird tab.le` MODIFY `k ey` INT NOT NULL;
         INSERT INTO `we``ird tab.le` SELECT seq, seq FROM seq_1_to_300",
    );
    let small = Options { chunk_rows: 7, ..options(&server) };
    let mut run = Run::open(&small).await;
    run.until_following().await;
    for table in ["d.a", "d.b", "d.c", "d.g", "d.h", "d.we`ird tab.le"] {
        assert_eq!(run.rows(table).len(), 300, "{table}");
    }
    assert_eq!(run.model.tables, present(&options(&server)).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_feed_says_how_far_it_is_and_its_checkpoint_follows_what_is_not_captured() {
    let server = server("CREATE TABLE t (id INT PRIMARY KEY); CREATE DATABASE other; CREATE TABLE other.u (id INT)");
    let options = options(&server);
    let mut run = Run::open(&options).await;
    run.until_following().await;
    server.sql("other", "INSERT INTO u SELECT seq FROM seq_1_to_1000");
    let newest = server.sql("", "SELECT @@gtid_binlog_pos");
    while !run.checkpoint.as_ref().unwrap().0.contains(&format!("seen {newest}\n")) {
        let portion = run.next().await.unwrap();
        assert!(portion.steps.is_empty());
    }
    loop {
        let progress = run.feed.progress();
        if progress.lag_bytes == Some(0) && progress.newest.as_ref().is_some_and(|told| told.contains(&newest)) {
            assert_eq!(progress.tables[0].state, TableState::Following);
            assert!(progress.confirmed.unwrap().starts_with(&newest));
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_with_the_least_privileges_may_follow_and_the_check_tells_what_another_lacks() {
    let server = MariaDb::with(&["--binlog-row-metadata=NO_LOG", "--binlog-expire-logs-seconds=3600"]);
    server.sql(
        "",
        "CREATE DATABASE d; CREATE TABLE d.t (id INT PRIMARY KEY, j JSON); INSERT INTO d.t VALUES (1, '[1, 2]');
         CREATE TABLE d.keyless (a INT); CREATE USER cdc@'%' IDENTIFIED BY 'p@ss'",
    );
    let everything = options(&server);
    let url = format!("mysql://cdc:p%40ss@127.0.0.1:{}", server.port());
    let limited = Options { url, ..everything.clone() };
    let missing = |findings: &[cdc_sources::Finding]| -> Vec<(&'static str, String)> {
        let lacking = findings.iter().filter(|finding| finding.severity != Severity::Good);
        lacking.map(|finding| (finding.code, finding.remedy.clone().unwrap_or_default())).collect()
    };
    let findings = missing(&check(&limited).await);
    let codes: Vec<&str> = findings.iter().map(|(code, _)| *code).collect();
    assert_eq!(codes, ["row-metadata", "retention", "privileges", "privileges", "tables"], "{findings:?}");
    let error = Feed::open(limited.clone(), None).await.unwrap_err();
    assert_eq!((error.remedy, error.code), (Remedy::Stop, "privileges"), "{error:?}");
    // Just what it said, and what it may read.
    for (_, sql) in findings.iter().filter(|(code, _)| *code == "privileges") {
        server.sql("", sql);
    }
    server.sql("", "GRANT SELECT ON d.* TO cdc@'%'; SET GLOBAL binlog_row_metadata = 'FULL'");
    let findings = missing(&check(&limited).await);
    assert_eq!(findings.iter().map(|(code, _)| *code).collect::<Vec<_>>(), ["retention", "table"], "{findings:?}");
    server.sql("d", &findings[1].1);
    server.sql("", "SET GLOBAL binlog_expire_logs_seconds = 0");
    assert_eq!(missing(&check(&limited).await), []);

    let mut run = Run::open(&limited).await;
    run.until_following().await;
    server.sql("d", "INSERT INTO t VALUES (2, '[1, 2]')");
    run.until("the row", |model| model.tables["d.t"].len() == 2).await;
    assert_eq!(run.rows("d.t").into_values().collect::<Vec<_>>(), [r#"{"id":1,"j":[1,2]}"#, r#"{"id":2,"j":[1,2]}"#]);
    let wrong = Options { url: everything.url.replace("correct", "wrong"), ..everything };
    assert_eq!(check(&wrong).await[0].code, "authentication");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_comes_while_another_is_read_is_read_too() {
    let server =
        server("CREATE TABLE t (id INT PRIMARY KEY, v CHAR(100)); INSERT INTO t SELECT seq, 'x' FROM seq_1_to_20000");
    let mut run = Run::open(&Options { chunk_rows: 500, ..options(&server) }).await;
    run.next().await.unwrap();
    server.sql("d", "CREATE TABLE late (id INT PRIMARY KEY); INSERT INTO late VALUES (1), (2)");
    run.until("the late table", |model| model.done.iter().any(|name| name == "d.late")).await;
    assert_eq!(run.rows("d.late").len(), 2);
    run.until_following().await;
    assert_eq!(run.rows("d.t").len(), 20_000);
}

/// Writes an authority's certificate, and one that it gives the server with its key.
fn certificates(folder: &std::path::Path) {
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let server = CertificateParams::new(["localhost".to_owned()]).unwrap().signed_by(&key, &authority).unwrap();
    std::fs::write(folder.join("ca.pem"), authority.pem()).unwrap();
    std::fs::write(folder.join("server.pem"), server.pem()).unwrap();
    std::fs::write(folder.join("server.key"), key.serialize_pem()).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_is_encrypted_and_the_servers_certificate_verified() {
    let (ours, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    certificates(ours.path());
    certificates(other.path());
    let file = |name: &str| ours.path().join(name).display().to_string();
    let server =
        MariaDb::with(&[&format!("--ssl-cert={}", file("server.pem")), &format!("--ssl-key={}", file("server.key"))]);
    server.sql(
        "",
        "CREATE DATABASE d; CREATE TABLE d.t (id INT PRIMARY KEY); INSERT INTO d.t VALUES (1);
         CREATE USER cdc@'%' IDENTIFIED BY 'p' REQUIRE SSL; GRANT SELECT, REPLICATION SLAVE, BINLOG MONITOR ON *.* TO cdc@'%'",
    );
    let with = |host: &str, parameters: &str| {
        let url = format!("mysql://cdc:p@{host}:{}/?{parameters}", server.port());
        Options { url, ..options(&server) }
    };
    let ca = |folder: &tempfile::TempDir| format!("ssl-ca={}", folder.path().join("ca.pem").display());
    for options in [
        with("localhost", &format!("ssl-mode=verify-identity&{}", ca(&ours))),
        with("127.0.0.1", &format!("ssl-mode=verify-identity&ssl-name=localhost&{}", ca(&ours))),
        with("127.0.0.1", "ssl-mode=required"),
        with("127.0.0.1", ""),
    ] {
        let mut run = Run::open(&options).await;
        run.until_following().await;
        assert_eq!(run.rows("d.t").len(), 1);
    }
    for (options, code) in [
        (with("localhost", &format!("ssl-mode=verify-identity&{}", ca(&other))), "tls"),
        (with("127.0.0.1", &format!("ssl-mode=verify-identity&{}", ca(&ours))), "tls"),
        (with("127.0.0.1", "ssl-mode=disabled"), "authentication"),
    ] {
        let error = Feed::open(options, None).await.unwrap_err();
        assert_eq!((error.remedy, error.code), (Remedy::Stop, code), "{error:?}");
    }
}
