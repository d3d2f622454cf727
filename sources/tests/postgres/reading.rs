//! Tables that are read while they change.

use std::process::{Command, Stdio};
use std::time::Instant;

use cdc_sources::Feed as _;
use cdc_test_servers::Postgres;

use crate::model::{Model, PATIENCE, open, options, until, until_now, wait};

/// A writer of its own: single-row transactions over a small range of keys, several at once, until it is dropped.
pub(crate) struct Writers(Vec<std::process::Child>);

impl Writers {
    pub(crate) fn start(server: &Postgres, script: &str, clients: u32, rate: u32) -> Writers {
        let file = server.folder().join("script.sql");
        std::fs::write(&file, script).unwrap();
        let child = Command::new(server.bin("pgbench"))
            .args(["--no-vacuum", "--client", &clients.to_string(), "--rate", &rate.to_string()])
            .args(["--time", "120", "--file"])
            .arg(&file)
            .args(["--host", "127.0.0.1", "--port", &server.port().to_string(), "--username", Postgres::USER])
            .arg("postgres")
            .env("PGPASSWORD", Postgres::PASSWORD)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Writers(vec![child])
    }
}

impl Drop for Writers {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

pub(crate) const BUSY: &str = "\\set id random(1, 6000)\n\\set other random(1, 6000)\n\\set what random(1, 10)\n\
    \\if :what <= 3\nINSERT INTO rows VALUES (:id, 'inserted', repeat('i', 3000)) \
    ON CONFLICT (id) DO UPDATE SET note = 'inserted again';\n\
    \\elif :what <= 6\nUPDATE rows SET note = note || '.' WHERE id = :id;\n\
    \\elif :what <= 8\nDELETE FROM rows WHERE id = :id;\n\
    \\else\nUPDATE rows SET id = :other WHERE id = :id AND NOT EXISTS (SELECT FROM rows WHERE id = :other);\n\\endif\n";

pub(crate) fn rows_table(server: &Postgres) {
    server.psql(
        "postgres",
        "CREATE TABLE rows (id int PRIMARY KEY, note text, big text); \
         ALTER TABLE rows ALTER big SET STORAGE EXTERNAL; \
         INSERT INTO rows SELECT i, 'old', repeat('o', 3000) FROM generate_series(1, 5000) i",
    );
}

#[test]
fn a_table_is_read_while_it_is_written_to_and_left_and_opened_again_at_any_place() {
    let server = Postgres::start();
    rows_table(&server);
    wait(async {
        let mut model = Model::default();
        let mut options = options(&server, "postgres");
        options.read_chunk_rows = 300;
        options.portion_changes = 50;
        // Slower than the log is followed, however busy the machine is.
        let writers = Writers::start(&server, BUSY, 4, 150);
        let deadline = Instant::now() + 4 * PATIENCE;
        // A simple generator, so that every run leaves the feed at other places, and says at which if it fails.
        let mut seed = u64::from(std::process::id());
        let mut openings = 0;
        while !model.tables.get("public.rows").is_some_and(|table| table.read_done) || openings < 10 {
            assert!(Instant::now() < deadline, "the table was not read in time, in {openings} openings");
            let mut feed = open(&options, &model).await.unwrap();
            openings += 1;
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            for number in 0..(seed >> 33) % 60 {
                // Whether there is anything depends on the writers, and they do not wait for us.
                let next = tokio::time::timeout(PATIENCE, feed.next()).await.expect("something comes in time");
                let portion = next.unwrap();
                model.apply(&portion);
                if number % 3 == 0 {
                    feed.confirm(&portion.checkpoint);
                }
            }
        }
        drop(writers);
        let mut feed = open(&options, &model).await.unwrap();
        until_now(&mut feed, &mut model, &server, "postgres").await;
        assert!(model.equals(&server, "postgres", "public.rows"), "after {openings} openings");
        assert!(model.log.len() > 100, "it was written to");
    });
}

#[test]
fn rows_that_are_there_are_read_once_and_are_no_changes() {
    let server = Postgres::start();
    server.psql("postgres", "CREATE TABLE rows (a text, b int, PRIMARY KEY (a, b))");
    server.psql("postgres", "INSERT INTO rows SELECT 'k\\' || i % 7, i FROM generate_series(1, 1000) i");
    server.psql("postgres", "CREATE TABLE empty (id int PRIMARY KEY)");
    wait(async {
        let mut model = Model::default();
        let mut options = options(&server, "postgres");
        options.read_chunk_rows = 13;
        let mut feed = open(&options, &model).await.unwrap();
        until(&mut feed, &mut model, |model| {
            let done = |name: &str| model.tables.get(name).is_some_and(|table| table.read_done);
            done("public.rows") && done("public.empty")
        })
        .await;
        assert!(model.equals(&server, "postgres", "public.rows"));
        assert!(model.log.is_empty());
        let progress = feed.progress();
        assert_eq!(progress.tables.len(), 2);
        let rows = progress.tables.iter().find(|table| table.table == "public.rows").unwrap();
        assert_eq!((rows.rows_read, rows.state), (1000, cdc_sources::TableState::Following));
    });
}

#[test]
fn a_table_that_is_made_later_is_read_without_a_stop() {
    let server = Postgres::start();
    rows_table(&server);
    wait(async {
        let mut model = Model::default();
        let mut feed = open(&options(&server, "postgres"), &model).await.unwrap();
        until(&mut feed, &mut model, |model| model.tables.get("public.rows").is_some_and(|t| t.read_done)).await;
        server.psql(
            "postgres",
            "CREATE TABLE later (id int PRIMARY KEY, note text); \
             INSERT INTO later SELECT i, 'before' FROM generate_series(1, 100) i",
        );
        until(&mut feed, &mut model, |model| model.tables.get("public.later").is_some_and(|t| t.read_done)).await;
        server.psql(
            "postgres",
            "UPDATE later SET note = 'after' WHERE id <= 10; UPDATE rows SET note = 'x' WHERE id = 1",
        );
        until_now(&mut feed, &mut model, &server, "postgres").await;
        assert!(model.equals(&server, "postgres", "public.later"));
        assert!(model.equals(&server, "postgres", "public.rows"));
    });
}
