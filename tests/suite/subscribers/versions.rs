//! Versions of components: swapped while they run, rolled back, and tried on history first.

use std::sync::atomic::{AtomicBool, Ordering};

use cdc_tests::guests;
use cdc_tests::harness::{Launch, Server, until};
use cdc_tests::recorder::Recorder;
use serde_json::json;

use super::{caught_up, counter, load, status, subscribe, upload};

fn server() -> Server {
    Launch::new().option("--builtin-subscribers", "none").start()
}

#[test]
fn a_new_version_swaps_in_under_load_without_losing_or_repeating_an_event() {
    let (server, recorder) = (server(), Recorder::start());
    upload(&server, "hostile", &guests::rust("hostile")).expect(200);
    let mut definition = counter(&recorder);
    definition["batch"] = json!({"maxEvents": 50});
    subscribe(&server, "s", &definition);
    // The same code in other bytes: a custom section named v2 at the end.
    let mut other = std::fs::read(guests::rust("hostile")).unwrap();
    other.extend(b"\0\x03\x02v2");
    let variant = server.data().beside("variant.wasm");
    std::fs::write(&variant, other).unwrap();
    let is_done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut portion = 0;
            while !is_done.load(Ordering::SeqCst) {
                load(&server, "t", portion * 100, 100);
                portion += 1;
            }
        });
        for swap in 0..6 {
            let expected = if swap % 2 == 0 {
                upload(&server, "hostile", &variant).expect(200);
                2
            } else {
                server.post("/components/hostile/rollback", "").expect(200);
                1
            };
            until("the other version to deliver", || {
                (status(&server, "s")["componentVersion"] == expected).then_some(())
            });
        }
        is_done.store(true, Ordering::SeqCst);
    });
    let status = caught_up(&server, "s");
    let newest = server.current_sequence();
    assert_eq!(recorder.sequences(), (1..=newest).collect::<Vec<_>>());
    assert!(status["sinceStart"]["instances"].as_u64() >= Some(7), "{status}");
}

#[test]
fn a_version_is_rolled_back_to_the_one_before_or_to_a_named_one() {
    let server = server();
    for guest in ["noop", "filter", "status-filter"] {
        upload(&server, "c", &guests::rust(guest)).expect(200);
    }
    let current = |server: &Server| server.get("/components/c").expect(200).json()["version"].as_u64();
    assert_eq!(current(&server), Some(3));
    assert_eq!(server.post("/components/c/rollback", "").expect(200).json()["version"], 2);
    let server = server.kill().start();
    assert_eq!(current(&server), Some(2), "and it stays so");
    assert_eq!(server.post("/components/c/rollback", r#"{"version":1}"#).expect(200).json()["world"], "handler");
    server.post("/components/c/rollback", r#"{"version":7}"#).expect_problem(404, "unknown-component-version");
    upload(&server, "single", &guests::rust("noop")).expect(200);
    server.post("/components/single/rollback", "").expect_problem(409, "nothing-before");
    // A subscription that names a version keeps it.
    subscribe(&server, "pinned", &json!({"subscriber": {"component": "c", "version": 3}, "start": "beginning"}));
    load(&server, "t", 0, 1);
    caught_up(&server, "pinned");
    assert_eq!(status(&server, "pinned")["componentVersion"], 3);
}

#[test]
fn a_dry_run_over_history_shows_what_a_version_would_do_and_where_it_differs() {
    let (server, recorder) = (server(), Recorder::start());
    upload(&server, "c", &guests::rust("status-filter")).expect(200);
    upload(&server, "hostile", &guests::rust("hostile")).expect(200);
    load(&server, "t", 0, 100);
    let mut definition = counter(&recorder);
    definition["subscriber"] = json!({"component": "c"});
    definition["grants"] = json!({});
    subscribe(&server, "s", &definition);
    caught_up(&server, "s");
    // The next version accepts everything: half of the events differ.
    upload(&server, "c", &guests::rust("noop-filter")).expect(200);
    server.post("/components/c/rollback", "").expect(200);
    let before = status(&server, "s");
    let run = |body: &str| server.post("/subscriptions/s/test", body).expect(200).json();
    let report = run(r#"{"component":"c","version":2,"from":1,"to":100}"#);
    assert_eq!((&report["events"], &report["selected"]), (&json!(100), &json!(100)));
    assert_eq!((&report["candidate"]["accepted"], &report["candidate"]["filtered"]), (&json!(100), &json!(0)));
    assert_eq!((&report["live"]["version"], &report["live"]["accepted"]), (&json!(1), &json!(50)));
    assert_eq!(report["different"], 50);
    let difference = &report["differences"][0];
    assert_eq!((&difference["sequence"], &difference["key"]), (&json!(2), &json!("1")));
    assert_eq!(difference["candidate"]["outcome"], "accepted");
    assert_eq!(difference["live"]["outcome"], "filtered");
    assert!(report["candidate"]["usPerEvent"].as_f64() > Some(0.0));
    // It has no effects.
    assert_eq!(status(&server, "s")["acknowledgedSequence"], before["acknowledgedSequence"]);
    assert_eq!(status(&server, "s")["sinceStart"], before["sinceStart"]);
    // A component that crashes is shown with what it crashes on, and requests go nowhere.
    let report = run(r#"{"component":"hostile","from":99}"#);
    assert_eq!(
        report["candidate"]["crashed"].as_u64().unwrap() + report["candidate"]["retried"].as_u64().unwrap(),
        2,
        "{report}"
    );
    assert!(recorder.requests().is_empty());
    let refused = server.post("/subscriptions/s/test", r#"{"component":"nobody"}"#);
    refused.expect_problem(404, "unknown-component");
}
