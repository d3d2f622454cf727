//! A gallery of components that do wrong: each harms itself, and nobody else.

use std::time::Instant;

use cdc_tests::guests;
use cdc_tests::harness::{Launch, Server, until};
use cdc_tests::http::Request;
use cdc_tests::recorder::Recorder;
use serde_json::{Value, json};

use super::{caught_up, counter, hostile, load, status, subscribe, upload};

fn server() -> Server {
    let server = Launch::new().option("--builtin-subscribers", "none").start();
    upload(&server, "hostile", &guests::rust("hostile")).expect(200);
    server
}

/// Runs a component in one of its modes over one event, until it is given up; answers its dead letter and status.
fn given_up(server: &Server, mode: &str, change: impl FnOnce(&mut Value)) -> (Value, Value) {
    let mut definition = hostile(mode, &[]);
    definition["start"] = json!("now");
    change(&mut definition);
    subscribe(server, mode, &definition);
    server.post("/data/t", &format!(r#"{{"id":"{mode}"}}"#)).expect(200);
    let status = caught_up(server, mode);
    let letters = server.get(&format!("/subscriptions/{mode}/dead-letters")).expect(200).json();
    let letter = letters["deadLetters"].as_array().and_then(|letters| letters.last()).cloned();
    (letter.unwrap_or_else(|| panic!("{mode} was not given up: {status}")), status)
}

fn reason(letter: &Value) -> &str {
    letter["reason"].as_str().unwrap()
}

#[test]
fn a_loop_ends_at_its_time_limit() {
    let server = server();
    let (letter, status) = given_up(&server, "loop", |definition| definition["limits"] = json!({"callTimeoutMs": 100}));
    assert_eq!(letter["kind"], "timeout");
    assert!(reason(&letter).contains("callTimeoutMs, which is 100"), "{letter}");
    assert_eq!(status["sinceStart"]["timeouts"], 2, "{status}");
}

#[test]
fn a_wait_in_the_host_ends_at_the_same_limit() {
    let server = server();
    let (letter, _) = given_up(&server, "sleep", |definition| definition["limits"] = json!({"callTimeoutMs": 100}));
    assert_eq!(letter["kind"], "timeout");
}

#[test]
fn a_memory_bomb_ends_at_its_memory_limit() {
    let server = server();
    let limit = 16 << 20;
    let before = server.memory();
    let (letter, _) =
        given_up(&server, "memory-bomb", |definition| definition["limits"] = json!({"memoryBytes": limit}));
    assert_eq!(letter["kind"], "trap");
    assert!(reason(&letter).contains("its limit memoryBytes is 16777216"), "{letter}");
    let grown = server.memory().resident.saturating_sub(before.resident);
    assert!(grown < 64 << 20, "the service has grown by {grown} bytes");
}

#[test]
fn a_recursion_ends_at_the_end_of_its_stack() {
    let server = server();
    let (letter, _) = given_up(&server, "recursion", |_| {});
    assert!(reason(&letter).contains("stack"), "{letter}");
}

#[test]
fn a_trap_a_panic_and_an_exit_are_told_with_what_was_said() {
    let server = server();
    let (letter, status) = given_up(&server, "trap", |_| {});
    assert!(reason(&letter).contains("unreachable") && reason(&letter).contains("wasm backtrace"), "{letter}");
    assert_eq!(status["sinceStart"]["traps"], 2);
    assert_eq!(status["lastFailure"]["kind"], "trap");
    let (letter, _) = given_up(&server, "panic", |definition| {
        definition["grants"]["config"]["message"] = json!("the bowl of petunias");
    });
    assert!(reason(&letter).contains("the bowl of petunias"), "{letter}");
    let (letter, status) = given_up(&server, "exit", |_| {});
    assert_eq!(letter["kind"], "exit");
    assert!(reason(&letter).contains("status 1"), "{letter}");
    assert_eq!(status["sinceStart"]["exits"], 2);
}

#[test]
fn wrong_answers_are_errors() {
    let server = server();
    let (letter, status) = given_up(&server, "wrong-length", |_| {});
    assert_eq!(letter["kind"], "wrong-answer");
    assert!(reason(&letter).contains("2 answers for 1 events"), "{letter}");
    assert_eq!(status["sinceStart"]["wrongAnswers"], 2);
    let (letter, _) = given_up(&server, "oversized", |definition| {
        definition["grants"]["config"]["bytes"] = json!("200000");
    });
    assert_eq!(letter["kind"], "wrong-answer");
    assert!(reason(&letter).contains("200000 bytes"), "{letter}");
    // What does not even fit the bounds of a call ends it on the way.
    let server = self::server();
    let (letter, _) = given_up(&server, "oversized", |definition| {
        definition["limits"] = json!({"memoryBytes": 256 << 20});
    });
    assert!(["wrong-answer", "trap"].contains(&letter["kind"].as_str().unwrap()), "{letter}");
}

#[test]
fn a_flood_of_log_lines_is_cut_and_counted() {
    let server = server();
    let mut definition = hostile("log-flood", &[("lines", "20000")]);
    definition["limits"] = json!({"logBytesPerSecond": 1_000, "callTimeoutMs": 60_000});
    subscribe(&server, "flood", &definition);
    server.post("/data/t", r#"{"id":1}"#).expect(200);
    let status = caught_up(&server, "flood");
    assert!(status["sinceStart"]["droppedLogLines"].as_u64() > Some(10_000), "{status}");
    let lines = server.log().lines().filter(|line| line.contains("cdc::guest")).count();
    assert!((1..1_000).contains(&lines), "{lines} lines of the flood were logged");
}

#[test]
fn a_quota_that_is_used_up_is_told_to_the_component() {
    let server = server();
    let (letter, _) = given_up(&server, "quota-filler", |definition| {
        definition["grants"]["keyvalue"] = json!({"maxBytes": 1_000_000, "maxKeys": 100});
    });
    assert_eq!(letter["kind"], "reject");
    assert!(reason(&letter).contains("quota"), "{letter}");
}

#[test]
fn requests_go_where_they_are_granted_and_nowhere_else() {
    let (server, open, closed) = (server(), Recorder::start(), Recorder::start());
    let fetch = |id: &str, url: &str, grants: Value| {
        let mut definition = hostile("egress", &[("url", url)]);
        definition["start"] = json!("now");
        definition["grants"]["http"] = grants;
        subscribe(&server, id, &definition);
        server.post("/data/t", &format!(r#"{{"id":"{id}"}}"#)).expect(200);
        caught_up(&server, id);
        let log = server.log();
        let line =
            log.lines().rfind(|line| line.contains("cdc::guest") && line.contains(&format!("subscription={id} ")));
        line.unwrap_or_else(|| panic!("{id} said nothing:\n{log}")).to_owned()
    };
    let said = fetch("granted", &format!("{}/x", open.origin()), json!([open.origin()]));
    assert!(said.contains("200 ok"), "{said}");
    let said = fetch("not-granted", &format!("{}/x", closed.origin()), json!([open.origin()]));
    assert!(said.contains("HttpRequestDenied"), "{said}");
    // A redirect to where it may not go.
    let redirect = format!("{}/redirect?{}/x", open.origin(), closed.origin());
    let said = fetch("by-redirect", &redirect, json!([open.origin()]));
    assert!(said.contains("HttpRequestDenied"), "{said}");
    // A name that leads to an address which nobody named: this machine's own name, as everywhere.
    let name = own_name();
    let by_name = format!("http://{name}:{}", closed.port());
    let said = fetch("by-dns", &format!("{by_name}/x"), json!([by_name]));
    assert!(said.contains("DestinationIpProhibited"), "{said}");
    assert!(closed.requests().is_empty(), "{:?}", closed.requests());
}

/// A name, other than localhost, that leads to an address of this machine.
fn own_name() -> String {
    use std::net::ToSocketAddrs;
    let hosts = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
    let named = hosts.lines().filter(|line| !line.starts_with('#')).flat_map(|line| line.split_whitespace().skip(1));
    let mut names: Vec<String> = named.map(str::to_owned).collect();
    names.push(std::fs::read_to_string("/etc/hostname").unwrap_or_default().trim().to_owned());
    let is_own = |name: &String| {
        !name.contains("localhost")
            && (name.as_str(), 1).to_socket_addrs().is_ok_and(|found| {
                let found: Vec<_> = found.collect();
                !found.is_empty() && found.iter().all(|address| is_private(address.ip()))
            })
    };
    names.into_iter().find(is_own).expect("this machine has a name that leads to an address of its own")
}

fn is_private(address: std::net::IpAddr) -> bool {
    match address {
        std::net::IpAddr::V4(address) => address.is_loopback() || address.is_private() || address.is_link_local(),
        std::net::IpAddr::V6(address) => {
            address.is_loopback() || address.is_unique_local() || address.is_unicast_link_local()
        }
    }
}

#[test]
fn what_crashes_leaves_nothing_in_its_store_and_what_is_done_counts_once() {
    let (server, recorder) = (server(), Recorder::start());
    let mut definition = counter(&recorder);
    let config = &mut definition["grants"]["config"];
    (config["mode"], config["batches"], config["fails_with"]) = (json!("fails-every-n"), json!("2"), json!("trap"));
    definition["batch"] = json!({"maxEvents": 10});
    subscribe(&server, "s", &definition);
    load(&server, "t", 0, 100);
    let status = caught_up(&server, "s");
    assert_eq!(recorder.sequences(), (1..=100).collect::<Vec<_>>());
    assert!(status["sinceStart"]["traps"].as_u64() >= Some(4), "{status}");
    assert_eq!(status["deadLetters"], 0);
}

#[test]
fn one_poisonous_event_in_a_batch_is_found_and_the_others_arrive() {
    let (server, recorder) = (server(), Recorder::start());
    // Two subscriptions share the component; the poison is what only one of them selects.
    let mut definition = hostile("trap", &[]);
    definition["where"] = json!("after.n == 70");
    subscribe(&server, "poisoned", &definition);
    subscribe(&server, "healthy", &counter(&recorder));
    load(&server, "t", 0, 200);
    assert_eq!(caught_up(&server, "poisoned")["deadLetters"], 1);
    caught_up(&server, "healthy");
    assert_eq!(recorder.sequences().len(), 200);
}

#[test]
fn with_the_whole_gallery_running_others_stay_on_time_and_writers_are_not_held_up() {
    let (server, recorder) = (server(), Recorder::start());
    for mode in ["loop", "memory-bomb", "recursion", "trap", "panic", "exit", "sleep", "wrong-length", "log-flood"] {
        let mut definition = hostile(mode, &[]);
        definition["retry"] = json!({"initialMs": 50, "maxMs": 1_000, "maxCrashes": 1_000});
        definition["limits"] = json!({"callTimeoutMs": 1_000});
        subscribe(&server, mode, &definition);
    }
    subscribe(&server, "honest", &counter(&recorder));
    load(&server, "t", 0, 100);
    // All of them are at it.
    until("the loop to be ended once", || {
        (status(&server, "loop")["sinceStart"]["timeouts"].as_u64() > Some(0)).then_some(())
    });
    let lines: String = (1_000..21_000).map(|id| format!("{{\"id\":{id}}}\n")).collect();
    let start = Instant::now();
    let request = Request::new("POST", "/data/t").body("application/x-ndjson", lines);
    server.send(&request).expect(200);
    let captured = start.elapsed();
    caught_up(&server, "honest");
    let delivered = start.elapsed();
    assert_eq!(recorder.sequences().len(), 20_100);
    // Not a measurement: what would show is a writer or a subscription that waits for a hostile one.
    assert!(
        captured.as_secs() < 20 && delivered.as_secs() < 40,
        "captured after {captured:?}, delivered after {delivered:?}"
    );
    assert!(status(&server, "loop")["state"] != "running");
    server.stop();
}
