//! Several tables, and parts of one, that are read at once.

use std::collections::BTreeMap;
use std::time::Instant;

use cdc_sources::postgres::{Feed, Options};
use cdc_sources::{Action, Feed as _, Portion, Reason, Step};
use cdc_test_servers::Postgres;

use crate::model::{Model, PATIENCE, open, options, until, until_now, wait};
use crate::reading::Writers;

/// A simple generator, so that every run does other things, and says with which seed if it fails.
struct Seed(u64);

impl Seed {
    fn new() -> Seed {
        let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
        Seed(seed.unwrap_or_else(|| u64::from(std::process::id())))
    }

    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

/// Options under which a few hundred rows are read in many ranges and chunks.
fn in_ranges(server: &Postgres) -> Options {
    let mut options = options(server, "postgres");
    options.read_range_rows = 100;
    options.read_chunk_rows = 40;
    // So that readers wait for whoever takes portions.
    options.read_chunk_bytes = 32 << 10;
    options.portion_changes = 50;
    options
}

fn is_done(model: &Model, table: &str) -> bool {
    model.tables.get(table).is_some_and(|table| table.read_done)
}

/// How often each row was read.
fn count_reads(portion: &Portion, reads: &mut BTreeMap<(String, Vec<String>), u32>) {
    for step in &portion.steps {
        if let Step::Change(change) = step
            && change.action == Action::Read
        {
            *reads.entry((change.table.name.clone(), change.key.clone())).or_default() += 1;
        }
    }
}

/// Applies so many portions, some of which are confirmed.
async fn some(feed: &mut Feed, model: &mut Model, portions: u64, mut saw: impl FnMut(&Portion)) {
    for number in 0..portions {
        let portion = tokio::time::timeout(PATIENCE, feed.next()).await.expect("something comes in time").unwrap();
        saw(&portion);
        model.apply(&portion);
        if number % 3 == 0 {
            feed.confirm(&portion.checkpoint);
        }
    }
}

#[test]
fn each_row_is_read_once_in_ranges_however_often_the_feed_is_left() {
    let server = Postgres::start();
    server.psql(
        "postgres",
        "CREATE TABLE pairs (a text, b int, note text, PRIMARY KEY (a, b)); \
         INSERT INTO pairs SELECT 'k\\' || i % 7, i, 'n' FROM generate_series(1, 4000) i; \
         CREATE TABLE days (day date PRIMARY KEY, n int) PARTITION BY RANGE (day); \
         CREATE TABLE days_1 PARTITION OF days FOR VALUES FROM (MINVALUE) TO ('2025-02-01'); \
         CREATE TABLE days_2 PARTITION OF days DEFAULT; \
         INSERT INTO days SELECT date '2024-01-01' + i, i FROM generate_series(1, 2000) i; \
         CREATE TABLE empty (id int PRIMARY KEY)",
    );
    wait(async {
        let (mut model, mut reads, mut openings) = (Model::default(), BTreeMap::new(), 0);
        let mut seed = Seed::new();
        let began_with = seed.0;
        let mut was_in_ranges = false;
        let deadline = Instant::now() + PATIENCE;
        let tables = ["public.pairs", "public.days", "public.empty"];
        while !tables.iter().all(|table| is_done(&model, table)) {
            assert!(Instant::now() < deadline, "not read in time, in {openings} openings");
            let mut options = in_ranges(&server);
            // As many as before, or others.
            options.read_parallelism = 1 + usize::try_from(seed.below(6)).unwrap();
            let mut feed = open(&options, &model).await.unwrap();
            openings += 1;
            let portions = 1 + seed.below(30);
            for _ in 0..portions {
                if tables.iter().all(|table| is_done(&model, table)) {
                    break;
                }
                some(&mut feed, &mut model, 1, |portion| count_reads(portion, &mut reads)).await;
                was_in_ranges |= model.checkpoint.as_ref().is_some_and(|text| text.0.contains("\"ranges\""));
            }
        }
        assert!(was_in_ranges);
        for table in tables {
            assert!(model.equals(&server, "postgres", table), "{table}, seed {began_with}");
        }
        assert_eq!(reads.len(), 6000);
        assert!(reads.values().all(|times| *times == 1), "seed {began_with}, {openings} openings");
        assert!(model.log.is_empty());
    });
}

#[test]
fn small_tables_do_not_wait_for_a_large_one_also_those_that_are_made_while_it_is_read() {
    let server = Postgres::start();
    server.psql(
        "postgres",
        "CREATE TABLE large (id int PRIMARY KEY, note text); \
         INSERT INTO large SELECT i, repeat('n', 200) FROM generate_series(1, 20000) i; \
         CREATE TABLE small_a (id int PRIMARY KEY); INSERT INTO small_a SELECT generate_series(1, 100); \
         CREATE TABLE small_b (id int PRIMARY KEY); INSERT INTO small_b SELECT generate_series(1, 100)",
    );
    wait(async {
        for ranges in [false, true] {
            let mut model = Model::default();
            let mut options = in_ranges(&server);
            options.slot = format!("slot_{ranges}");
            options.read_parallelism = 2;
            options.read_range_rows = if ranges { 100 } else { u64::MAX };
            let mut feed = open(&options, &model).await.unwrap();
            let read = |feed: &Feed| {
                let progress = feed.progress();
                progress.tables.iter().find(|table| table.table == "public.large").map_or(0, |table| table.rows_read)
            };
            let done = |model: &Model, names: &[&str]| names.iter().all(|name| is_done(model, name));
            until(&mut feed, &mut model, |model| done(model, &["public.small_a", "public.small_b"])).await;
            assert!(!is_done(&model, "public.large"));
            // When all lanes are at the large one.
            let deadline = Instant::now() + PATIENCE;
            while read(&feed) < 1000 {
                assert!(Instant::now() < deadline);
                some(&mut feed, &mut model, 1, |_| ()).await;
            }
            let later = format!("later_{ranges}");
            server.psql(
                "postgres",
                &format!(
                    "CREATE TABLE {later} (id int PRIMARY KEY); INSERT INTO {later} SELECT generate_series(1, 100)"
                ),
            );
            let later = format!("public.{later}");
            // The large one is not taken while the catalog is not looked at.
            let deadline = Instant::now() + PATIENCE;
            while !feed.progress().tables.iter().any(|table| table.table == later) {
                assert!(Instant::now() < deadline, "the table was not found in time");
                let waited = tokio::time::timeout(std::time::Duration::from_millis(100), feed.next()).await;
                if let Ok(portion) = waited {
                    model.apply(&portion.unwrap());
                }
                // Not faster than somebody looks.
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
            until(&mut feed, &mut model, |model| done(model, &[&later])).await;
            assert!(!is_done(&model, "public.large"), "ranges {ranges}");
            until_now(&mut feed, &mut model, &server, "postgres").await;
            assert!(model.equals(&server, "postgres", "public.large") && model.equals(&server, "postgres", &later));
            // Nobody is connected any more who has nothing to read: what is left follows, looks around and decodes.
            let connected = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'cdc'";
            let deadline = Instant::now() + PATIENCE;
            while server.psql("postgres", connected).trim() != "3" {
                assert!(Instant::now() < deadline, "{} connections", server.psql("postgres", connected));
                let _ = tokio::time::timeout(std::time::Duration::from_millis(50), feed.next()).await;
            }
        }
    });
}

/// Rows whose values out of line are all different, of keys that change hands.
const MOVING: &str = "\\set id random(1, 400)\n\\set other random(1, 400)\n\\set what random(1, 10)\n\
    \\if :what <= 2\nINSERT INTO moving VALUES (:id, 'inserted', repeat(md5(random()::text), 100)) \
    ON CONFLICT (id) DO UPDATE SET note = 'inserted again';\n\
    \\elif :what <= 4\nUPDATE moving SET note = note || '.' WHERE id = :id;\n\
    \\elif :what <= 5\nUPDATE moving SET big = repeat(md5(random()::text), 100) WHERE id = :id;\n\
    \\elif :what <= 6\nDELETE FROM moving WHERE id = :id;\n\
    \\elif :what <= 7\nUPDATE moving SET more = repeat(md5(random()::text), 100) WHERE id = :id;\n\
    \\else\nUPDATE moving SET id = :other WHERE id = :id AND NOT EXISTS (SELECT FROM moving WHERE id = :other);\n\\endif\n";

#[test]
fn rows_that_move_between_ranges_keep_values_that_the_log_does_not_repeat() {
    let server = Postgres::start();
    server.psql(
        "postgres",
        "CREATE TABLE moving (id int PRIMARY KEY, note text, big text, more text); \
         ALTER TABLE moving ALTER big SET STORAGE EXTERNAL, ALTER more SET STORAGE EXTERNAL; \
         INSERT INTO moving SELECT i, 'old', repeat(md5(i::text), 100), repeat(md5('m' || i), 100) \
         FROM generate_series(1, 300) i",
    );
    wait(async {
        let mut model = Model::default();
        let writers = Writers::start(&server, MOVING, 4, 400);
        let mut seed = Seed::new();
        let began_with = seed.0;
        let mut openings = 0;
        for round in 0..12 {
            let mut options = in_ranges(&server);
            options.read_chunk_rows = 5 + usize::try_from(seed.below(60)).unwrap();
            options.read_range_rows = 20 + seed.below(200);
            options.read_parallelism = 1 + usize::try_from(seed.below(8)).unwrap();
            if round > 0 {
                options.orders.reread.insert("public.moving".into(), Reason::new("asked", "somebody asked for it"));
            }
            let mut feed = open(&options, &model).await.unwrap();
            openings += 1;
            some(&mut feed, &mut model, 2, |_| ()).await;
            // Left in the middle now and then, and gone on with.
            while seed.below(2) == 0 {
                drop(feed);
                options.orders.reread.clear();
                feed = open(&options, &model).await.unwrap();
                openings += 1;
                some(&mut feed, &mut model, 1 + seed.below(6), |_| ()).await;
            }
            until(&mut feed, &mut model, |model| is_done(model, "public.moving")).await;
            until_now(&mut feed, &mut model, &server, "postgres").await;
        }
        drop(writers);
        let mut feed = open(&in_ranges(&server), &model).await.unwrap();
        until_now(&mut feed, &mut model, &server, "postgres").await;
        assert!(model.equals(&server, "postgres", "public.moving"), "seed {began_with}, {openings} openings");
        assert!(model.log.len() > 100, "it was written to");
    });
}

#[test]
fn whatever_is_done_to_tables_that_are_read_at_once_their_rows_are_the_databases() {
    const TABLES: [&str; 4] = ["a", "b", "c", "d"];
    let server = Postgres::start();
    let mut seed = Seed::new();
    let began_with = seed.0;
    wait(async {
        for round in 0..4 {
            for table in TABLES {
                server.psql(
                    "postgres",
                    &format!(
                        "DROP TABLE IF EXISTS {table}; CREATE TABLE {table} (id int PRIMARY KEY, n int, note text); \
                         INSERT INTO {table} SELECT i, i, '{table}' || i FROM generate_series(1, 1500) i"
                    ),
                );
            }
            let mut model = Model::default();
            let mut options = in_ranges(&server);
            options.slot = format!("slot_{round}");
            let mut feed = open(&options, &model).await.unwrap();
            let mut statements = vec![
                "ALTER TABLE a RENAME n TO m; UPDATE a SET note = 'renamed' WHERE id % 50 = 0",
                "ALTER TABLE b ADD COLUMN more int DEFAULT 7; INSERT INTO b VALUES (9001, 1, 'new', 8)",
                "ALTER TABLE c ALTER n TYPE bigint USING n * 2; UPDATE c SET id = id + 5000 WHERE id < 20",
                "TRUNCATE d; INSERT INTO d VALUES (1, 1, 'after')",
                "BEGIN; ALTER TABLE a RENAME TO t; ALTER TABLE b RENAME TO a; ALTER TABLE t RENAME TO b; COMMIT",
                "DROP TABLE c",
                "ALTER TABLE d DROP COLUMN note; INSERT INTO d VALUES (2, 2)",
                "ALTER TABLE b ADD COLUMN last text; DELETE FROM b WHERE id % 7 = 0",
            ];
            while !statements.is_empty() {
                let chance = tokio::time::Duration::from_millis(seed.below(40));
                while let Ok(portion) = tokio::time::timeout(chance, feed.next()).await {
                    model.apply(&portion.unwrap());
                    if seed.below(4) == 0 {
                        break;
                    }
                }
                // In their order: some need those before.
                server.psql("postgres", statements.remove(0));
                if seed.below(3) == 0 {
                    drop(feed);
                    feed = open(&options, &model).await.unwrap();
                }
            }
            let deadline = Instant::now() + PATIENCE;
            let agree =
                |model: &Model| TABLES.iter().all(|t| model.agrees(&server, "postgres", &format!("public.{t}")));
            loop {
                until_now(&mut feed, &mut model, &server, "postgres").await;
                if agree(&model) {
                    break;
                }
                assert!(Instant::now() < deadline, "seed {began_with}, round {round}: {:#?}", feed.progress());
            }
            drop(feed);
            server.psql("postgres", "DROP TABLE mark");
        }
    });
}

#[test]
fn a_table_that_gets_another_name_which_is_the_same_here_is_read_on() {
    let server = Postgres::start();
    server.psql(
        "postgres",
        "CREATE SCHEMA other; CREATE TABLE rows (id int PRIMARY KEY, note text); \
         INSERT INTO rows SELECT i, repeat('n', 100) FROM generate_series(1, 3000) i",
    );
    wait(async {
        let mut model = Model::default();
        let mut options = in_ranges(&server);
        options.rules.name = "{relation}".into();
        let mut feed = open(&options, &model).await.unwrap();
        let mut reads = BTreeMap::new();
        some(&mut feed, &mut model, 5, |portion| count_reads(portion, &mut reads)).await;
        server.psql("postgres", "ALTER TABLE rows SET SCHEMA other; DELETE FROM other.rows WHERE id > 2990");
        let deadline = Instant::now() + PATIENCE;
        while !is_done(&model, "rows") {
            assert!(Instant::now() < deadline);
            some(&mut feed, &mut model, 1, |portion| count_reads(portion, &mut reads)).await;
        }
        server.psql("postgres", "UPDATE other.rows SET note = 'last' WHERE id = 1");
        until(&mut feed, &mut model, |model| model.log.last().is_some_and(|last| last.contains("last"))).await;
        assert_eq!(model.tables["rows"].rows.len(), 2990);
        assert!(reads.len() < 3001 && reads.values().all(|times| *times == 1), "it goes on, and does not begin anew");
    });
}

#[test]
fn a_table_of_which_more_changes_than_is_remembered_is_read_all_the_same() {
    let server = Postgres::start();
    server.psql(
        "postgres",
        "CREATE TABLE rows (id int PRIMARY KEY, n int); INSERT INTO rows SELECT i, 0 FROM generate_series(1, 30000) i",
    );
    wait(async {
        let mut model = Model::default();
        let mut options = in_ranges(&server);
        options.read_parallelism = 8;
        options.portion_changes = 4096;
        options.read_chunk_rows = 1000;
        options.read_chunk_bytes = 1 << 20;
        let mut feed = open(&options, &model).await.unwrap();
        let is_in_ranges = |model: &Model| model.checkpoint.as_ref().is_some_and(|text| text.0.contains("\"ranges\""));
        until(&mut feed, &mut model, is_in_ranges).await;
        // In each of the eight windows these are more than all may have together.
        server.psql("postgres", "UPDATE rows SET n = 1; UPDATE rows SET id = id + 100000 WHERE id % 100 = 0");
        until(&mut feed, &mut model, |model| is_done(model, "public.rows")).await;
        until_now(&mut feed, &mut model, &server, "postgres").await;
        assert!(model.equals(&server, "postgres", "public.rows"));
    });
}

#[test]
fn a_server_that_has_few_connections_left_is_read_with_fewer() {
    let server = Postgres::start();
    server.psql("postgres", "CREATE ROLE follower LOGIN REPLICATION PASSWORD 'word' CONNECTION LIMIT 6");
    for table in 0..8 {
        server.psql(
            "postgres",
            &format!(
                "CREATE TABLE t{table} (id int PRIMARY KEY); INSERT INTO t{table} SELECT generate_series(1, 1000); \
                 GRANT SELECT ON t{table} TO follower"
            ),
        );
    }
    server.psql("postgres", "CREATE PUBLICATION cdc FOR ALL TABLES WITH (publish_via_partition_root = true)");
    wait(async {
        let mut model = Model::default();
        let mut options = in_ranges(&server);
        options.url = format!("postgres://follower:word@127.0.0.1:{}/postgres?sslmode=disable", server.port());
        options.read_parallelism = 8;
        let mut feed = open(&options, &model).await.unwrap();
        let names: Vec<String> = (0..8).map(|table| format!("public.t{table}")).collect();
        until(&mut feed, &mut model, |model| names.iter().all(|name| is_done(model, name))).await;
        assert!(names.iter().all(|name| model.equals(&server, "postgres", name)));
    });
}
