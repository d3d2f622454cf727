//! Sources that prove themselves: rows here compared with the database's, by the command and over REST.

use std::process::{Child, Command, Stdio};

use cdc_test_servers::{MariaDb, Postgres};
use cdc_tests::harness::{Server, until};
use serde_json::{Value, json};

use super::steering::source;
use super::{events, shop, status, until_equal, until_following};

fn audit_of(server: &Server) -> Value {
    server.get("/sources/shop/audit").expect(200).json()
}

fn until_over(server: &Server) -> Value {
    until("the audit to end", || Some(audit_of(server)).filter(|audit| audit["state"] != "running"))
}

/// Key, kind and both images of the rows that differ, in the order of the keys.
fn differences(table: &Value) -> Vec<Value> {
    let mut rows = table["shown"].as_array().cloned().unwrap_or_default();
    rows.sort_by_key(|row| row["key"].as_str().map(str::to_owned));
    rows.into_iter().map(|row| json!([row["key"], row["kind"], row["here"], row["there"]])).collect()
}

#[test]
fn what_changed_in_postgresql_without_a_word_in_its_log_is_found_shown_and_mended() {
    let postgres = Postgres::start();
    // A row that is killed or revived in its page, and a text that is looked up whenever it is read, are in no log.
    postgres.psql(
        "postgres",
        "CREATE EXTENSION pg_surgery; CREATE SCHEMA hidden; CREATE TABLE hidden.named (id int); \
         CREATE TABLE users (id int PRIMARY KEY, kind regclass, note text); \
         INSERT INTO users SELECT i, CASE WHEN i = 700 THEN 'hidden.named'::regclass END, 'note ' || i \
         FROM generate_series(1, 1000) i; CREATE TABLE others (id int PRIMARY KEY, j jsonb); \
         INSERT INTO others VALUES (1, '{\"a\": [1.10, null]}'), (2, 'null'), (3, NULL)",
    );
    let server = shop(&postgres.url("postgres"), "exclude = [\"hidden.*\"]").start();
    until_following(&server, "shop");
    assert_eq!(audit_of(&server)["state"], "none");
    let equal = source(&server, &["audit", "shop"]).expect_success();
    assert_eq!(
        equal.stdout,
        "public.others: equal, 3 rows compared by rows\npublic.users: equal, 1000 rows compared by sums\n\
         equal: 1003 rows compared, 0 differ\n"
    );
    let before = events(&server, "public.users").len();

    let place = |id: u32| postgres.psql("postgres", &format!("SELECT ctid FROM users WHERE id = {id}"));
    let (kept, place) = (place(2), place(3));
    postgres.psql("postgres", &format!("SELECT heap_force_kill('users', ARRAY['{kept}'::tid])"));
    postgres.psql("postgres", "DELETE FROM users WHERE id = 3");
    until("the row to go", || (server.get("/data/public.users/3").status == 404).then_some(()));
    postgres.psql("postgres", &format!("SELECT heap_force_freeze('users', ARRAY['{place}'::tid])"));
    postgres.psql("postgres", "ALTER TABLE hidden.named RENAME TO renamed");
    let told = source(&server, &["audit", "shop", "public.users"]);
    assert_eq!(told.status.code(), Some(1), "{told:?}");
    let image = |id: u32, kind: &str| format!("{{\"id\":{id},\"kind\":{kind},\"note\":\"note {id}\"}}");
    for line in [
        "public.users: different, 999 rows compared by sums, 3 differ, 0 mended\n".to_owned(),
        format!("  2 only-here\n    here:  {}\n    there: -\n", image(2, "null")),
        format!("  3 missing-here\n    here:  -\n    there: {}\n", image(3, "null")),
        format!(
            "  700 differs\n    here:  {}\n    there: {}\n",
            image(700, "\"hidden.named\""),
            image(700, "\"hidden.renamed\"")
        ),
        "different: 999 rows compared, 3 differ\n".to_owned(),
    ] {
        assert!(told.stdout.contains(&line), "{line} is not in {}", told.stdout);
    }
    assert_eq!(events(&server, "public.users").len(), before + 1, "nothing is mended unasked");
    let metrics = server.get("/metrics").expect(200).text().to_owned();
    for line in [
        "audit_rows_total{source=\"shop\"} 2002",
        "audit_differences_total{source=\"shop\"} 3",
        "audit_equal{source=\"shop\"} 0",
    ] {
        assert!(metrics.contains(&format!("cdc_source_{line}")), "{line} is not in {metrics}");
    }

    let mended = source(&server, &["audit", "shop", "public.users", "--mend"]);
    assert_eq!(mended.status.code(), Some(1));
    assert!(mended.stdout.ends_with("different: 999 rows compared, 3 differ, 3 of them mended\n"), "{}", mended.stdout);
    until_equal(&server, &postgres, "public.users", &["id"]);
    let news: Vec<_> = events(&server, "public.users").split_off(before + 1);
    let mut operations: Vec<_> = news.iter().map(|event| event["operation"].as_str().unwrap()).collect();
    operations.sort_unstable();
    assert_eq!(operations, ["DELETE", "INSERT", "UPDATE"]);
    source(&server, &["audit", "shop"]).expect_success();
    let shown = source(&server, &["audit", "shop", "--show"]).expect_success();
    assert!(shown.stdout.ends_with("equal: 1002 rows compared, 0 differ\n"), "{}", shown.stdout);
    let unknown = source(&server, &["audit", "shop", "public.nobody"]);
    assert_eq!(unknown.status.code(), Some(2));
    assert!(unknown.stderr.contains("unknown-source-table"), "{unknown:?}");
    let launch = server.stop();
    launch.data().verify().expect_success();
}

#[test]
fn what_changed_in_mariadb_without_a_word_in_its_log_is_found_shown_and_mended() {
    let mariadb = MariaDb::start();
    mariadb.sql(
        "",
        "CREATE DATABASE shop; USE shop; CREATE TABLE users (a VARCHAR(9), id INT, note TEXT, PRIMARY KEY (a, id)); \
         INSERT INTO users SELECT 'x/%', seq, 'as it was' FROM seq_1_to_3000; CREATE TABLE empty (id INT PRIMARY KEY)",
    );
    let server = shop(&mariadb.url("shop"), "tables = [\"shop.*\"]").start();
    until_following(&server, "shop");
    server.post("/sources/shop/audit", "").expect(200);
    let audit = until_over(&server);
    assert_eq!((&audit["state"], &audit["rows"]), (&json!("equal"), &json!(3000)), "{audit:#}");
    mariadb.sql(
        "shop",
        "SET sql_log_bin = 0; UPDATE users SET note = 'past' WHERE id = 7; DELETE FROM users WHERE id = 8; \
         INSERT INTO users VALUES ('y', 1, NULL)",
    );
    server.post("/sources/shop/audit", r#"{"tables": ["shop.users"], "mend": true}"#).expect(200);
    let audit = until_over(&server);
    let table = &audit["tables"].as_array().unwrap()[1];
    assert_eq!((&table["state"], &table["mended"]), (&json!("different"), &json!(3)), "{audit:#}");
    let row = |a: &str, id: u32, note: Value| json!({ "a": a, "id": id, "note": note });
    let was = |id| row("x/%", id, json!("as it was"));
    assert_eq!(
        differences(table),
        [
            json!(["x%2F%25/7", "differs", was(7), row("x/%", 7, json!("past"))]),
            json!(["x%2F%25/8", "only-here", was(8), null]),
            json!(["y/1", "missing-here", null, row("y", 1, Value::Null)]),
        ]
    );
    assert_eq!(server.get("/data/shop.users/x%2F%25/7").expect(200).json(), row("x/%", 7, json!("past")));
    server.get("/data/shop.users/x%2F%25/8").expect(404);
    server.post("/sources/shop/audit", "").expect(200);
    assert_eq!(until_over(&server)["state"], "equal");
}

/// Writes to a database until it is dropped.
struct Writers(Child);

impl Drop for Writers {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn pgbench(postgres: &Postgres, script: &str) -> Writers {
    let file = postgres.folder().join("script.sql");
    std::fs::write(&file, script).unwrap();
    let child = Command::new(postgres.bin("pgbench"))
        .args(["--no-vacuum", "--client", "4", "--rate", "300", "--time", "120", "--file"])
        .arg(&file)
        .args(["--host", "127.0.0.1", "--port", &postgres.port().to_string(), "--username", Postgres::USER, "postgres"])
        .env("PGPASSWORD", Postgres::PASSWORD)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    Writers(child)
}

const BUSY: &str = "\\set id random(1, 6000)\n\\set other random(1, 6000)\n\\set what random(1, 10)\n\
    \\if :what <= 3\nINSERT INTO users VALUES (:id, 'inserted', repeat('i', 3000)) \
    ON CONFLICT (id) DO UPDATE SET note = 'inserted again';\n\
    \\elif :what <= 6\nUPDATE users SET note = note || '.' WHERE id = :id;\n\
    \\elif :what <= 8\nDELETE FROM users WHERE id = :id;\n\
    \\else\nUPDATE users SET id = :other WHERE id = :id AND NOT EXISTS (SELECT FROM users WHERE id = :other);\n\\endif\n";

#[test]
fn an_audit_beside_writers_finds_nothing_and_goes_on_after_a_crash() {
    let postgres = Postgres::start();
    postgres.psql(
        "postgres",
        "CREATE TABLE users (id int PRIMARY KEY, note text, big text); ALTER TABLE users ALTER big SET STORAGE EXTERNAL; \
         CREATE TABLE rows_of_json (id int PRIMARY KEY, note json); INSERT INTO rows_of_json VALUES (1, '{}'); \
         INSERT INTO users SELECT i, 'old', repeat('o', 3000) FROM generate_series(1, 5000) i",
    );
    let server = shop(&postgres.url("postgres"), "audit-rows-per-second = 3000").start();
    until_following(&server, "shop");
    let writers = pgbench(&postgres, BUSY);
    for _ in 0..2 {
        let told = source(&server, &["audit", "shop"]).expect_success();
        assert!(told.stdout.contains("public.users: equal"), "{}", told.stdout);
    }
    source(&server, &["audit", "shop", "--no-wait"]).expect_success();
    until("rows of the large table to be compared", || {
        (audit_of(&server)["tables"][1]["rows"].as_u64() > Some(0)).then_some(())
    });
    let server = server.kill().start();
    let audit = until_over(&server);
    assert_eq!(audit["state"], "equal", "{audit:#}");
    drop(writers);
    until_equal(&server, &postgres, "public.users", &["id"]);
    let counters = status(&server, "shop")["counters"].clone();
    assert_eq!(counters["reconnects"], 0, "{counters}");
}

#[test]
fn a_source_proves_itself_by_schedule_and_says_what_it_could_not_compare() {
    let postgres = Postgres::start();
    postgres.psql(
        "postgres",
        "CREATE TABLE users (id int PRIMARY KEY); INSERT INTO users VALUES (1); CREATE TABLE keyless (id int)",
    );
    let server = shop(&postgres.url("postgres"), "audit = \"daily\"").start();
    until_following(&server, "shop");
    let audit = until("the audit by schedule", || Some(audit_of(&server)).filter(|audit| !audit["endedAt"].is_null()));
    let tables: Vec<_> = audit["tables"].as_array().unwrap().iter().map(|t| [&t["table"], &t["state"]]).collect();
    assert!(tables.contains(&[&json!("public.users"), &json!("equal")]), "{audit:#}");
    server.post("/sources/shop/pause", "").expect(200);
    let refused = server.post("/sources/shop/audit", "").expect(409).json();
    assert_eq!(refused["code"], "wrong-source-state", "{refused}");
    let paused = source(&server, &["audit", "shop"]);
    assert_eq!(paused.status.code(), Some(2), "{paused:?}");
    server.post("/sources/shop/resume", "").expect(200);
    until_following(&server, "shop");
    server.post("/sources/shop/tables/public.users/pause", "").expect(200);
    until("the table to pause", || (status(&server, "shop")["tables"][1]["state"] == "paused").then_some(()));
    let told = source(&server, &["audit", "shop", "public.users"]);
    assert_eq!(told.status.code(), Some(2), "{told:?}");
    assert!(told.stdout.contains("public.users: unfinished") && told.stdout.contains("(stopped)"), "{}", told.stdout);
}
