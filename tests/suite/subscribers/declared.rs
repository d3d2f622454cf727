//! Components and subscriptions declared in the configuration: a deployment needs no calls.

use std::fs;

use cdc_tests::guests;
use cdc_tests::harness::{Data, Launch, Server};
use cdc_tests::recorder::Recorder;

use super::{caught_up, load, status};

fn launch(data: &Data, toml: &str) -> Launch {
    let file = data.beside("cdc.toml");
    fs::write(&file, toml).unwrap();
    Launch::new().on(data).option("--config", file.display())
}

fn declaration(recorder: &Recorder, more: &str) -> String {
    format!(
        r#"
builtin-subscribers = ["none"]

[components.hostile]
file = "{component}"

[subscriptions.counts]
tables = ["t"]
where = "after.status == 'active'"
subscriber = {{ component = "hostile" }}
start = "beginning"
{more}

[subscriptions.counts.grants]
keyvalue = true
http = ["{origin}"]

[subscriptions.counts.grants.config]
mode = "counter"
url = "{origin}/done"
"#,
        component = guests::rust("hostile").display(),
        origin = recorder.origin(),
    )
}

#[test]
fn what_is_declared_is_there_and_is_changed_where_it_is_declared() {
    let (data, recorder) = (Data::new(), Recorder::start());
    let server = launch(&data, &declaration(&recorder, "")).start();
    load(&server, "t", 0, 10);
    caught_up(&server, "counts");
    assert_eq!(recorder.sequences(), [1, 3, 5, 7, 9]);
    assert_eq!(status(&server, "counts")["declared"], true);
    server
        .put("/subscriptions/counts", r#"{"subscriber":{"builtin":"console"}}"#)
        .expect_problem(409, "declared-in-configuration");
    server.delete("/subscriptions/counts").expect_problem(409, "declared-in-configuration");
    server.stop();
    // Another definition goes on where the old one was.
    let server: Server = launch(&data, &declaration(&recorder, "operations = [\"update\"]")).start();
    load(&server, "t", 10, 2);
    server.put("/data/t/0", r#"{"n":7}"#).expect(200);
    caught_up(&server, "counts");
    assert_eq!(recorder.sequences(), [1, 3, 5, 7, 9, 13]);
    server.stop();
    // What is declared no longer is gone.
    let server = launch(&data, "builtin-subscribers = [\"none\"]\n").start();
    server.get("/subscriptions/counts").expect_problem(404, "unknown-subscription");
}

#[test]
fn a_wrong_declaration_keeps_the_service_from_starting_and_is_named() {
    for (toml, expected) in [
        (
            "[subscriptions.s]\nsubscriber = { component = \"nobody\" }\n",
            "subscription s: there is no component nobody",
        ),
        ("[subscriptions.s]\nsubscriber = { builtin = \"console\" }\nwhere = \"after.x ==\"\n", "subscription s:"),
        ("[subscriptions.s]\nsubscriber = { builtin = \"console\" }\nlanez = 3\n", "lanez"),
        ("[components.c]\nfile = \"no/such.wasm\"\n", "components.c"),
        ("builtin-subscribers = [\"consol\"]\n", "builtin-subscribers"),
    ] {
        let refused = launch(&Data::new(), toml).refused();
        assert!(refused.stderr.contains(expected), "{toml}: {}", refused.stderr);
    }
}
