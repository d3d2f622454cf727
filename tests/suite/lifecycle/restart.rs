//! What was there is there again.

use cdc_tests::captured::{Captured, read_log, read_snapshot};
use cdc_tests::harness::{Launch, Server};

#[test]
fn a_restart_goes_on_where_the_service_ended() {
    let mut server = Server::start();
    let mut log: Vec<Captured> = Vec::new();
    for round in 0..6 {
        let first = server.post("/data/t", &format!(r#"{{"id":{round},"round":{round}}}"#)).expect(200);
        log.push(Captured::of_write(first.text()));
        let second = server.put("/data/t/0", &format!(r#"{{"round":{round}}}"#)).expect(200);
        log.push(Captured::of_write(second.text()));
        let stats = server.get("/stats").expect(200).json();
        // Clean stops and kills take turns.
        server = if round % 2 == 0 { server.stop().start() } else { server.kill().start() };
        assert_eq!(read_log(&server, 0), log);
        let mut after = server.get("/stats").expect(200).json();
        assert_eq!(after["stats"]["currentSequence"], log.len());
        after["stats"]["eventsPerSecond"] = stats["stats"]["eventsPerSecond"].clone();
        after["bufferSize"] = stats["bufferSize"].clone();
        assert_eq!(after, stats);
        assert_eq!(read_snapshot(&server, "/snapshot/t").0.len(), round + 1);
    }
    assert_eq!(server.get("/schema/t").expect(200).json()["version"], log.last().unwrap().schema_version);
}

#[test]
fn every_durability_survives_a_kill_of_the_process() {
    // What only a power loss takes is not lost to a kill: the kernel has the bytes.
    for durability in ["commit", "interval=50", "none"] {
        let server = Launch::new().option("--durability", durability).start();
        for id in 0..50 {
            server.post("/data/t", &format!(r#"{{"id":{id}}}"#)).expect(200);
        }
        let server = server.kill().start();
        assert_eq!(read_log(&server, 0).len(), 50, "{durability}");
    }
}

#[test]
fn a_second_start_compiles_nothing_and_a_spoilt_cache_is_no_obstacle() {
    let launch = Launch::new().compile_cache_as_configured();
    let server = launch.start();
    server.post("/data/t", r#"{"id":1}"#).expect(200);
    server.stop();
    let cache = launch.data().path().join("cache");
    let files = || -> Vec<(std::path::PathBuf, Vec<u8>)> {
        let entries =
            std::fs::read_dir(&cache).expect("compiled code lies in the cache").map(|entry| entry.unwrap().path());
        entries.filter(|path| path.is_file()).map(|path| (path.clone(), std::fs::read(&path).unwrap())).collect()
    };
    let compiled = files();
    assert!(!compiled.is_empty());
    let modified = |path: &std::path::Path| std::fs::metadata(path).unwrap().modified().unwrap();
    let times: Vec<_> = compiled.iter().map(|(path, _)| modified(path)).collect();
    launch.start().stop();
    assert!(files() == compiled, "the second start changed the cache");
    assert_eq!(compiled.iter().map(|(path, _)| modified(path)).collect::<Vec<_>>(), times);
    // Cut short, flipped, or emptied: it is compiled again, never believed.
    let ways: [fn(&mut Vec<u8>); 3] = [
        |bytes| bytes.truncate(bytes.len() / 2),
        |bytes| bytes.clear(),
        |bytes| {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
        },
    ];
    for spoil in ways {
        for (path, bytes) in &compiled {
            let mut spoilt = bytes.clone();
            spoil(&mut spoilt);
            std::fs::write(path, spoilt).unwrap();
        }
        let server = launch.start();
        assert_eq!(server.get("/data/t/1").expect(200).text(), r#"{"id":1}"#);
        server.stop();
    }
}
