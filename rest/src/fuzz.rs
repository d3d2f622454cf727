//! Doors for a fuzzer. Whatever bytes come, these must not panic; a panic is a defect.

use crate::{
    DeadLetterChoice, Declaration, DryRun, InsertBody, Limits, Line, LineSplitter, ReplayRequest, RequestHead, Rewind,
    Rollback, SubscriptionSpec, route,
};

/// Routes a head: method, path, query, content type, content encoding and last event id, divided by line feeds.
pub fn head(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut lines = text.split('\n');
    let head = RequestHead {
        method: lines.next().unwrap_or_default(),
        path: lines.next().unwrap_or_default(),
        query: lines.next(),
        content_type: lines.next(),
        content_encoding: lines.next(),
        last_event_id: lines.next(),
    };
    if let Err(problem) = route(&head, &Limits::default()) {
        let mut out = Vec::new();
        problem.write(&mut out);
        let parsed = serde_json::from_slice::<serde::de::IgnoredAny>(&out);
        assert!(parsed.is_ok(), "a problem that is not JSON: {}", String::from_utf8_lossy(&out));
        assert!(out.len() < 2048, "a problem that grows with the request");
    }
}

/// Takes bodies of every kind apart. The first byte is the size of the chunks in which lines arrive.
pub fn body(data: &[u8]) {
    let limits = Limits { max_row_bytes: 16, max_rows: 16, ..Limits::default() };
    let _ = InsertBody::parse(data, &limits);
    let _ = Declaration::parse(data, "t");
    let _ = ReplayRequest::parse(data, &limits);
    let _ = (Rewind::parse(data), DryRun::parse(data), DeadLetterChoice::parse(data), Rollback::parse(data));
    if let Ok(spec) = SubscriptionSpec::parse(data) {
        let mut written = Vec::new();
        spec.write(&mut written);
        assert_eq!(SubscriptionSpec::parse(&written), Ok(spec), "a definition that is read back as another");
    }
    if let Some((&chunk, stream)) = data.split_first() {
        let cut = lines(stream, usize::from(chunk).max(1), &limits);
        assert_eq!(cut, lines(stream, usize::MAX, &limits), "lines depend on how the stream is cut");
    }
}

fn lines(stream: &[u8], chunk: usize, limits: &Limits) -> Vec<Option<Vec<u8>>> {
    let mut splitter = LineSplitter::new(limits);
    let mut found = Vec::new();
    for bytes in stream.chunks(chunk).map(Some).chain([None]) {
        match bytes {
            Some(bytes) => splitter.push(bytes),
            None => splitter.end(),
        }
        while let Some(line) = splitter.next_line() {
            found.push(match line {
                Line::Row(row) => Some(row.to_vec()),
                Line::TooLong => None,
            });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    /// Not a fuzzer, but enough to keep the doors honest in every run: pieces that matter, put together at random.
    #[test]
    fn random_requests_do_not_panic() {
        const PIECES: &[&[u8]] = &[
            b"GET",
            b"POST",
            b"PUT",
            b"\n",
            b"/",
            b"data",
            b"events",
            b"schema",
            b"history",
            b"users",
            b"%",
            b"%2F",
            b"%ff",
            b"\xff",
            b"=",
            b"&",
            b"limit",
            b"since",
            b"1",
            b"99999999999999999999",
            b"-",
            b"upsert=true",
            b"{",
            b"}",
            b"[",
            b"]",
            b"\"",
            b"\\",
            b",",
            b":",
            b"\r",
            b" ",
            b"columns",
            b"subscriptions",
            b"components",
            b"versions",
            b"dead-letters",
            b"\"subscriber\":{\"builtin\":\"console\"}",
            b"\"start\":7",
            b"\"grants\":{\"http\":[\"http://[::1]:80\"]}",
            b"\"name\":\"a\"",
            b"application/json",
            b"; charset=",
        ];
        // xorshift64*: the same requests in every run.
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut below = |bound: usize| {
            state ^= state >> 12;
            state ^= state << 25;
            state ^= state >> 27;
            (state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % bound
        };
        for _ in 0..50_000 {
            let mut data = Vec::new();
            for _ in 0..below(24) {
                data.extend_from_slice(PIECES[below(PIECES.len())]);
            }
            super::head(&data);
            super::body(&data);
        }
    }
}
