//! Changes as they are made.

use cdc_sources::{Feed as _, Step};
use cdc_test_servers::Postgres;

use crate::model::{Model, open, options, until, until_now, wait};

const TABLES: &str = "CREATE TABLE orders (id int PRIMARY KEY, note text, big text); \
    ALTER TABLE orders ALTER big SET STORAGE EXTERNAL;";

#[test]
fn rows_are_inserted_updated_and_deleted() {
    let server = Postgres::start();
    server.psql("postgres", TABLES);
    wait(async {
        let mut model = Model::default();
        let mut feed = open(&options(&server, "postgres"), &model).await.unwrap();
        server.psql(
            "postgres",
            "INSERT INTO orders VALUES (1, 'a', NULL), (2, 'b', 'x'); UPDATE orders SET note = 'c' WHERE id = 1; \
             DELETE FROM orders WHERE id = 2",
        );
        until_now(&mut feed, &mut model, &server, "postgres").await;
        assert!(model.equals(&server, "postgres", "public.orders"));
        assert_eq!(
            model.log.iter().filter(|line| line.contains("public.orders")).collect::<Vec<_>>(),
            [
                r#"Replace public.orders 1 {"id":1,"note":"a","big":null}"#,
                r#"Replace public.orders 2 {"id":2,"note":"b","big":"x"}"#,
                r#"Replace public.orders 1 {"id":1,"note":"c","big":null}"#,
                "Remove public.orders 2 ",
            ]
        );
    });
}

#[test]
fn a_value_that_did_not_change_and_is_stored_out_of_line_is_named() {
    let server = Postgres::start();
    server.psql("postgres", TABLES);
    server.psql("postgres", "INSERT INTO orders VALUES (1, 'a', repeat('x', 10000))");
    wait(async {
        let mut model = Model::default();
        let mut feed = open(&options(&server, "postgres"), &model).await.unwrap();
        until(&mut feed, &mut model, |model| model.tables.get("public.orders").is_some_and(|t| t.read_done)).await;
        server.psql(
            "postgres",
            "UPDATE orders SET note = 'b'; UPDATE orders SET id = 2; \
             ALTER TABLE orders REPLICA IDENTITY FULL; UPDATE orders SET note = 'c'",
        );
        until_now(&mut feed, &mut model, &server, "postgres").await;
        assert!(model.equals(&server, "postgres", "public.orders"));
        let lines: Vec<&String> = model.log.iter().filter(|line| line.contains("public.orders")).collect();
        assert_eq!(*lines[0], r#"Replace public.orders 1 {"id":1,"note":"b"}"#);
        assert_eq!(*lines[1], "Remove public.orders 1 ");
        assert_eq!(*lines[2], r#"Replace public.orders 2 {"id":2,"note":"b"}"#);
        // With the whole row as identity the old row has it.
        assert!(lines[3].starts_with(r#"Replace public.orders 2 {"id":2,"note":"c","big":"xxx"#));
    });
}

#[test]
fn a_feed_goes_on_after_its_checkpoint_wherever_it_was_left() {
    let server = Postgres::start();
    server.psql("postgres", TABLES);
    wait(async {
        let mut model = Model::default();
        let mut options = options(&server, "postgres");
        // A transaction comes in many portions.
        options.portion_changes = 7;
        let mut feed = open(&options, &model).await.unwrap();
        until(&mut feed, &mut model, |model| model.tables.get("public.orders").is_some_and(|t| t.read_done)).await;
        server.psql("postgres", "INSERT INTO orders SELECT i, i, NULL FROM generate_series(1, 100) i");
        server.psql("postgres", "UPDATE orders SET note = note || '!'; DELETE FROM orders WHERE id % 2 = 0");
        for _ in 0..12 {
            drop(feed);
            feed = open(&options, &model).await.unwrap();
            let portion = feed.next().await.unwrap();
            model.apply(&portion);
            // Handed out and lost again: it must come again.
            let _ = feed.next().await.unwrap();
        }
        drop(feed);
        let mut feed = open(&options, &model).await.unwrap();
        until_now(&mut feed, &mut model, &server, "postgres").await;
        assert!(model.equals(&server, "postgres", "public.orders"));
        assert_eq!(model.log.iter().filter(|line| line.contains("public.orders")).count(), 250);
    });
}

#[test]
fn large_open_transactions_are_kept_and_come_when_they_commit() {
    let server = Postgres::with(&[("logical_decoding_work_mem", "64kB")]);
    server.psql("postgres", TABLES);
    wait(async {
        let mut model = Model::default();
        let mut options = options(&server, "postgres");
        options.portion_changes = 500;
        // All of it goes to disk.
        options.transaction_memory_bytes = 10_000;
        let mut feed = open(&options, &model).await.unwrap();
        server.psql(
            "postgres",
            "BEGIN; INSERT INTO orders SELECT i, repeat('r', 100), NULL FROM generate_series(1, 5000) i; ROLLBACK; \
             BEGIN; INSERT INTO orders SELECT i, repeat('k', 100), NULL FROM generate_series(10001, 13000) i; \
             SAVEPOINT s; INSERT INTO orders SELECT i, repeat('s', 100), NULL FROM generate_series(20001, 23000) i; \
             UPDATE orders SET note = 'lost'; ROLLBACK TO s; \
             INSERT INTO orders SELECT i, repeat('t', 100), NULL FROM generate_series(30001, 33000) i; \
             UPDATE orders SET note = note || '!' WHERE id % 3 = 0; COMMIT",
        );
        let mut portions = 0;
        let mut inside = 0;
        // Left and opened again in the middle of the transaction, several times.
        while model.tables.get("public.orders").is_none_or(|table| table.rows.len() < 6000) {
            let portion = feed.next().await.unwrap();
            portions += 1;
            inside += usize::from(portion.checkpoint.0.contains("\"transaction\""));
            model.apply(&portion);
            feed.confirm(&portion.checkpoint);
            if portions % 4 == 0 {
                drop(feed);
                feed = open(&options, &model).await.unwrap();
            }
        }
        until_now(&mut feed, &mut model, &server, "postgres").await;
        assert!(inside > 5, "{inside} of {portions} checkpoints were inside of the transaction");
        assert!(model.equals(&server, "postgres", "public.orders"));
        assert_eq!(model.log.iter().filter(|line| line.contains("public.orders")).count(), 8000);
        let streamed = server.psql("postgres", "SELECT stream_txns > 0 FROM pg_stat_replication_slots");
        assert_eq!(streamed.trim(), "t", "the server streamed it");
    });
}

#[test]
fn the_form_of_a_table_changes_while_it_is_followed() {
    let server = Postgres::start();
    server.psql("postgres", TABLES);
    wait(async {
        let mut model = Model::default();
        let mut feed = open(&options(&server, "postgres"), &model).await.unwrap();
        server.psql(
            "postgres",
            "INSERT INTO orders VALUES (1, 'a', NULL); ALTER TABLE orders ADD total numeric DEFAULT 1.10; \
             INSERT INTO orders VALUES (2, 'b', NULL, 2.50); ALTER TABLE orders DROP big; \
             INSERT INTO orders VALUES (3, 'c', 3); ALTER TABLE orders RENAME note TO remark; \
             INSERT INTO orders VALUES (4, 'd', 4); ALTER TABLE orders ALTER total TYPE text; \
             INSERT INTO orders VALUES (5, 'e', 'five'); UPDATE orders SET remark = remark || '!'",
        );
        let mut described = Vec::new();
        while model.log.len() < 10 {
            let portion = feed.next().await.unwrap();
            for step in &portion.steps {
                if let Step::Describe(table) = step {
                    let columns: Vec<String> = (table.columns.iter())
                        .map(|column| format!("{} {}", column.name, column.native_type))
                        .collect();
                    described.push(columns.join(", "));
                }
            }
            model.apply(&portion);
        }
        until_now(&mut feed, &mut model, &server, "postgres").await;
        assert!(model.equals(&server, "postgres", "public.orders"));
        for form in [
            "id integer, note text, big text",
            "id integer, note text, big text, total numeric",
            "id integer, note text, total numeric",
            "id integer, remark text, total numeric",
            "id integer, remark text, total text",
        ] {
            assert!(described.iter().any(|line| line == form), "{form} in {described:#?}");
        }
    });
}

#[test]
fn tables_are_emptied_one_or_several_at_a_time() {
    let server = Postgres::start();
    server.psql("postgres", TABLES);
    server.psql("postgres", "CREATE TABLE items (id int PRIMARY KEY, part int REFERENCES orders)");
    wait(async {
        let mut model = Model::default();
        let mut feed = open(&options(&server, "postgres"), &model).await.unwrap();
        server.psql(
            "postgres",
            "INSERT INTO orders VALUES (1), (2); INSERT INTO items VALUES (1, 1); TRUNCATE orders CASCADE; \
             INSERT INTO orders VALUES (3)",
        );
        until_now(&mut feed, &mut model, &server, "postgres").await;
        assert!(model.equals(&server, "postgres", "public.orders"));
        assert!(model.equals(&server, "postgres", "public.items"));
        assert_eq!(model.log.iter().filter(|line| line.starts_with("Truncate")).count(), 2);
    });
}

#[test]
fn a_partitioned_table_is_one_table() {
    let server = Postgres::start();
    server.psql(
        "postgres",
        "CREATE TABLE events (id int, day date, note text, PRIMARY KEY (id, day)) PARTITION BY RANGE (day); \
         CREATE TABLE events_1 PARTITION OF events FOR VALUES FROM ('2024-01-01') TO ('2024-02-01'); \
         CREATE TABLE events_2 PARTITION OF events FOR VALUES FROM ('2024-02-01') TO ('2024-03-01'); \
         INSERT INTO events SELECT i, '2024-01-01'::date + i, 'read' FROM generate_series(0, 50) i",
    );
    wait(async {
        let mut model = Model::default();
        let mut feed = open(&options(&server, "postgres"), &model).await.unwrap();
        server.psql(
            "postgres",
            "INSERT INTO events VALUES (100, '2024-01-05', 'a'), (101, '2024-02-05', 'b'); \
             UPDATE events SET day = day + 31 WHERE id = 100; DELETE FROM events WHERE id = 101",
        );
        until_now(&mut feed, &mut model, &server, "postgres").await;
        assert!(model.equals(&server, "postgres", "public.events"));
        assert_eq!(model.tables.keys().filter(|name| name.contains("events")).count(), 1);
    });
}

#[test]
fn rows_of_many_megabytes_come_whole_and_without_a_stall() {
    let server = Postgres::start();
    server.psql("postgres", TABLES);
    wait(async {
        let mut model = Model::default();
        let mut feed = open(&options(&server, "postgres"), &model).await.unwrap();
        until_now(&mut feed, &mut model, &server, "postgres").await;
        server.psql(
            "postgres",
            "INSERT INTO orders SELECT i, 'large', repeat(i::text, 10000000) FROM generate_series(1, 5) i",
        );
        until_now(&mut feed, &mut model, &server, "postgres").await;
        for (number, row) in model.rows("public.orders").iter().enumerate() {
            assert_eq!(row["big"], (number + 1).to_string().repeat(10_000_000));
        }
    });
}
