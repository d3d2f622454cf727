//! Every request of the seed's reference, in its order and in its very bytes, against golden answers: the documented
//! shapes in the documented member order.

use std::time::{SystemTime, UNIX_EPOCH};

use cdc_tests::harness::{Server, until};
use cdc_tests::http::{Answer, Request};
use cdc_tests::json::without_times;

use crate::golden::assert_golden;

const INSERT_USER: &str = r#"{
    "id": "user_123",
    "email": "john@example.com",
    "name": "John Doe",
    "created_at": 1699380000000,
    "updated_at": 1699380000000
  }"#;
const UPDATE_USER: &str = r#"{
    "name": "John Smith",
    "updated_at": 1699380060000
  }"#;
const INSERT_ALICE: &str = r#"{
    "id": "user_001",
    "email": "alice@example.com",
    "name": "Alice Johnson",
    "created_at": 1699380000000,
    "updated_at": 1699380000000
  }"#;
const UPDATE_ALICE: &str = r#"{
    "name": "Alice Smith",
    "updated_at": 1699380060000
  }"#;
const INSERT_ORDER: &str = r#"{
    "id": "order_001",
    "user_id": "user_001",
    "amount": 99.99,
    "status": "pending",
    "created_at": 1699380000000
  }"#;

/// A service and the story of what was asked and answered.
struct Story {
    server: Server,
    name: &'static str,
    started_ms: u64,
    step: usize,
}

impl Story {
    fn begin(name: &'static str) -> Story {
        let started_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
        Story { server: Server::start(), name, started_ms, step: 0 }
    }

    #[track_caller]
    fn ask(&mut self, request: &Request) {
        let answer = self.server.send(request);
        self.compare(request, &answer);
    }

    /// For what a consumer keeps, which follows the log: asks until the consumer has caught up.
    #[track_caller]
    fn ask_until(&mut self, request: &Request, is_there: impl Fn(&Answer) -> bool) {
        let answer = until("the consumer to catch up", || Some(self.server.send(request)).filter(&is_there));
        self.compare(request, &answer);
    }

    #[track_caller]
    fn compare(&mut self, request: &Request, answer: &Answer) {
        self.step += 1;
        let body = without_times(answer.text(), self.started_ms);
        let body = without_figure(&without_figure(&body, "eventsPerSecond"), "bufferSize");
        let content_type = answer.header("content-type").unwrap_or("-");
        let shown = format!("{} {}\n{} {content_type}\n{body}\n", request.method, request.target, answer.status);
        assert_golden(&format!("reference/{}-{:02}.txt", self.name, self.step), &shown);
    }
}

/// The rate over the last seconds and what waits for the publisher depend on how fast the test runs.
fn without_figure(text: &str, name: &str) -> String {
    let name = format!("\"{name}\":");
    let Some(at) = text.find(&name) else { return text.into() };
    let (head, tail) = text.split_at(at + name.len());
    let end = tail.find([',', '}']).expect("a member ends");
    assert!(tail[..end].parse::<f64>().expect("it is a number") >= 0.0);
    format!("{head}0{}", &tail[end..])
}

#[test]
fn every_request_of_the_api_reference_gives_the_documented_answer() {
    let mut story = Story::begin("api");
    story.ask(&Request::post("/data/users", INSERT_USER));
    story.ask(&Request::put("/data/users/user_123", UPDATE_USER));
    story.ask(&Request::delete("/data/users/user_123"));
    story.ask(&Request::get("/events?table=users&operation=INSERT&limit=10"));
    story.ask(&Request::get("/stats"));
    story.ask(&Request::get("/snapshot/users"));
    story.ask(&Request::get("/schema/users"));
    story.ask(&Request::get("/schemas"));
    story.ask_until(&Request::get("/replica/users"), |answer| {
        answer.status == 200 && answer.text().contains("\"count\":0")
    });
}

#[test]
fn every_request_of_the_usage_examples_gives_the_documented_answer() {
    let mut story = Story::begin("usage");
    story.ask(&Request::post("/data/users", INSERT_ALICE));
    story.ask(&Request::put("/data/users/user_001", UPDATE_ALICE));
    story.ask(&Request::delete("/data/users/user_001"));
    story.ask(&Request::post("/data/orders", INSERT_ORDER));
    story.ask(&Request::get("/events"));
    story.ask(&Request::get("/events?table=users"));
    story.ask(&Request::get("/events?operation=INSERT"));
    story.ask(&Request::get("/events?since=1699380000000&limit=100"));
    story.ask(&Request::get("/stats"));
    story.ask(&Request::get("/snapshot/users"));
    // Beyond the reference's own order: the same answers with something in them.
    story.ask(&Request::get("/snapshot/orders"));
    story.ask(&Request::get("/schemas"));
    story.ask_until(&Request::get("/replica/orders"), |answer| {
        answer.status == 200 && answer.text().contains("\"count\":1")
    });
}

#[test]
fn refusals_keep_the_seeds_error_member() {
    let mut story = Story::begin("refusals");
    story.ask(&Request::get("/schema/nobody"));
    story.ask(&Request::get("/snapshot/nobody"));
    story.ask(&Request::get("/replica/nobody"));
    story.ask(&Request::put("/data/nobody/1", "{}"));
    story.ask(&Request::post("/data/users", INSERT_USER));
    story.ask(&Request::post("/data/users", INSERT_USER));
    story.ask(&Request::put("/data/users/nobody", UPDATE_USER));
    story.ask(&Request::delete("/data/users/nobody"));
    story.ask(&Request::put("/data/users/user_123", r#"{"id":"user_124"}"#));
    story.ask(&Request::post("/data/users", "{"));
    story.ask(&Request::get("/nowhere"));
    story.ask(&Request::new("PATCH", "/data/users/user_123"));
}
