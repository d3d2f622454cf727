//! MariaDB: what happens to whole tables, their names, partitions and copies.

use std::collections::BTreeSet;

use cdc_test_servers::MariaDb;
use cdc_tests::harness::until;
use cdc_tests::truth;

use super::{Database, Place, tell};

/// Tells a story of MariaDB's.
#[track_caller]
fn story(setup: &str, steps: &[&str]) {
    tell(Database::MariaDb(super::mariadb()), "", setup, steps);
}

const THREE: &str = "CREATE TABLE red (id INT PRIMARY KEY, shade VARCHAR(20)); CREATE TABLE green (id INT PRIMARY KEY, leaf INT); \
    CREATE TABLE blue (id INT PRIMARY KEY, shade VARCHAR(20), deep INT DEFAULT 1); \
    INSERT INTO red SELECT seq, CONCAT('red ', seq) FROM seq_1_to_8; INSERT INTO green SELECT seq, seq FROM seq_5_to_14; \
    INSERT INTO blue (id, shade) SELECT seq, CONCAT('blue ', seq) FROM seq_3_to_9";

#[test]
fn what_happens_to_a_table_first_after_a_restart_is_followed() {
    // Killed or down, the service knows the table from its checkpoint only.
    story(
        THREE,
        &[
            "TRUNCATE TABLE red",
            "DROP TABLE green",
            "RENAME TABLE blue TO violet",
            "INSERT INTO violet (id) VALUES (1)",
        ],
    );
}

#[test]
fn a_table_in_memory_is_empty_after_its_server_was_restarted() {
    let own: &'static MariaDb = Box::leak(Box::new(MariaDb::start()));
    let mut place = Place::new(Database::MariaDb(own), "");
    place.sql("CREATE TABLE sessions (id INT PRIMARY KEY, who VARCHAR(9)) ENGINE = MEMORY; INSERT INTO sessions VALUES (1, 'a'), (2, 'b')");
    let server = place.launch().start();
    place.is_true(&server);
    own.stop();
    own.start_again();
    // The server says that it is empty when somebody looks.
    place.sql("SELECT COUNT(*) FROM sessions");
    place.is_true(&server);
    place.sql("INSERT INTO sessions VALUES (3, 'c')");
    place.is_true(&server);
    let launch = server.kill();
    own.kill();
    own.start_again();
    place.sql("INSERT INTO sessions VALUES (4, 'd')");
    let server = launch.start();
    place.is_true(&server);
    drop(server);
    own.kill();
}

#[test]
fn a_repair_ends_although_a_known_table_is_gone() {
    let own: &'static MariaDb = Box::leak(Box::new(MariaDb::start()));
    let mut place = Place::new(Database::MariaDb(own), "");
    place.sql(THREE);
    let server = place.launch().start();
    place.is_true(&server);
    let launch = server.stop();
    place.sql("DROP TABLE red; UPDATE blue SET deep = 2; RENAME TABLE green TO leaves");
    until("the binlogs to be purged", || {
        let newest = own.sql("", "FLUSH BINARY LOGS; SHOW MASTER STATUS");
        own.sql("", &format!("PURGE BINARY LOGS TO '{}'", newest.split('\t').next()?));
        (own.sql("", "SHOW BINARY LOGS").lines().count() == 1).then_some(())
    });
    let server = launch.start();
    until("the loss to be noticed", || (truth::progress(&server, &place.name).code == "binlog-purged").then_some(()));
    server.post(&format!("/sources/{}/repair", place.name), "").expect(200);
    until("the repair", || (truth::progress(&server, &place.name).state != "stopped").then_some(()));
    place.is_true(&server);
    drop(server);
    own.kill();
}

#[test]
fn a_table_that_has_come_and_gone_before_anybody_looked_stops_nothing() {
    story(
        THREE,
        &[
            "CREATE TABLE brief (id INT PRIMARY KEY, n INT); INSERT INTO brief VALUES (1, 1); DROP TABLE brief",
            "CREATE TABLE brief (id INT PRIMARY KEY); INSERT INTO brief VALUES (1); ALTER TABLE brief ADD COLUMN n INT DEFAULT 3; \
             RENAME TABLE brief TO lasting; UPDATE lasting SET n = 4",
            "INSERT INTO red VALUES (100, 'x'); ALTER TABLE red DROP COLUMN shade; INSERT INTO red VALUES (101); \
             RENAME TABLE red TO x, blue TO red, x TO blue; DELETE FROM red WHERE id = 4",
            "CREATE TABLE keyless (n INT); INSERT INTO keyless VALUES (1), (1); DROP TABLE keyless; INSERT INTO green VALUES (1, 1)",
        ],
    );
}

#[test]
fn names_that_tables_swap_have_the_rows_of_their_tables() {
    story(
        THREE,
        &[
            "RENAME TABLE red TO x, blue TO red, x TO blue",
            "UPDATE red SET shade = 'again' WHERE id = 4; DELETE FROM blue WHERE id = 2",
            "INSERT INTO green VALUES (50, 50); RENAME TABLE red TO x, green TO red, blue TO green, x TO blue; INSERT INTO red VALUES (51, 51)",
            "CREATE OR REPLACE TABLE red (name VARCHAR(20) PRIMARY KEY) AS SELECT DISTINCT shade AS name FROM green; \
             DROP TABLE blue; RENAME TABLE green TO blue",
            "CREATE DATABASE {here}x; RENAME TABLE red TO {here}x.red; INSERT INTO {here}x.red VALUES ('new')",
            "DROP DATABASE {here}x",
        ],
    );
}

#[test]
fn a_table_that_a_tool_copied_beside_is_the_copy_after_the_swap() {
    story(
        "CREATE TABLE big (id INT PRIMARY KEY, note VARCHAR(20)); INSERT INTO big SELECT seq, 'n' FROM seq_1_to_200; \
         CREATE TABLE other (id INT PRIMARY KEY, note VARCHAR(20)); INSERT INTO other SELECT seq, 'o' FROM seq_1_to_100",
        &[
            // As gh-ost does it.
            "CREATE TABLE _big_ghc (id BIGINT AUTO_INCREMENT PRIMARY KEY, hint VARCHAR(64), value TEXT); \
             INSERT INTO _big_ghc (hint, value) VALUES ('state', 'GhostTableMigrated'); CREATE TABLE _big_gho LIKE big; \
             ALTER TABLE _big_gho ADD COLUMN flag INT NOT NULL DEFAULT 6; \
             INSERT IGNORE INTO _big_gho (id, note) SELECT id, note FROM big WHERE id <= 100; \
             UPDATE big SET note = 'late' WHERE id = 3; REPLACE INTO _big_gho (id, note) VALUES (3, 'late'); \
             INSERT IGNORE INTO _big_gho (id, note) SELECT id, note FROM big WHERE id > 100; \
             CREATE TABLE _big_del (id INT PRIMARY KEY) COMMENT = 'ghost-cut-over-sentry'; DROP TABLE _big_del; \
             RENAME TABLE big TO _big_del, _big_gho TO big; DROP TABLE _big_ghc; DROP TABLE _big_del",
            "UPDATE big SET flag = 7 WHERE id < 9",
            // As pt-online-schema-change does it.
            "CREATE TABLE _other_new (id INT PRIMARY KEY, note VARCHAR(20)); ALTER TABLE _other_new MODIFY note TEXT, ADD COLUMN extra INT DEFAULT 1; \
             CREATE TRIGGER {here}_d AFTER DELETE ON other FOR EACH ROW DELETE IGNORE FROM _other_new WHERE _other_new.id <=> OLD.id; \
             CREATE TRIGGER {here}_u AFTER UPDATE ON other FOR EACH ROW REPLACE INTO _other_new (id, note) VALUES (NEW.id, NEW.note); \
             CREATE TRIGGER {here}_i AFTER INSERT ON other FOR EACH ROW REPLACE INTO _other_new (id, note) VALUES (NEW.id, NEW.note); \
             INSERT LOW_PRIORITY IGNORE INTO _other_new (id, note) SELECT id, note FROM other FORCE INDEX(PRIMARY) LOCK IN SHARE MODE; \
             DELETE FROM other WHERE id = 4; UPDATE other SET note = 'late' WHERE id = 5; INSERT INTO other VALUES (500, 'late'); \
             RENAME TABLE other TO _other_old, _other_new TO other; DROP TABLE IF EXISTS _other_old; \
             DROP TRIGGER IF EXISTS {here}_d; DROP TRIGGER IF EXISTS {here}_u; DROP TRIGGER IF EXISTS {here}_i",
            "UPDATE other SET extra = 2 WHERE id > 90",
        ],
    );
}

#[test]
fn a_statement_with_variables_of_its_own_does_what_it_does_without() {
    story(
        THREE,
        &[
            "SET STATEMENT max_statement_time = 60 FOR TRUNCATE TABLE red",
            "SET STATEMENT lock_wait_timeout = 10, max_statement_time = 9 FOR ALTER TABLE green ADD COLUMN root INT DEFAULT 2",
            "SET STATEMENT lock_wait_timeout = 10 FOR RENAME TABLE blue TO violet",
            "SET STATEMENT max_statement_time = 60 FOR DROP TABLE green",
        ],
    );
}

#[test]
fn tables_whose_names_are_the_same_in_any_case_are_one() {
    let own: &'static MariaDb = Box::leak(Box::new(MariaDb::with(&["--lower-case-table-names=1"])));
    let mut place = Place::new(Database::MariaDb(own), "");
    place.sql(THREE);
    let mut server = place.launch().start();
    place.is_true(&server);
    for step in [
        "TRUNCATE TABLE RED; INSERT INTO Red VALUES (1, 'one')",
        "ALTER TABLE Green ADD COLUMN Root INT DEFAULT 2",
        "RENAME TABLE BLUE TO Violet",
        "DROP TABLE GREEN",
    ] {
        place.sql(step);
        place.is_true(&server);
        server = server.kill().start();
        place.is_true(&server);
    }
    let names: BTreeSet<String> = truth::progress(&server, &place.name).tables.into_keys().collect();
    assert_eq!(names.len(), 3, "no table is there twice: {names:?}");
    drop(server);
    own.kill();
}

#[test]
fn partitions_that_are_exchanged_or_become_tables_have_their_rows() {
    story(
        "CREATE TABLE visits (id INT PRIMARY KEY, n INT) PARTITION BY RANGE (id) (PARTITION a VALUES LESS THAN (10), \
           PARTITION b VALUES LESS THAN (20), PARTITION c VALUES LESS THAN MAXVALUE); \
         INSERT INTO visits SELECT seq, seq FROM seq_1_to_30; \
         CREATE TABLE aside (id INT PRIMARY KEY, n INT); INSERT INTO aside VALUES (3, -3), (5, -5)",
        &[
            "ALTER TABLE visits EXCHANGE PARTITION a WITH TABLE aside",
            "UPDATE visits SET n = 0 WHERE id = 3; DELETE FROM aside WHERE id = 1",
            "ALTER TABLE visits CONVERT PARTITION b TO TABLE middle",
            "INSERT INTO middle VALUES (100, 100); ALTER TABLE visits TRUNCATE PARTITION c",
            "ALTER TABLE visits DROP PARTITION a; INSERT INTO visits VALUES (44, 44)",
            "ALTER TABLE visits REMOVE PARTITIONING; INSERT INTO visits VALUES (2, 2)",
        ],
    );
}

#[test]
fn rows_that_are_told_before_a_table_is_read_stay_only_if_they_are_its_own() {
    story(
        THREE,
        &[
            "RENAME TABLE red TO scarlet; UPDATE scarlet SET shade = 'told'; \
             RENAME TABLE scarlet TO violet, green TO scarlet; DELETE FROM violet WHERE id > 2",
            "CREATE TABLE visits (id INT PRIMARY KEY, n INT) PARTITION BY RANGE (id) (PARTITION a VALUES LESS THAN (10), \
               PARTITION b VALUES LESS THAN MAXVALUE); INSERT INTO visits VALUES (1, 1), (20, 20); \
             ALTER TABLE visits DROP PARTITION a; INSERT INTO visits VALUES (30, 30)",
        ],
    );
}

#[test]
fn a_statement_that_only_names_a_table_changes_nothing() {
    story(
        &format!(
            "{THREE}; CREATE DATABASE {{here}}_aside; CREATE TABLE {{here}}_aside.checks (id INT AUTO_INCREMENT PRIMARY KEY, note TEXT, n INT)"
        ),
        &[
            "SET SESSION binlog_format = 'STATEMENT'; REPLACE INTO {here}_aside.checks (note, n) SELECT 'red', COUNT(*) FROM {here}.red; \
             INSERT INTO {here}_aside.checks (note) VALUES ('UPDATE {here}.red SET shade = NULL; DROP TABLE {here}.red')",
            "UPDATE red SET shade = 'seen' WHERE id = 1",
        ],
    );
}
