//! `cdc tail`: events in a terminal.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use cdc_tests::captured::{Captured, read_log};
use cdc_tests::harness::{Output, Server, cdc};

fn tail(server: &Server, arguments: &[&str]) -> Output {
    Output::of(Command::new(cdc()).args(["tail", "--url", &server.url()]).args(arguments))
}

fn events(output: &Output) -> Vec<Captured> {
    output.stdout.lines().map(Captured::of).collect()
}

fn server_with_events() -> Server {
    let server = Server::start();
    for id in 1..=3 {
        server.post("/data/users", &format!(r#"{{"id":{id},"name":"Ünal 🎉"}}"#)).expect(200);
        server.post("/data/orders", &format!(r#"{{"id":{id}}}"#)).expect(200);
    }
    server.put("/data/users/1", r#"{"name":"x"}"#).expect(200);
    server.delete("/data/orders/2").expect(200);
    server
}

#[test]
fn it_prints_what_is_there_as_json_lines() {
    let server = server_with_events();
    let output = tail(&server, &["--once", "--json"]).expect_success();
    assert_eq!(events(&output), read_log(&server, 0));
    let output = tail(&server, &["--once", "--json", "--after", "6"]).expect_success();
    assert_eq!(events(&output), read_log(&server, 6));
}

#[test]
fn it_filters_by_table_and_operation() {
    let server = server_with_events();
    let sequences = |arguments: &[&str]| -> Vec<u64> {
        let output = tail(&server, &[&["--once", "--json"], arguments].concat()).expect_success();
        events(&output).iter().map(|event| event.sequence).collect()
    };
    assert_eq!(sequences(&["--table", "orders"]), [2, 4, 6, 8]);
    assert_eq!(sequences(&["--operation", "UPDATE"]), [7]);
    assert_eq!(sequences(&["--table", "users", "--operation", "DELETE"]), Vec::<u64>::new());
}

#[test]
fn for_people_it_prints_a_line_per_event() {
    let server = server_with_events();
    let output = tail(&server, &["--once"]).expect_success();
    let lines: Vec<&str> = output.stdout.lines().collect();
    assert_eq!(lines.len(), 8, "{}", output.stdout);
    assert!(lines[0].contains("INSERT") && lines[0].contains("users"), "{}", lines[0]);
    assert!(lines[7].contains("DELETE") && lines[7].contains("orders"), "{}", lines[7]);
}

#[test]
fn it_follows_what_happens() {
    let server = server_with_events();
    let mut child = Command::new(cdc())
        .args(["tail", "--url", &server.url(), "--json", "--after", "8"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    for id in 100..110 {
        server.post("/data/users", &format!(r#"{{"id":{id}}}"#)).expect(200);
        let event = Captured::of(&lines.next().unwrap().unwrap());
        assert_eq!(event.after, Some(format!(r#"{{"id":{id}}}"#)));
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn what_it_cannot_do_it_says() {
    let server = Server::start();
    let address = server.url();
    server.stop();
    let output = Output::of(Command::new(cdc()).args(["tail", "--once", "--url", &address]));
    assert!(!output.status.success());
    assert!(output.stderr.contains(address.trim_start_matches("http://")), "{}", output.stderr);
    let output = Output::of(Command::new(cdc()).args(["tail", "--operation", "MERGE"]));
    assert!(!output.status.success());
    assert!(output.stderr.contains("MERGE") && output.stderr.contains("INSERT"), "{}", output.stderr);
}
