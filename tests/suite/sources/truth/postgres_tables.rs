//! PostgreSQL: what happens to whole tables, their names, partitions and publications.

use cdc_tests::harness::until;
use cdc_tests::truth;

use super::{Database, Place, tell};

/// Tells a story of PostgreSQL's.
#[track_caller]
fn story(setup: &str, steps: &[&str]) {
    tell(Database::Postgres(super::postgres()), "", setup, steps);
}

const THREE: &str = "CREATE TABLE red (id int PRIMARY KEY, shade text); CREATE TABLE green (id int PRIMARY KEY, leaf int); \
    CREATE TABLE blue (id int PRIMARY KEY, shade text, deep boolean DEFAULT true); \
    INSERT INTO red SELECT g, 'red ' || g FROM generate_series(1, 8) g; \
    INSERT INTO green SELECT g, g FROM generate_series(5, 14) g; INSERT INTO blue SELECT g, 'blue ' || g FROM generate_series(3, 9) g";

#[test]
fn names_that_tables_swap_have_the_rows_of_their_tables() {
    story(
        THREE,
        &[
            "BEGIN; ALTER TABLE red RENAME TO x; ALTER TABLE blue RENAME TO red; ALTER TABLE x RENAME TO blue; COMMIT",
            "UPDATE red SET shade = 'again' WHERE id = 4; DELETE FROM blue WHERE id = 2",
            // Each by itself, with changes in between.
            "ALTER TABLE green RENAME TO x; UPDATE blue SET shade = 'between'; ALTER TABLE blue RENAME TO green; \
             INSERT INTO green VALUES (99, 'new'); ALTER TABLE x RENAME TO blue",
            // Three in a circle, in one transaction with their changes.
            "BEGIN; DELETE FROM red WHERE id = 3; ALTER TABLE red RENAME TO x; ALTER TABLE green RENAME TO red; \
             UPDATE red SET id = id + 100 WHERE id < 4; ALTER TABLE blue RENAME TO green; ALTER TABLE x RENAME TO blue; COMMIT",
        ],
    );
}

#[test]
fn a_chain_of_renames_ends_in_the_table_that_has_the_name() {
    story(
        THREE,
        &[
            "BEGIN; DROP TABLE red; ALTER TABLE green RENAME TO red; ALTER TABLE blue RENAME TO green; COMMIT",
            "UPDATE red SET leaf = -1 WHERE id > 10",
            "ALTER TABLE green RENAME TO green_old; CREATE TABLE green (LIKE green_old INCLUDING ALL); \
             INSERT INTO green SELECT * FROM green_old WHERE id > 5; DROP TABLE green_old",
            "DROP TABLE red; CREATE TABLE red (key text PRIMARY KEY, n int); INSERT INTO red VALUES ('a', 1), ('b', 2)",
        ],
    );
}

#[test]
fn rows_of_a_table_that_is_dropped_go_with_it_and_are_told() {
    story(THREE, &["DROP TABLE red", "DELETE FROM blue WHERE id < 6", "DROP TABLE blue, green"]);
    let mut place = Place::new(Database::Postgres(super::postgres()), "");
    place.sql(THREE);
    let server = place.launch().start();
    place.is_true(&server);
    place.sql("DROP TABLE red");
    place.is_true(&server);
    let page = server.get("/events?table=public.red&after=0").expect(200).json();
    let events = page["events"].as_array().expect("events are listed");
    let told = events.iter().filter(|event| event["operation"] != "INSERT").count();
    assert!(told > 0, "what is gone is told by an event: {page}");
    let progress = truth::progress(&server, &place.name);
    assert!(!progress.tables.contains_key("public.red"), "{}", progress.answer);
}

#[test]
fn rows_come_and_go_with_their_partitions() {
    story(
        "CREATE TABLE readings (sensor int, month int, value numeric, PRIMARY KEY (sensor, month)) PARTITION BY RANGE (month); \
         CREATE TABLE winter PARTITION OF readings FOR VALUES FROM (1) TO (4); \
         CREATE TABLE spring PARTITION OF readings FOR VALUES FROM (4) TO (7); \
         CREATE TABLE summer PARTITION OF readings FOR VALUES FROM (7) TO (10); \
         INSERT INTO readings SELECT s, m, s * m FROM generate_series(1, 4) s, generate_series(1, 9) m; \
         CREATE TABLE autumn (sensor int, month int, value numeric, PRIMARY KEY (sensor, month)); \
         INSERT INTO autumn SELECT s, 11, 0.5 FROM generate_series(1, 4) s",
        &[
            "ALTER TABLE readings ATTACH PARTITION autumn FOR VALUES FROM (10) TO (13)",
            "UPDATE readings SET month = 12 WHERE sensor = 1 AND month = 1; INSERT INTO autumn VALUES (9, 10, 9)",
            "TRUNCATE spring",
            "DROP TABLE winter",
            "ALTER TABLE readings DETACH PARTITION summer",
            "UPDATE summer SET value = 7; DELETE FROM readings WHERE sensor = 2",
            // One takes another's place.
            "CREATE TABLE corrected (LIKE readings INCLUDING ALL); INSERT INTO corrected SELECT s, 10, 100 FROM generate_series(1, 3) s; \
             BEGIN; ALTER TABLE readings DETACH PARTITION autumn; \
             ALTER TABLE readings ATTACH PARTITION corrected FOR VALUES FROM (10) TO (13); COMMIT",
            "TRUNCATE readings; INSERT INTO readings VALUES (1, 5, 5)",
        ],
    );
}

#[test]
fn changes_while_a_table_was_out_of_the_publication_are_not_lost() {
    story(
        THREE,
        &[
            "ALTER PUBLICATION cdc_{here} DROP TABLE red; UPDATE red SET shade = 'unseen' WHERE id < 3; \
             INSERT INTO red VALUES (50, 'unseen'); DELETE FROM red WHERE id = 7",
            "INSERT INTO red VALUES (51, 'seen')",
            "ALTER PUBLICATION cdc_{here} DROP TABLE green, blue; DELETE FROM green; \
             ALTER PUBLICATION cdc_{here} ADD TABLE green; INSERT INTO green VALUES (1, 1)",
            "ALTER PUBLICATION cdc_{here} ADD TABLE red, blue",
        ],
    );
}

#[test]
fn a_publication_of_somebody_else_is_taken_as_it_is() {
    let lines = "publication = \"theirs_{here}\"";
    let mut place = Place::new(Database::Postgres(super::postgres()), lines);
    place.sql(
        "CREATE TABLE people (id int PRIMARY KEY, name text, salary int); CREATE TABLE secrets (id int PRIMARY KEY); \
         INSERT INTO people SELECT g, 'p' || g, g FROM generate_series(1, 5) g; INSERT INTO secrets VALUES (1); \
         CREATE PUBLICATION theirs_{here} FOR TABLE people (id, name), TABLE told",
    );
    let server = place.launch().start();
    let published = |place: &Place| {
        let mut truth = place.truth();
        truth.remove("public.secrets");
        truth.remove("public.more");
        truth.get_mut("public.people").expect("it is there").rows.iter_mut().for_each(|row| {
            row.remove("salary");
        });
        truth
    };
    place.is_true_to(&server, published(&place));
    place.sql("CREATE TABLE more (id int PRIMARY KEY); INSERT INTO more VALUES (1)");
    place.sql("UPDATE people SET salary = 0; INSERT INTO people VALUES (6, 'p6', 6)");
    place.is_true_to(&server, published(&place));
    let server = server.kill().start();
    place.is_true_to(&server, published(&place));
    let members = place.sql("SELECT string_agg(tablename, ',' ORDER BY tablename) FROM pg_publication_tables");
    assert_eq!(members, "people,told", "nothing is added to what we did not make");
}

#[test]
fn one_table_that_cannot_be_followed_stops_alone_and_what_its_reason_says_works() {
    let mut place = Place::new(Database::Postgres(super::postgres()), "");
    place.sql(
        "CREATE TABLE good (id int PRIMARY KEY, n int); INSERT INTO good SELECT g, g FROM generate_series(1, 9) g",
    );
    let mut server = place.launch().start();
    place.is_true(&server);
    // They appear one by one, and the others go on.
    for (table, create, code, mend) in [
        (
            "public.keyless",
            "CREATE TABLE keyless (n int); INSERT INTO keyless VALUES (1), (1), (2)",
            "no-key",
            "ALTER TABLE keyless ADD COLUMN id serial PRIMARY KEY",
        ),
        (
            "public.odd name",
            "CREATE TABLE \"odd name\" (id int PRIMARY KEY); INSERT INTO \"odd name\" VALUES (1)",
            "table-refused",
            "ALTER TABLE \"odd name\" RENAME TO even_name",
        ),
    ] {
        place.sql(create);
        let stopped = until(&format!("{table} to stop"), || {
            let progress = truth::progress(&server, &place.name);
            assert_ne!(progress.state, "stopped", "{}", progress.answer);
            progress.tables.get(table).filter(|table| table.state == "stopped").cloned()
        });
        assert_eq!(stopped.code, code, "{}", stopped.reason);
        assert!(!stopped.reason.is_empty());
        place.sql("UPDATE good SET n = n + 1 WHERE id % 2 = 0");
        let mut truth = place.truth();
        truth.remove(table);
        place.is_true_to(&server, truth);
        server = server.kill().start();
        place.sql(mend);
        place.is_true(&server);
    }
    // A key that goes, and another that comes.
    place.sql("ALTER TABLE good DROP CONSTRAINT good_pkey; INSERT INTO good VALUES (1, 1)");
    place.is_true(&server);
    place.sql("ALTER TABLE good ADD COLUMN key serial PRIMARY KEY; UPDATE good SET id = id + 100 WHERE n = 1");
    place.is_true(&server);
}
