//! The rows that are written: 150 bytes of JSON each, half of them not guessable, so that compression on disk has no
//! easier work than with real data.

use std::io::Write;
use std::net::SocketAddr;

use cdc_tests::http::{Connection, Request};
use cdc_tests::random::scramble;

pub(crate) const ROW_BYTES: usize = 150;

/// Row number n, always the same one.
pub(crate) fn write_row(number: u64, out: &mut Vec<u8>) {
    const CITIES: [&str; 8] = ["Aarhus", "Berlin", "Dakar ", "Kyoto ", "Lagos ", "Lima  ", "Oslo  ", "Quito "];
    let random = scramble(number + 1);
    let more = scramble(random);
    let start = out.len();
    write!(
        out,
        r#"{{"id":"user_{number:010}","email":"{random:016x}@mail.io","city":"{}","balance":{}.{:02},"is_active":{},"created_at":{},"t":""#,
        CITIES[(more % 8) as usize],
        10_000 + more % 90_000,
        more % 100,
        more.is_multiple_of(2),
        1_699_380_000_000 + number
    )
    .unwrap();
    // To the byte, whatever the members before came to.
    let filler = format!("{more:016x}");
    let missing = ROW_BYTES - 2 - (out.len() - start);
    out.extend_from_slice(&filler.as_bytes()[..missing]);
    out.extend_from_slice(b"\"}");
}

/// The request that inserts row number n, as a load generator wants it.
pub(crate) fn write_insert(table: &str, number: u64, out: &mut Vec<u8>) {
    write!(out, "POST /data/{table} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {ROW_BYTES}\r\n\r\n")
        .unwrap();
    let head = out.len();
    write_row(number, out);
    assert_eq!(out.len() - head, ROW_BYTES, "the row's length is in the head already");
}

/// Loads rows in bulk, as NDJSON, in requests of some thousands of rows.
pub(crate) fn load(address: SocketAddr, table: &str, numbers: std::ops::Range<u64>) {
    const ROWS_PER_REQUEST: u64 = 5_000;
    let mut connection = Connection::open(address);
    let mut next = numbers.start;
    while next < numbers.end {
        let end = numbers.end.min(next + ROWS_PER_REQUEST);
        let answer = connection.exchange(&bulk_request(table, next..end)).expect("a bulk load is answered").expect(200);
        assert_captured(answer.text(), end - next);
        next = end;
    }
}

pub(crate) fn bulk_request(table: &str, numbers: std::ops::Range<u64>) -> Request {
    let mut body = Vec::with_capacity((numbers.end - numbers.start) as usize * (ROW_BYTES + 1));
    for number in numbers {
        write_row(number, &mut body);
        body.push(b'\n');
    }
    Request::new("POST", &format!("/data/{table}")).body("application/x-ndjson", body)
}

/// A bulk load's answer has its totals at the end.
pub(crate) fn assert_captured(answer: &str, rows: u64) {
    let totals = &answer[answer.len().saturating_sub(200)..];
    assert!(totals.contains(&format!("\"captured\":{rows},\"failed\":0")), "{totals}");
}
