//! Tables whose definition changes: columns, names, partitions, keys; tables that come and go; and what schema tools do.

use cdc_sources::Rules;
use cdc_sources::mysql::Options;
use cdc_test_servers::MariaDb;

use crate::model::{Run, in_every_way, options, present, server};

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
    assert_eq!(run.model.gone, ["d.t", "d.gone"]);
    assert_eq!(run.model.tables, present(&options).await);
    assert_eq!(run.model.tables["d.s"].keys().next().unwrap(), &["5", "100"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_thing_after_a_restart_may_empty_drop_or_rename_a_table() {
    let server = server("CREATE TABLE m (id INT PRIMARY KEY) ENGINE=MEMORY; INSERT INTO m VALUES (1)");
    let options = options(&server);
    let mut run = Run::open(&options).await;
    run.settle(&server, "d").await;
    server.stop();
    assert_eq!(run.until_error().await.remedy, cdc_sources::Remedy::Retry);
    server.start_again();
    let mut run = run.crash(&options).await;
    // The server empties it in the log when it is first used.
    server.sql("d", "SELECT * FROM m");
    run.settle(&server, "d").await;
    run.assert_true(&server, &options).await;
    assert!(run.rows("d.m").is_empty());

    let setup = "CREATE TABLE a (id INT PRIMARY KEY); INSERT INTO a VALUES (1), (2); CREATE TABLE b LIKE a;
        INSERT INTO b VALUES (3); CREATE TABLE c LIKE a; INSERT INTO c VALUES (4)";
    let steps = ["TRUNCATE a", "SELECT 1", "DROP TABLE b", "SELECT 2", "RENAME TABLE c TO b"];
    in_every_way(&server, setup, &steps).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_is_made_filled_and_dropped_at_once_is_followed() {
    let server = MariaDb::start();
    let steps = [
        "CREATE TABLE h (id INT PRIMARY KEY); INSERT INTO h VALUES (1); DROP TABLE h",
        "CREATE TABLE h (a INT, b VARCHAR(9) NOT NULL, UNIQUE (b)); INSERT INTO h VALUES (1, 'x'); DROP TABLE h",
        "CREATE TABLE h (id INT); INSERT INTO h VALUES (1); DROP TABLE h; CREATE TABLE h (id INT PRIMARY KEY)",
        "INSERT INTO h VALUES (7); ALTER TABLE h ADD c INT DEFAULT 5; INSERT INTO h VALUES (8, 8); RENAME TABLE h TO i",
        "CREATE TABLE x (id INT PRIMARY KEY); INSERT INTO x VALUES (1); RENAME TABLE i TO y, x TO i, y TO x",
        "CREATE OR REPLACE TABLE x (k INT PRIMARY KEY) SELECT 3 AS k; CREATE TABLE z LIKE x; INSERT INTO z SELECT * FROM x",
        "CREATE TABLE keyless (a INT); INSERT INTO keyless VALUES (1); ALTER TABLE keyless ADD PRIMARY KEY (a)",
        "CREATE VIEW w AS SELECT 1; RENAME TABLE w TO ww; CREATE SEQUENCE s; SELECT NEXTVAL(s); RENAME TABLE s TO ss",
        "CREATE TABLE one (id INT PRIMARY KEY); INSERT INTO one VALUES (1); DROP TABLE IF EXISTS one, missing",
    ];
    let standings = in_every_way(&server, "CREATE TABLE t (id INT PRIMARY KEY)", &steps).await;
    assert!(standings.iter().all(Vec::is_empty), "{standings:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_columns_hold_after_they_were_altered_is_what_the_table_shows() {
    let server = MariaDb::start();
    let setup = "CREATE TABLE t (id INT PRIMARY KEY, a INT, b VARCHAR(10) CHARACTER SET latin1, e ENUM('x','y'), v INT AS (a + 1) VIRTUAL);
        INSERT INTO t (id, a, b, e) VALUES (1, 1, 'é', 'x'), (2, 2, 'b', 'y')";
    let steps = [
        "ALTER TABLE t ADD c INT NOT NULL DEFAULT 7; INSERT INTO t (id) VALUES (3)",
        "ALTER TABLE t DROP c; ALTER TABLE t ADD c INT NOT NULL DEFAULT 8",
        "ALTER TABLE t MODIFY v INT AS (a * 100) VIRTUAL",
        "ALTER TABLE t MODIFY e ENUM('y','x','z'); UPDATE t SET e = 'z' WHERE id = 1",
        "ALTER TABLE t CHANGE e e ENUM('n','y','x','z') DEFAULT 'n'",
        "ALTER TABLE t CONVERT TO CHARACTER SET utf8mb4; INSERT INTO t (id, b) VALUES (4, 'ö€')",
        "ALTER TABLE t FORCE; ALTER TABLE t ORDER BY a; ALTER TABLE t COMMENT 'x', ENGINE=Aria",
        "ALTER TABLE t ENGINE=InnoDB, ADD d INT INVISIBLE DEFAULT 3",
        "ALTER TABLE t DROP PRIMARY KEY, ADD COLUMN k INT NOT NULL DEFAULT 5, ADD PRIMARY KEY (k, id)",
        "INSERT INTO t (id, k) VALUES (9, 9); UPDATE t SET k = 6 WHERE id = 9",
        "ALTER TABLE t DROP PRIMARY KEY, ADD UNIQUE u (id); DELETE FROM t WHERE id = 1; ALTER TABLE t ADD PRIMARY KEY (k, id)",
        "ALTER TABLE t ADD j TEXT DEFAULT '[1, 2]'; ALTER TABLE t ADD CHECK (json_valid(j))",
        "ALTER DATABASE CHARACTER SET utf8mb4; ALTER TABLE t RENAME COLUMN j TO jj, RENAME INDEX u TO uu",
    ];
    let standings = in_every_way(&server, setup, &steps).await;
    assert!(standings.iter().all(Vec::is_empty), "{standings:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_and_tablespaces_come_and_go_with_their_rows() {
    let server = MariaDb::start();
    let setup = "CREATE TABLE p (id INT PRIMARY KEY, v INT) PARTITION BY RANGE (id)
            (PARTITION p0 VALUES LESS THAN (10), PARTITION p1 VALUES LESS THAN (20), PARTITION p2 VALUES LESS THAN (30));
        INSERT INTO p VALUES (1, 1), (11, 11), (21, 21);
        CREATE TABLE u (id INT PRIMARY KEY, v INT); INSERT INTO u VALUES (12, 0), (13, 0);
        CREATE TABLE i (id INT PRIMARY KEY); INSERT INTO i VALUES (1)";
    let steps = [
        "ALTER TABLE p EXCHANGE PARTITION p1 WITH TABLE u",
        "INSERT INTO u VALUES (15, 1); ALTER TABLE p TRUNCATE PARTITION p0",
        "ALTER TABLE p CONVERT PARTITION p2 TO TABLE c; INSERT INTO c VALUES (22, 2)",
        "ALTER TABLE p CONVERT TABLE c TO PARTITION p2 VALUES LESS THAN (30)",
        "ALTER TABLE p REORGANIZE PARTITION p0, p1 INTO (PARTITION n VALUES LESS THAN (20)); INSERT INTO p VALUES (5, 5)",
        "ALTER TABLE p DROP PARTITION n; ALTER TABLE p REMOVE PARTITIONING; INSERT INTO p VALUES (2, 2)",
        "ALTER TABLE i DISCARD TABLESPACE; DROP TABLE i",
    ];
    in_every_way(&server, setup, &steps).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_go_from_table_to_table() {
    let server = MariaDb::start();
    let setup = "CREATE TABLE a (id INT PRIMARY KEY, x INT); INSERT INTO a VALUES (1, 1), (2, 2);
        CREATE TABLE b (id INT PRIMARY KEY, x INT); INSERT INTO b VALUES (2, 20), (3, 30); CREATE TABLE c LIKE a;
        CREATE TABLE d (k VARCHAR(5) PRIMARY KEY); INSERT INTO d VALUES ('k')";
    let steps = [
        "RENAME TABLE a TO tmp, b TO a, tmp TO b; INSERT INTO a VALUES (9, 9)",
        "RENAME TABLE a TO tmp, b TO a, c TO b, tmp TO c; UPDATE a SET x = x + 1",
        "DROP TABLE b; RENAME TABLE c TO b; ALTER TABLE a RENAME TO c, ADD y INT DEFAULT 4",
        "ALTER TABLE d RENAME a; RENAME TABLE IF EXISTS nobody TO somebody, a TO e",
        "SET STATEMENT lock_wait_timeout=5 FOR RENAME TABLE e TO f; SET STATEMENT max_statement_time=60 FOR TRUNCATE TABLE b",
        "SET STATEMENT lock_wait_timeout = 5 FOR ALTER TABLE c ADD w INT NOT NULL DEFAULT 7; SET STATEMENT lock_wait_timeout=5 FOR DROP TABLE f",
    ];
    in_every_way(&server, setup, &steps).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_move_between_databases_and_go_with_them() {
    let server = server("CREATE TABLE t (id INT PRIMARY KEY); INSERT INTO t VALUES (1); CREATE TABLE s LIKE t");
    server.sql(
        "",
        "CREATE DATABASE e; CREATE TABLE e.u (id INT PRIMARY KEY); INSERT INTO e.u VALUES (5); CREATE DATABASE other",
    );
    let rules = Rules { include: vec!["d.*".into(), "e.*".into()], ..Rules::default() };
    let options = Options { rules, ..options(&server) };
    let mut run = Run::open(&options).await;
    run.settle(&server, "d").await;
    server.sql("d", "RENAME TABLE t TO e.t, e.u TO d.u; INSERT INTO e.t VALUES (2); RENAME TABLE s TO other.s");
    run.settle(&server, "d").await;
    run.assert_true(&server, &options).await;
    server.sql("d", "DROP DATABASE e; RENAME TABLE other.s TO s; INSERT INTO s VALUES (3)");
    run.settle(&server, "d").await;
    run.assert_true(&server, &options).await;
    let mut tables: Vec<&str> = run.model.tables.keys().map(String::as_str).collect();
    tables.sort_unstable();
    assert_eq!(tables, ["d.mark", "d.s", "d.u"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_temporary_table_of_the_same_name_is_not_the_table() {
    let server = MariaDb::start();
    let setup = "CREATE TABLE t (id INT PRIMARY KEY); INSERT INTO t VALUES (1), (2)";
    let steps = [
        "CREATE TEMPORARY TABLE t (a INT); INSERT INTO t VALUES (9); TRUNCATE t; ALTER TABLE t ADD b INT; DROP TABLE t",
        // This one is in the log.
        "CREATE TEMPORARY TABLE t (a INT); RENAME TABLE t TO tt; DROP TEMPORARY TABLE tt",
        "INSERT INTO t VALUES (3)",
    ];
    in_every_way(&server, setup, &steps).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_steps_of_schema_tools_end_with_the_table_and_without_helpers() {
    let server = MariaDb::start();
    let setup = "CREATE TABLE t (id INT PRIMARY KEY, v INT); INSERT INTO t SELECT seq, seq FROM seq_1_to_300";
    let ghost = [
        "CREATE TABLE _t_ghc (id BIGINT UNSIGNED AUTO_INCREMENT PRIMARY KEY, hint VARCHAR(64), value VARCHAR(99), UNIQUE (hint));
         CREATE TABLE _t_gho LIKE t; ALTER TABLE _t_gho ADD w INT NOT NULL DEFAULT 5; INSERT INTO _t_ghc VALUES (1, 'state', 'x')",
        "INSERT IGNORE INTO _t_gho (id, v) SELECT id, v FROM t WHERE id <= 200 LOCK IN SHARE MODE; UPDATE t SET v = 0 WHERE id = 7;
         REPLACE INTO _t_gho (id, v) VALUES (7, 0)",
        "INSERT IGNORE INTO _t_gho (id, v) SELECT id, v FROM t LOCK IN SHARE MODE; INSERT INTO _t_ghc VALUES (NULL, 'copied', 'y')
         ON DUPLICATE KEY UPDATE value = 'z'",
        "CREATE TABLE _t_del (id INT AUTO_INCREMENT PRIMARY KEY) COMMENT='ghost-cut-over-sentry'; DROP TABLE _t_del;
         RENAME TABLE t TO _t_del, _t_gho TO t; INSERT INTO t VALUES (1000, 1, 1)",
        "DROP TABLE IF EXISTS _t_ghc; DROP TABLE IF EXISTS _t_del; UPDATE t SET v = 1 WHERE id < 10",
    ];
    in_every_way(&server, setup, &ghost).await;
    let percona = [
        "CREATE TABLE _t_new LIKE t; ALTER TABLE _t_new ADD w INT NOT NULL DEFAULT 5;
         CREATE TRIGGER pt_del AFTER DELETE ON t FOR EACH ROW DELETE IGNORE FROM _t_new WHERE _t_new.id <=> OLD.id;
         CREATE TRIGGER pt_ins AFTER INSERT ON t FOR EACH ROW REPLACE INTO _t_new (id, v) VALUES (NEW.id, NEW.v);
         CREATE TRIGGER pt_upd AFTER UPDATE ON t FOR EACH ROW REPLACE INTO _t_new (id, v) VALUES (NEW.id, NEW.v)",
        "INSERT LOW_PRIORITY IGNORE INTO _t_new (id, v) SELECT id, v FROM t LOCK IN SHARE MODE; UPDATE t SET v = 0 WHERE id = 7;
         DELETE FROM t WHERE id = 8; INSERT INTO t VALUES (999, 9)",
        "RENAME TABLE t TO _t_old, _t_new TO t; DROP TABLE IF EXISTS _t_old; DROP TRIGGER IF EXISTS pt_ins",
        "UPDATE t SET v = 1 WHERE id < 10",
    ];
    in_every_way(&server, setup, &percona).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_of_statements_are_those_of_tables_whatever_their_case() {
    let server = MariaDb::with(&["--lower-case-table-names=1"]);
    let setup =
        "CREATE TABLE Orders (id INT PRIMARY KEY); INSERT INTO Orders VALUES (1), (2); CREATE TABLE Items LIKE orders;
        INSERT INTO ITEMS VALUES (5); CREATE TABLE b LIKE orders";
    let steps = [
        "TRUNCATE TABLE ORDERS; INSERT INTO OrDeRs VALUES (9)",
        "ALTER TABLE ITEMS ADD C INT DEFAULT 3; DROP TABLE B",
        "RENAME TABLE ORDERS TO Kept, Items TO Orders; INSERT INTO KEPT VALUES (3)",
    ];
    in_every_way(&server, setup, &steps).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_unique_values_bring_no_column_that_nobody_has() {
    for metadata in ["FULL", "MINIMAL", "NO_LOG"] {
        let server = MariaDb::with(&[&format!("--binlog-row-metadata={metadata}")]);
        let setup = "CREATE TABLE t (id INT PRIMARY KEY, a TEXT, b BLOB, UNIQUE (a), UNIQUE (b)); INSERT INTO t VALUES (1, 'x', 'y');
            CREATE TABLE v (id INT PRIMARY KEY, a TEXT UNIQUE) WITH SYSTEM VERSIONING; INSERT INTO v VALUES (1, 'x')";
        let steps = [
            "INSERT INTO t VALUES (2, 'xx', 'yy'); UPDATE t SET a = 'new' WHERE id = 1; INSERT INTO v VALUES (2, 'b')",
            "ALTER TABLE t ADD c TEXT UNIQUE; INSERT INTO t VALUES (3, '3', '3', '3'); UPDATE v SET a = 'c' WHERE id = 1; DELETE FROM v WHERE id = 2",
        ];
        let standings = in_every_way(&server, setup, &steps).await;
        assert!(standings.iter().all(Vec::is_empty), "{metadata}: {standings:?}");
        let options = options(&server);
        server.sql("", "CREATE DATABASE d; CREATE TABLE d.t (id INT PRIMARY KEY, a TEXT UNIQUE)");
        let mut run = Run::open(&options).await;
        run.settle(&server, "d").await;
        server.sql("d", "INSERT INTO t VALUES (1, 'x')");
        run.settle(&server, "d").await;
        assert_eq!(run.rows("d.t").values().next().unwrap(), r#"{"id":1,"a":"x"}"#);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repair_ends_while_a_table_is_gone_and_takes_its_rows() {
    let server =
        server("CREATE TABLE r (id INT PRIMARY KEY); INSERT INTO r VALUES (1); CREATE TABLE k (id INT PRIMARY KEY)");
    let options = options(&server);
    let mut run = Run::open(&options).await;
    run.settle(&server, "d").await;
    let (model, checkpoint) = (run.model, run.checkpoint);
    drop(run.feed);
    server.sql("d", "DROP TABLE r; RESET MASTER; INSERT INTO k VALUES (1)");
    let repair = Options { repair: true, ..options.clone() };
    let mut run = Run::resume(&repair, model, checkpoint).await;
    run.settle(&server, "d").await;
    run.assert_true(&server, &options).await;
    assert_eq!(run.model.gone, ["d.r"]);
    // So does one that goes without a word.
    server.sql("d", "SET SESSION sql_log_bin = 0; DROP TABLE k");
    run.until("the end of k", |model| model.gone.len() == 2).await;
    run.settle(&server, "d").await;
    run.assert_true(&server, &options).await;
}
