//! Tables with system versioning: what is captured is what SELECT shows.

use cdc_test_servers::MariaDb;

use crate::model::{Run, in_every_way, options, server};

const CHANGES: &str =
    "INSERT INTO v (id, n) VALUES (4, 40); UPDATE v SET n = n + 1 WHERE id = 1; DELETE FROM v WHERE id = 2";
const MORE: &str =
    "UPDATE v SET id = 50 WHERE id = 3; REPLACE INTO v (id, n) VALUES (4, 41); INSERT INTO v (id, n) VALUES (2, 22);
    BEGIN; UPDATE v SET n = 7 WHERE id = 4; UPDATE v SET n = 8 WHERE id = 4; DELETE FROM v WHERE id = 50; COMMIT";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_present_rows_are_captured_and_not_those_that_were() {
    let server = server(
        "CREATE TABLE v (id INT PRIMARY KEY, n INT) WITH SYSTEM VERSIONING; INSERT INTO v VALUES (1, 10), (2, 20), (3, 30)",
    );
    let options = options(&server);
    let mut run = Run::open(&options).await;
    run.settle(&server, "d").await;
    assert_eq!(run.rows("d.v").len(), 3);
    server.sql("d", "UPDATE v SET n = 12 WHERE id = 1; DELETE FROM v WHERE id = 2; INSERT INTO v VALUES (4, 40)");
    run.settle(&server, "d").await;
    let rows: Vec<String> = run.rows("d.v").into_values().collect();
    assert_eq!(rows, [r#"{"id":1,"n":12}"#, r#"{"id":3,"n":30}"#, r#"{"id":4,"n":40}"#]);
    // The log told all of it; nothing was read again.
    assert_eq!(run.model.began.iter().filter(|name| *name == "d.v").count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn versions_come_and_go_with_or_without_columns_of_their_own() {
    let server = MariaDb::start();
    let insert = "INSERT INTO v (id, n) VALUES (1, 10), (2, 20), (3, 30)";
    let hidden = format!("CREATE TABLE v (id INT PRIMARY KEY, n INT) WITH SYSTEM VERSIONING; {insert}");
    let steps = [
        CHANGES,
        MORE,
        "DELETE HISTORY FROM v; ALTER TABLE v DROP SYSTEM VERSIONING; UPDATE v SET n = 3 WHERE id = 1",
        "ALTER TABLE v ADD SYSTEM VERSIONING; UPDATE v SET n = 4 WHERE id = 1; DELETE FROM v WHERE id = 4",
        "SET STATEMENT system_versioning_alter_history = KEEP FOR ALTER TABLE v ADD c INT DEFAULT 6; UPDATE v SET c = 5",
        "ALTER TABLE v PARTITION BY SYSTEM_TIME (PARTITION h HISTORY, PARTITION c CURRENT); UPDATE v SET c = 4",
        "ALTER TABLE v REMOVE PARTITIONING; SET SESSION system_versioning_alter_history = KEEP; DROP TABLE v",
    ];
    let standings = in_every_way(&server, &hidden, &steps).await;
    assert!(standings.iter().all(Vec::is_empty), "{standings:?}");

    let columns = |kind: &str| {
        format!(
            "CREATE TABLE v (id INT PRIMARY KEY, n INT, s {kind} GENERATED ALWAYS AS ROW START,
             e {kind} GENERATED ALWAYS AS ROW END, PERIOD FOR SYSTEM_TIME (s, e)) WITH SYSTEM VERSIONING; {insert}"
        )
    };
    let steps = [CHANGES, MORE, "DELETE HISTORY FROM v BEFORE SYSTEM_TIME NOW()", "DROP TABLE v"];
    let standings = in_every_way(&server, &columns("TIMESTAMP(6)"), &steps).await;
    assert!(standings.iter().all(Vec::is_empty), "{standings:?}");
    // The server logs statements instead of rows of these.
    let standings = in_every_way(&server, &columns("BIGINT UNSIGNED"), &steps).await;
    assert!(standings.iter().all(Vec::is_empty), "{standings:?}");
    let invisible =
        columns("TIMESTAMP(6)").replace("ROW START", "ROW START INVISIBLE").replace("ROW END", "ROW END INVISIBLE");
    in_every_way(&server, &invisible, &steps).await;
}
