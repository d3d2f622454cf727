//! A stop that was asked for drops nothing that was taken on.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use cdc_tests::captured::{Captured, read_log};
use cdc_tests::harness::{Launch, Server, until};
use cdc_tests::http::{Connection, Request};
use rustix::process::Signal;

#[test]
fn a_stop_under_load_answers_every_request_that_it_captured() {
    let server = Launch::new().options("--retention-events 1000000").start();
    let address = server.address();
    let answered = AtomicU64::new(0);
    let (acknowledged, launch) = thread::scope(|scope| {
        let writers: Vec<_> = (0..16)
            .map(|writer| {
                let answered = &answered;
                scope.spawn(move || {
                    let mut acknowledged = Vec::new();
                    let mut connection = Connection::open(address);
                    for number in 0.. {
                        let request = Request::post("/data/t", format!(r#"{{"id":"{writer}-{number}"}}"#));
                        match connection.exchange(&request) {
                            Ok(answer) if answer.status == 200 => acknowledged.push(Captured::of_write(answer.text())),
                            // A refusal while stopping is an answer too, as long as nothing was captured.
                            Ok(answer) => drop(answer.expect(503).problem()),
                            Err(_) => match Connection::try_open(address) {
                                // An idle connection is closed on the way down; a new one is refused once it is over.
                                Ok(again) => connection = again,
                                Err(_) => break,
                            },
                        }
                        answered.fetch_add(1, Ordering::Relaxed);
                    }
                    acknowledged
                })
            })
            .collect();
        until("the load to be on", || (answered.load(Ordering::Relaxed) > 500).then_some(()));
        server.ask_to_stop();
        let (status, log, launch) = server.ended();
        assert!(status.success(), "{status}\n{log}");
        let mut acknowledged: Vec<Captured> = writers.into_iter().flat_map(|writer| writer.join().unwrap()).collect();
        acknowledged.sort_by_key(|event| event.sequence);
        (acknowledged, launch)
    });
    let server = launch.start();
    let log = read_log(&server, 0);
    assert_eq!(log.len(), acknowledged.len(), "captured without an answer, or answered without being captured");
    assert!(log == acknowledged);
}

#[test]
fn a_request_half_way_in_is_finished_before_the_service_ends() {
    for signal in [Signal::TERM, Signal::INT] {
        let server = Server::start();
        let mut connection = server.connect();
        let request = Request::post("/data/t", r#"{"id":"late"}"#).header("expect", "100-continue");
        connection.send(&request.head()).unwrap();
        // Now the service is at work on it.
        assert_eq!(connection.answer().unwrap().status, 100);
        server.signal(signal);
        until("the stop to begin", || Connection::try_open(server.address()).is_err().then_some(()));
        connection.send(&request.body).unwrap();
        let event = Captured::of_write(connection.answer().unwrap().expect(200).text());
        let (status, log, launch) = server.ended();
        assert!(status.success(), "{status}\n{log}");
        assert_eq!(read_log(&launch.start(), 0), [event]);
    }
}

#[test]
fn a_client_that_never_finishes_does_not_hold_up_a_stop() {
    let server = Launch::new().options("--drain-timeout-ms 300").start();
    let mut stuck = server.connect();
    let request = Request::post("/data/t", r#"{"id":"never"}"#).header("expect", "100-continue");
    stuck.send(&request.head()).unwrap();
    assert_eq!(stuck.answer().unwrap().status, 100);
    let mut idle = server.connect();
    idle.exchange(&Request::get("/stats")).unwrap().expect(200);
    let launch = server.stop();
    assert_eq!(launch.start().current_sequence(), 0);
}

#[test]
fn a_service_with_as_many_connections_as_it_may_have_still_stops() {
    let server =
        Launch::new().options("--max-connections 2 --drain-timeout-ms 300 --header-timeout-ms 3600000").start();
    let mut held: Vec<Connection> = (0..3).map(|_| server.connect()).collect();
    for connection in &mut held[..2] {
        connection.exchange(&Request::get("/stats")).unwrap().expect(200);
    }
    server.stop();
}

#[test]
fn an_idle_service_stops_at_once_and_twice_asked_is_asked_once() {
    let server = Server::start();
    server.ask_to_stop();
    server.ask_to_stop();
    let (status, log, _) = server.ended();
    assert!(status.success(), "{status}\n{log}");
}
