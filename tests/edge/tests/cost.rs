//! What a request costs in an instance of its own: figures to look at, not to be held to.

use std::time::{Duration, Instant};

use cdc_test_edge::{EdgeServer, Provider, component};
use cdc_tests::http::{Connection, Request};

const REQUESTS: u32 = 300;

#[test]
#[ignore = "it prints figures: run it with --ignored --nocapture on a quiet machine"]
fn the_cost_of_requests() {
    println!("component: {} bytes", std::fs::metadata(component()).unwrap().len());
    let folder = tempfile::tempdir().unwrap();
    let provider = Provider::open(&folder.path().join("keys"));
    let began = Instant::now();
    let server = EdgeServer::start(provider.clone(), |_| None);
    println!("compiled and serving: {:?}", began.elapsed());
    let mut connection = Connection::open(server.address());
    let mut measure = |what: &str, request: &dyn Fn(u32) -> Request| {
        let calls = provider.calls();
        let mut took: Vec<Duration> = Vec::new();
        for number in 0..REQUESTS {
            let request = request(number);
            let began = Instant::now();
            connection.exchange(&request).unwrap().expect(200);
            took.push(began.elapsed());
        }
        took.sort();
        let calls = f64::from(u32::try_from(provider.calls() - calls).unwrap()) / f64::from(REQUESTS);
        let at = |percent: usize| took[took.len() * percent / 100];
        println!("{what}: p50 {:?}, p99 {:?}, {calls:.1} calls of the provider", at(50), at(99));
    };
    measure("GET /healthz", &|_| Request::get("/healthz"));
    measure("POST /data/t", &|number| {
        Request::post("/data/t", format!(r#"{{"id":{number},"text":"{}"}}"#, "x".repeat(100)))
    });
    measure("PUT /data/t/:id", &|number| Request::put(&format!("/data/t/{number}"), r#"{"v":1}"#));
    measure("GET /data/t/:id", &|number| Request::get(&format!("/data/t/{number}")));
    measure("GET /events?limit=10", &|_| Request::get("/events?limit=10"));
    measure("GET /snapshot/t (300 rows)", &|_| Request::get("/snapshot/t"));
}
