//! Many writers at once, each request in an instance of its own, some of them killed at any step.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::thread;

use cdc_test_edge::{EdgeServer, Provider};
use cdc_tests::http::{Answer, Connection, Request};

pub(super) const WRITERS: usize = 8;

fn ask(address: SocketAddr, request: &Request) -> Answer {
    Connection::open(address).exchange(request).unwrap()
}

/// Each writer inserts so many rows of its own, and adds up; answers the ids that were acknowledged, with their
/// sequence numbers.
pub(super) fn write(address: SocketAddr, rows: usize) -> BTreeMap<String, u64> {
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            thread::spawn(move || {
                let mut acknowledged = Vec::new();
                for row in 0..rows {
                    let id = format!("{writer}-{row}");
                    let answer = ask(address, &Request::post("/data/t", format!(r#"{{"id":"{id}"}}"#)));
                    if answer.status == 200 {
                        let sequence = answer.json()["event"]["metadata"]["sequenceNumber"].as_u64().unwrap();
                        acknowledged.push((id, sequence));
                    } else {
                        assert!([502, 503].contains(&answer.status), "{}", answer.text());
                    }
                }
                acknowledged
            })
        })
        .collect();
    writers.into_iter().flat_map(|writer| writer.join().unwrap()).collect()
}

/// The log is gap-free, every acknowledged row stands in it at the sequence number that its writer was told, and the
/// rows are what the log makes of them.
pub(super) fn check(address: SocketAddr, acknowledged: &BTreeMap<String, u64>) -> usize {
    let events = ask(address, &Request::get("/events?after=0&limit=10000")).expect(200).json();
    let events = events["events"].as_array().unwrap();
    let mut ids = BTreeSet::new();
    for (at, event) in events.iter().enumerate() {
        let sequence = event["metadata"]["sequenceNumber"].as_u64().unwrap();
        assert_eq!(sequence, at as u64 + 1, "the log has a gap or a number twice");
        let id = event["after"]["id"].as_str().unwrap();
        assert!(ids.insert(id.to_owned()), "{id} was inserted twice");
        if let Some(told) = acknowledged.get(id) {
            assert_eq!(*told, sequence, "{id} stands elsewhere than its writer was told");
        }
    }
    for id in acknowledged.keys() {
        assert!(ids.contains(id), "{id} was acknowledged and is lost");
    }
    let replayed = ask(address, &Request::post("/replay", "{}")).expect(200).json();
    assert_eq!(replayed["equal"], true, "{replayed}");
    assert_eq!(replayed["tables"][0]["liveRows"].as_u64(), Some(events.len() as u64));
    events.len()
}

#[test]
fn concurrent_writers_lose_no_write_and_share_no_sequence_number() {
    let folder = tempfile::tempdir().unwrap();
    let provider = Provider::open(&folder.path().join("keys"));
    let server = EdgeServer::start(provider, |_| None);
    let acknowledged = write(server.address(), 25);
    assert_eq!(acknowledged.len(), WRITERS * 25, "a write was given up");
    assert_eq!(check(server.address(), &acknowledged), WRITERS * 25);
}

#[test]
fn writers_that_are_killed_at_any_step_lose_nothing_that_was_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys");
    // Two of three instances are killed, each some steps further than the one before.
    let server = EdgeServer::start(Provider::open(&path), |request| {
        (request % 3 != 0).then_some(usize::try_from(request).unwrap() / 3 % 40)
    });
    let acknowledged = write(server.address(), 50);
    assert!(acknowledged.len() > WRITERS && acknowledged.len() < WRITERS * 50, "{} acknowledged", acknowledged.len());
    drop(server);
    let server = EdgeServer::start(Provider::open(&path), |_| None);
    let captured = check(server.address(), &acknowledged);
    eprintln!("{} of {captured} captured writes were acknowledged", acknowledged.len());
}
