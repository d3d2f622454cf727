//! What callers of the API may make the service touch: files of one folder, and addresses that are not somebody's own.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::process::Command;

use cdc_tests::harness::{Launch, Server, until};
use cdc_tests::recorder::Recorder;
use serde_json::{Value, json};

/// Open to other machines.
fn exposed(launch: Launch) -> Launch {
    launch.listen_as_configured().options("--listen 0.0.0.0:0 --insecure")
}

fn define(server: &Server, subscriber: &Value) -> cdc_tests::http::Answer {
    let retry = json!({"initialMs": 10, "maxMs": 50});
    server
        .put("/subscriptions/out", &json!({"subscriber": subscriber, "start": "beginning", "retry": retry}).to_string())
}

/// Waits for a failure and answers what the service says of it.
fn reason(server: &Server) -> String {
    until("a failure", || {
        let status = server.get("/subscriptions/out").expect(200).json();
        (status["state"] == "retrying").then(|| status["reason"].as_str().unwrap_or_default().to_owned())
    })
}

/// Answers every request with 500 and a text, on loopback.
fn failing(text: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let (mut line, mut length) = (String::new(), 0);
            while reader.read_line(&mut line).is_ok_and(|read| read > 2) {
                if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap();
                }
                line.clear();
            }
            let mut body = vec![0; length];
            let _ = reader.read_exact(&mut body);
            let head = format!("HTTP/1.1 500 No\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", text.len());
            let _ = (&stream).write_all(format!("{head}{text}").as_bytes());
        }
    });
    origin
}

#[test]
fn a_caller_names_files_of_one_folder_only() {
    let launch = Launch::configured("builtin-subscribers = [\"none\"]\n");
    let server = launch.start();
    for file in ["/dev/zero", "/etc/hostname", "../../etc/hostname", "/nowhere/at/all"] {
        for subscriber in [
            json!({"sink": "webhook", "url": "https://127.0.0.1:1/", "caFile": file}),
            json!({"sink": "redis", "url": "rediss://127.0.0.1:1", "caFile": file}),
            json!({"sink": "nats", "servers": ["tls://127.0.0.1:1"], "caFile": file}),
            json!({"sink": "nats", "servers": ["nats://127.0.0.1:1"], "credentialsFile": file}),
            json!({"sink": "postgres", "url": "postgres://u@127.0.0.1:1/d", "caFile": file}),
            json!({"sink": "postgres", "url": format!("postgres://u@127.0.0.1:1/d?sslrootcert={file}")}),
        ] {
            let detail = define(&server, &subscriber).expect_problem(400, "invalid-subscription");
            assert!(detail.contains("files-folder"), "{detail}");
        }
    }
    fs::write(launch.data().beside("ca.pem"), "no certificate").unwrap();
    define(&server, &json!({"sink": "webhook", "url": "https://127.0.0.1:1/", "caFile": "ca.pem"})).expect(200);
    let none = Launch::new().options("--builtin-subscribers none").start();
    let detail = define(&none, &json!({"sink": "webhook", "url": "https://h/", "caFile": "ca.pem"}));
    assert!(detail.expect_problem(400, "invalid-subscription").contains("files-folder"));
}

#[test]
fn a_file_that_never_ends_or_never_begins_holds_nobody_up() {
    let launch = Launch::configured("builtin-subscribers = [\"none\"]\n");
    let fifo = launch.data().beside("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let server = launch.start();
    server.post("/data/t", r#"{"id":1}"#).expect(200);
    for subscriber in [
        json!({"sink": "redis", "url": "rediss://127.0.0.1:1", "caFile": fifo}),
        json!({"sink": "nats", "servers": ["nats://127.0.0.1:1"], "credentialsFile": "fifo"}),
    ] {
        define(&server, &subscriber).expect(200);
        assert!(reason(&server).contains("is no regular file"), "{}", reason(&server));
        server.delete("/subscriptions/out").expect(200);
    }
    server.stop();
    // What the operator names may be anywhere, and is looked at as well.
    for (file, why) in [("/dev/zero", "is no regular file"), (fifo.to_str().unwrap(), "is no regular file")] {
        let server = Launch::configured(&format!(
            "builtin-subscribers = [\"none\"]\n[subscriptions.out]\nstart = \"beginning\"\n\
             subscriber = {{ sink = \"webhook\", url = \"https://127.0.0.1:1/\", caFile = {file:?} }}\n"
        ))
        .start();
        server.post("/data/t", r#"{"id":1}"#).expect(200);
        assert!(reason(&server).contains(why), "{}", reason(&server));
        server.stop();
    }
}

#[test]
fn strangers_reach_nobodys_own_addresses_through_a_sink() {
    let recorder = Recorder::start();
    let hook = json!({"sink": "webhook", "url": format!("{}/hook", recorder.origin())});
    let server = exposed(Launch::new().options("--builtin-subscribers none")).start();
    server.post("/data/t", r#"{"id":1}"#).expect(200);
    for subscriber in [
        hook.clone(),
        json!({"sink": "webhook", "url": format!("http://localhost:{}/hook", recorder.port())}),
        json!({"sink": "redis", "url": format!("redis://127.0.0.1:{}", recorder.port())}),
        json!({"sink": "nats", "servers": [format!("nats://127.0.0.1:{}", recorder.port())]}),
        json!({"sink": "postgres", "url": format!("postgres://u@127.0.0.1:{}/d", recorder.port())}),
    ] {
        define(&server, &subscriber).expect(200);
        assert!(reason(&server).contains("allowed-addresses"), "{}", reason(&server));
        server.delete("/subscriptions/out").expect(200);
    }
    let kafka = define(&server, &json!({"sink": "kafka", "brokers": ["kafka.example:9092"]}));
    assert!(kafka.expect_problem(400, "invalid-subscription").contains("defined in the configuration"));
    assert_eq!(recorder.count(), 0, "nothing has come");
    server.stop();

    let allowed = exposed(Launch::new().options("--builtin-subscribers none --allowed-addresses localhost")).start();
    allowed.post("/data/t", r#"{"id":1}"#).expect(200);
    define(&allowed, &hook).expect(200);
    until("the event", || (recorder.count() > 0).then_some(()));
    // What answers there is told to nobody who may be anybody.
    define(&allowed, &json!({"sink": "webhook", "url": failing("the inside")})).expect(200);
    allowed.post("/data/t", r#"{"id":2}"#).expect(200);
    let told = reason(&allowed);
    assert!(told.contains("500") && !told.contains("the inside"), "{told}");
}

#[test]
fn users_of_this_machine_reach_all_but_what_clouds_tell_their_machines() {
    let server = Launch::new().options("--builtin-subscribers none").start();
    server.post("/data/t", r#"{"id":1}"#).expect(200);
    for url in
        ["http://169.254.169.254/latest/meta-data", "http://[fd00:ec2::254]/", "http://[::ffff:169.254.169.254]/"]
    {
        define(&server, &json!({"sink": "webhook", "url": url})).expect(200);
        assert!(reason(&server).contains("allowed-addresses"), "{}", reason(&server));
        server.delete("/subscriptions/out").expect(200);
    }
    define(&server, &json!({"sink": "webhook", "url": failing("red \u{1b}[31mtext\r\nforged")})).expect(200);
    let told = reason(&server);
    assert!(told.contains("red  [31mtext  forged"), "{told:?}");
}

#[test]
fn what_the_configuration_declares_reaches_what_it_names() {
    let recorder = Recorder::start();
    let server = exposed(Launch::configured(&format!(
        "builtin-subscribers = [\"none\"]\n[subscriptions.out]\nstart = \"beginning\"\n\
         subscriber = {{ sink = \"webhook\", url = \"{}/hook\" }}\n",
        recorder.origin()
    )))
    .start();
    server.post("/data/t", r#"{"id":1}"#).expect(200);
    until("the event", || (recorder.count() > 0).then_some(()));
}
