//! What clients send by mistake or on purpose: each gets its status and its problem document, nothing is captured,
//! memory stays bounded, and the next client is served.

mod addresses;
mod bodies;
mod connections;
mod sizes;

use cdc_tests::harness::Server;
use cdc_tests::http::{Answer, Request};

/// A service with one row, so that "nothing was captured" is a figure other than zero.
pub(crate) fn server_with_a_row() -> Server {
    let server = Server::start();
    seed(&server);
    server
}

pub(crate) fn seed(server: &Server) {
    server.post("/data/t", r#"{"id":"there","v":1}"#).expect(200);
}

/// Nothing but the seeded row was captured, it is as it was, no table came into being, and new writes are taken.
#[track_caller]
pub(crate) fn assert_untouched(server: &Server) {
    assert_eq!(server.current_sequence(), 1);
    assert_eq!(server.get("/data/t/there").expect(200).text(), r#"{"id":"there","v":1}"#);
    assert_eq!(server.get("/schemas").expect(200).json()["count"], 1);
    server.post("/data/t", r#"{"id":"next"}"#).expect(200);
}

/// Sends a request that must be refused so.
#[track_caller]
pub(crate) fn assert_refused(server: &Server, request: &Request, status: u16, code: &str) -> Answer {
    let answer = server.send(request);
    let found = answer.problem();
    assert_eq!((answer.status, found["code"].as_str().unwrap()), (status, code), "{request}: {}", answer.text());
    answer
}
