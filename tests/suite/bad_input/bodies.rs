//! Bodies that are not what they should be.

use super::{assert_refused, assert_untouched, server_with_a_row};
use cdc_tests::http::Request;

/// Every text is refused the same way as a new row and as a change of one.
fn assert_all_refused(bodies: &[&[u8]], status: u16, code: &str) {
    let server = server_with_a_row();
    for body in bodies {
        assert_refused(&server, &Request::post("/data/t", *body), status, code);
        assert_refused(&server, &Request::put("/data/t/there", *body), status, code);
        assert_refused(&server, &Request::put("/data/t/new?upsert=true", *body), status, code);
    }
    assert_untouched(&server);
}

#[test]
fn what_is_not_json_is_refused() {
    let bodies: [&[u8]; 24] = [
        b"",
        b" ",
        b"{",
        b"}",
        b"{]",
        b"{\"id\":1",
        b"{\"id\":1,}",
        b"{\"id\" 1}",
        b"{id:1}",
        b"{'id':1}",
        b"{\"id\":01}",
        b"{\"id\":1.}",
        b"{\"id\":.5}",
        b"{\"id\":+1}",
        b"{\"id\":1e}",
        b"{\"id\":NaN}",
        b"{\"id\":Infinity}",
        b"{\"id\":tru}",
        b"{\"id\":1} {\"id\":2}",
        b"{\"id\":1}x",
        b"\xef\xbb\xbf{\"id\":1}",
        b"{\"id\":\"\x01\"}",
        b"{\"id\":\"a\nb\"}",
        b"{\"id\":\"\\x41\"}",
    ];
    assert_all_refused(&bodies, 400, "invalid-json");
}

#[test]
fn lone_surrogates_are_refused_wherever_they_stand() {
    let bodies: [&[u8]; 6] = [
        br#"{"id":"\ud800"}"#,
        br#"{"id":"x","v":"\udc00"}"#,
        br#"{"id":"x","v":"\ud800\u0041"}"#,
        br#"{"id":"x","\udfff":1}"#,
        br#"{"id":"x","v":{"deep":["\ud83d"]}}"#,
        br#"{"id":"x","v":"\ude00\ud83d"}"#,
    ];
    assert_all_refused(&bodies, 400, "invalid-json");
}

#[test]
fn bytes_that_are_not_utf_8_are_refused() {
    let bodies: [&[u8]; 6] = [
        b"{\"id\":\"\xff\"}",
        b"{\"id\":\"x\",\"v\":\"\xc3\"}",
        b"{\"id\":\"x\",\"v\":\"\xed\xa0\x80\"}",
        b"{\"id\":\"x\",\"v\":\"\xc0\xaf\"}",
        b"{\"id\":\"x\",\"\x80\":1}",
        b"{\"id\":\"x\",\"v\":\"\xf5\x80\x80\x80\"}",
    ];
    assert_all_refused(&bodies, 400, "invalid-json");
}

#[test]
fn json_that_is_no_object_is_refused() {
    let server = server_with_a_row();
    for body in ["null", "true", "1", "\"text\"", "1e999"] {
        assert_refused(&server, &Request::post("/data/t", body), 400, "not-an-object");
        assert_refused(&server, &Request::put("/data/t/there", body), 400, "not-an-object");
    }
    // An array is many rows for POST; for PUT it is no row.
    assert_refused(&server, &Request::put("/data/t/there", r#"[{"v":2}]"#), 400, "not-an-object");
    assert_untouched(&server);
}

#[test]
fn duplicate_members_are_refused_however_they_are_spelt() {
    let server = server_with_a_row();
    for twice in [r#""v":1,"v":1"#, r#""v":1,"\u0076":2"#, r#""id":"x","id":"x""#] {
        let row = format!(r#"{{"id":"x",{twice}}}"#);
        assert_refused(&server, &Request::post("/data/t", row), 400, "duplicate-member");
        let members = format!("{{{twice}}}");
        assert_refused(&server, &Request::put("/data/t/x?upsert=true", members), 400, "duplicate-member");
    }
    assert_refused(&server, &Request::put("/data/t/there", r#"{"v":2,"v":3}"#), 400, "duplicate-member");
    // Within a value a name may stand twice: values are kept as they came.
    assert_untouched(&server);
    server.post("/data/t", r#"{"id":"deep","v":{"a":1,"a":2}}"#).expect(200);
    assert_eq!(server.get("/data/t/deep").expect(200).text(), r#"{"id":"deep","v":{"a":1,"a":2}}"#);
}

#[test]
fn a_key_must_be_there_and_be_one() {
    let server = server_with_a_row();
    for body in ["{}", r#"{"ID":"x"}"#, r#"{"v":{"id":"x"}}"#] {
        assert_refused(&server, &Request::post("/data/t", body), 400, "missing-key");
    }
    for key in ["null", "\"\"", "true", "1.5", "1e2", "-0.0", "[]", "[\"x\"]", "{}"] {
        assert_refused(&server, &Request::post("/data/t", format!("{{\"id\":{key}}}")), 400, "invalid-key");
    }
    let long = "k".repeat(513);
    assert_refused(&server, &Request::post("/data/t", format!("{{\"id\":\"{long}\"}}")), 413, "key-too-long");
    assert_refused(&server, &Request::post("/data/t", format!("{{\"id\":{}}}", "9".repeat(513))), 413, "key-too-long");
    assert_refused(&server, &Request::put(&format!("/data/t/{long}?upsert=true"), "{}"), 413, "key-too-long");
    assert_refused(&server, &Request::get(&format!("/data/t/{long}")), 413, "key-too-long");
    assert_refused(&server, &Request::delete(&format!("/data/t/{long}")), 413, "key-too-long");
    assert_untouched(&server);
    // At the limit it is a key, counted in bytes and not in characters.
    let longest = "é".repeat(256);
    server.post("/data/t", &format!("{{\"id\":\"{longest}\"}}")).expect(200);
    server.get(&format!("/data/t/{}", "%C3%A9".repeat(256))).expect(200);
}

#[test]
fn integers_of_any_size_are_keys() {
    let server = server_with_a_row();
    assert_untouched(&server);
    for key in ["-1", "0", "18446744073709551616", "123456789012345678901234567890"] {
        server.post("/data/n", &format!("{{\"id\":{key}}}")).expect(200);
        assert_eq!(server.get(&format!("/data/n/{key}")).expect(200).text(), format!("{{\"id\":{key}}}"));
    }
}

#[test]
fn huge_numbers_are_kept_digit_by_digit_and_break_nothing() {
    let server = server_with_a_row();
    let digits = "9".repeat(100_000);
    let numbers = [digits.as_str(), "1e999999999", "-1E-999999999", "0.1e+400", "-0", "0.000"];
    for (index, number) in numbers.iter().enumerate() {
        let row = format!("{{\"id\":\"{index}\",\"n\":{number}}}");
        server.send(&Request::post("/data/huge", row.clone())).expect(200);
        assert!(server.get(&format!("/data/huge/{index}")).expect(200).text() == row, "{index}");
    }
    assert_eq!(server.get("/snapshot/huge").expect(200).text().matches(&digits).count(), 1);
    assert!(server.post("/replay", "").expect(200).text().contains("\"equal\":true"));
}

#[test]
fn other_content_types_are_refused_with_those_that_are_taken() {
    let server = server_with_a_row();
    let body = r#"{"id":"x"}"#;
    for content_type in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/xml",
        "multipart/form-data; boundary=x",
        "application/jsonx",
        "application/json; charset=iso-8859-1",
        "",
    ] {
        let request = Request::new("POST", "/data/t").body(content_type, body);
        let answer = assert_refused(&server, &request, 415, "unsupported-media-type");
        assert!(answer.header("accept").is_some_and(|accept| accept.contains("application/json")));
        let request = Request::new("PUT", "/data/t/there").body(content_type, body);
        assert_refused(&server, &request, 415, "unsupported-media-type");
    }
    let mut untyped = Request::new("POST", "/data/t");
    untyped.body = body.into();
    assert_refused(&server, &untyped, 415, "unsupported-media-type");
    let lines = Request::new("PUT", "/data/t/there").body("application/x-ndjson", body);
    assert_refused(&server, &lines, 415, "unsupported-media-type");
    let packed = Request::post("/data/t", body).header("content-encoding", "gzip");
    assert_refused(&server, &packed, 415, "unsupported-encoding");
    assert_untouched(&server);
    let spelt = Request::new("POST", "/data/t").body("Application/JSON; charset=UTF-8", body);
    server.send(&spelt).expect(200);
}

#[test]
fn column_names_have_limits_too() {
    let server = server_with_a_row();
    let too_long = format!("{{\"id\":\"x\",\"{}\":1}}", "c".repeat(5_000));
    assert_refused(&server, &Request::post("/data/t", too_long), 400, "invalid-column-name");
    let columns: Vec<String> = (0..1_001).map(|number| format!("\"c{number}\":1")).collect();
    let too_many = format!("{{\"id\":\"x\",{}}}", columns.join(","));
    assert_refused(&server, &Request::post("/data/t", too_many), 413, "too-many-columns");
    assert_untouched(&server);
}
