//! Paths and queries that lead nowhere, or try to lead elsewhere.

use super::{assert_refused, assert_untouched, server_with_a_row};
use cdc_tests::harness::Launch;
use cdc_tests::http::Request;

#[test]
fn unknown_tables_and_rows_are_not_found() {
    let server = server_with_a_row();
    for target in
        ["/data/nobody/1", "/snapshot/nobody", "/schema/nobody", "/schema/nobody/history", "/snapshot/nobody?at=1"]
    {
        assert_refused(&server, &Request::get(target), 404, "unknown-table");
    }
    assert_refused(&server, &Request::put("/data/nobody/1", "{}"), 404, "unknown-table");
    assert_refused(&server, &Request::delete("/data/nobody/1"), 404, "unknown-table");
    assert_refused(&server, &Request::get("/data/t/nobody"), 404, "unknown-row");
    assert_untouched(&server);
}

#[test]
fn unknown_paths_are_not_found() {
    let server = server_with_a_row();
    for target in [
        "/nowhere",
        "/data",
        "/events/",
        "/events/1",
        "//events",
        "/snapshot",
        "/schema/t/other",
        "/DATA/t/there",
        "/a%00b",
    ] {
        assert_refused(&server, &Request::get(target), 404, "unknown-path");
    }
    assert_untouched(&server);
}

#[test]
fn names_that_climb_are_refused_and_touch_no_file() {
    let server = server_with_a_row();
    let outside = server.data().path().parent().unwrap().to_owned();
    let list = |folder: &std::path::Path| {
        let mut names: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let before = list(&outside);
    for name in
        ["..", ".", "%2e%2e", "..%2f..%2fetc%2fpasswd", "a%2Fb", "%2Fetc", "a%00b", "a%0Ab", "%ff", "a%2", "a%zz"]
    {
        for (method, target) in [
            ("POST", format!("/data/{name}")),
            ("GET", format!("/snapshot/{name}")),
            ("GET", format!("/schema/{name}")),
            ("GET", format!("/replica/{name}")),
            ("GET", format!("/data/{name}/x")),
        ] {
            let request = Request::new(method, &target).json(r#"{"id":"x"}"#);
            assert_refused(&server, &request, 400, "invalid-table-name");
        }
    }
    // Backslashes and dots within a name are just letters, or are refused: never a way out.
    for target in ["/data/..%5C..%5Cx", "/data/.../x/../../../etc/passwd", "/data/t/..%2F..%2Fetc%2Fpasswd"] {
        let answer = server.get(target);
        assert!([400, 404, 405].contains(&answer.status), "{target}: {}", answer.status);
        answer.problem();
    }
    assert_eq!(list(&outside), before);
    assert_untouched(&server);
}

#[test]
fn table_names_and_their_number_have_limits() {
    let server = server_with_a_row();
    let long = "t".repeat(300);
    assert_refused(&server, &Request::post(&format!("/data/{long}"), r#"{"id":1}"#), 400, "invalid-table-name");
    assert_untouched(&server);

    let server = Launch::new().options("--max-tables 3").start();
    for table in ["a", "b", "c"] {
        server.post(&format!("/data/{table}"), r#"{"id":1}"#).expect(200);
    }
    assert_refused(&server, &Request::post("/data/d", r#"{"id":1}"#), 413, "too-many-tables");
    server.post("/data/c", r#"{"id":2}"#).expect(200);
}

#[test]
fn query_values_out_of_bounds_are_refused_by_name() {
    let server = server_with_a_row();
    let cases = [
        ("/events?limit=0", "limit"),
        ("/events?limit=-1", "limit"),
        ("/events?limit=10001", "limit"),
        ("/events?limit=1e3", "limit"),
        ("/events?limit=99999999999999999999999999", "limit"),
        ("/events?limit=", "limit"),
        ("/events?limit=ten", "limit"),
        ("/events?limit=%31%00", "limit"),
        ("/events?since=-1", "since"),
        ("/events?since=18446744073709551616", "since"),
        ("/events?since=1.5", "since"),
        ("/events?after=-1", "after"),
        ("/events?after=18446744073709551616", "after"),
        ("/events?after=0x10", "after"),
        ("/events?operation=MERGE", "operation"),
        ("/events?order=sideways", "order"),
        ("/events?limit=1&limit=2", "limit"),
        ("/snapshot/t?at=-1", "at"),
        ("/snapshot/t?at=18446744073709551616", "at"),
        ("/schema/t?version=0", "version"),
        ("/schema/t?version=4294967296", "version"),
    ];
    for (target, parameter) in cases {
        let answer = assert_refused(&server, &Request::get(target), 400, "invalid-parameter");
        assert_eq!(answer.json()["parameter"], parameter, "{target}");
    }
    let misspelt = assert_refused(&server, &Request::get("/events?tabel=t"), 400, "invalid-parameter");
    assert!(misspelt.text().contains("tabel") && misspelt.text().contains("table"));
    for target in ["/events?%=1", "/events?table=%C3", "/stats?x=1"] {
        assert_refused(&server, &Request::get(target), 400, "invalid-parameter");
    }
    assert_refused(&server, &Request::get("/events?table=a%2Fb"), 400, "invalid-table-name");
    assert_refused(&server, &Request::post("/data/t?upsert=maybe", r#"{"id":"x"}"#), 400, "invalid-parameter");
    assert_untouched(&server);
}

#[test]
fn the_largest_values_are_taken() {
    let server = server_with_a_row();
    assert_eq!(server.get("/events?since=18446744073709551615").expect(200).json()["count"], 0);
    for target in ["/events?after=18446744073709551615", "/events?limit=10000&after=18446744073709551615&order=desc"] {
        assert_refused(&server, &Request::get(target), 400, "in-the-future");
    }
    assert_refused(&server, &Request::get("/snapshot/t?at=18446744073709551615"), 400, "in-the-future");
    assert_refused(&server, &Request::get("/schema/t?version=4294967295"), 404, "unknown-version");
    assert_untouched(&server);
}

#[test]
fn endless_addresses_and_headers_are_refused() {
    let server = server_with_a_row();
    for length in [10_000, 100_000] {
        let answer = server.get(&format!("/events?key={}", "k".repeat(length)));
        assert!([400, 414, 431].contains(&answer.status), "{}", answer.status);
        drop(answer.problem());
    }
    let answer = server.send(&Request::get("/stats").header("x-long", &"h".repeat(200_000)));
    assert_eq!(answer.expect(431).problem()["code"], "headers-too-large");
    let mut many = Request::get("/stats");
    for number in 0..1_000 {
        many = many.header(&format!("x-{number}"), "y");
    }
    let answer = server.send(&many);
    assert_eq!(answer.expect(431).problem()["code"], "headers-too-large");
    assert_untouched(&server);
}
