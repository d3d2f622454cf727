//! What is promised of delivery: selection, order, retries, dead letters, pauses, rewinds.

use std::collections::BTreeMap;
use std::os::unix::fs::FileExt;

use cdc_tests::guests;
use cdc_tests::harness::{Launch, Server, until};
use cdc_tests::recorder::Recorder;
use serde_json::json;

use super::{caught_up, counter, hostile, load, status, subscribe, upload};

/// A service with the component that counts.
fn server() -> Server {
    let server = Launch::new().option("--builtin-subscribers", "none").start();
    upload(&server, "hostile", &guests::rust("hostile")).expect(200);
    server
}

#[test]
fn every_selected_event_arrives_in_order() {
    let (server, recorder) = (server(), Recorder::start());
    load(&server, "users", 0, 500);
    load(&server, "orders", 0, 100);
    let mut definition = counter(&recorder);
    definition["tables"] = json!(["user*"]);
    definition["operations"] = json!(["insert"]);
    definition["where"] = json!("after.status == 'active' && after.n < 400");
    subscribe(&server, "s", &definition);
    server.put("/data/users/2", r#"{"n":3}"#).expect(200);
    load(&server, "users", 500, 10);
    let status = caught_up(&server, "s");
    let expected: Vec<u64> = (0..400).filter(|id| id % 2 == 0).map(|id| id + 1).collect();
    assert_eq!(recorder.sequences(), expected);
    let done = &status["sinceStart"];
    assert_eq!(done["delivered"], 200);
    assert_eq!(done["unselected"], 101, "other tables and operations: {status}");
    assert_eq!(done["filteredByWhere"], 310, "{status}");
    assert_eq!((&status["lagEvents"], &status["state"]), (&json!(0), &json!("running")));
}

#[test]
fn a_subscription_starts_where_it_is_told() {
    let (server, recorders) = (server(), [(); 3].map(|()| Recorder::start()));
    load(&server, "t", 0, 10);
    for (recorder, start) in recorders.iter().zip([json!("now"), json!("beginning"), json!(6)]) {
        let mut definition = counter(recorder);
        definition["start"] = start.clone();
        subscribe(&server, &format!("from-{}", start.to_string().trim_matches('"')), &definition);
    }
    load(&server, "t", 10, 2);
    for id in ["from-now", "from-beginning", "from-6"] {
        caught_up(&server, id);
    }
    let seen = recorders.map(|recorder| recorder.sequences());
    assert_eq!(seen, [vec![11, 12], (1..=12).collect(), (6..=12).collect()]);
    let mut ahead = counter(&Recorder::start());
    ahead["start"] = json!(1_000);
    server.put("/subscriptions/ahead", &ahead.to_string()).expect_problem(400, "in-the-future");
}

#[test]
fn a_snapshot_first_delivers_rows_and_then_what_changes() {
    let (server, recorder) = (server(), Recorder::start());
    load(&server, "t", 0, 600);
    server.delete("/data/t/7").expect(200);
    let mut definition = counter(&recorder);
    definition["start"] = json!("snapshot");
    definition["where"] = json!("after.status == 'active'");
    subscribe(&server, "s", &definition);
    load(&server, "t", 1_000, 2);
    caught_up(&server, "s");
    // Every row has the sequence number that the snapshot stands for; what is captured after it has its own.
    let mut expected = vec![601; 300];
    expected.push(602);
    assert_eq!(recorder.sequences(), expected);
}

#[test]
fn a_server_that_is_down_is_asked_again_until_it_is_there() {
    let (server, recorder) = (server(), Recorder::start());
    recorder.set_down(true);
    subscribe(&server, "s", &counter(&recorder));
    load(&server, "t", 0, 5);
    let retrying = until("a retry", || Some(status(&server, "s")).filter(|status| status["state"] == "retrying"));
    assert!(retrying["reason"].as_str().unwrap().contains("503"), "{retrying}");
    assert_eq!(retrying["lanes"][0]["retry"]["sequence"], 1);
    assert_eq!(retrying["lagEvents"], 5);
    // Others are not held up, and neither are writers.
    let other = Recorder::start();
    subscribe(&server, "other", &counter(&other));
    load(&server, "t", 5, 5);
    caught_up(&server, "other");
    recorder.set_down(false);
    caught_up(&server, "s");
    assert_eq!(recorder.sequences(), (1..=10).collect::<Vec<_>>());
}

#[test]
fn what_fails_comes_again_and_what_is_rejected_is_listed_and_retried_by_hand() {
    let (server, recorder) = (server(), Recorder::start());
    let mut definition = counter(&recorder);
    definition["batch"] = json!({"maxEvents": 20});
    let config = &mut definition["grants"]["config"];
    (config["mode"], config["batches"]) = (json!("fails-every-n"), json!("3"));
    (config["events"], config["once"]) = (json!("100"), json!("true"));
    subscribe(&server, "s", &definition);
    load(&server, "t", 0, 1_000);
    let done = caught_up(&server, "s");
    let arrived: Vec<u64> = (1..=1_000).filter(|sequence| sequence % 100 != 0).collect();
    assert_eq!(recorder.sequences(), arrived, "all others arrive once and in order");
    assert!(done["sinceStart"]["retries"].as_u64() > Some(10), "{done}");

    let page = server.get("/subscriptions/s/dead-letters?limit=4").expect(200).json();
    assert_eq!((&page["count"], &page["hasMore"]), (&json!(4), &json!(true)));
    let page = server.get("/subscriptions/s/dead-letters").expect(200).json();
    assert_eq!(page["count"], 10);
    let letter = &page["deadLetters"][2];
    assert_eq!((&letter["sequence"], &letter["kind"], &letter["attempts"]), (&json!(300), &json!("reject"), &json!(1)));
    assert!(letter["reason"].as_str().unwrap().contains("300 divides by 100"), "{letter}");
    assert_eq!(letter["event"]["after"]["id"], 299);

    // By hand, one and an unknown one. A third call fails here too, and what it was about stays a dead letter.
    let retry = |body: &str| server.post("/subscriptions/s/dead-letters/retry", body).expect(200).json();
    let one = retry(r#"{"sequences":[300,301]}"#);
    assert_eq!(one["failed"][0]["sequence"], 301, "{one}");
    let delivered = one["delivered"].as_array().map_or(0, Vec::len);
    assert!(delivered == 1 || one["failed"][1]["reason"].as_str().unwrap().contains("fails"), "{one}");
    until("every dead letter to be delivered", || {
        retry(r#"{"all":true}"#);
        (status(&server, "s")["deadLetters"] == 0).then_some(())
    });
    let mut all = recorder.sequences();
    all.sort_unstable();
    assert_eq!(all, (1..=1_000).collect::<Vec<_>>());
}

#[test]
fn dead_letters_survive_a_restart_and_can_be_discarded() {
    let server = server();
    let mut definition = hostile("trap", &[]);
    definition["where"] = json!("after.n == 3");
    subscribe(&server, "s", &definition);
    load(&server, "t", 0, 10);
    caught_up(&server, "s");
    let server = server.kill().start();
    let letters = server.get("/subscriptions/s/dead-letters").expect(200).json();
    let letter = &letters["deadLetters"][0];
    assert_eq!((&letter["sequence"], &letter["kind"], &letter["attempts"]), (&json!(4), &json!("trap"), &json!(2)));
    assert!(letter["reason"].as_str().unwrap().contains("unreachable"), "{letter}");
    let discarded = server.post("/subscriptions/s/dead-letters/discard", r#"{"all":true}"#).expect(200).json();
    assert_eq!(discarded, json!({"discarded": 1}));
    assert_eq!(server.get("/subscriptions/s/dead-letters").expect(200).json()["count"], 0);
}

#[test]
fn a_subscription_that_stops_at_a_dead_letter_waits_for_a_decision() {
    let (server, recorder) = (server(), Recorder::start());
    let mut definition = counter(&recorder);
    let config = &mut definition["grants"]["config"];
    (config["mode"], config["events"]) = (json!("fails-every-n"), json!("4"));
    definition["deadLetters"] = json!({"policy": "stop"});
    subscribe(&server, "s", &definition);
    load(&server, "t", 0, 6);
    let stopped = |server: &Server| until("a stop", || Some(status(server, "s")).filter(|s| s["state"] == "stopped"));
    assert!(stopped(&server)["reason"].as_str().unwrap().contains("divides by 4"));
    assert_eq!(recorder.sequences(), [1, 2, 3]);
    // It stays so over a restart.
    let server = server.stop().start();
    assert_eq!(stopped(&server)["deadLetters"], 1);
    // Whoever resumes gets the same again; whoever discards passes over it.
    server.post("/subscriptions/s/resume", "").expect(200);
    stopped(&server);
    server.post("/subscriptions/s/dead-letters/discard", r#"{"sequences":[4]}"#).expect(200);
    server.post("/subscriptions/s/resume", "").expect(200);
    caught_up(&server, "s");
    assert_eq!(recorder.sequences(), [1, 2, 3, 5, 6]);
}

#[test]
fn dead_letters_beyond_the_limit_stop_delivery_instead_of_being_lost() {
    let server = server();
    let mut definition = hostile("fails-every-n", &[("events", "1")]);
    definition["deadLetters"] = json!({"max": 3});
    subscribe(&server, "s", &definition);
    load(&server, "t", 0, 10);
    let stopped = until("a stop", || Some(status(&server, "s")).filter(|status| status["state"] == "stopped"));
    assert!(stopped["reason"].as_str().unwrap().contains("dead letters are full"), "{stopped}");
    assert_eq!((&stopped["deadLetters"], &stopped["acknowledgedSequence"]), (&json!(3), &json!(3)));
}

#[test]
fn pausing_holds_events_back_and_resuming_lets_them_go() {
    let (server, recorder) = (server(), Recorder::start());
    subscribe(&server, "s", &counter(&recorder));
    load(&server, "t", 0, 3);
    caught_up(&server, "s");
    assert_eq!(server.post("/subscriptions/s/pause", "").expect(200).json()["state"], "paused");
    load(&server, "t", 3, 3);
    let server = server.stop().start();
    assert_eq!(status(&server, "s")["state"], "paused");
    assert_eq!(status(&server, "s")["lagEvents"], 3);
    assert_eq!(recorder.sequences(), [1, 2, 3]);
    server.post("/subscriptions/s/resume", "").expect(200);
    caught_up(&server, "s");
    assert_eq!(recorder.sequences(), [1, 2, 3, 4, 5, 6]);
}

#[test]
fn a_rewind_delivers_again_from_there() {
    let (server, recorder) = (server(), Recorder::start());
    subscribe(&server, "s", &counter(&recorder));
    load(&server, "t", 0, 4);
    caught_up(&server, "s");
    server.post("/subscriptions/s/rewind", r#"{"to":3}"#).expect(200);
    caught_up(&server, "s");
    assert_eq!(recorder.sequences(), [1, 2, 3, 4, 3, 4]);
    server.post("/subscriptions/s/rewind", r#"{"to":"beginning"}"#).expect(200);
    caught_up(&server, "s");
    assert_eq!(recorder.sequences().len(), 10);
    server.post("/subscriptions/s/rewind", r#"{"to":99}"#).expect_problem(400, "in-the-future");
    server.post("/subscriptions/nobody/rewind", r#"{"to":1}"#).expect_problem(404, "unknown-subscription");
}

#[test]
fn lanes_keep_the_order_of_every_row() {
    let server = server();
    let recorder = Recorder::start();
    let mut definition = counter(&recorder);
    definition["lanes"] = json!(4);
    definition["batch"] = json!({"maxEvents": 7});
    definition["grants"].as_object_mut().unwrap().remove("keyvalue");
    // Without a store of its own the counter fails: lanes are for handlers that keep nothing.
    definition["subscriber"] = json!({"component": "noop"});
    upload(&server, "noop", &guests::rust("noop")).expect(200);
    subscribe(&server, "s", &definition);
    for round in 0..5 {
        for id in 0..20 {
            server.put(&format!("/data/t/{id}?upsert=true"), &format!(r#"{{"id":{id},"round":{round}}}"#)).expect(200);
        }
    }
    let status = caught_up(&server, "s");
    assert_eq!(status["lanes"].as_array().map(Vec::len), Some(4));
    assert_eq!(status["sinceStart"]["delivered"], 100, "{status}");
    let mut wrong = definition.clone();
    wrong["grants"]["keyvalue"] = json!(true);
    let detail = server.put("/subscriptions/w", &wrong.to_string()).expect_problem(400, "invalid-subscription");
    assert!(detail.contains("lanes"), "{detail}");
    // Fewer lanes go on where the slowest was.
    definition["lanes"] = json!(1);
    subscribe(&server, "s", &definition);
    server.post("/data/t", r#"{"id":100}"#).expect(200);
    caught_up(&server, "s");
}

#[test]
fn a_trace_tells_what_became_of_a_row_everywhere() {
    let (server, recorder) = (server(), Recorder::start());
    upload(&server, "active", &guests::rust("filter")).expect(200);
    load(&server, "t", 0, 4);
    let mut of = BTreeMap::new();
    let mut make = |id: &'static str, change: &dyn Fn(&mut serde_json::Value)| {
        let mut definition = counter(&recorder);
        change(&mut definition);
        subscribe(&server, id, &definition);
        caught_up(&server, id);
        of.insert(id, ());
    };
    make("acknowledged", &|_| {});
    make("other-table", &|definition| definition["tables"] = json!(["u"]));
    make("other-operation", &|definition| definition["operations"] = json!(["delete"]));
    make("where", &|definition| definition["where"] = json!("after.n == 0"));
    make("component", &|definition| {
        definition["filter"] = json!("active");
    });
    make("dead", &|definition| definition["grants"]["config"]["mode"] = json!("trap"));
    make("later", &|definition| definition["start"] = json!("now"));
    let trace = server.get("/trace/t/1").expect(200).json();
    assert_eq!(trace["count"], 1);
    let fates = trace["events"][0]["subscriptions"].as_array().unwrap();
    let fate = |id: &str| {
        let fate = fates.iter().find(|fate| fate["subscription"] == id).unwrap();
        (fate["outcome"].as_str().unwrap().to_owned(), fate["by"].as_str().unwrap_or_default().to_owned())
    };
    let expected = |outcome: &str, by: &str| (outcome.to_owned(), by.to_owned());
    assert_eq!(fate("acknowledged"), expected("acknowledged", ""));
    assert_eq!(fate("other-table"), expected("not-selected", "tables"));
    assert_eq!(fate("other-operation"), expected("not-selected", "operations"));
    assert_eq!(fate("where"), expected("not-selected", "where"));
    assert_eq!(fate("component"), expected("filtered", "component"));
    assert_eq!(fate("dead"), expected("dead", ""));
    assert_eq!(fate("later"), expected("before-start", ""));
    server.get("/trace/t/99").expect_problem(404, "unknown-row");
}

#[test]
fn a_subscription_that_retention_outran_says_so_and_goes_on_when_told() {
    let server = Launch::new()
        .options("--builtin-subscribers none --retention-events 10 --retention-unacknowledged-events 20")
        .start();
    upload(&server, "noop", &guests::rust("noop")).expect(200);
    subscribe(&server, "s", &json!({"subscriber": {"component": "noop"}, "start": "beginning", "paused": true}));
    load(&server, "t", 0, 15);
    assert_eq!(server.get("/events?limit=1&order=asc").expect(200).json()["oldestSequence"], 1, "it holds them");
    load(&server, "t", 15, 50);
    server.post("/subscriptions/s/resume", "").expect(200);
    let lost = until("the loss", || Some(status(&server, "s")).filter(|status| status["state"] == "lost"));
    assert!(lost["reason"].as_str().unwrap().contains("events 1 to "), "{lost}");
    server.post("/subscriptions/s/rewind", r#"{"to":"beginning"}"#).expect(200);
    assert_eq!(caught_up(&server, "s")["state"], "running");
}

#[test]
fn definitions_that_cannot_be_met_are_refused() {
    let server = server();
    for (definition, code) in [
        (json!({"subscriber": {"component": "nobody"}}), "unknown-component"),
        (json!({"subscriber": {"component": "hostile", "version": 9}}), "unknown-component-version"),
        (json!({"subscriber": {"builtin": "nothing"}}), "invalid-subscription"),
        (json!({"subscriber": {"builtin": "console"}, "where": "after.x =="}), "invalid-subscription"),
        (json!({"subscriber": {"builtin": "console"}, "where": "nothing == 1"}), "invalid-subscription"),
        (json!({"subscriber": {"builtin": "console"}, "tables": ["a b*c\n"]}), "invalid-subscription"),
        (json!({}), "invalid-subscription"),
    ] {
        let answer = server.put("/subscriptions/s", &definition.to_string());
        assert_eq!(answer.problem()["code"], code, "{definition}: {}", answer.text());
    }
    server.get("/subscriptions/s").expect_problem(404, "unknown-subscription");
    assert_eq!(server.get("/subscriptions").expect(200).json()["count"], 0);
}

#[test]
fn subscriptions_have_a_limit() {
    let server = Launch::new().options("--builtin-subscribers none --max-subscriptions 1").start();
    subscribe(&server, "a", &json!({"subscriber": {"builtin": "publisher"}}));
    let detail = server
        .put("/subscriptions/b", r#"{"subscriber":{"builtin":"publisher"}}"#)
        .expect_problem(409, "limit-reached");
    assert!(detail.contains("max-subscriptions"), "{detail}");
    subscribe(&server, "a", &json!({"subscriber": {"builtin": "publisher"}, "tables": ["t"]}));
}

#[test]
fn a_log_that_cannot_be_read_is_shown_where_delivery_waits_and_goes_on_once_it_can() {
    let (server, recorder) = (server(), Recorder::start());
    load(&server, "t", 0, 100);
    subscribe(&server, "s", &counter(&recorder));
    caught_up(&server, "s");
    server.post("/subscriptions/s/pause", "").expect(200);
    load(&server, "t", 100, 100);
    // What was just written would be read from memory.
    let server = server.stop().start();
    let segment = server.data().segments().pop().expect("there is a segment");
    let whole = std::fs::read(&segment).unwrap();
    let mut damaged = whole.clone();
    let end = damaged.iter().rposition(|byte| *byte != 0).expect("it is not empty");
    // In the second load, which takes the second half.
    damaged[end * 3 / 4] ^= 0x10;
    std::fs::OpenOptions::new().write(true).open(&segment).unwrap().write_all_at(&damaged, 0).unwrap();
    server.post("/subscriptions/s/resume", "").expect(200);
    let waiting = until("delivery to wait", || {
        let status = status(&server, "s");
        (status["state"] == "retrying").then_some(status)
    });
    let name = segment.file_name().unwrap().to_str().unwrap();
    let message = waiting["reason"].as_str().expect("a reason");
    assert!(message.contains(name), "the reason does not name {name}: {waiting}");
    assert_eq!(waiting["acknowledgedSequence"], 100, "{waiting}");
    std::fs::OpenOptions::new().write(true).open(&segment).unwrap().write_all_at(&whole, 0).unwrap();
    caught_up(&server, "s");
    assert_eq!(recorder.sequences(), (1..=200).collect::<Vec<u64>>());
}
