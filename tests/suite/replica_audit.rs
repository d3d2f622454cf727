//! Replicas that are compared with the rows here, while they are written to.

use std::process::Command;

use cdc_test_servers::Postgres;
use cdc_tests::harness::{Launch, Output, Server, cdc, until};
use serde_json::{Value, json};

/// A value of every kind that a replica converts, so that two spellings of one are not taken for two.
const TABLES: &str = "CREATE TYPE mood AS ENUM ('sad', 'ok'); CREATE TYPE pair AS (a int, b text); \
    CREATE TABLE things (id int PRIMARY KEY, n numeric(12,4), f float8, t timestamptz, b bytea, j json, jb jsonb, a int[], \
      bs bytea[], js jsonb[], m mood, p pair, c char(5), i interval, plain text, r daterange); \
    INSERT INTO things VALUES \
      (1, 1.10, 'NaN', '2024-01-02 03:04:05.5+02', '\\x00ff', '{\"a\": [1.10, null]}', '{\"a\": [1.10, null]}', \
       '{1,NULL}', '{\"\\\\x01\"}', ARRAY['{\"x\": 1}'::jsonb, 'null'], 'ok', (1, 'a \"b\"'), 'c', '1 day 2:03', 'it''s', '[2024-01-01,)'), \
      (2, NULL, NULL, NULL, NULL, 'null', 'null', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL), \
      (3, 0, -0.0, 'infinity', '', '[]', '\"text\"', '{}', '{}', '{}', 'sad', NULL, '', '0', '', 'empty'); \
    CREATE TABLE lines (a int, b text, n int, PRIMARY KEY (a, b)); \
    INSERT INTO lines SELECT i, 'k/' || i % 7, i FROM generate_series(1, 3000) i";

fn configured(postgres: &Postgres, subscription: &str) -> Launch {
    Launch::configured(&format!(
        "builtin-subscribers = \"none\"\nretention-events = \"unlimited\"\n\n[sources.shop]\nurl = \"{}\"\n\n\
         [subscriptions.out]\n{subscription}\n",
        postgres.url("postgres"),
    ))
}

fn replica(postgres: &Postgres) -> String {
    let url = postgres.url("replica");
    format!("start = \"beginning\"\nsubscriber = {{ sink = \"postgres\", url = \"{url}\", createTables = true }}\n")
}

fn start(subscription: impl Fn(&Postgres) -> String) -> (Postgres, Server) {
    let postgres = Postgres::start();
    postgres.psql("postgres", "CREATE DATABASE replica");
    postgres.psql("postgres", TABLES);
    // Types of the source's, where the replica has them.
    postgres.psql("replica", "CREATE TYPE mood AS ENUM ('sad', 'ok'); CREATE TYPE pair AS (a int, b text)");
    let server = configured(&postgres, &subscription(&postgres)).start();
    (postgres, server)
}

fn until_delivered(server: &Server) {
    until("the tables to be read", || {
        let source = server.get("/sources/shop").expect(200).json();
        let tables = source["tables"].as_array()?.clone();
        (tables.len() == 2 && tables.iter().all(|table| table["state"] == "following")).then_some(())
    });
    until("everything to be delivered", || {
        let status = server.get("/subscriptions/out").expect(200).json();
        (status["lagEvents"] == 0).then_some(())
    });
}

fn audit(server: &Server, arguments: &[&str]) -> Output {
    let mut command = Command::new(cdc());
    Output::of(command.args(["subscription", "audit", "out"]).args(arguments).args(["--url", &server.url()]))
}

#[test]
fn a_replica_is_the_rows_here_and_what_somebody_changed_in_it_is_shown() {
    for lanes in [1, 3] {
        let (postgres, server) = start(|postgres| format!("{}lanes = {lanes}\n", replica(postgres)));
        until_delivered(&server);
        assert_eq!(server.get("/subscriptions/out/audit").expect(200).json()["state"], "none");
        let equal = audit(&server, &[]).expect_success();
        assert_eq!(
            equal.stdout,
            "public.lines: equal, 3000 rows compared by rows\npublic.things: equal, 3 rows compared by rows\n\
             equal: 3003 rows compared, 0 differ\n"
        );
        postgres.psql(
            "replica",
            "UPDATE public.lines SET n = -1 WHERE a = 7; DELETE FROM public.lines WHERE a = 8; \
             INSERT INTO public.lines VALUES (9999, 'x/y', 1); UPDATE public.things SET jb = NULL WHERE id = 2; \
             ALTER TABLE public.lines ADD COLUMN own text DEFAULT 'not ours'",
        );
        let told = audit(&server, &[]);
        assert_eq!(told.status.code(), Some(1), "{told:?}");
        assert!(told.stdout.contains("different: 3003 rows compared, 4 differ\n"), "{}", told.stdout);
        let found = server.get("/subscriptions/out/audit").expect(200).json();
        let rows = |table: usize| -> Vec<Value> {
            let mut shown = found["tables"][table]["shown"].as_array().cloned().unwrap_or_default();
            shown.sort_by_key(|row| row["key"].as_str().map(str::to_owned));
            shown.into_iter().map(|row| json!([row["key"], row["kind"], row["here"]["n"], row["there"]["n"]])).collect()
        };
        assert_eq!(
            rows(0),
            [
                json!(["7/k%2F0", "differs", 7, -1]),
                json!(["8/k%2F1", "only-here", 8, null]),
                json!(["9999/x%2Fy", "missing-here", null, 1]),
            ]
        );
        assert_eq!(found["tables"][1]["shown"][0]["there"]["jb"], Value::Null);
        let metrics = server.get("/metrics").expect(200).text().to_owned();
        assert!(metrics.contains("cdc_subscription_audit_differences_total{subscription=\"out\"} 4"), "{metrics}");
        let one = audit(&server, &["public.things"]);
        assert!(one.stdout.ends_with("different: 3 rows compared, 1 differ\n"), "{}", one.stdout);
        audit(&server, &["public.things", "--show"]);
    }
}

#[test]
fn a_replica_that_is_written_to_is_compared_as_of_the_event_that_it_is_at() {
    let (postgres, server) = start(replica);
    until_delivered(&server);
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    std::thread::scope(|scope| {
        let postgres = &postgres;
        scope.spawn(move || {
            let mut n = 0;
            while stopped.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
                n += 1;
                postgres.psql(
                    "postgres",
                    &format!(
                        "UPDATE lines SET n = n + 1 WHERE a % 10 = {n} % 10; DELETE FROM lines WHERE a = {n}; \
                         INSERT INTO lines VALUES (10000 + {n}, 'new', 1)"
                    ),
                );
            }
        });
        for _ in 0..6 {
            let told = audit(&server, &["public.lines"]);
            assert_eq!(told.status.code(), Some(0), "{told:?}");
        }
        drop(stop);
    });
    until_delivered(&server);
    audit(&server, &[]).expect_success();
    // A restart in between loses nothing but what was found.
    let server = server.kill().start();
    until_delivered(&server);
    audit(&server, &[]).expect_success();
}

#[test]
fn what_cannot_be_compared_says_why_and_what_to_do() {
    let (postgres, server) = start(|postgres| format!("{}where = \"true\"\n", replica(postgres)));
    let told = audit(&server, &[]);
    assert_eq!(told.status.code(), Some(2), "{told:?}");
    assert!(told.stderr.contains("`where` keeps events from the replica"), "{}", told.stderr);
    drop(server);

    // A pattern that no table has is not a replica that is equal.
    let server = configured(&postgres, &format!("tables = [\"publik.*\"]\n{}", replica(&postgres))).start();
    until("the tables to be read", || (server.get("/data/public.things/1").status == 200).then_some(()));
    let told = audit(&server, &[]);
    assert_eq!(told.status.code(), Some(2), "{told:?}");
    assert!(told.stderr.contains("selects no table"), "{}", told.stderr);
    drop(server);

    let webhook = "subscriber = { sink = \"webhook\", url = \"http://127.0.0.1:9/\" }";
    let server = configured(&postgres, webhook).start();
    let told = audit(&server, &[]);
    assert!(told.stderr.contains("only a PostgreSQL replica can be compared"), "{}", told.stderr);
    drop(server);

    postgres.psql("postgres", "DROP DATABASE replica WITH (FORCE)");
    postgres.psql("postgres", "CREATE DATABASE replica");
    let server = configured(&postgres, &replica(&postgres)).start();
    until_delivered(&server);
    let told = audit(&server, &["nothing"]);
    assert!(told.stderr.contains("no table nothing"), "{}", told.stderr);
    postgres.psql("replica", "DROP TABLE public.lines");
    let told = audit(&server, &[]);
    assert_eq!(told.status.code(), Some(2), "{told:?}");
    assert!(told.stdout.contains("public.lines: unfinished") && told.stdout.contains("rewind"), "{}", told.stdout);
    assert!(told.stdout.contains("public.things: equal"), "{}", told.stdout);
}
