//! Tables as they are, as they were, and as the log says they should be.

use cdc_tests::captured::{Tables, read_log, read_replica, read_snapshot};
use cdc_tests::harness::{Launch, Server, until};
use cdc_tests::json::{Members, elements};

fn server_with_history() -> Server {
    let server = Server::start();
    for id in ["b", "a", "c"] {
        server.post("/data/t", &format!(r#"{{"id":"{id}"}}"#)).expect(200);
    }
    server.put("/data/t/a", r#"{"v":1}"#).expect(200);
    server.delete("/data/t/b").expect(200);
    server.post("/data/u", r#"{"id":1}"#).expect(200);
    server.post("/data/t", r#"{"id":"b","again":true}"#).expect(200);
    server.put("/data/t/a", r#"{"v":2}"#).expect(200);
    server
}

#[test]
fn a_snapshot_has_the_rows_in_key_order_and_its_place_in_the_log() {
    let server = server_with_history();
    let (rows, sequence) = read_snapshot(&server, "/snapshot/t");
    assert_eq!(rows, [r#"{"id":"a","v":2}"#, r#"{"id":"b","again":true}"#, r#"{"id":"c"}"#]);
    assert_eq!(sequence, 8);
}

#[test]
fn a_snapshot_at_any_place_is_the_table_as_it_was() {
    let server = server_with_history();
    let log = read_log(&server, 0);
    for at in 1..=log.len() {
        let mut tables = Tables::default();
        tables.apply(&log[..at], |_| "id");
        let (rows, sequence) = read_snapshot(&server, &format!("/snapshot/t?at={at}"));
        assert_eq!((rows, sequence), (tables.images("t"), at as u64));
        // The schema is the one of that time.
        let answer = server.get(&format!("/snapshot/t?at={at}")).expect(200);
        let newest = log[..at].iter().rev().find(|event| event.table == "t").unwrap();
        assert_eq!(answer.json()["schema"]["version"], newest.schema_version, "at {at}");
    }
}

#[test]
fn a_snapshot_cannot_be_taken_of_the_future_or_of_what_retention_dropped() {
    let server = server_with_history();
    let answer = server.get("/snapshot/t?at=9");
    answer.expect_problem(400, "in-the-future");
    assert_eq!(answer.json()["currentSequence"], 8);

    let server = Launch::new().options("--retention-events 1000 --segment-bytes 64KiB").start();
    let mut oldest = 1;
    until("retention to drop something", || {
        let rows: Vec<String> = (0..1_000).map(|id| format!(r#"{{"id":{id},"text":"{id:0200}"}}"#)).collect();
        server.post("/data/t?upsert=true", &format!("[{}]", rows.join(","))).expect(200);
        oldest = server.get("/events?limit=1").expect(200).json()["oldestSequence"].as_u64().unwrap();
        (oldest > 1).then_some(())
    });
    let answer = server.get("/snapshot/t?at=0");
    answer.expect_problem(410, "dropped");
    assert!(answer.json()["oldestSequence"].as_u64().unwrap() >= oldest);
}

#[test]
fn a_snapshot_and_the_events_after_it_are_exact_while_writes_go_on() {
    let server = Launch::new().options("--retention-events 1000000").start();
    let rows: String = (0..5_000).map(|id| format!("{{\"id\":\"{id:05}\",\"v\":0}}\n")).collect();
    server.send(&cdc_tests::http::Request::new("POST", "/data/t").body("application/x-ndjson", rows)).expect(200);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut connection = server.connect();
            for number in 0..1_500 {
                let id = number * 7 % 5_000;
                let request =
                    cdc_tests::http::Request::put(&format!("/data/t/{id:05}"), format!(r#"{{"v":{number}}}"#));
                connection.exchange(&request).unwrap().expect(200);
            }
        });
        let mut snapshots = Vec::new();
        while !writer.is_finished() {
            snapshots.push(read_snapshot(&server, "/snapshot/t"));
        }
        writer.join().unwrap();
        let log = read_log(&server, 0);
        for (rows, sequence) in snapshots {
            let mut tables = Tables::default();
            tables.apply(&log[..sequence as usize], |_| "id");
            assert!(rows == tables.images("t"), "the snapshot at {sequence} is not what the log says");
        }
    });
}

#[test]
fn a_replay_proves_every_table_equal_to_the_log() {
    let server = server_with_history();
    let answer = server.post("/replay", "").expect(200);
    let replay = Members::of(answer.text());
    assert_eq!(replay.names()[..2], ["success", "equal"]);
    assert_eq!((replay.text("success"), replay.text("equal")), ("true", "true"));
    let tables: Vec<Members> = elements(replay.text("tables")).iter().map(|table| Members::of(table)).collect();
    let names: Vec<String> = tables.iter().map(|table| table.string("table")).collect();
    assert_eq!(names, ["t", "u"]);
    // A replay of one table, with an empty log behind another service.
    server.post("/replay", r#"{"table":"u"}"#).expect(200);
    server.post("/replay", r#"{"table":"nobody"}"#).expect_problem(404, "unknown-table");
    let empty = Server::start().post("/replay", "{}").expect(200).json();
    assert_eq!(empty["equal"], true);
}

#[test]
fn the_replica_follows_the_log_and_survives_a_restart() {
    let server = server_with_history();
    let expected = read_snapshot(&server, "/snapshot/t").0;
    let caught_up = |server: &Server, expected: &[String]| {
        until("the replica to catch up", || {
            let answer = server.get("/replica/t");
            (answer.status == 200 && answer.json()["count"] == expected.len())
                .then(|| read_replica(server, "t"))
                .filter(|rows| rows == expected)
        })
    };
    caught_up(&server, &expected);
    let server = server.stop().start();
    caught_up(&server, &expected);
    let server = server.kill().start();
    server.delete("/data/t/c").expect(200);
    caught_up(&server, &expected[..2]);
}
