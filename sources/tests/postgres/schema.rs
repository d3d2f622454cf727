//! What the log does not tell: columns, names, partitions and publications change while tables are followed. After each
//! step every table has the rows that the database has, and in the end the same after the feed was opened anew.

use std::time::Duration;

use cdc_sources::postgres::{Feed, Options};
use cdc_sources::{Feed as _, Reason, Rules, TableState};
use cdc_test_servers::Postgres;

use crate::model::{Model, PATIENCE, open, options, until, until_now, wait};

/// Does each step, and waits after it until every table is the database's.
async fn walk(server: &Postgres, model: &mut Model, steps: &[(&str, &[&str])]) {
    let options = options(server, "postgres");
    for (sql, tables) in steps {
        // Once as it comes, and once while nobody follows.
        let mut feed = open(&options, model).await.unwrap();
        server.psql("postgres", sql);
        equal(&mut feed, model, server, tables, sql).await;
    }
    let mut feed = open(&options, model).await.unwrap();
    until_now(&mut feed, model, server, "postgres").await;
    for table in steps.last().iter().flat_map(|(_, tables)| *tables) {
        assert!(model.agrees(server, "postgres", table), "{table} after it was opened anew");
    }
}

fn short(text: &str) -> &str {
    &text[..text.len().min(2_000)]
}

pub(crate) async fn equal(feed: &mut Feed, model: &mut Model, server: &Postgres, tables: &[&str], step: &str) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let is_equal = tables.iter().all(|table| model.agrees(server, "postgres", table));
        if is_equal && feed.progress().tables.iter().all(|table| table.state == TableState::Following) {
            return;
        }
        assert!(
            tokio::time::Instant::now() < deadline,
            "after {step}: {:#?}\n{:#?}\n{:#?}",
            feed.progress().tables,
            tables.iter().map(|table| short(&format!("{:?}", model.rows(table))).to_owned()).collect::<Vec<_>>(),
            &model.log[model.log.len().saturating_sub(20)..]
        );
        let next = tokio::time::timeout(Duration::from_millis(50), feed.next()).await;
        if let Ok(portion) = next {
            let portion = portion.unwrap();
            model.apply(&portion);
            feed.confirm(&portion.checkpoint);
        }
    }
}

/// Until a table is stopped; its reason, which has this part.
async fn until_stopped(feed: &mut Feed, model: &mut Model, table: &str, part: &str) -> Reason {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let mut tables = feed.progress().tables.into_iter();
        let stopped = tables.find(|progress| progress.table == table && progress.state == TableState::Stopped);
        // A look may see a table leave the publication a moment before it sees why.
        if let Some(reason) = stopped.and_then(|stopped| stopped.reason).filter(|why| why.message.contains(part)) {
            return reason;
        }
        assert!(tokio::time::Instant::now() < deadline, "{:?}", feed.progress());
        if let Ok(portion) = tokio::time::timeout(Duration::from_millis(50), feed.next()).await {
            let portion = portion.unwrap();
            model.apply(&portion);
            feed.confirm(&portion.checkpoint);
        }
    }
}

fn one_table(server: &Postgres) {
    server.psql(
        "postgres",
        "CREATE TYPE mood AS ENUM ('sad', 'glad'); \
         CREATE TABLE t (id int PRIMARY KEY, body text, n int, feels mood); \
         ALTER TABLE t ALTER body SET STORAGE EXTERNAL; \
         INSERT INTO t SELECT i, repeat(i::text, 2500), i, 'sad' FROM generate_series(1, 30) i",
    );
}

#[test]
fn columns_come_go_and_change_and_every_row_is_as_the_database_has_it() {
    let server = Postgres::start();
    one_table(&server);
    wait(async {
        let mut model = Model::default();
        let t: &[&str] = &["public.t"];
        let steps = [
            ("SELECT 1", t),
            ("ALTER TABLE t ADD COLUMN x int NOT NULL DEFAULT 7", t),
            ("ALTER TABLE t ADD COLUMN y text; UPDATE t SET n = n + 1 WHERE id = 3", t),
            ("ALTER TABLE t ADD COLUMN z date DEFAULT '2026-01-02'; UPDATE t SET x = 8 WHERE id = 1", t),
            ("ALTER TABLE t RENAME COLUMN body TO content; UPDATE t SET n = 0 WHERE id < 5", t),
            ("ALTER TABLE t DROP COLUMN y", t),
            ("ALTER TABLE t ALTER COLUMN n TYPE bigint USING n * 10", t),
            ("ALTER TABLE t ALTER COLUMN x TYPE int USING x + 100", t),
            ("ALTER TYPE mood RENAME VALUE 'sad' TO 'blue'", t),
            (
                "ALTER TABLE t ADD COLUMN v int DEFAULT 1; ALTER TABLE t DROP COLUMN v; ALTER TABLE t ADD COLUMN v int \
              DEFAULT 2; UPDATE t SET x = 1 WHERE id = 2",
                t,
            ),
            ("ALTER TABLE t RENAME v TO w; ALTER TABLE t RENAME x TO v; ALTER TABLE t RENAME w TO x", t),
            (
                "BEGIN; UPDATE t SET n = 5 WHERE id = 5; ALTER TABLE t ADD COLUMN late int DEFAULT 3; UPDATE t SET n = 6 \
              WHERE id = 6; ALTER TABLE t RENAME late TO later; DELETE FROM t WHERE id = 7; COMMIT",
                t,
            ),
            ("ALTER TABLE t DROP CONSTRAINT t_pkey, ADD PRIMARY KEY (n, id)", t),
            ("VACUUM FULL t", t),
        ];
        walk(&server, &mut model, &steps).await;
        assert!(model.log.iter().any(|line| line.starts_with("Rewrite public.t")), "{:#?}", model.log);
    });
}

#[test]
fn columns_that_swap_names_while_a_reading_rests_are_not_taken_for_each_other() {
    let server = Postgres::start();
    server.psql(
        "postgres",
        "CREATE TABLE t (id int PRIMARY KEY, a int, b int); INSERT INTO t SELECT i, i, -i FROM generate_series(1, 50) i",
    );
    wait(async {
        let mut model = Model::default();
        // Some rows are here, and the others are not.
        let mut options = options(&server, "postgres");
        options.read_chunk_rows = 10;
        let mut feed = open(&options, &model).await.unwrap();
        until(&mut feed, &mut model, |model| !model.rows("public.t").is_empty()).await;
        drop(feed);
        server
            .psql("postgres", "ALTER TABLE t RENAME a TO c; ALTER TABLE t RENAME b TO a; ALTER TABLE t RENAME c TO b");
        let mut feed = open(&options, &model).await.unwrap();
        equal(&mut feed, &mut model, &server, &["public.t"], "the swap").await;
    });
}

#[test]
fn another_identity_is_another_key_also_when_no_row_changed() {
    let server = Postgres::start();
    server.psql(
        "postgres",
        "CREATE TABLE t (id int PRIMARY KEY, name text NOT NULL UNIQUE); INSERT INTO t SELECT i, 'n' || i FROM generate_series(1, 9) i",
    );
    wait(async {
        let mut model = Model::default();
        let t: &[&str] = &["public.t"];
        let steps = [
            ("SELECT 1", t),
            ("ALTER TABLE t REPLICA IDENTITY USING INDEX t_name_key", t),
            ("UPDATE t SET name = name || '!' WHERE id < 4", t),
            ("ALTER TABLE t REPLICA IDENTITY DEFAULT; UPDATE t SET name = 'other' WHERE id = 5", t),
        ];
        walk(&server, &mut model, &steps).await;
        let described = model.known();
        assert_eq!(described[0].key, ["id"]);
    });
}

#[test]
fn what_the_log_did_not_tell_while_nobody_followed_is_read() {
    let server = Postgres::start();
    server.psql(
        "postgres",
        "CREATE TABLE p (id int PRIMARY KEY, v text) PARTITION BY RANGE (id); \
         CREATE TABLE was (id int PRIMARY KEY, v text); INSERT INTO was SELECT i, 'w' FROM generate_series(1, 9) i; \
         CREATE TABLE fast (id int PRIMARY KEY, v text); INSERT INTO fast SELECT i, 'f' FROM generate_series(1, 9) i; \
         CREATE PUBLICATION everything FOR ALL TABLES WITH (publish_via_partition_root = true)",
    );
    wait(async {
        let mut model = Model::default();
        let mut options = Options { publication: "everything".into(), ..options(&server, "postgres") };
        let all: &[&str] = &["public.p", "public.was", "public.fast"];
        let mut feed = open(&options, &model).await.unwrap();
        equal(&mut feed, &mut model, &server, all, "the beginning").await;
        drop(feed);
        // A partition for a while, and one whose changes were not logged for a while.
        server.psql(
            "postgres",
            "ALTER TABLE p ATTACH PARTITION was FOR VALUES FROM (1) TO (100); UPDATE p SET v = 'moved' WHERE id < 4; \
             DELETE FROM p WHERE id = 9; ALTER TABLE p DETACH PARTITION was; \
             ALTER TABLE fast SET UNLOGGED; UPDATE fast SET v = 'unseen' WHERE id < 4; ALTER TABLE fast SET LOGGED",
        );
        let mut feed = open(&options, &model).await.unwrap();
        equal(&mut feed, &mut model, &server, all, "what nobody saw").await;
        // While somebody follows, each stands still with a reason that helps.
        server.psql("postgres", "ALTER TABLE fast SET UNLOGGED; UPDATE fast SET v = 'unseen too'");
        until_stopped(&mut feed, &mut model, "public.fast", "SET LOGGED").await;
        server.psql("postgres", "ALTER TABLE fast SET LOGGED");
        equal(&mut feed, &mut model, &server, all, "SET LOGGED").await;
        drop(feed);
        options.rules.exclude = vec!["public.p".into()];
        let mut feed = open(&options, &model).await.unwrap();
        server.psql("postgres", "ALTER TABLE p ATTACH PARTITION was DEFAULT; UPDATE p SET v = 'elsewhere'");
        until_stopped(&mut feed, &mut model, "public.was", "it is a partition of public.p now").await;
        server.psql("postgres", "ALTER TABLE p DETACH PARTITION was");
        equal(&mut feed, &mut model, &server, &["public.was", "public.fast"], "DETACH").await;
    });
}

#[test]
fn a_value_that_is_stored_out_of_line_is_kept_under_its_new_name() {
    let server = Postgres::start();
    one_table(&server);
    wait(async {
        let mut model = Model::default();
        let options = options(&server, "postgres");
        let mut feed = open(&options, &model).await.unwrap();
        until_now(&mut feed, &mut model, &server, "postgres").await;
        server.psql("postgres", "ALTER TABLE t RENAME COLUMN body TO content; UPDATE t SET n = -1 WHERE id = 9");
        until(&mut feed, &mut model, |model| model.log.iter().any(|line| line.contains(r#""n":-1"#))).await;
        // Nothing was read for it.
        assert!(model.agrees(&server, "postgres", "public.t"), "{:#?}", model.log);
    });
}

#[test]
fn each_name_has_the_rows_of_the_table_that_has_it() {
    let server = Postgres::start();
    server.psql(
        "postgres",
        "CREATE TABLE a (id int PRIMARY KEY, v text); INSERT INTO a VALUES (1, 'a1'), (2, 'a2'); \
         CREATE TABLE b (id int PRIMARY KEY, v text); INSERT INTO b VALUES (2, 'b2'), (3, 'b3'); \
         CREATE TABLE c (id int PRIMARY KEY, w int); INSERT INTO c VALUES (1, 10), (4, 40)",
    );
    wait(async {
        let mut model = Model::default();
        let all: &[&str] = &["public.a", "public.b", "public.c"];
        let steps = [
            ("SELECT 1", all),
            ("BEGIN; ALTER TABLE a RENAME TO x; ALTER TABLE b RENAME TO a; ALTER TABLE x RENAME TO b; COMMIT", all),
            (
                "BEGIN; ALTER TABLE a RENAME TO x; ALTER TABLE b RENAME TO a; ALTER TABLE c RENAME TO b; \
                 ALTER TABLE x RENAME TO c; INSERT INTO a VALUES (9, 'a9'); COMMIT; UPDATE b SET w = 11 WHERE id = 1",
                all,
            ),
            (
                "DROP TABLE a; ALTER TABLE b RENAME TO a; INSERT INTO a VALUES (5, 50)",
                &["public.a", "public.b", "public.c"],
            ),
            (
                "ALTER TABLE c RENAME TO d; CREATE TABLE c (id int PRIMARY KEY); INSERT INTO c VALUES (77)",
                &["public.a", "public.c", "public.d"],
            ),
            (
                "DROP TABLE d; CREATE TABLE d (id text PRIMARY KEY); INSERT INTO d VALUES ('new')",
                &["public.c", "public.d"],
            ),
            ("DROP TABLE d, c", &["public.a", "public.c", "public.d"]),
            (
                "CREATE TABLE gone (id int PRIMARY KEY); INSERT INTO gone VALUES (1); DROP TABLE gone",
                &["public.a", "public.gone"],
            ),
        ];
        walk(&server, &mut model, &steps).await;
    });
}

#[test]
fn partitions_come_and_go_with_their_rows() {
    let server = Postgres::start();
    server.psql(
        "postgres",
        "CREATE TABLE p (id int, day int, v text, PRIMARY KEY (id, day)) PARTITION BY RANGE (day); \
         CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (1) TO (2); CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (2) TO (3); \
         INSERT INTO p SELECT i, 1 + i % 2, 'x' FROM generate_series(1, 20) i",
    );
    wait(async {
        let mut model = Model::default();
        let p: &[&str] = &["public.p"];
        let both: &[&str] = &["public.p", "public.p1"];
        let steps = [
            ("SELECT 1", p),
            ("TRUNCATE p1", p),
            ("INSERT INTO p VALUES (100, 1, 'y'); CREATE TABLE p3 PARTITION OF p FOR VALUES FROM (3) TO (4)", p),
            ("INSERT INTO p VALUES (101, 3, 'z'); UPDATE p SET day = 2 WHERE id = 101", p),
            ("ALTER TABLE p DETACH PARTITION p1; INSERT INTO p1 VALUES (102, 1, 'w')", both),
            ("ALTER TABLE p ATTACH PARTITION p1 FOR VALUES FROM (1) TO (2)", p),
            (
                "ALTER TABLE p DETACH PARTITION p1; INSERT INTO p1 VALUES (103, 1, 'v'); \
                 ALTER TABLE p ATTACH PARTITION p1 FOR VALUES FROM (1) TO (2)",
                p,
            ),
            (
                "CREATE TABLE p9 PARTITION OF p FOR VALUES FROM (9) TO (10); INSERT INTO p VALUES (200, 9, 'a'), (201, 9, 'b'); \
                 DROP TABLE p9",
                p,
            ),
            (
                "CREATE TABLE p9 PARTITION OF p FOR VALUES FROM (9) TO (10); INSERT INTO p VALUES (202, 9, 'a'); TRUNCATE p9",
                p,
            ),
            (
                "CREATE TABLE p8 PARTITION OF p FOR VALUES FROM (8) TO (9); INSERT INTO p VALUES (203, 8, 'a'); \
                 ALTER TABLE p DETACH PARTITION p8",
                &["public.p", "public.p8"],
            ),
            ("DROP TABLE p2", p),
            ("ALTER TABLE p ADD COLUMN more int DEFAULT 5", p),
        ];
        walk(&server, &mut model, &steps).await;
    });
}

#[test]
fn what_leaves_the_publication_is_left_out_and_said_and_read_anew_when_it_comes_back() {
    let server = Postgres::start();
    server.psql("postgres", "CREATE TABLE u (id int PRIMARY KEY, v text); INSERT INTO u VALUES (1, 'a'), (2, 'b')");
    wait(async {
        let mut model = Model::default();
        let options = options(&server, "postgres");
        let mut feed = open(&options, &model).await.unwrap();
        until_now(&mut feed, &mut model, &server, "postgres").await;
        server.psql("postgres", "ALTER PUBLICATION cdc DROP TABLE u; UPDATE u SET v = 'missed' WHERE id = 1");
        let reason = until_stopped(&mut feed, &mut model, "public.u", "ADD TABLE").await;
        assert_eq!(reason.code, "unpublished");
        // It stays out over a restart, and doing what the reason says helps.
        until_now(&mut feed, &mut model, &server, "postgres").await;
        drop(feed);
        let mut feed = open(&options, &model).await.unwrap();
        until_now(&mut feed, &mut model, &server, "postgres").await;
        until_stopped(&mut feed, &mut model, "public.u", "ADD TABLE").await;
        assert!(reason.message.contains("ALTER PUBLICATION \"cdc\" ADD TABLE \"public\".\"u\""), "{}", reason.message);
        // A table that is not followed has another name: the old one's rows go, and what to do names the new one.
        server.psql("postgres", "ALTER TABLE u RENAME TO v");
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let tables = feed.progress().tables;
            let renamed = tables.iter().find(|table| table.table == "public.v").and_then(|table| table.reason.clone());
            if renamed.is_some_and(|reason| reason.message.contains("ADD TABLE \"public\".\"v\""))
                && model.rows("public.u").is_empty()
            {
                assert!(tables.iter().all(|table| table.table != "public.u"), "{tables:?}");
                break;
            }
            assert!(tokio::time::Instant::now() < deadline, "{tables:?}");
            if let Ok(portion) = tokio::time::timeout(Duration::from_millis(50), feed.next()).await {
                let portion = portion.unwrap();
                model.apply(&portion);
                feed.confirm(&portion.checkpoint);
            }
        }
        server.psql("postgres", "ALTER TABLE v RENAME TO u");
        server.psql("postgres", "ALTER PUBLICATION \"cdc\" ADD TABLE \"public\".\"u\"");
        equal(&mut feed, &mut model, &server, &["public.u"], "it was put back").await;
        // Out and in between two looks.
        server.psql(
            "postgres",
            "ALTER PUBLICATION cdc DROP TABLE u; DELETE FROM u WHERE id = 2; ALTER PUBLICATION cdc ADD TABLE u",
        );
        equal(&mut feed, &mut model, &server, &["public.u"], "it was out for a moment").await;
    });
}

#[test]
fn nothing_is_added_to_a_publication_that_somebody_else_made() {
    let server = Postgres::start();
    server.psql(
        "postgres",
        "CREATE TABLE one (id int PRIMARY KEY, secret text, v text); CREATE TABLE two (id int PRIMARY KEY); \
         INSERT INTO one VALUES (1, 's', 'v'); CREATE PUBLICATION theirs FOR TABLE one (id, v) \
         WITH (publish_via_partition_root = true)",
    );
    wait(async {
        let mut model = Model::default();
        let mut options = options(&server, "postgres");
        options.publication = "theirs".into();
        let mut feed = open(&options, &model).await.unwrap();
        until(&mut feed, &mut model, |model| model.tables.get("public.one").is_some_and(|t| t.read_done)).await;
        server.psql("postgres", "UPDATE one SET v = 'w'; INSERT INTO two VALUES (1)");
        until(&mut feed, &mut model, |model| model.log.len() == 1).await;
        assert_eq!(model.log, [r#"Replace public.one 1 {"id":1,"v":"w"}"#]);
        assert!(!model.tables.contains_key("public.two"));
        let listed = server.psql("postgres", "SELECT tablename FROM pg_publication_tables WHERE pubname = 'theirs'");
        assert_eq!(listed.trim(), "one");
    });
}

#[test]
fn a_table_that_cannot_be_captured_stops_alone_and_is_taken_up_when_it_is_mended() {
    let server = Postgres::start();
    server.psql("postgres", "CREATE TABLE good (id int PRIMARY KEY, v text); INSERT INTO good VALUES (1, 'a')");
    wait(async {
        let mut model = Model::default();
        let mut options = options(&server, "postgres");
        options.rules = Rules { redact_columns: vec!["public.hidden.id".into()], ..Rules::default() };
        let mut feed = open(&options, &model).await.unwrap();
        until_now(&mut feed, &mut model, &server, "postgres").await;
        server.psql(
            "postgres",
            "CREATE TABLE keyless (v text); INSERT INTO keyless VALUES ('k'); CREATE TABLE \"odd name\" (id int PRIMARY KEY); \
             INSERT INTO \"odd name\" VALUES (1); CREATE TABLE hidden (id int PRIMARY KEY); INSERT INTO hidden VALUES (1); \
             INSERT INTO good VALUES (2, 'b')",
        );
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let tables = feed.progress().tables;
            let stopped = tables.iter().filter(|table| table.state == TableState::Stopped).count();
            if stopped == 3 && model.agrees(&server, "postgres", "public.good") {
                break;
            }
            assert!(tokio::time::Instant::now() < deadline, "{tables:#?}");
            if let Ok(portion) = tokio::time::timeout(Duration::from_millis(50), feed.next()).await {
                let portion = portion.unwrap();
                model.apply(&portion);
                feed.confirm(&portion.checkpoint);
            }
        }
        server.psql(
            "postgres",
            "ALTER TABLE keyless ADD COLUMN id int GENERATED ALWAYS AS IDENTITY; ALTER TABLE keyless ADD PRIMARY KEY (id); \
             ALTER TABLE \"odd name\" RENAME TO odd_name; DROP TABLE hidden; INSERT INTO odd_name VALUES (2)",
        );
        let all = ["public.good", "public.keyless", "public.odd_name"];
        equal(&mut feed, &mut model, &server, &all, "all of them were mended").await;
    });
}

/// The log announces a partition's root once, and not again when the root alone gets another name.
#[test]
fn a_partitioned_table_is_told_under_its_new_name_without_being_announced_again() {
    let server = Postgres::start();
    server.psql(
        "postgres",
        "CREATE SCHEMA hidden; \
         CREATE TABLE a (id int, part int, PRIMARY KEY (id, part)) PARTITION BY LIST (part); \
         CREATE TABLE a1 PARTITION OF a FOR VALUES IN (1); INSERT INTO a VALUES (1, 1); \
         CREATE TABLE b (id int, part int, PRIMARY KEY (id, part)) PARTITION BY LIST (part); \
         CREATE TABLE b1 PARTITION OF b FOR VALUES IN (1); INSERT INTO b VALUES (2, 1); \
         CREATE TABLE hidden.c (id int, part int, PRIMARY KEY (id, part)) PARTITION BY LIST (part); \
         CREATE TABLE hidden.c1 PARTITION OF hidden.c FOR VALUES IN (1)",
    );
    wait(async {
        let mut model = Model::default();
        let mut options = options(&server, "postgres");
        options.rules.exclude = vec!["hidden.*".into()];
        let mut feed = open(&options, &model).await.unwrap();
        let steps: [(&str, &[&str]); 9] = [
            (
                "INSERT INTO a VALUES (3, 1); INSERT INTO b VALUES (4, 1); INSERT INTO hidden.c VALUES (5, 1)",
                &["a", "b"],
            ),
            (
                "BEGIN; ALTER TABLE a RENAME TO x; ALTER TABLE b RENAME TO a; ALTER TABLE x RENAME TO b; COMMIT",
                &["a", "b"],
            ),
            ("INSERT INTO a VALUES (6, 1); INSERT INTO b VALUES (7, 1)", &["a", "b"]),
            // What is written under the old name until somebody looks is not left there.
            ("ALTER TABLE a RENAME TO d; INSERT INTO d VALUES (8, 1); DELETE FROM d WHERE id = 2", &["b", "d"]),
            ("INSERT INTO d VALUES (9, 1); ALTER TABLE hidden.c SET SCHEMA public", &["b", "c", "d"]),
            ("INSERT INTO c VALUES (10, 1); DELETE FROM c WHERE id = 5", &["b", "c", "d"]),
            ("ALTER TABLE b SET SCHEMA hidden", &["c", "d"]),
            ("INSERT INTO hidden.b VALUES (11, 1); INSERT INTO c VALUES (12, 1)", &["c", "d"]),
            ("DROP TABLE d; ALTER TABLE c RENAME TO d; INSERT INTO d VALUES (13, 1)", &["d"]),
        ];
        for (sql, tables) in steps {
            server.psql("postgres", sql);
            let tables: Vec<String> = tables.iter().map(|table| format!("public.{table}")).collect();
            let tables: Vec<&str> = tables.iter().map(String::as_str).collect();
            equal(&mut feed, &mut model, &server, &tables, sql).await;
            // Once more, by what comes after everything that was looked at.
            until_now(&mut feed, &mut model, &server, "postgres").await;
            assert!(tables.iter().all(|table| model.agrees(&server, "postgres", table)), "after {sql}");
            let is_gone = |model: &Model| {
                let others =
                    model.tables.keys().filter(|name| *name != "public.mark" && !tables.contains(&name.as_str()));
                others.into_iter().all(|name| model.rows(name).is_empty())
            };
            until(&mut feed, &mut model, is_gone).await;
        }
    });
}

#[test]
fn a_table_that_left_the_publication_says_so_though_its_key_is_known_to_the_catalog_only() {
    let server = Postgres::start();
    server.psql("postgres", "CREATE TABLE t (id int PRIMARY KEY, n int); ALTER TABLE t REPLICA IDENTITY FULL");
    wait(async {
        let mut model = Model::default();
        let options = options(&server, "postgres");
        let mut feed = open(&options, &model).await.unwrap();
        equal(&mut feed, &mut model, &server, &["public.t"], "the beginning").await;
        // Until a checkpoint knows it: a table that is new would be added again.
        until_now(&mut feed, &mut model, &server, "postgres").await;
        until_now(&mut feed, &mut model, &server, "postgres").await;
        drop(feed);
        server.psql(
            "postgres",
            "BEGIN; INSERT INTO t VALUES (1, 1); ALTER PUBLICATION cdc DROP TABLE t; COMMIT; INSERT INTO t VALUES (2, 2)",
        );
        let mut feed = open(&options, &model).await.unwrap();
        let reason = until_stopped(&mut feed, &mut model, "public.t", "ALTER PUBLICATION").await;
        assert_eq!(reason.code, "unpublished");
        assert_eq!(model.rows("public.t").len(), 1, "what the log still told is not lost");
        // One that was stopped for something else before says so as well.
        server
            .psql("postgres", "BEGIN; ALTER PUBLICATION cdc ADD TABLE t; ALTER TABLE t DROP CONSTRAINT t_pkey; COMMIT");
        until_stopped(&mut feed, &mut model, "public.t", "ADD PRIMARY KEY").await;
        server
            .psql("postgres", "BEGIN; ALTER PUBLICATION cdc DROP TABLE t; ALTER TABLE t ADD PRIMARY KEY (id); COMMIT");
        until_stopped(&mut feed, &mut model, "public.t", "ALTER PUBLICATION").await;
        server.psql("postgres", "ALTER PUBLICATION cdc ADD TABLE t");
        equal(&mut feed, &mut model, &server, &["public.t"], "it is back").await;
    });
}
