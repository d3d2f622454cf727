//! The reference's consumers, as subscribers: console, publisher, replication.

use cdc_tests::harness::{Launch, Server};
use serde_json::json;

use super::{caught_up, load, subscribe};

fn ids(server: &Server) -> Vec<String> {
    let listed = server.get("/subscriptions").expect(200).json();
    let listed = listed["subscriptions"].as_array().unwrap().clone();
    listed.iter().map(|subscription| subscription["id"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn all_are_on_by_default_for_every_table() {
    let server = Server::start();
    assert_eq!(ids(&server), ["console", "publisher", "replication"]);
    load(&server, "a", 0, 10);
    load(&server, "b", 0, 10);
    for id in ["console", "publisher", "replication"] {
        let status = caught_up(&server, id);
        assert_eq!(status["sinceStart"]["delivered"], 20, "{status}");
        assert_eq!(status["declared"], true);
    }
    assert_eq!(server.get("/stats").expect(200).json()["bufferSize"], 0);
}

#[test]
fn the_replica_is_what_the_component_keeps_and_survives_kills() {
    let mut server = Server::start();
    for round in 0..4 {
        load(&server, "t", round * 100, 100);
        server.put(&format!("/data/t/{}", round * 100), r#"{"status":"changed"}"#).expect(200);
        server.delete(&format!("/data/t/{}", round * 100 + 1)).expect(200);
        let replica = server.get("/replica/t").expect(200).json();
        let snapshot = server.get("/snapshot/t").expect(200).json();
        assert_eq!(replica["data"], snapshot["data"]);
        assert_eq!(replica["count"], 99 * (round + 1));
        server = if round % 2 == 0 { server.kill().start() } else { server.stop().start() };
    }
    server.get("/replica/nothing").expect_problem(404, "unknown-table");
    // Another table's rows are not among them, whatever its name begins with.
    load(&server, "t2", 0, 3);
    load(&server, "t.x", 0, 3);
    assert_eq!(server.get("/replica/t2").expect(200).json()["count"], 3);
    assert_eq!(server.get("/replica/t").expect(200).json()["count"], 396);
}

#[test]
fn each_can_be_switched_off_and_on_again() {
    let server = Launch::new().option("--builtin-subscribers", "none").start();
    assert!(ids(&server).is_empty());
    load(&server, "t", 0, 50);
    server.get("/replica/t").expect_problem(404, "unknown-subscription");
    assert_eq!(server.get("/stats").expect(200).json()["bufferSize"], 0);
    let data = server.stop().data().clone();
    // Switched on later, the replica has the rows from before.
    let server = Launch::new().on(&data).option("--builtin-subscribers", "replication").start();
    assert_eq!(ids(&server), ["replication"]);
    assert_eq!(server.get("/replica/t").expect(200).json()["count"], 50);
    server.delete("/subscriptions/replication").expect_problem(409, "declared-in-configuration");
    let data = server.stop().data().clone();
    let server = Launch::new().on(&data).option("--builtin-subscribers", "none").start();
    assert!(ids(&server).is_empty());
    // One more of a kind is a matter of a call.
    subscribe(&server, "lines", &json!({"subscriber": {"builtin": "console"}, "tables": ["t"]}));
    load(&server, "t", 50, 1);
    caught_up(&server, "lines");
}

#[test]
fn what_waits_for_the_publisher_shows_in_the_statistics() {
    let server = Server::start();
    server.post("/subscriptions/publisher/pause", "").expect(200);
    load(&server, "t", 0, 7);
    assert_eq!(server.get("/stats").expect(200).json()["bufferSize"], 7);
    server.post("/subscriptions/publisher/resume", "").expect(200);
    caught_up(&server, "publisher");
    assert_eq!(server.get("/stats").expect(200).json()["bufferSize"], 0);
}
