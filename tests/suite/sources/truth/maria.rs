//! MariaDB: what happens to rows that no statement names, to columns, keys and versions.

use super::{Database, tell};

/// Tells a story of MariaDB's.
#[track_caller]
fn story(setup: &str, steps: &[&str]) {
    tell(Database::MariaDb(super::mariadb()), "", setup, steps);
}

#[test]
fn a_table_with_system_versioning_has_the_rows_that_select_shows() {
    story(
        "CREATE TABLE prices (item INT PRIMARY KEY, cents INT) WITH SYSTEM VERSIONING; \
         INSERT INTO prices VALUES (1, 100), (2, 200), (3, 300); UPDATE prices SET cents = 101 WHERE item = 1; \
         DELETE FROM prices WHERE item = 3; \
         CREATE TABLE rooms (id INT PRIMARY KEY, beds INT, s TIMESTAMP(6) GENERATED ALWAYS AS ROW START, \
           e TIMESTAMP(6) GENERATED ALWAYS AS ROW END, PERIOD FOR SYSTEM_TIME(s, e)) WITH SYSTEM VERSIONING; \
         INSERT INTO rooms (id, beds) VALUES (1, 1), (2, 2); DELETE FROM rooms WHERE id = 2; \
         CREATE TABLE plain (id INT PRIMARY KEY, n INT); INSERT INTO plain VALUES (1, 1), (2, 2), (3, 3)",
        &[
            "UPDATE prices SET cents = cents + 1; DELETE FROM prices WHERE item = 2; INSERT INTO prices VALUES (4, 400)",
            "UPDATE rooms SET beds = 3; INSERT INTO rooms (id, beds) VALUES (5, 5), (6, 6); DELETE FROM rooms WHERE id = 5",
            "ALTER TABLE plain ADD SYSTEM VERSIONING",
            "UPDATE plain SET n = 9 WHERE id = 1; DELETE FROM plain WHERE id = 2",
            "DELETE HISTORY FROM prices",
            "REPLACE INTO prices VALUES (4, 401); DELETE FROM plain; INSERT INTO plain VALUES (7, 7)",
            "ALTER TABLE prices DROP SYSTEM VERSIONING; UPDATE prices SET cents = 0",
        ],
    );
}

#[test]
fn rows_that_follow_their_parents_follow_here_too() {
    story(
        "CREATE TABLE authors (id INT PRIMARY KEY, name VARCHAR(20)); \
         CREATE TABLE books (id INT PRIMARY KEY, author INT, title VARCHAR(20), \
           FOREIGN KEY (author) REFERENCES authors (id) ON DELETE CASCADE ON UPDATE CASCADE); \
         CREATE TABLE reviews (id INT PRIMARY KEY, book INT, stars INT, \
           FOREIGN KEY (book) REFERENCES books (id) ON DELETE SET NULL); \
         INSERT INTO authors SELECT seq, CONCAT('a', seq) FROM seq_1_to_6; \
         INSERT INTO books SELECT seq, seq % 6 + 1, 'book' FROM seq_1_to_24; \
         INSERT INTO reviews SELECT seq, seq % 24 + 1, 5 FROM seq_1_to_50",
        &[
            "DELETE FROM authors WHERE id = 2",
            "UPDATE authors SET id = 100 WHERE id = 3",
            "BEGIN; UPDATE books SET title = 'mine' WHERE author = 4; DELETE FROM authors WHERE id = 4; \
             INSERT INTO authors VALUES (4, 'again'); COMMIT",
            "REPLACE INTO authors VALUES (5, 'replaced')",
        ],
    );
}

#[test]
fn what_a_generated_column_says_is_what_its_expression_says_now() {
    story(
        "CREATE TABLE boxes (id INT PRIMARY KEY, w INT, h INT, area INT AS (w * h) VIRTUAL, rim INT AS (w + h) PERSISTENT); \
         INSERT INTO boxes (id, w, h) SELECT seq, seq, 2 FROM seq_1_to_10",
        &[
            "ALTER TABLE boxes MODIFY area INT AS (w * h * 10) VIRTUAL",
            "UPDATE boxes SET w = 50 WHERE id = 5",
            "ALTER TABLE boxes MODIFY rim INT AS (2 * w + 2 * h) PERSISTENT",
            "ALTER TABLE boxes ADD COLUMN volume INT AS (area * 3) VIRTUAL, DROP COLUMN rim",
        ],
    );
}

#[test]
fn a_unique_key_over_text_brings_no_column_of_its_own() {
    story(
        "CREATE TABLE mails (id INT PRIMARY KEY, address TEXT, body TEXT, UNIQUE (address)); \
         INSERT INTO mails SELECT seq, CONCAT('a', seq, '@x'), 'hello' FROM seq_1_to_10",
        &[
            "UPDATE mails SET body = 'bye' WHERE id < 4; INSERT INTO mails VALUES (11, 'b@x', NULL)",
            "CREATE TABLE more (id INT PRIMARY KEY, note TEXT); INSERT INTO more VALUES (1, 'x'), (2, 'y'); \
             ALTER TABLE more ADD UNIQUE (note); INSERT INTO more VALUES (3, 'z')",
            "DELETE FROM mails WHERE id = 2; ALTER TABLE mails DROP INDEX address; UPDATE mails SET address = 'same'",
        ],
    );
}

#[test]
fn columns_change_in_every_row() {
    story(
        "CREATE TABLE coats (id INT PRIMARY KEY, size ENUM('s','m','l'), note VARCHAR(20), price DECIMAL(8,2)); \
         INSERT INTO coats SELECT seq, 'm', CONCAT('coat ', seq), seq FROM seq_1_to_20",
        &[
            "ALTER TABLE coats ADD COLUMN warm BOOLEAN NOT NULL DEFAULT TRUE FIRST, ADD COLUMN code UUID DEFAULT UUID()",
            "ALTER TABLE coats MODIFY size ENUM('l','m','s','xl'), RENAME COLUMN note TO label",
            "ALTER TABLE coats MODIFY price DECIMAL(10,4), DROP COLUMN code; UPDATE coats SET price = 1 WHERE id = 7",
            "ALTER TABLE coats RENAME COLUMN label TO size, RENAME COLUMN size TO label",
            "ALTER TABLE coats DROP COLUMN label, ADD COLUMN label INT DEFAULT 4; ALTER TABLE coats CONVERT TO CHARACTER SET latin2",
        ],
    );
}

#[test]
fn the_key_of_a_table_may_become_another() {
    story(
        "CREATE TABLE seats (hall INT, place INT, guest VARCHAR(20), PRIMARY KEY (hall, place)); \
         INSERT INTO seats SELECT seq % 3, seq, CONCAT('g', seq) FROM seq_1_to_20",
        &[
            "UPDATE seats SET place = place + 100 WHERE hall = 1",
            "ALTER TABLE seats ADD COLUMN id BIGINT AUTO_INCREMENT, DROP PRIMARY KEY, ADD PRIMARY KEY (id)",
            "UPDATE seats SET id = id + 1000 WHERE hall = 2; DELETE FROM seats WHERE hall = 0 LIMIT 2",
            "ALTER TABLE seats DROP COLUMN id, ADD PRIMARY KEY (guest); UPDATE seats SET guest = CONCAT(guest, '!') WHERE hall = 0",
        ],
    );
}

#[test]
fn transactions_of_two_phases_come_when_they_are_committed() {
    story(
        "CREATE TABLE moves (id INT PRIMARY KEY, amount INT); INSERT INTO moves SELECT seq, seq FROM seq_1_to_9",
        &[
            "XA START '{here}'; UPDATE moves SET amount = -1 WHERE id < 3; INSERT INTO moves VALUES (10, 10); XA END '{here}'; XA PREPARE '{here}'",
            "INSERT INTO moves VALUES (11, 11)",
            "XA COMMIT '{here}'",
            "XA START '{here}'; DELETE FROM moves; XA END '{here}'; XA PREPARE '{here}'; XA ROLLBACK '{here}'; INSERT INTO moves VALUES (12, 12)",
        ],
    );
}
