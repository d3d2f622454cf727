//! The sink for webhooks.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use cdc_rest::envelope::Format;
use cdc_sinks::{AnySink, Remedy, Settings, Sink};
use cdc_test_servers::Proxy;
use http::HeaderMap;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

use crate::events::{Item, deliver, puts};
use crate::receiver::{Faults, Receiver, place};
use crate::suite::contract;

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// A request that was taken.
#[derive(Clone, Debug)]
struct Taken {
    headers: HeaderMap,
    body: Value,
}

/// What the next answers are instead of 200: a status, a header, and a body.
type Script = Vec<(u16, Option<(&'static str, String)>, String)>;

#[derive(Default)]
struct State {
    taken: Vec<Taken>,
    requests: usize,
    script: Script,
    /// Refuses bodies with this in them.
    poison: Option<String>,
}

/// A receiver that does as the specification says: it checks signatures by its own code.
struct Hook {
    state: Arc<Mutex<State>>,
    address: SocketAddr,
    runtime: Mutex<Option<Runtime>>,
}

impl Hook {
    fn start() -> Self {
        let mut hook = Self { state: Arc::default(), address: ([127, 0, 0, 1], 0).into(), runtime: Mutex::new(None) };
        hook.address = hook.listen();
        hook
    }

    fn listen(&self) -> SocketAddr {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (state, wanted) = (self.state.clone(), self.address);
        let (told, address) = std::sync::mpsc::channel();
        runtime.spawn(async move {
            let listener = TcpListener::bind(wanted).await.unwrap();
            told.send(listener.local_addr().unwrap()).unwrap();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let state = state.clone();
                tokio::spawn(async move {
                    let service = service_fn(move |request| answer(state.clone(), request));
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        *self.runtime.lock().unwrap() = Some(runtime);
        address.recv().unwrap()
    }

    fn kill(&self) {
        if let Some(runtime) = self.runtime.lock().unwrap().take() {
            runtime.shutdown_background();
        }
    }
}

impl Drop for Hook {
    fn drop(&mut self) {
        self.kill();
    }
}

async fn answer(state: Arc<Mutex<State>>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let Ok(body) = body.collect().await else {
        // The sender went away in the middle: nothing is taken.
        return Ok(Response::new(Full::default()));
    };
    let body = body.to_bytes();
    let mut state = state.lock().unwrap();
    state.requests += 1;
    let respond = |status: u16, text: &str| {
        Ok(Response::builder().status(status).body(Full::from(text.as_bytes().to_vec())).unwrap())
    };
    if head.method != "POST" || head.uri.path() != "/hook" {
        return respond(404, "POST to /hook");
    }
    if !is_signed(&head.headers, &body) {
        return respond(401, "the signature is wrong");
    }
    if !state.script.is_empty() {
        let (status, header, text) = state.script.remove(0);
        let mut response = Response::builder().status(status);
        if let Some((name, value)) = header {
            response = response.header(name, value);
        }
        return Ok(response.body(Full::from(text.into_bytes())).unwrap());
    }
    let text = String::from_utf8(body.to_vec()).unwrap();
    if state.poison.as_ref().is_some_and(|poison| text.contains(poison)) {
        return respond(422, "this I will not take");
    }
    state.taken.push(Taken { headers: head.headers, body: serde_json::from_str(&text).unwrap() });
    respond(200, "thank you")
}

/// As the specification says, over SHA-256 alone (RFC 2104).
fn is_signed(headers: &HeaderMap, body: &[u8]) -> bool {
    let header = |name: &str| headers.get(name).map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default();
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let Ok(timestamp_s) = header("webhook-timestamp").parse::<u64>() else { return false };
    if now_s.abs_diff(timestamp_s) > 300 || header("webhook-id").is_empty() || header("webhook-id").contains('.') {
        return false;
    }
    let key = BASE64.decode(SECRET.strip_prefix("whsec_").unwrap()).unwrap();
    let padded = |with: u8| {
        let mut block = [with; 64];
        block.iter_mut().zip(&key).for_each(|(byte, key)| *byte ^= key);
        block
    };
    let mut inner = Sha256::new();
    inner.update(padded(0x36));
    inner.update(format!("{}.{timestamp_s}.", header("webhook-id")));
    inner.update(body);
    let mut outer = Sha256::new();
    outer.update(padded(0x5c));
    outer.update(inner.finalize());
    let expected = format!("v1,{}", BASE64.encode(outer.finalize()));
    header("webhook-signature").split(' ').any(|signature| signature == expected)
}

/// A receiver of single events.
struct Singles {
    hook: Hook,
    proxy: Proxy,
}

impl Singles {
    fn sink_with(&self, options: Value, format: Format) -> AnySink {
        let mut settings = self.settings(5_000).write();
        settings.as_object_mut().unwrap().extend(options.as_object().unwrap().clone());
        AnySink::open(&Settings::parse(&settings).unwrap(), format, place(1))
    }

    fn script(&self, script: Script) {
        self.hook.state.lock().unwrap().script = script;
    }

    fn taken(&self) -> Vec<Taken> {
        self.hook.state.lock().unwrap().taken.clone()
    }

    fn requests(&self) -> usize {
        self.hook.state.lock().unwrap().requests
    }
}

impl Receiver for Singles {
    const MAY_REPEAT: bool = true;
    const PASSES_OVER: bool = false;

    async fn start() -> Self {
        let hook = Hook::start();
        Self { proxy: Proxy::to(hook.address.port()), hook }
    }

    fn faults(&self) -> &dyn Faults {
        &self.proxy
    }

    fn settings(&self, timeout_ms: u32) -> Settings {
        let url = format!("http://127.0.0.1:{}/hook", self.proxy.port());
        let settings = json!({"sink": "webhook", "url": url, "secrets": [SECRET], "timeoutMs": timeout_ms});
        Settings::parse(&settings).unwrap()
    }

    fn kill(&self) {
        self.hook.kill();
    }

    async fn start_again(&self) {
        self.hook.listen();
    }

    async fn held(&self) -> Vec<(String, u64)> {
        let row = |event: &Value| {
            let image = if event["after"].is_null() { &event["before"] } else { &event["after"] };
            (image["id"].as_str().unwrap().to_owned(), image["n"].as_u64().unwrap())
        };
        let mut held = Vec::new();
        for Taken { body, .. } in self.taken() {
            match &body {
                Value::Array(events) => held.extend(events.iter().map(row)),
                event => held.push(row(event)),
            }
        }
        held
    }
}

mod singles {
    crate::suite::contract!(super::Singles);
}

/// The same, of whole batches.
struct Arrays(Singles);

impl Receiver for Arrays {
    const MAY_REPEAT: bool = true;
    const PASSES_OVER: bool = false;

    async fn start() -> Self {
        Self(Singles::start().await)
    }

    fn faults(&self) -> &dyn Faults {
        self.0.faults()
    }

    fn settings(&self, timeout_ms: u32) -> Settings {
        let mut settings = self.0.settings(timeout_ms).write();
        settings["batch"] = true.into();
        Settings::parse(&settings).unwrap()
    }

    fn kill(&self) {
        self.0.kill();
    }

    async fn start_again(&self) {
        self.0.start_again().await;
    }

    async fn held(&self) -> Vec<(String, u64)> {
        self.0.held().await
    }
}

contract!(Arrays);

#[tokio::test(flavor = "multi_thread")]
async fn an_id_is_the_same_whenever_the_same_events_are_sent() {
    let receiver = Singles::start().await;
    let items = puts(1, 3, 3);
    for _ in 0..2 {
        deliver(&mut receiver.sink(5_000, 1), &items).await.unwrap();
        deliver(&mut receiver.sink_with(json!({"batch": true}), Format::Native), &items).await.unwrap();
    }
    let ids: Vec<String> =
        receiver.taken().iter().map(|taken| taken.headers["webhook-id"].to_str().unwrap().to_owned()).collect();
    let once = [
        "evt_1764000000000_1",
        "evt_1764000000000_2",
        "evt_1764000000000_3",
        "evt_1764000000000_1-evt_1764000000000_3",
    ];
    assert_eq!(ids, [once, once].concat());
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_are_sent_and_two_secrets_sign_both() {
    let receiver = Singles::start().await;
    let new = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
    let options = json!({"secrets": [new, SECRET], "headers": {"Authorization": "Bearer x"}});
    deliver(&mut receiver.sink_with(options, Format::Native), &puts(1, 1, 1)).await.unwrap();
    let taken = receiver.taken();
    let header = |name: &str| taken[0].headers[name].to_str().unwrap();
    assert_eq!(header("webhook-signature").split(' ').count(), 2);
    assert_eq!(header("authorization"), "Bearer x");
    assert_eq!(header("content-type"), "application/json");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_secret_is_a_matter_of_settings_and_no_event_is_given_up() {
    let receiver = Singles::start().await;
    let options = json!({"secrets": ["whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"]});
    let failure = deliver(&mut receiver.sink_with(options, Format::Native), &puts(1, 1, 1)).await.unwrap_err();
    assert_eq!(failure.remedy, Remedy::Retry { after: None });
    assert!(failure.message.contains("401") && failure.message.contains("the signature is wrong"), "{failure}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_wants_to_be_left_alone_says_for_how_long() {
    let receiver = Singles::start().await;
    let date = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(100));
    receiver.script(vec![
        (429, Some(("retry-after", "7".into())), String::new()),
        (503, Some(("retry-after", date)), String::new()),
        (500, None, "oh".into()),
        (302, Some(("location", "http://127.0.0.1:1/elsewhere".into())), String::new()),
    ]);
    let mut sink = receiver.sink(5_000, 1);
    let items = puts(1, 1, 1);
    let after = |failure: &cdc_sinks::Failure| match failure.remedy {
        Remedy::Retry { after } => after,
        Remedy::Reject => panic!("{failure}"),
    };
    assert_eq!(after(&deliver(&mut sink, &items).await.unwrap_err()), Some(Duration::from_secs(7)));
    let pause = after(&deliver(&mut sink, &items).await.unwrap_err()).unwrap();
    assert!((90..=100).contains(&pause.as_secs()), "{pause:?}");
    assert_eq!(after(&deliver(&mut sink, &items).await.unwrap_err()), None);
    let redirected = deliver(&mut sink, &items).await.unwrap_err();
    assert!(redirected.message.contains("redirects are not followed"), "{redirected}");
    deliver(&mut sink, &items).await.unwrap();
    assert_eq!((receiver.taken().len(), receiver.requests()), (1, 5));
    assert_eq!(receiver.proxy.connections(), 1, "a connection is kept over answers that are none of 2xx");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_is_refused_is_named_with_the_receivers_words_and_the_rest_goes_on() {
    let receiver = Singles::start().await;
    receiver.hook.state.lock().unwrap().poison = Some("\"k777\"".into());
    let items = puts(700, 200, 10_000);
    for (options, most) in [(json!({}), 200), (json!({"batch": true}), 40)] {
        receiver.hook.state.lock().unwrap().taken.clear();
        let before = receiver.requests();
        let mut sink = receiver.sink_with(options, Format::Native);
        let failure = deliver(&mut sink, &items).await.unwrap_err();
        assert_eq!((failure.index, failure.remedy), (77, Remedy::Reject), "{failure}");
        assert!(failure.message.contains("422") && failure.message.contains("this I will not take"), "{failure}");
        deliver(&mut sink, &items[78..]).await.unwrap();
        assert!(receiver.requests() - before <= most, "{}", receiver.requests() - before);
        let rest = [&items[..77], &items[78..]].concat();
        let expected: Vec<_> = rest.iter().map(Item::written_row).collect();
        assert_eq!(receiver.held().await, expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_long_answer_the_beginning_is_shown() {
    let receiver = Singles::start().await;
    receiver.script(vec![(400, None, "x".repeat(1_000_000))]);
    let failure = deliver(&mut receiver.sink(5_000, 1), &puts(1, 1, 1)).await.unwrap_err();
    assert!(failure.message.contains(&"x".repeat(200)) && failure.message.len() < 400, "{}", failure.message.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_the_receiver_closed_meanwhile_is_made_anew() {
    let receiver = Singles::start().await;
    let mut sink = receiver.sink(5_000, 1);
    let items = puts(1, 20, 20);
    for item in &items {
        deliver(&mut sink, std::slice::from_ref(item)).await.unwrap();
        receiver.proxy.cut();
        // Until its end has come here, it is not known, and a request may fall into it.
        let start = Instant::now();
        while receiver.proxy.open_connections() > 0 && start.elapsed() < Duration::from_secs(5) {
            tokio::task::yield_now().await;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    receiver.assert_holds(&items).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn check_says_what_is_missing() {
    let receiver = Singles::start().await;
    receiver.faults().refuse();
    let problems = receiver.sink(5_000, 1).check().await;
    assert!(problems.len() == 1 && problems[0].contains("no connection"), "{problems:?}");
    receiver.faults().pass();
    let mut sink = receiver.sink_with(json!({"secrets": [{"env": "CDC_SECRET_THAT_NOBODY_SET"}]}), Format::Native);
    let problems = sink.check().await;
    assert!(problems.len() == 1 && problems[0].contains("CDC_SECRET_THAT_NOBODY_SET"), "{problems:?}");
    let https = format!("https://127.0.0.1:{}/hook", receiver.proxy.port());
    let problems = receiver.sink_with(json!({"url": https}), Format::Native).check().await;
    assert!(problems.len() == 1 && problems[0].contains("TLS"), "{problems:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn cloudevents_are_posted_as_each_mode_of_their_binding_says_and_tombstones_are_not_posted() {
    let receiver = Singles::start().await;
    let items = [Item::put(1, "a"), Item::delete(2, "a")];
    for (options, format, content_type) in [
        (json!({"batch": true}), Format::CloudEvents, "application/cloudevents-batch+json"),
        (json!({}), Format::CloudEvents, "application/cloudevents+json"),
        (json!({}), Format::CloudEventsBinary, "application/json"),
        (json!({}), Format::Debezium, "application/json"),
    ] {
        receiver.hook.state.lock().unwrap().taken.clear();
        let as_array = !options["batch"].is_null();
        deliver(&mut receiver.sink_with(options, format), &items).await.unwrap();
        let taken = receiver.taken();
        assert_eq!(taken.len(), if as_array { 1 } else { 2 }, "{format:?}");
        assert_eq!(taken[0].headers["content-type"], content_type);
        assert_eq!(taken[0].headers.contains_key("ce-id"), format == Format::CloudEventsBinary);
        assert_eq!(taken[0].body.is_array(), as_array);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_repeats_what_it_was_sent_has_no_secret_told() {
    let receiver = Singles::start().await;
    receiver.script(vec![(400, None, format!("Bearer hunter2 and {SECRET} are unknown"))]);
    let headers = json!({"headers": {"authorization": "hunter2"}});
    let failure = deliver(&mut receiver.sink_with(headers, Format::Native), &puts(1, 1, 1)).await.unwrap_err();
    assert!(failure.message.ends_with("Bearer *** and *** are unknown"), "{failure}");
    assert!(failure.source.is_none());
}
