//! PostgreSQL: what happens to columns, values and transactions.

use super::{Database, tell};

/// Tells a story of PostgreSQL's.
#[track_caller]
fn story(setup: &str, steps: &[&str]) {
    tell(Database::Postgres(super::postgres()), "", setup, steps);
}

#[test]
fn a_column_with_a_default_is_in_rows_that_nobody_touched() {
    story(
        "CREATE TABLE parcels (no int PRIMARY KEY, weight numeric(8,3)); \
         INSERT INTO parcels SELECT g, g * 0.125 FROM generate_series(1, 40) g; \
         CREATE TABLE stamps (id int PRIMARY KEY); INSERT INTO stamps SELECT generate_series(1, 5)",
        &[
            "ALTER TABLE parcels ADD COLUMN depot text DEFAULT 'north'",
            "UPDATE parcels SET weight = 9 WHERE no = 3",
            "ALTER TABLE parcels ADD COLUMN fragile boolean NOT NULL DEFAULT false, ADD COLUMN seen timestamptz DEFAULT now()",
            // Not the same in each row, and not in the catalog.
            "ALTER TABLE parcels ADD COLUMN token uuid DEFAULT gen_random_uuid(), ADD COLUMN turn bigserial",
            "ALTER TABLE stamps ADD COLUMN price numeric NOT NULL DEFAULT 0.90; ALTER TABLE stamps ALTER COLUMN price SET DEFAULT 1",
            "INSERT INTO stamps VALUES (6); ALTER TABLE stamps ADD COLUMN tags jsonb DEFAULT '{\"a\": [1.10, null]}'",
            "BEGIN; UPDATE parcels SET depot = 'south' WHERE no < 5; ALTER TABLE parcels ADD COLUMN late int DEFAULT 7; \
             UPDATE parcels SET late = 8 WHERE no = 2; COMMIT",
        ],
    );
}

#[test]
fn a_column_that_is_retyped_renamed_dropped_or_published_is_so_in_every_row() {
    story(
        "CREATE TYPE size AS ENUM ('s', 'm', 'l'); \
         CREATE TABLE shirts (id bigint PRIMARY KEY, label text, fits size, price numeric(8,2), \
           gross numeric GENERATED ALWAYS AS (price * 1.19) STORED, tags text[]); \
         INSERT INTO shirts (id, label, fits, price, tags) SELECT g, 'shirt ' || g, 'm', g, ARRAY['a', 'b'] \
           FROM generate_series(1, 30) g",
        &[
            "ALTER TABLE shirts ALTER COLUMN label TYPE text USING upper(label)",
            "ALTER TABLE shirts RENAME COLUMN label TO title",
            "ALTER TYPE size RENAME VALUE 'm' TO 'medium'",
            "ALTER TABLE shirts ALTER COLUMN gross DROP EXPRESSION",
            "ALTER TABLE shirts DROP COLUMN tags",
            "ALTER TABLE shirts ALTER COLUMN price TYPE numeric(8,4), ALTER COLUMN fits TYPE text",
            // Two columns take each other's names, and one that was dropped comes back as another.
            "BEGIN; ALTER TABLE shirts RENAME COLUMN title TO x; ALTER TABLE shirts RENAME COLUMN fits TO title; \
             ALTER TABLE shirts RENAME COLUMN x TO fits; COMMIT",
            "ALTER TABLE shirts DROP COLUMN fits, ADD COLUMN fits int DEFAULT 44",
            "UPDATE shirts SET price = 0 WHERE id % 3 = 0; ALTER TABLE shirts ALTER COLUMN id TYPE text USING 'no ' || id",
        ],
    );
}

#[test]
fn a_value_that_is_stored_out_of_line_is_kept_when_its_column_is_renamed() {
    story(
        "CREATE TABLE letters (id int PRIMARY KEY, read boolean, body text); \
         ALTER TABLE letters ALTER COLUMN body SET STORAGE EXTERNAL; \
         INSERT INTO letters SELECT g, false, repeat('dear reader ' || g, 900) FROM generate_series(1, 6) g",
        &[
            "ALTER TABLE letters RENAME COLUMN body TO content",
            "UPDATE letters SET read = true WHERE id < 4",
            "UPDATE letters SET id = id + 100 WHERE id = 5",
            "ALTER TABLE letters RENAME COLUMN content TO text; UPDATE letters SET read = true; \
             ALTER TABLE letters RENAME COLUMN text TO body",
            "ALTER TABLE letters ADD COLUMN copy text; UPDATE letters SET copy = body; \
             ALTER TABLE letters DROP COLUMN body; ALTER TABLE letters RENAME COLUMN copy TO body; UPDATE letters SET read = false",
        ],
    );
}

#[test]
fn the_key_of_a_table_may_become_another() {
    story(
        "CREATE TABLE seats (hall int, place int, guest text NOT NULL, PRIMARY KEY (hall, place)); \
         INSERT INTO seats SELECT g % 3, g, 'guest ' || g FROM generate_series(1, 20) g",
        &[
            "ALTER TABLE seats ADD COLUMN id bigserial; \
             ALTER TABLE seats DROP CONSTRAINT seats_pkey, ADD PRIMARY KEY (id)",
            "UPDATE seats SET place = place + 1; UPDATE seats SET id = id + 50 WHERE hall = 1",
            "ALTER TABLE seats REPLICA IDENTITY FULL; DELETE FROM seats WHERE hall = 2",
            "CREATE UNIQUE INDEX guests ON seats (guest); ALTER TABLE seats REPLICA IDENTITY USING INDEX guests",
            "UPDATE seats SET guest = guest || '!' WHERE hall = 0",
            "ALTER TABLE seats RENAME COLUMN guest TO visitor; UPDATE seats SET visitor = 'who' WHERE place = 1 OR place = 2 AND hall = 9",
        ],
    );
}

#[test]
fn prepared_transactions_come_when_they_are_committed_also_from_a_slot_with_two_phases() {
    // A slot sees no publication that was made after it.
    let setup = "CREATE PUBLICATION cdc_{here} FOR ALL TABLES WITH (publish_via_partition_root = true); \
        SELECT pg_create_logical_replication_slot('cdc_{here}', 'pgoutput', false, true); \
        CREATE TABLE moves (id int PRIMARY KEY, amount int); INSERT INTO moves SELECT g, g FROM generate_series(1, 9) g";
    story(
        setup,
        &[
            "BEGIN; UPDATE moves SET amount = -1 WHERE id = 1; INSERT INTO moves VALUES (10, 10); PREPARE TRANSACTION '{here}_1'",
            "INSERT INTO moves VALUES (11, 11)",
            "BEGIN; DELETE FROM moves WHERE id = 5; PREPARE TRANSACTION '{here}_2'",
            "COMMIT PREPARED '{here}_1'; UPDATE moves SET amount = 77 WHERE id = 1",
            "ROLLBACK PREPARED '{here}_2'; UPDATE moves SET amount = 55 WHERE id = 5",
        ],
    );
}
