//! Logs with one byte changed: the source goes on, or says what is wrong; it never panics, and never stands still.

use cdc_sources::{Feed as _, Step, TableState};

use crate::log::{self, Log};
use crate::server::{Described, Replay};
use crate::{DEADLINE, Run};

/// A row that comes last, if nothing stops before it.
fn end(log: &mut Log) {
    let place = log.events.iter().map(|event| u32::from_le_bytes(event[13..17].try_into().unwrap())).max().unwrap();
    let mut push = |at: u32, kind: u8, body: &[u8]| {
        let event = log::event(kind, 0, place + at, body, log.checksums);
        log.events.push(event);
    };
    push(1, 34, &[0; 25]);
    push(2, 2, b"\0\0\0\0\0\0\0\0\x02\0\0\0\0zz\0BEGIN");
    push(3, 19, b"\xee\xee\0\0\0\0\x01\0\x02zz\0\x03end\0\x01\x03\0\0\x01\x01\0");
    push(4, 30, b"\xee\xee\0\0\0\0\x01\0\x02\0\x01\xff\0\x4d\0\0\0");
    push(5, 16, &[0; 8]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_with_a_byte_changed_is_read_on_or_refused() {
    let json = "id int\njson_col json null\nname varchar(100) charset utf8mb4 null\nage int null";
    let movies = "id int\ntitle varchar(256) charset utf8mb4";
    let vectors =
        "id bigint unsigned\nvector_column vector(2)\nfoo text charset utf8mb4 null\nvector_column2 vector(4)";
    let lent = |columns| Described::new("myown.t", &["f1"], columns);
    let cases = [
        ("json.binlog.000001", 4, "8.0.22", Described::new("myown.t", &["id"], json)),
        ("json-opaque.binlog", 4, "9.0.1", Described::new("foo.test", &["a"], "a json")),
        ("vector.binlog", 4, "9.0.1", Described::new("dtb.bar", &["id"], vectors)),
        ("mysql-bin.compressed", 4, "8.0.28", Described::new("demo.movies", &["id"], movies)),
        ("binlog_transaction_with_GTID_TAG.000001", 4, "9.6.0", Described::new("test.orders", &["id"], "id int")),
        ("mysql-enum-string-set.000001", 4, "8.0.28", lent("f1 char(128) charset utf8mb4")),
        ("rpl_unfiltered_hidden_gcol.000001", 203, "8.0.17", Described::new("test.t", &["a"], "a int\nb text null")),
        ("update-partial-row.binlog", 4, "5.1.37", Described::new("test.ba", &["a"], "a int\nb int null\nc int null")),
    ];
    let mut state = 1_u64;
    let mut random = move |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    let (mut whole, mut refused) = (0, 0);
    for (name, from, version, table) in cases {
        for _ in 0..100 {
            let mut log = Log::read(name, from);
            // Not the description of the log, nor headers.
            let at = 1 + random(log.events.len() - 1);
            let checksums = log.checksums;
            let event = &mut log.events[at];
            let body = event.len() - 19 - if checksums { 4 } else { 0 };
            if body > 0 {
                event[19 + random(body)] ^= 1 << random(8);
                if checksums {
                    log::seal(event);
                }
            }
            end(&mut log);
            let tables = vec![table.clone(), Described::new("zz.end", &["id"], "id int")];
            let replay = Replay::start(version, log, tables, None);
            let mut run = Run::open(&replay).await;
            match tokio::time::timeout(DEADLINE, last(&mut run)).await {
                Ok(None) => whole += 1,
                Ok(Some(code)) => {
                    assert_ne!(code, "ended", "{name}: the source is gone without a word");
                    refused += 1;
                }
                Err(_) => panic!("{name}: nothing came of event {at}\n{}", run.told()),
            }
        }
    }
    assert!(whole > 80 && refused > 80, "{whole} read, {refused} refused");
}

/// Waits for the last row; or for what stopped, whose code is the answer.
async fn last(run: &mut Run) -> Option<String> {
    loop {
        let is_last = |step: &Step| matches!(step, Step::Change(change) if change.table.name == "zz.end");
        if run.steps.iter().any(is_last) {
            return None;
        }
        let stopped = run.feed.progress().tables.into_iter().find(|table| table.state == TableState::Stopped);
        if let Some(reason) = stopped.and_then(|table| table.reason) {
            return Some(reason.code);
        }
        match run.feed.next().await {
            Ok(portion) => run.take(portion),
            Err(error) => return Some(error.code.to_owned()),
        }
    }
}
