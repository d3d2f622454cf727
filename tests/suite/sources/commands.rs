//! `cdc check` and `cdc source drop`.

use std::process::Command;

use cdc_test_servers::Postgres;
use cdc_tests::harness::{Launch, Output, cdc, until};

use super::{configured, shop, until_following, until_slots_are_free};

fn run(arguments: &[&str]) -> Output {
    Output::of(Command::new(cdc()).args(arguments).current_dir(std::env::temp_dir()))
}

#[test]
fn check_says_in_plain_words_what_is_missing_with_what_to_run() {
    let postgres = Postgres::with(&[("wal_level", "replica")]);
    postgres.psql("postgres", "CREATE TABLE users (id int PRIMARY KEY)");
    let url = postgres.url("postgres");
    let found = run(&["check", "--source", &url]);
    assert_eq!(found.status.code(), Some(1), "{found:?}");
    assert!(found.stdout.contains("missing") && found.stdout.contains("wal_level"), "{}", found.stdout);
    assert!(found.stdout.contains("ALTER SYSTEM SET wal_level"), "{}", found.stdout);
    assert!(!format!("{found:?}").contains(Postgres::PASSWORD), "{found:?}");
    let json = run(&["check", "--source", &url, "--json"]);
    let report: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!((json.status.code(), &report["ok"]), (Some(1), &serde_json::json!(false)));
}

#[test]
fn check_is_content_with_a_database_that_can_be_captured() {
    let postgres = Postgres::start();
    postgres.psql("postgres", "CREATE TABLE users (id int PRIMARY KEY)");
    let found = run(&["check", "--source", &postgres.url("postgres")]);
    assert!(found.stdout.contains("source postgres (postgres://postgres:***@127.0.0.1:"), "{}", found.stdout);
    assert_eq!(found.status.code(), Some(0), "{found:?}");
    let unknown = run(&["check", "shop", "--source", &postgres.url("postgres")]);
    assert_eq!(unknown.status.code(), Some(2), "{unknown:?}");
}

#[test]
fn check_names_a_database_that_is_not_there() {
    let found = run(&["check", "--source", "postgres://u:secret@127.0.0.1:1/d"]);
    assert_eq!(found.status.code(), Some(1), "{found:?}");
    assert!(found.stdout.contains("127.0.0.1:1") && !found.stdout.contains("secret"), "{}", found.stdout);
}

#[test]
fn a_source_that_is_given_up_leaves_nothing_in_its_database() {
    let postgres = Postgres::start();
    postgres.psql("postgres", "CREATE TABLE users (id int PRIMARY KEY); INSERT INTO users VALUES (1)");
    let server = shop(&postgres.url("postgres"), "").start();
    until_following(&server, "shop");
    let slots = || postgres.psql("postgres", "SELECT slot_name FROM pg_replication_slots");
    assert_eq!(slots(), "cdc_shop");
    let (data, config) = (server.data().path().display().to_string(), server.data().beside("cdc.toml"));
    let arguments = ["source", "drop", "shop", "--data", &data, "--config", &config.display().to_string()];
    let refused = run(&arguments);
    assert!(!refused.status.success() && slots() == "cdc_shop", "{refused:?}");

    let data_folder = server.data().clone();
    server.stop();
    // Nobody configures it any more: that is said at the start, with the way out.
    let server = Launch::new().on(&data_folder).start();
    until("a warning", || server.log().contains("cdc source drop shop --source URL").then_some(()));
    assert!(!server.log().contains(Postgres::PASSWORD));
    server.stop();
    let unconfigured = run(&["source", "drop", "shop", "--data", &data]);
    assert!(unconfigured.stderr.contains("--source URL") && slots() == "cdc_shop", "{unconfigured:?}");

    until_slots_are_free(&postgres);
    run(&arguments).expect_success();
    assert_eq!((slots(), postgres.psql("postgres", "SELECT pubname FROM pg_publication")), Default::default());
    let again = run(&["source", "drop", "shop", "--data", &data]);
    assert!(again.stderr.contains("there is no source shop"), "{again:?}");
    let server = Launch::new().on(&data_folder).start();
    assert_eq!(server.get("/data/public.users/1").status, 200, "what was captured stays");
    assert!(!server.log().contains("no longer configured"), "{}", server.log());
    server.stop();
    data_folder.verify().expect_success();
}

#[test]
fn a_publication_that_somebody_else_made_is_left_and_named() {
    let postgres = Postgres::start();
    postgres.psql("postgres", "CREATE TABLE users (id int PRIMARY KEY); CREATE PUBLICATION cdc_shop FOR TABLE users");
    let server = shop(&postgres.url("postgres"), "").start();
    until_following(&server, "shop");
    let (data, config) = (server.data().path().display().to_string(), server.data().beside("cdc.toml"));
    let data_folder = server.data().clone();
    server.stop();
    until_slots_are_free(&postgres);
    let dropped = run(&["source", "drop", "shop", "--data", &data, "--config", &config.display().to_string()]);
    assert!(dropped.status.success() && dropped.stdout.contains("the publication cdc_shop is left"), "{dropped:?}");
    assert_eq!(postgres.psql("postgres", "SELECT pubname FROM pg_publication"), "cdc_shop");
    data_folder.verify().expect_success();
}

#[test]
fn a_configuration_that_is_no_source_is_refused_at_the_start() {
    let refused = configured("[sources.shop]\nurl = \"postgres://u:secret@h/d\"\nslto = \"x\"\n").refused();
    assert!(refused.stderr.contains("sources.shop (") && refused.stderr.contains("slto"), "{}", refused.stderr);
    assert!(!refused.stderr.contains("secret"));
}
