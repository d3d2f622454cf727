//! Options: a flag beats a variable beats the file beats the default, and what is wrong is named.

use std::fs;
use std::path::PathBuf;

use cdc_tests::harness::{Launch, Server, until};

/// A configuration file beside the data folder.
fn config(launch: &Launch, text: &str) -> PathBuf {
    let file = launch.data().beside("cdc.toml");
    fs::write(&file, text).unwrap();
    file
}

/// The page limit in force: an option that is easy to see from outside.
fn most_per_page(server: &Server) -> u64 {
    let mut found = 0;
    for limit in [10, 20, 30, 10_000] {
        if server.get(&format!("/events?limit={limit}")).status == 200 {
            found = limit;
        }
    }
    found
}

#[test]
fn a_flag_beats_a_variable_beats_the_file_beats_the_default() {
    let launch = Launch::new();
    assert_eq!(most_per_page(&launch.start()), 10_000);
    let file = config(&launch, "[limits]\nmax-page = 10\n");
    let with_file = launch.option("--config", file.display());
    assert_eq!(most_per_page(&with_file.start()), 10);
    let with_variable = with_file.variable("CDC_MAX_PAGE", 20);
    assert_eq!(most_per_page(&with_variable.start()), 20);
    assert_eq!(most_per_page(&with_variable.option("--max-page", 30).start()), 30);
}

#[test]
fn a_service_can_be_configured_by_its_file_alone() {
    let launch = Launch::new().listen_as_configured();
    let file = config(
        &launch,
        "listen = \"127.0.0.1:0\"\nschema = \"strict\"\ndurability = \"interval=20\"\nlog-format = \"json\"\n",
    );
    let server = launch.option("--config", file.display()).start();
    server.post("/data/t", r#"{"id":1}"#).expect_problem(404, "unknown-table");
    for line in server.log().lines() {
        serde_json::from_str::<serde_json::Value>(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    }
}

#[test]
fn the_configuration_file_may_be_named_by_its_variable() {
    let launch = Launch::new();
    let file = config(&launch, "[limits]\nmax-page = 20\n");
    assert_eq!(most_per_page(&launch.variable("CDC_CONFIG", file.display()).start()), 20);
}

#[test]
fn a_wrong_value_is_named_with_its_key_its_place_and_what_is_allowed() {
    let cases = [
        ("--retention-events", "many", "retention-events"),
        ("--durability", "always", "interval="),
        ("--schema", "loose", "strict"),
        ("--listen", "nowhere", "127.0.0.1"),
        ("--max-depth", "0", "1 to"),
        ("--retention-age", "7", "12h"),
    ];
    for (option, value, hint) in cases {
        let refused = Launch::new().option(option, value).refused();
        for word in [&option[2..], value, hint] {
            assert!(refused.stderr.contains(word), "{word} is not in: {}", refused.stderr);
        }
    }
    let refused = Launch::new().variable("CDC_RETENTION_EVENTS", "-5").refused();
    assert!(refused.stderr.contains("CDC_RETENTION_EVENTS") && refused.stderr.contains("-5"), "{}", refused.stderr);

    let launch = Launch::new();
    let file = config(&launch, "listen = \"127.0.0.1:0\"\n[limits]\nmax-page = \"lots\"\n");
    let refused = launch.option("--config", file.display()).refused();
    for word in ["max-page", "lots", "cdc.toml:3"] {
        assert!(refused.stderr.contains(word), "{word} is not in: {}", refused.stderr);
    }
}

#[test]
fn an_unknown_option_or_key_is_named() {
    let refused = Launch::new().options("--retention-evnts 5").refused();
    assert!(
        refused.stderr.contains("--retention-evnts") && refused.stderr.contains("--retention-events"),
        "{}",
        refused.stderr
    );
    let launch = Launch::new();
    let file = config(&launch, "retention-evnts = 5\n");
    let refused = launch.option("--config", file.display()).refused();
    assert!(refused.stderr.contains("retention-evnts") && refused.stderr.contains("cdc.toml:1"), "{}", refused.stderr);
    let missing = Launch::new().options("--config /nowhere/cdc.toml").refused();
    assert!(missing.stderr.contains("/nowhere/cdc.toml"), "{}", missing.stderr);
}

#[test]
fn an_address_in_use_is_named() {
    let server = Server::start();
    let refused = Launch::new().listen_as_configured().option("--listen", server.address()).refused();
    assert!(refused.stderr.contains(&server.address().to_string()), "{}", refused.stderr);
}

#[test]
fn the_address_is_logged_as_text_and_as_json() {
    let text = Server::start();
    until("the line", || {
        text.log().lines().find(|line| says(line, &["listening", &text.address().to_string()])).map(drop)
    });
    let json = Launch::new().options("--log-format json").start();
    let line = until("the line", || json.log().lines().find(|line| line.contains("listening")).map(String::from));
    let line: serde_json::Value = serde_json::from_str(&line).expect("every line is JSON");
    assert_eq!((&line["message"], &line["address"]), (&"listening".into(), &json.address().to_string().into()));
}

fn says(line: &str, words: &[&str]) -> bool {
    words.iter().all(|word| line.contains(word))
}
