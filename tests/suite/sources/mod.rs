//! Databases that are followed, seen from outside: real servers, the real binary, and what its API shows.

mod auditing;
mod commands;
mod mariadb;
mod postgres;
mod steering;
mod truth;
mod walk;

use cdc_test_servers::Postgres;
use cdc_tests::harness::{Launch, Server, until};
use cdc_tests::rows;
use serde_json::Value;

/// A service with this configuration file, on a folder of its own and without the built-in subscribers.
fn configured(text: &str) -> Launch {
    Launch::configured(&format!("builtin-subscribers = \"none\"\n{text}"))
}

/// The configuration of a source `shop` with these lines.
fn shop(url: &str, lines: &str) -> Launch {
    configured(&format!("[sources.shop]\nurl = \"{url}\"\n{lines}\n"))
}

/// How a source fares.
fn status(server: &Server, name: &str) -> Value {
    server.get(&format!("/sources/{name}")).expect(200).json()
}

/// Waits until a source is in this state.
fn until_state(server: &Server, name: &str, state: &str) -> Value {
    let mut asked = 0;
    until(&format!("source {name} to be {state}"), || {
        let now = status(server, name);
        asked += 1;
        if asked % 2_000 == 0 {
            eprintln!("source {name} is not {state} yet: {now}");
        }
        (now["state"] == state).then_some(now)
    })
}

/// Waits until nobody follows a slot: a server notices some time later that a service has gone.
fn until_slots_are_free(postgres: &Postgres) {
    until("the slots to be free", || {
        let active = postgres.psql("postgres", "SELECT count(*) FROM pg_replication_slots WHERE active");
        (active == "0").then_some(())
    });
}

/// Waits until a source follows and all its tables have been read.
fn until_following(server: &Server, name: &str) -> Value {
    until_state(server, name, "following")
}

/// Events from the oldest on, as JSON.
fn events(server: &Server, table: &str) -> Vec<Value> {
    let page = server.get(&format!("/events?table={table}&after=0&limit=10000")).expect(200).json();
    page["events"].as_array().unwrap().clone()
}

/// The rows of a table of PostgreSQL's and those captured, until they are equal.
fn until_equal(server: &Server, postgres: &Postgres, table: &str, key: &[&str]) {
    rows::until_equal(
        table,
        server,
        || rows::in_postgres(postgres, "postgres", table, key),
        || rows::captured(server, table, key),
    );
}
