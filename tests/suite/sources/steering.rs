//! Sources that are steered while they run, and what somebody else changes meanwhile.

use std::process::Command;

use cdc_test_servers::{MariaDb, Postgres};
use cdc_tests::harness::{Output, Server, cdc, until};
use serde_json::json;

use super::{configured, shop, status, until_equal, until_following, until_state};

/// `cdc source …` at this service.
pub(super) fn source(server: &Server, arguments: &[&str]) -> Output {
    let mut command = Command::new(cdc());
    command.arg("source").args(arguments).args(["--url", &server.url()]).current_dir(std::env::temp_dir());
    Output::of(&mut command)
}

#[test]
fn tables_are_chosen_while_the_service_runs() {
    let postgres = Postgres::start();
    postgres.psql(
        "postgres",
        "CREATE TABLE users (id int PRIMARY KEY); CREATE TABLE orders (id int PRIMARY KEY); \
         INSERT INTO users VALUES (1); INSERT INTO orders VALUES (1), (2)",
    );
    let server = shop(&postgres.url("postgres"), "").start();
    until_following(&server, "shop");
    let said = source(&server, &["select", "shop", "--exclude", "public.orders"]).expect_success();
    assert_eq!(said.stdout, "every table, but not public.orders (as the api says)\n");
    let rows = |table: &str| server.get(&format!("/snapshot/{table}")).expect(200).json()["data"].clone();
    until("the rows to go", || (rows("public.orders") == json!([])).then_some(()));
    assert_eq!(status(&server, "shop")["selection"]["from"], "api");
    postgres.psql("postgres", "INSERT INTO users VALUES (2); INSERT INTO orders VALUES (3)");
    until_equal(&server, &postgres, "public.users", &["id"]);
    // Over a restart too.
    let server = server.stop().start();
    until_following(&server, "shop");
    assert_eq!(status(&server, "shop")["selection"]["exclude"], json!(["public.orders"]));
    source(&server, &["select", "shop", "--reset"]).expect_success();
    until_equal(&server, &postgres, "public.orders", &["id"]);
    let shown = source(&server, &["show", "shop"]).expect_success();
    assert!(shown.stdout.starts_with("shop (postgres): "), "{}", shown.stdout);
    assert!(shown.stdout.contains("  public.orders: "), "{}", shown.stdout);
    let unknown = source(&server, &["reread", "shop", "public.nobody"]);
    assert!(!unknown.status.success() && unknown.stderr.contains("unknown-source-table"), "{unknown:?}");
}

#[test]
fn a_table_that_is_dropped_from_its_source_is_empty_until_it_is_resumed() {
    let postgres = Postgres::start();
    postgres.psql("postgres", "CREATE TABLE users (id int PRIMARY KEY); INSERT INTO users VALUES (1)");
    let server = shop(&postgres.url("postgres"), "").start();
    until_following(&server, "shop");
    let said = source(&server, &["drop-table", "shop", "public.users"]).expect_success();
    assert_eq!(said.stdout, "public.users: dropped\n");
    let rows = || server.get("/snapshot/public.users").expect(200).json()["data"].clone();
    until("the rows to go", || (rows() == json!([])).then_some(()));
    let again = source(&server, &["drop-table", "shop", "public.users"]);
    assert!(again.stderr.contains("wrong-table-state"), "{again:?}");
    postgres.psql("postgres", "INSERT INTO users VALUES (2)");
    source(&server, &["resume", "shop", "public.users"]).expect_success();
    until_equal(&server, &postgres, "public.users", &["id"]);
}

#[test]
fn a_password_that_was_changed_is_taken_from_its_file() {
    let postgres = Postgres::start();
    postgres
        .psql("postgres", "CREATE TABLE users (id int PRIMARY KEY); CREATE ROLE cdc SUPERUSER LOGIN PASSWORD 'before'");
    let url = format!("postgres://cdc@127.0.0.1:{}/postgres", postgres.port());
    let launch = configured(&format!("[sources.shop]\nurl = \"{url}\"\npassword-file = \"password\"\n"));
    let file = launch.data().beside("password");
    std::fs::write(&file, "before\n").unwrap();
    let server = launch.start();
    until_following(&server, "shop");
    postgres.psql(
        "postgres",
        "ALTER ROLE cdc PASSWORD 'after'; \
         SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'cdc'",
    );
    let refused = until_state(&server, "shop", "reconnecting");
    until("the refused login", || (status(&server, "shop")["code"] == "authentication").then_some(()));
    assert!(!refused.to_string().contains("before"), "{refused}");
    std::fs::write(&file, "after\n").unwrap();
    // Whoever does not want to wait asks.
    server.post("/sources/shop/resume", "").expect(200);
    postgres.psql("postgres", "INSERT INTO users VALUES (1)");
    until_equal(&server, &postgres, "public.users", &["id"]);
    assert!(!server.log().contains("after\n") && !server.log().contains(Postgres::PASSWORD));
}

#[test]
fn a_password_that_was_changed_in_mariadb_is_taken_from_its_file_too() {
    let mariadb = MariaDb::start();
    mariadb.sql(
        "",
        "CREATE DATABASE shop; CREATE TABLE shop.users (id INT PRIMARY KEY); \
         CREATE USER cdc@'%' IDENTIFIED BY 'before'; GRANT ALL ON *.* TO cdc@'%'",
    );
    let url = format!("mariadb://cdc@127.0.0.1:{}/", mariadb.port());
    let launch = configured(&format!("[sources.shop]\nurl = \"{url}\"\npassword-file = \"password\"\n"));
    let file = launch.data().beside("password");
    std::fs::write(&file, "before").unwrap();
    let server = launch.start();
    until_following(&server, "shop");
    mariadb.sql("", "SET PASSWORD FOR cdc@'%' = PASSWORD('after')");
    mariadb.sql("", "KILL USER cdc");
    until("the refused login", || (status(&server, "shop")["code"] == "authentication").then_some(()));
    std::fs::write(&file, "after").unwrap();
    server.post("/sources/shop/resume", "").expect(200);
    mariadb.sql("shop", "INSERT INTO users VALUES (1)");
    until("the row", || (server.get("/data/shop.users/1").status == 200).then_some(()));
}
