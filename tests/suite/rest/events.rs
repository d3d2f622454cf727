//! Reading the log: filters, pages and directions.

use cdc_tests::captured::{Page, read_log};
use cdc_tests::harness::Server;

fn page(server: &Server, query: &str) -> Page {
    Page::of(server.get(&format!("/events{query}")).expect(200).text())
}

/// Thirty events: odd numbers are inserts into `a`, even ones into `b`, and the last ten change rows of `a`.
fn server_with_events() -> Server {
    let server = Server::start();
    for id in 1..=20 {
        let table = if id % 2 == 1 { "a" } else { "b" };
        server.post(&format!("/data/{table}"), &format!(r#"{{"id":{id}}}"#)).expect(200);
    }
    for id in [1, 3, 5, 7, 9] {
        server.put(&format!("/data/a/{id}"), r#"{"v":1}"#).expect(200);
        server.delete(&format!("/data/a/{id}")).expect(200);
    }
    server
}

#[test]
fn filters_narrow_and_combine() {
    let server = server_with_events();
    assert_eq!(page(&server, "").sequences(), (1..=30).collect::<Vec<_>>());
    assert_eq!(page(&server, "?table=b").sequences(), (1..=10).map(|n| n * 2).collect::<Vec<_>>());
    assert_eq!(page(&server, "?operation=UPDATE").sequences(), [21, 23, 25, 27, 29]);
    assert_eq!(page(&server, "?operation=delete&table=a").sequences(), [22, 24, 26, 28, 30]);
    assert_eq!(page(&server, "?operation=DELETE&table=b").sequences(), Vec::<u64>::new());
    assert_eq!(page(&server, "?key=3").sequences(), [3, 23, 24]);
    assert_eq!(page(&server, "?key=2&table=a").sequences(), Vec::<u64>::new());
    assert_eq!(page(&server, "?table=nobody").sequences(), Vec::<u64>::new());
}

#[test]
fn a_limit_keeps_the_newest_and_answers_them_oldest_first() {
    let server = server_with_events();
    assert_eq!(page(&server, "?limit=3").sequences(), [28, 29, 30]);
    assert_eq!(page(&server, "?limit=2&table=b").sequences(), [18, 20]);
    assert_eq!(page(&server, "?limit=1&operation=INSERT").sequences(), [20]);
}

#[test]
fn after_pages_forward_from_the_oldest() {
    let server = server_with_events();
    let first = page(&server, "?after=0&limit=4&table=a");
    assert_eq!(first.sequences(), [1, 3, 5, 7]);
    let second = page(&server, &format!("?after={}&limit=4&table=a", first.next_after));
    assert_eq!(second.sequences(), [9, 11, 13, 15]);
    // The last page leads to an empty one, which leads to itself.
    let last = page(&server, "?after=30&table=a");
    assert_eq!((last.sequences().len(), last.next_after), (0, 30));
    // A place beyond the newest event is no place in this log: a reader that holds one has read another.
    let ahead = server.get("/events?after=31");
    ahead.expect_problem(400, "in-the-future");
    assert_eq!(ahead.json()["currentSequence"], 30);
}

#[test]
fn an_order_turns_the_page_around() {
    let server = server_with_events();
    assert_eq!(page(&server, "?order=desc&limit=3").sequences(), [30, 29, 28]);
    assert_eq!(page(&server, "?order=asc&limit=3").sequences(), [28, 29, 30]);
    assert_eq!(page(&server, "?order=desc&table=b&limit=2").sequences(), [20, 18]);
    assert_eq!(page(&server, "?order=desc&after=27").sequences(), [30, 29, 28]);
}

#[test]
fn since_is_strictly_later() {
    let server = server_with_events();
    let log = read_log(&server, 0);
    let time = log[14].timestamp;
    let expected: Vec<u64> = log.iter().filter(|event| event.timestamp > time).map(|event| event.sequence).collect();
    assert_eq!(page(&server, &format!("?since={time}")).sequences(), expected);
    assert_eq!(page(&server, "?since=0").sequences().len(), 30);
    let newest = log[29].timestamp;
    assert_eq!(page(&server, &format!("?since={newest}")).sequences(), Vec::<u64>::new());
    assert_eq!(page(&server, "?since=18446744073709551615").sequences(), Vec::<u64>::new());
}

#[test]
fn a_page_has_a_thousand_events_by_default_and_ten_thousand_at_most() {
    let server = Server::start();
    let rows: String = (0..10_500).map(|id| format!("{{\"id\":{id}}}\n")).collect();
    let load = cdc_tests::http::Request::new("POST", "/data/t").body("application/x-ndjson", rows);
    server.send(&load).expect(200);
    // Retention may have begun to drop the oldest: what is asked for here is never among them.
    assert_eq!(page(&server, "").sequences(), (9_501..=10_500).collect::<Vec<_>>());
    assert_eq!(page(&server, "?after=2000").sequences(), (2_001..=3_000).collect::<Vec<_>>());
    let most = page(&server, "?limit=10000");
    assert_eq!(most.sequences(), (501..=10_500).collect::<Vec<_>>());
    server.get("/events?limit=10001").expect_problem(400, "invalid-parameter");
}

#[test]
fn an_empty_log_has_an_empty_page() {
    let server = Server::start();
    assert_eq!(server.get("/events").expect(200).text(), r#"{"events":[],"count":0,"nextAfter":0,"oldestSequence":1}"#);
    assert_eq!(
        server.get("/events?after=0").expect(200).text(),
        r#"{"events":[],"count":0,"nextAfter":0,"oldestSequence":1}"#
    );
}

#[test]
fn statistics_count_by_operation_and_table() {
    let server = server_with_events();
    let answer = server.get("/stats").expect(200).json();
    let stats = &answer["stats"];
    assert_eq!(stats["totalEvents"], 30);
    assert_eq!(stats["eventsByOperation"], serde_json::json!({"INSERT": 20, "UPDATE": 5, "DELETE": 5}));
    assert_eq!(stats["eventsByTable"], serde_json::json!({"a": 20, "b": 10}));
    assert_eq!(stats["currentSequence"], 30);
    assert_eq!(stats["lastEventTime"], read_log(&server, 29)[0].timestamp);
    assert!(stats["eventsPerSecond"].as_f64().unwrap() >= 0.0);
    assert!(answer["bufferSize"].is_u64());
    // Before any event there is no last one.
    assert!(Server::start().get("/stats").expect(200).json()["stats"]["lastEventTime"].is_null());
}
