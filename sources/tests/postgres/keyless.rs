//! Tables without a key that are captured as rows that are only ever inserted.

use std::time::Instant;

use cdc_sources::postgres::{Options, check};
use cdc_sources::{Feed as _, Reason, Rules, Severity, TableState};
use cdc_test_servers::Postgres;

use crate::model::{Model, PATIENCE, open, options, until, until_now, wait};
use crate::reading::Writers;
use crate::schema::equal;

fn appending(server: &Postgres) -> Options {
    let mut options = options(server, "postgres");
    options.rules = Rules { append_only: vec!["public.audit*".into()], ..Rules::default() };
    options
}

/// The oldest server at hand that every test has, and the newest.
fn servers() -> Vec<Postgres> {
    let newest = Postgres::available_versions().into_iter().max().filter(|version| *version > 15);
    std::iter::once(Postgres::start()).chain(newest.map(|version| Postgres::with_version(version, &[]))).collect()
}

fn state(feed: &cdc_sources::postgres::Feed, table: &str) -> Option<(TableState, Option<Reason>)> {
    let tables = feed.progress().tables;
    tables.into_iter().find(|progress| progress.table == table).map(|progress| (progress.state, progress.reason))
}

/// Rows that are alike, several in a transaction, subtransactions that are rolled back, and now and then none any more.
const INSERTS: &str = "\\set what random(1, 60)\n\\set kind random(1, 3)\n\
    \\if :what = 1\nTRUNCATE audit;\n\
    \\elif :what <= 20\nINSERT INTO audit SELECT :kind, 'many', repeat('m', 900) FROM generate_series(1, 7);\n\
    \\elif :what <= 30\nBEGIN; INSERT INTO audit VALUES (:kind, 'kept', NULL); SAVEPOINT s; \
    INSERT INTO audit VALUES (:kind, 'not', NULL); ROLLBACK TO s; INSERT INTO audit VALUES (:kind, 'kept', ''); COMMIT;\n\
    \\else\nINSERT INTO audit VALUES (:kind, 'one', NULL);\n\\endif\n";

#[test]
fn every_row_comes_once_however_often_the_feed_is_left_while_rows_are_inserted() {
    for server in servers() {
        server.psql(
            "postgres",
            "CREATE TABLE audit (kind int, what text, big text); \
             INSERT INTO audit SELECT i % 5, 'old', repeat('o', 500) FROM generate_series(1, 4000) i",
        );
        wait(async {
            let mut model = Model::default();
            let mut options = appending(&server);
            options.portion_changes = 50;
            // So that the reading does not fit into memory.
            options.read_chunk_bytes = 64 << 10;
            let writers = Writers::start(&server, INSERTS, 4, 150);
            let deadline = Instant::now() + PATIENCE;
            let mut seed = u64::from(std::process::id());
            let mut openings = 0;
            while openings < 15 {
                assert!(Instant::now() < deadline, "not in time, in {openings} openings");
                let mut feed = open(&options, &model).await.unwrap();
                openings += 1;
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                for number in 0..(seed >> 33) % 60 {
                    let next = tokio::time::timeout(PATIENCE, feed.next()).await.expect("something comes in time");
                    let portion = next.unwrap();
                    model.apply(&portion);
                    if number % 3 == 0 {
                        feed.confirm(&portion.checkpoint);
                    }
                }
            }
            let mut feed = open(&options, &model).await.unwrap();
            until(&mut feed, &mut model, |model| model.tables["public.audit"].read_done).await;
            // What it is told while it follows, and then stands.
            let log = model.log.len();
            until(&mut feed, &mut model, |model| model.log.len() > log + 200).await;
            drop(writers);
            until_now(&mut feed, &mut model, &server, "postgres").await;
            assert!(model.equals(&server, "postgres", "public.audit"), "after {openings} openings");
            drop(feed);
            let mut feed = open(&options, &model).await.unwrap();
            until_now(&mut feed, &mut model, &server, "postgres").await;
            assert!(model.equals(&server, "postgres", "public.audit"), "opened once more");
        });
    }
}

#[test]
fn a_row_that_is_committed_while_the_snapshot_is_taken_comes_once() {
    let server = Postgres::start();
    server.psql("postgres", "CREATE TABLE audit (n bigserial, what text); INSERT INTO audit (what) VALUES ('old')");
    wait(async {
        for round in 0..4 {
            // As many as the machine does: some commit between the snapshot and its place in the log.
            let writers = Writers::start(&server, "INSERT INTO audit (what) VALUES ('new');\n", 6, 20_000);
            let mut model = Model::default();
            let slot = format!("round_{round}");
            let mut feed = open(&Options { slot, ..appending(&server) }, &model).await.unwrap();
            until(&mut feed, &mut model, |model| model.tables.get("public.audit").is_some_and(|t| t.read_done)).await;
            drop(writers);
            until_now(&mut feed, &mut model, &server, "postgres").await;
            assert!(model.equals(&server, "postgres", "public.audit"), "in round {round}");
        }
    });
}

#[test]
fn what_is_told_before_the_snapshot_is_taken_is_only_read() {
    let server = Postgres::start();
    server.psql("postgres", "CREATE TABLE audit (n int); CREATE TABLE other (id int PRIMARY KEY)");
    let options = appending(&server);
    wait(async {
        // The publication and the slot are there, so that nothing but the reading waits for who writes.
        let mut model = Model::default();
        let mut feed = open(&options, &model).await.unwrap();
        until_now(&mut feed, &mut model, &server, "postgres").await;
        let mut open_one = std::process::Command::new(server.bin("psql"))
            .args(["--quiet", "--host"])
            .arg(server.folder())
            .args(["--port", &server.port().to_string(), "--username", Postgres::USER, "--dbname", "postgres"])
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut input = open_one.stdin.take().unwrap();
        std::io::Write::write_all(&mut input, b"BEGIN; INSERT INTO audit VALUES (1);\n").unwrap();
        let has_written =
            "SELECT count(*) FROM pg_stat_activity WHERE state = 'idle in transaction' AND query LIKE 'INSERT%'";
        until_count(&server, has_written, "1");
        drop(feed);
        // Its readings wait for that transaction, and others come meanwhile.
        let mut reread = options.clone();
        reread.orders.reread.insert("public.audit".into(), Reason::new("requested", "somebody asked"));
        let mut feed = open(&reread, &model).await.unwrap();
        let deadline = Instant::now() + PATIENCE;
        let has_begun = |feed: &cdc_sources::postgres::Feed| {
            feed.progress().tables.iter().any(|t| t.table == "public.audit" && t.rows_estimated.is_some())
        };
        while !has_begun(&feed) {
            assert!(Instant::now() < deadline, "its reading did not begin");
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        server.psql("postgres", "INSERT INTO audit VALUES (2), (2); INSERT INTO other VALUES (1)");
        until(&mut feed, &mut model, |model| model.rows("public.other").len() == 1).await;
        assert_eq!(state(&feed, "public.audit").unwrap().0, TableState::Rereading);
        std::io::Write::write_all(&mut input, b"COMMIT;\n").unwrap();
        drop(input);
        open_one.wait().unwrap();
        equal(&mut feed, &mut model, &server, &["public.audit"], "the commit").await;
        until_now(&mut feed, &mut model, &server, "postgres").await;
        assert_eq!(model.rows("public.audit").len(), 3);
    });
}

fn until_count(server: &Postgres, sql: &str, expected: &str) {
    let deadline = Instant::now() + PATIENCE;
    while server.psql("postgres", sql) != expected {
        assert!(Instant::now() < deadline, "{sql}");
    }
}

#[test]
fn a_row_that_is_changed_or_deleted_stops_its_table_until_it_is_read_anew() {
    for server in servers() {
        server.psql(
            "postgres",
            "CREATE TABLE audit (n int); INSERT INTO audit VALUES (1), (1), (2); \
             ALTER TABLE audit REPLICA IDENTITY FULL; CREATE TABLE other (id int PRIMARY KEY)",
        );
        wait(async {
            let mut model = Model::default();
            let mut options = appending(&server);
            for change in ["UPDATE audit SET n = 3 WHERE n = 2", "DELETE FROM audit WHERE n = 1"] {
                let mut feed = open(&options, &model).await.unwrap();
                equal(&mut feed, &mut model, &server, &["public.audit"], change).await;
                let before = model.rows("public.audit");
                server
                    .psql("postgres", &format!("{change}; INSERT INTO audit VALUES (9); INSERT INTO other VALUES (1)"));
                until_now(&mut feed, &mut model, &server, "postgres").await;
                let (state, reason) = state(&feed, "public.audit").unwrap();
                let reason = reason.unwrap();
                assert_eq!((state, reason.code.as_str()), (TableState::Stopped, "rows-changed"), "{change}");
                assert!(reason.message.contains("read anew"), "{}", reason.message);
                assert_eq!(model.rows("public.audit"), before, "nothing is guessed");
                assert!(model.equals(&server, "postgres", "public.other"));
                server.psql("postgres", "DELETE FROM other");
                drop(feed);
                options.orders.reread.insert("public.audit".into(), Reason::new("requested", "somebody asked"));
                let mut feed = open(&options, &model).await.unwrap();
                equal(&mut feed, &mut model, &server, &["public.audit", "public.other"], change).await;
                options.orders.reread.clear();
            }
        });
    }
}

#[test]
fn whatever_is_done_to_the_table_its_rows_are_the_databases() {
    for server in servers() {
        server.psql(
            "postgres",
            "CREATE TABLE audit (n int, what text); INSERT INTO audit VALUES (1, 'a'), (1, 'a'), (2, NULL)",
        );
        let steps: &[(&str, &[&str])] = &[
            ("INSERT INTO audit VALUES (1, 'a')", &["public.audit"]),
            ("ALTER TABLE audit ADD COLUMN x int DEFAULT 7; INSERT INTO audit VALUES (1, 'a', 8)", &["public.audit"]),
            ("ALTER TABLE audit RENAME COLUMN what TO why; INSERT INTO audit VALUES (1, 'a', 7)", &["public.audit"]),
            (
                "ALTER TABLE audit ALTER COLUMN n TYPE text USING 'no ' || n; INSERT INTO audit VALUES ('z', 'z', 0)",
                &["public.audit"],
            ),
            ("ALTER TABLE audit DROP COLUMN x", &["public.audit"]),
            (
                "INSERT INTO audit VALUES ('before'); TRUNCATE audit; INSERT INTO audit VALUES ('after')",
                &["public.audit"],
            ),
            (
                "ALTER TABLE audit RENAME TO audit_2024; INSERT INTO audit_2024 VALUES ('moved')",
                &["public.audit", "public.audit_2024"],
            ),
            ("CREATE TABLE audit (n int); INSERT INTO audit VALUES (1), (1)", &["public.audit", "public.audit_2024"]),
            ("ALTER TABLE audit ADD COLUMN id serial PRIMARY KEY; INSERT INTO audit VALUES (4)", &["public.audit"]),
            ("UPDATE audit SET n = 5 WHERE n = 4; DELETE FROM audit WHERE id = 1", &["public.audit"]),
            ("ALTER TABLE audit DROP CONSTRAINT audit_pkey; INSERT INTO audit VALUES (5, 3)", &["public.audit"]),
            (
                "CREATE TABLE audit_parts (d int) PARTITION BY RANGE (d); \
              CREATE TABLE audit_p1 PARTITION OF audit_parts FOR VALUES FROM (0) TO (10); \
              INSERT INTO audit_parts VALUES (1), (1)",
                &["public.audit_parts"],
            ),
            (
                "CREATE TABLE audit_p2 PARTITION OF audit_parts FOR VALUES FROM (10) TO (20); \
              INSERT INTO audit_parts VALUES (11), (1)",
                &["public.audit_parts"],
            ),
            ("DROP TABLE audit_p1; INSERT INTO audit_parts VALUES (12)", &["public.audit_parts"]),
            ("DROP TABLE audit_2024", &["public.audit", "public.audit_2024", "public.audit_parts"]),
        ];
        wait(async {
            let mut model = Model::default();
            let options = appending(&server);
            let mut feed = open(&options, &model).await.unwrap();
            equal(&mut feed, &mut model, &server, &["public.audit"], "the beginning").await;
            for (at, (sql, tables)) in steps.iter().enumerate() {
                if at % 2 == 1 {
                    drop(feed);
                    feed = open(&options, &model).await.unwrap();
                }
                server.psql("postgres", sql);
                equal(&mut feed, &mut model, &server, tables, sql).await;
            }
            drop(feed);
            let mut feed = open(&options, &model).await.unwrap();
            until_now(&mut feed, &mut model, &server, "postgres").await;
            for table in ["public.audit", "public.audit_2024", "public.audit_parts"] {
                assert!(model.agrees(&server, "postgres", table), "{table} after it was opened anew");
            }
        });
    }
}

#[test]
fn a_column_with_a_default_is_added_without_reading_and_without_other_ids() {
    let server = Postgres::start();
    server.psql("postgres", "CREATE TABLE audit (n int); INSERT INTO audit VALUES (1), (1)");
    wait(async {
        let mut model = Model::default();
        let mut feed = open(&appending(&server), &model).await.unwrap();
        equal(&mut feed, &mut model, &server, &["public.audit"], "the beginning").await;
        let ids: Vec<Vec<String>> = model.tables["public.audit"].rows.keys().cloned().collect();
        server.psql("postgres", "ALTER TABLE audit ADD COLUMN x int DEFAULT 7; INSERT INTO audit VALUES (2, 8)");
        equal(&mut feed, &mut model, &server, &["public.audit"], "a column").await;
        assert!(model.log.iter().any(|line| line.starts_with("Rewrite public.audit")), "{:#?}", model.log);
        assert!(ids.iter().all(|id| model.tables["public.audit"].rows.contains_key(id)), "{ids:?}");
    });
}

#[test]
fn who_did_not_choose_it_is_told_how_and_what_it_means() {
    let server = Postgres::start();
    server.psql(
        "postgres",
        "CREATE TABLE audit (n int); CREATE TABLE audit_full (n int); ALTER TABLE audit_full REPLICA IDENTITY FULL; \
         CREATE TABLE audit_taken (_row int); CREATE TABLE other (n int); INSERT INTO audit VALUES (1); \
         CREATE TABLE audit_keyed (id int PRIMARY KEY); ALTER TABLE audit_keyed REPLICA IDENTITY NOTHING; \
         INSERT INTO audit_keyed VALUES (7)",
    );
    wait(async {
        let findings = check(appending(&server)).await;
        let told = |code: &str, table: &str| {
            let mut found = findings.iter().filter(|finding| finding.code == code && finding.message.contains(table));
            let finding = found.next().unwrap_or_else(|| panic!("{code} of {table} in {findings:#?}"));
            assert_eq!(finding.severity, Severity::Warning);
            finding.message.clone()
        };
        assert!(told("append-only", "\"audit\" ").contains("refuses UPDATE"));
        assert!(told("append-only", "\"audit_full\" ").contains("stops it"));
        assert!(told("table-refused", "\"audit_taken\" ").contains("`_row`"));
        // Its key tells its rows apart, though the log would not tell it of an old row.
        assert!(!findings.iter().any(|finding| finding.message.contains("audit_keyed")), "{findings:#?}");
        assert!(told("no-key", "\"other\" ").contains("append-only = [\"public.other\"]"));

        let mut model = Model::default();
        let mut feed = open(&appending(&server), &model).await.unwrap();
        until_now(&mut feed, &mut model, &server, "postgres").await;
        for (table, expected) in [("public.other", "no-key"), ("public.audit_taken", "table-refused")] {
            let (state, reason) = state(&feed, table).unwrap();
            assert_eq!((state, reason.unwrap().code.as_str()), (TableState::Stopped, expected));
        }
        let (_, reason) = state(&feed, "public.other").unwrap();
        assert!(reason.unwrap().message.contains("append-only = [\"public.other\"]"));
        // As the check says.
        server.psql(
            "postgres",
            "DO $$ BEGIN UPDATE audit SET n = 2; RAISE 'not refused'; \
             EXCEPTION WHEN object_not_in_prerequisite_state THEN NULL; END $$",
        );
        // A look at the log's end does not wait for readings.
        let is_read = |model: &Model, name: &str| model.tables.get(name).is_some_and(|table| table.read_done);
        let are_read = |model: &Model| ["public.audit", "public.audit_keyed"].iter().all(|name| is_read(model, name));
        until(&mut feed, &mut model, are_read).await;
        assert!(model.tables["public.audit_keyed"].rows.contains_key(&vec!["7".to_owned()]));
        assert!(model.equals(&server, "postgres", "public.audit"));
        // Chosen later, it is taken up; given up, it stops, and its rows stay.
        drop(feed);
        let mut options = appending(&server);
        options.rules.append_only.push("public.other".into());
        server.psql("postgres", "INSERT INTO other VALUES (1), (1)");
        let mut feed = open(&options, &model).await.unwrap();
        until(&mut feed, &mut model, |model| model.tables.get("public.other").is_some_and(|t| t.read_done)).await;
        assert!(model.equals(&server, "postgres", "public.other"));
        drop(feed);
        let mut feed = open(&appending(&server), &model).await.unwrap();
        until_now(&mut feed, &mut model, &server, "postgres").await;
        server.psql("postgres", "INSERT INTO other VALUES (2)");
        until_now(&mut feed, &mut model, &server, "postgres").await;
        let (state, reason) = state(&feed, "public.other").unwrap();
        assert_eq!((state, reason.unwrap().code.as_str()), (TableState::Stopped, "no-key"));
        assert_eq!(model.rows("public.other").len(), 2);
    });
}

#[test]
fn a_table_that_was_altered_after_the_last_row_that_the_log_tells_is_read_once() {
    let server = Postgres::start();
    server.psql(
        "postgres",
        "CREATE TABLE audit (n int); CREATE TABLE keyed (n int PRIMARY KEY); INSERT INTO keyed VALUES (1)",
    );
    wait(async {
        let mut model = Model::default();
        let mut options = appending(&server);
        let mut feed = open(&options, &model).await.unwrap();
        until_now(&mut feed, &mut model, &server, "postgres").await;
        drop(feed);
        for table in ["public.audit", "public.keyed"] {
            options.orders.reread.insert(table.into(), Reason::new("requested", "somebody asked"));
        }
        server.psql(
            "postgres",
            "INSERT INTO audit VALUES (1); ALTER TABLE audit ADD PRIMARY KEY (n); \
             INSERT INTO keyed VALUES (2); ALTER TABLE keyed ADD COLUMN x int DEFAULT 7",
        );
        let mut feed = open(&options, &model).await.unwrap();
        let tables = ["public.audit", "public.keyed"];
        equal(&mut feed, &mut model, &server, &tables, "the alterations").await;
        until_now(&mut feed, &mut model, &server, "postgres").await;
        assert!(tables.iter().all(|table| model.equals(&server, "postgres", table)));
    });
}
