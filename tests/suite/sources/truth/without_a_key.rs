//! Tables without a key whose rows get ids of their own: as many of each kind as the database has, whatever happens.

use std::sync::atomic::{AtomicBool, Ordering};

use cdc_tests::harness::{Server, until};
use cdc_tests::truth::{captured, progress};

use super::{Database, Place, mariadb, postgres, tell};

const LINES: &str = "append-only = [\"*.audit*\"]";

fn databases() -> [Database; 2] {
    [Database::Postgres(postgres()), Database::MariaDb(mariadb())]
}

#[test]
fn rows_that_are_alike_are_there_as_often_as_in_the_database() {
    for database in databases() {
        let generate = match database {
            Database::Postgres(_) => "generate_series(1, 700) AS s(seq)",
            Database::MariaDb(_) => "seq_1_to_700",
        };
        tell(
            database,
            LINES,
            &format!(
                "CREATE TABLE audit (n int, what varchar(40)); INSERT INTO audit SELECT seq % 7, 'old' FROM {generate}; \
                 INSERT INTO audit VALUES (NULL, NULL), (NULL, NULL)"
            ),
            &[
                "INSERT INTO audit VALUES (1, 'old'), (1, 'new'); INSERT INTO audit SELECT * FROM audit WHERE n = 3",
                "ALTER TABLE audit ADD COLUMN x int DEFAULT 7; INSERT INTO audit VALUES (1, 'new', 8)",
                "ALTER TABLE audit RENAME COLUMN what TO why; INSERT INTO audit VALUES (1, 'new', 7)",
                "ALTER TABLE audit DROP COLUMN x; INSERT INTO audit VALUES (1, 'new')",
                "INSERT INTO audit VALUES (2, 'before'); TRUNCATE TABLE audit; INSERT INTO audit VALUES (2, 'after'), (2, 'after')",
                "ALTER TABLE audit RENAME TO audit_2024; INSERT INTO audit_2024 VALUES (2, 'after')",
                "CREATE TABLE audit (n int); INSERT INTO audit VALUES (1), (1)",
                "ALTER TABLE audit ADD COLUMN id int; TRUNCATE TABLE audit; INSERT INTO audit VALUES (1, 1), (1, 2); ALTER TABLE audit ADD PRIMARY KEY (id)",
                "UPDATE audit SET n = 5 WHERE id = 2; DELETE FROM audit WHERE id = 1",
                "DROP TABLE audit_2024; INSERT INTO audit VALUES (7, 7)",
            ],
        );
    }
}

#[test]
fn no_row_is_missing_or_there_twice_when_the_service_is_killed_while_rows_come() {
    for database in databases() {
        let mut place = Place::new(database, LINES);
        let generate = match database {
            Database::Postgres(_) => "generate_series(1, 40000) AS s(seq)",
            Database::MariaDb(_) => "seq_1_to_40000",
        };
        place.sql(&format!(
            "CREATE TABLE audit (n int, what varchar(400)); \
             INSERT INTO audit SELECT seq % 9, repeat('o', seq % 200) FROM {generate}"
        ));
        let is_over = AtomicBool::new(false);
        let server = std::thread::scope(|scope| {
            let load = scope.spawn(|| {
                let mut round = 0;
                while !is_over.load(Ordering::Relaxed) {
                    round += 1;
                    place.sql(&format!(
                        "INSERT INTO audit VALUES ({0}, 'one'); BEGIN; INSERT INTO audit VALUES ({0}, 'two'), ({0}, 'two'); \
                         COMMIT; BEGIN; INSERT INTO audit VALUES (0, 'none'); ROLLBACK",
                        round % 5
                    ));
                }
            });
            let mut server = place.launch().start();
            for _ in 0..6 {
                // In the middle of its reading, mostly.
                until("some of its rows", || {
                    let rows = server.get(&format!("/events?table={}&limit=1", audit(&place)));
                    (rows.status == 200 && rows.text().contains("_row")).then_some(())
                });
                server = server.kill().start();
            }
            until("the table to be followed", || (state_of(&server, &place).0 == "following").then_some(()));
            server = server.kill().start();
            is_over.store(true, Ordering::Relaxed);
            load.join().expect("the load ends");
            server
        });
        place.is_true(&server);
        let launch = server.stop();
        let server = launch.start();
        place.is_true(&server);
        assert_eq!(server.post("/replay", "").expect(200).json()["equal"], true);
        server.stop().data().verify().expect_success();
    }
}

#[test]
fn a_changed_row_stops_its_table_and_reading_it_anew_mends_it() {
    for database in databases() {
        let mut place = Place::new(database, LINES);
        place.sql("CREATE TABLE audit (n int); INSERT INTO audit VALUES (1), (1), (2)");
        if matches!(database, Database::Postgres(_)) {
            place.sql("ALTER TABLE audit REPLICA IDENTITY FULL");
        }
        let mut server = place.launch().start();
        place.is_true(&server);
        let before = captured(&server).remove(&audit(&place));
        place.sql("UPDATE audit SET n = 3 WHERE n = 2; INSERT INTO audit VALUES (4)");
        let reason = until("the table to stop", || {
            let (state, code, reason) = state_of(&server, &place);
            (state == "stopped" && code == "rows-changed").then_some(reason)
        });
        assert!(reason.contains("read anew"), "{reason}");
        server = server.kill().start();
        // The others go on, and nothing is applied that is not known.
        let mut others = place.truth();
        others.remove(&audit(&place));
        until("all but the table", || (state_of(&server, &place).0 == "stopped").then_some(()));
        place.is_true_to(&server, others);
        assert_eq!(state_of(&server, &place).1, "rows-changed");
        assert_eq!(captured(&server).remove(&audit(&place)), before);
        server.post(&format!("/sources/{}/tables/{}/reread", place.name, audit(&place)), "").expect(200);
        until("the table to be followed", || (state_of(&server, &place).0 == "following").then_some(()));
        place.is_true(&server);
        // Rows that are as they were are no events.
        let events = super::super::events(&server, &audit(&place));
        let of = |operation: &str| events.iter().filter(|event| event["operation"] == operation).count();
        assert_eq!((of("INSERT"), of("DELETE"), events.len()), (5, 1, 6), "{events:#?}");
        server.stop().data().verify().expect_success();
    }
}

fn audit(place: &Place) -> String {
    match place.database {
        Database::Postgres(_) => "public.audit".to_owned(),
        Database::MariaDb(_) => format!("{}.audit", place.name),
    }
}

/// State, code and reason of the table.
fn state_of(server: &Server, place: &Place) -> (String, String, String) {
    let table = progress(server, &place.name).tables.remove(&audit(place));
    table.map(|table| (table.state, table.code, table.reason)).unwrap_or_default()
}
