//! A log whose bytes are not what was written: a torn end is cut off, damage is found and named.

use std::fs;
use std::path::PathBuf;

use super::assert_consistent;
use cdc_tests::captured::read_log;
use cdc_tests::harness::{Data, Launch};

/// A killed service that answered this many writes, none of them checkpointed: its rows stand in the log alone.
fn killed_after(writes: usize) -> Launch {
    let server = Launch::new().options("--checkpoint-interval-ms 3600000").start();
    for id in 1..=writes {
        server.post("/data/t", &format!(r#"{{"id":{id},"text":"{id:0100}"}}"#)).expect(200);
    }
    server.kill()
}

/// The newest segment that has anything in it, its bytes, and where they end; the room prepared behind them is zeros.
fn newest_segment(data: &Data) -> (PathBuf, Vec<u8>, usize) {
    let file = data.segments().pop().expect("there is a segment");
    let bytes = fs::read(&file).unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).expect("a segment has a header") + 1;
    (file, bytes, end)
}

#[test]
fn a_tail_torn_anywhere_in_the_last_write_loses_that_write_alone() {
    for cut in [1, 2, 17, 60, 100] {
        let launch = killed_after(20);
        let (file, bytes, end) = newest_segment(launch.data());
        fs::write(&file, &bytes[..end - cut]).unwrap();
        let server = launch.start();
        let (log, _) = assert_consistent(&server);
        assert_eq!(log.len(), 19, "cut {cut} bytes off");
        let name = file.file_name().unwrap().to_str().unwrap();
        assert!(server.log().contains(name), "the log does not name {name}:\n{}", server.log());
        // The place is free: the next write takes it, and is there after the next kill.
        server.post("/data/t", r#"{"id":"again"}"#).expect(200);
        let server = server.kill().start();
        let (log, _) = assert_consistent(&server);
        assert_eq!((log.len(), log[19].after.as_deref()), (20, Some(r#"{"id":"again"}"#)));
        server.stop().data().verify().expect_success();
    }
}

#[test]
fn a_tail_zeroed_from_anywhere_in_the_last_write_loses_that_write_alone() {
    for cut in [1, 50, 120] {
        let launch = killed_after(20);
        let (file, mut bytes, end) = newest_segment(launch.data());
        bytes[end - cut..].fill(0);
        fs::write(&file, &bytes).unwrap();
        let (log, _) = assert_consistent(&launch.start());
        assert_eq!(log.len(), 19, "zeroed the last {cut} bytes");
    }
}

#[test]
fn a_bit_flipped_in_the_last_write_loses_that_write_alone() {
    for back in [1, 30, 90, 130] {
        let launch = killed_after(20);
        let (file, mut bytes, end) = newest_segment(launch.data());
        bytes[end - back] ^= 0x10;
        fs::write(&file, &bytes).unwrap();
        let (log, _) = assert_consistent(&launch.start());
        assert_eq!(log.len(), 19, "flipped a bit {back} bytes before the end");
    }
}

#[test]
fn rubbish_behind_the_last_write_loses_nothing() {
    for length in [1, 43, 44, 5_000] {
        let launch = killed_after(20);
        let (file, mut bytes, end) = newest_segment(launch.data());
        bytes.truncate(end);
        bytes.extend((0..length).map(|number| (number * 37 + 11) as u8));
        fs::write(&file, &bytes).unwrap();
        let (log, _) = assert_consistent(&launch.start());
        assert_eq!(log.len(), 20, "{length} bytes of rubbish");
    }
}

#[test]
fn a_bit_flipped_among_older_writes_is_refused_with_the_file_and_a_way_out() {
    let launch = killed_after(200);
    let (file, mut bytes, end) = newest_segment(launch.data());
    bytes[end / 2] ^= 0x10;
    fs::write(&file, &bytes).unwrap();
    let name = file.file_name().unwrap().to_str().unwrap();

    let refused = launch.refused();
    assert!(!refused.status.success());
    assert!(refused.stderr.contains(name), "{}", refused.stderr);
    assert!(!refused.stderr.contains("panicked"), "{}", refused.stderr);
    // What was damaged is left as it is, for whoever wants to save what can be saved.
    assert_eq!(fs::read(&file).unwrap(), bytes);

    let verified = launch.data().verify();
    assert!(!verified.status.success());
    assert!(format!("{}{}", verified.stdout, verified.stderr).contains(name), "{verified:?}");
    assert_eq!(fs::read(&file).unwrap(), bytes, "verify changes nothing");
}

#[test]
fn damage_in_an_old_segment_is_found_by_verify_and_never_read_over_in_silence() {
    // Without subscribers, whose documents would stand in the log too, and not be missed by whoever reads events.
    let options = "--builtin-subscribers none --retention-events 1000000 --segment-bytes 64KiB";
    let server = Launch::new().options(options).start();
    for part in 0..10 {
        let rows: Vec<String> = (0..500)
            .map(|id| format!(r#"{{"id":"{part}-{id}","n":{}}}"#, cdc_tests::random::scramble(part * 500 + id + 1)))
            .collect();
        server.post("/data/t", &format!("[{}]", rows.join(","))).expect(200);
    }
    let launch = server.stop();
    let segments = launch.data().segments();
    assert!(segments.len() > 2, "{segments:?}");
    let name = segments[0].file_name().unwrap().to_str().unwrap();
    let mut bytes = fs::read(&segments[0]).unwrap();
    bytes[1_000] ^= 1;
    fs::write(&segments[0], &bytes).unwrap();

    let verified = launch.data().verify();
    assert!(!verified.status.success(), "{verified:?}");
    assert!(format!("{}{}", verified.stdout, verified.stderr).contains(name), "{verified:?}");

    // Whether the service starts on it or not: it says so, and it does not answer as if nothing were missing.
    match launch.try_start() {
        Err(refused) => assert!(refused.stderr.contains(name), "{}", refused.stderr),
        Ok(server) => {
            let answer = server.get("/events?after=0&limit=10");
            assert!(answer.status >= 500, "{} {}", answer.status, answer.text());
            answer.problem();
            // The rest is there.
            assert_eq!(read_log(&server, 4_500).len(), 500);
            server.post("/data/t", r#"{"id":"more"}"#).expect(200);
        }
    }
}

#[test]
fn a_missing_segment_is_refused_or_reported_but_not_passed_over() {
    let server = Launch::new().options("--retention-events 1000000 --segment-bytes 64KiB").start();
    for part in 0..10 {
        let rows: Vec<String> = (0..500)
            .map(|id| format!(r#"{{"id":"{part}-{id}","n":{}}}"#, cdc_tests::random::scramble(part * 500 + id + 1)))
            .collect();
        server.post("/data/t", &format!("[{}]", rows.join(","))).expect(200);
    }
    let launch = server.stop();
    let segments = launch.data().segments();
    fs::remove_file(&segments[1]).unwrap();
    let verified = launch.data().verify();
    assert!(!verified.status.success(), "{verified:?}");
    let refused = launch.refused();
    assert!(refused.stderr.contains("log"), "{}", refused.stderr);
}

#[test]
fn lost_views_are_rebuilt_while_the_log_reaches_back() {
    let launch = killed_after(200);
    let server = launch.start();
    server.post("/data/t", r#"{"id":"more"}"#).expect(200);
    let launch = server.stop();
    for entry in fs::read_dir(launch.data().path()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "redb") {
            fs::remove_file(path).unwrap();
        }
    }
    let server = launch.start();
    let (log, _) = assert_consistent(&server);
    assert_eq!(log.len(), 201);
}
