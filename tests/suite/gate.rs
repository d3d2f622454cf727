//! The gate before every route: hosts, origins and media types, over HTTP/1.1, HTTP/2 and for WebSockets; and what it
//! takes to listen beyond this machine.

use std::process::Command;

use cdc_tests::harness::{Launch, Server};
use cdc_tests::http::Request;
use http_body_util::Full;

/// What `curl` sends to pause a subscription, and what a form, a script and a rebound name make of it.
const PAUSE: &str = "/subscriptions/console/pause";

/// Headers, and the status they lead to.
type Case = (&'static [(&'static str, &'static str)], u16);

#[rustfmt::skip]
const CASES: &[Case] = &[
    (&[],                                                                                200),
    (&[("content-type", "application/json")],                                            200),
    (&[("origin", "http://HOST")],                                                       200),
    (&[("sec-fetch-site", "same-origin")],                                               200),
    (&[("origin", "https://console.example"), ("sec-fetch-site", "cross-site")],         200),
    (&[("content-type", "text/plain")],                                                  415),
    (&[("content-type", "application/x-www-form-urlencoded")],                           415),
    (&[("content-type", "multipart/form-data; boundary=x"), ("origin", "http://HOST")],  415),
    (&[("origin", "https://evil.example")],                                              403),
    (&[("origin", "null"), ("content-type", "text/plain")],                              403),
    (&[("origin", "https://evil.example"), ("content-type", "application/json")],        403),
    (&[("sec-fetch-site", "cross-site")],                                                403),
    (&[("referer", "https://evil.example/page")],                                        403),
    (&[("host", "evil.example:8002")],                                                   421),
    (&[("host", "evil.example"), ("origin", "http://evil.example")],                     421),
    (&[("host", "cdc.example"), ("origin", "https://cdc.example")],                      200),
];

fn guarded() -> Server {
    Launch::new().options("--cors-origin https://console.example --allowed-hosts cdc.example").start()
}

/// The headers of a case, for this server: `HOST` stands for its address.
fn headers(server: &Server, case: &Case) -> Vec<(String, String)> {
    let host = server.address().to_string();
    let mut headers: Vec<(String, String)> =
        case.0.iter().map(|(name, value)| ((*name).to_owned(), value.replace("HOST", &host))).collect();
    if !headers.iter().any(|(name, _)| name == "host") {
        headers.push(("host".to_owned(), host));
    }
    headers
}

fn state(server: &Server) -> String {
    server.get("/subscriptions/console").expect(200).json()["state"].as_str().unwrap().to_owned()
}

#[test]
fn a_request_that_a_page_could_send_changes_nothing() {
    let server = guarded();
    for case in CASES {
        server.post("/subscriptions/console/resume", "").expect(200);
        let mut request = Request::new("POST", PAUSE);
        request.headers = headers(&server, case);
        let answer = server.send(&request);
        assert_eq!(answer.status, case.1, "{case:?}: {}", answer.text());
        assert_eq!(state(&server) == "paused", case.1 == 200, "{case:?}");
        let option = match case.1 {
            403 => "cors-origin",
            421 => "allowed-hosts",
            415 => "Content-Type",
            _ => continue,
        };
        assert!(answer.text().contains(option), "{}", answer.text());
    }
}

#[test]
fn the_same_holds_over_http_2_and_its_authority() {
    let server = guarded();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let found: Vec<u16> = runtime.block_on(async {
        let stream = tokio::net::TcpStream::connect(server.address()).await.unwrap();
        let executor = hyper_util::rt::TokioExecutor::new();
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(executor, hyper_util::rt::TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let mut found = Vec::new();
        for case in CASES {
            let headers = headers(&server, case);
            let (_, host) = headers.iter().find(|(name, _)| name == "host").unwrap();
            let mut request = hyper::Request::post(format!("http://{host}{PAUSE}"));
            for (name, value) in headers.iter().filter(|(name, _)| name != "host") {
                request = request.header(name, value);
            }
            let request = request.body(Full::new(bytes::Bytes::new())).unwrap();
            sender.ready().await.unwrap();
            found.push(sender.send_request(request).await.unwrap().status().as_u16());
        }
        found
    });
    assert_eq!(found, CASES.iter().map(|(_, status)| *status).collect::<Vec<_>>());
}

#[test]
fn a_websocket_is_opened_by_nobody_else_and_under_no_other_name() {
    let server = guarded();
    for case in CASES.iter().filter(|case| case.1 != 415) {
        let mut request = Request::get("/events/ws")
            .header("connection", "Upgrade")
            .header("upgrade", "websocket")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
        request.headers.extend(headers(&server, case));
        let mut connection = server.connect();
        connection.send(&request.bytes()).unwrap();
        let status = connection.answer_without_body().unwrap().status;
        assert_eq!(status, if case.1 == 200 { 101 } else { case.1 }, "{case:?}");
    }
}

#[test]
fn every_route_is_behind_the_gate() {
    let server = guarded();
    for target in ["/", "/stats", "/events", "/events/stream", "/healthz", "/readyz", "/metrics", "/nowhere"] {
        let request = Request::get(target).header("host", "evil.example");
        server.send(&request).expect_problem(421, "unknown-host");
    }
    for (method, target) in [
        ("POST", "/data/t"),
        ("PUT", "/data/t/1"),
        ("DELETE", "/data/t/1"),
        ("POST", "/replay"),
        ("PUT", "/subscriptions/s"),
        ("POST", "/subscriptions/console/rewind"),
        ("PUT", "/components/c"),
        ("POST", "/components/c/rollback"),
        ("POST", "/sources/s/repair"),
        ("PATCH", "/nowhere"),
    ] {
        let request = Request::new(method, target).header("origin", "https://evil.example");
        server.send(&request).expect_problem(403, "foreign-origin");
    }
}

#[test]
fn curl_needs_no_more_than_before() {
    let server = Server::start();
    let base = format!("http://{}", server.address());
    let curl = |arguments: &[&str], path: &str| {
        let quiet = ["-s", "-o", "/dev/null", "-w", "%{http_code}"];
        let output = Command::new("curl").args(quiet).args(arguments).arg(format!("{base}{path}")).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let json = ["-H", "Content-Type: application/json", "-d", r#"{"id":"u1","name":"Ada"}"#];
    assert_eq!(curl(&[&["-X", "POST"], &json[..]].concat(), "/data/users"), "200");
    assert_eq!(curl(&[&["-X", "PUT"], &json[..]].concat(), "/data/users/u1"), "200");
    assert_eq!(curl(&["-X", "DELETE"], "/data/users/u1"), "200");
    assert_eq!(curl(&["-X", "POST"], "/replay"), "200");
    assert_eq!(curl(&["-X", "POST"], PAUSE), "200");
    assert_eq!(curl(&["-X", "POST", "-H", "Content-Type: application/json", "-d", "{}"], "/replay"), "200");
}

#[test]
fn without_a_login_other_machines_are_let_in_only_when_somebody_says_so() {
    for listen in ["0.0.0.0:0", "[::]:0"] {
        let launch = Launch::new().listen_as_configured().option("--listen", listen);
        let refused = launch.refused();
        assert!(refused.stderr.contains("--insecure") && refused.stderr.contains("no login"), "{}", refused.stderr);
        assert!(!launch.data().path().join("LOCK").exists(), "nothing has been opened");
    }
    let open = Launch::new().listen_as_configured().options("--listen 0.0.0.0:0 --insecure").start();
    assert!(open.log().contains("whoever reaches this address"), "{}", open.log());
    let port = open.address().port();
    let to = |host: &str| Request::get("/stats").header("host", &format!("{host}:{port}"));
    let mut connection = cdc_tests::http::Connection::open(([127, 0, 0, 1], port).into());
    connection.exchange(&to("192.168.7.7")).unwrap().expect(200);
    connection.exchange(&to("evil.example")).unwrap().expect_problem(421, "unknown-host");
}
