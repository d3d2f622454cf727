//! Tables compared with the database while they are followed.

use std::rc::Rc;
use std::sync::Arc;

use cdc_sources::{AuditPace, AuditScope, Feed as _, Reason, TableState};
use cdc_test_servers::Postgres;

use crate::auditor::{Auditor, Difference};
use crate::model::{Model, open, options, wait};
use crate::reading::{BUSY, Writers, rows_table};
use crate::values::{COLUMNS, TYPES};

const FAST: AuditPace = AuditPace { rows_per_second: 1_000_000, statement_ms_max: 5_000 };

async fn following(server: &Postgres) -> (cdc_sources::postgres::Feed, Auditor) {
    let mut options = options(server, "postgres");
    options.rules.append_only = vec!["public.log_*".into()];
    let mut feed = open(&options, &Model::default()).await.unwrap();
    let mut auditor = Auditor::default();
    let follows = |feed: &cdc_sources::postgres::Feed| {
        let tables = feed.progress().tables;
        !tables.is_empty() && tables.iter().all(|table| table.state == TableState::Following)
    };
    while !follows(&feed) {
        auditor.settle(&mut feed).await;
    }
    (feed, auditor)
}

/// Values that are easily told wrong, of columns by name and type.
const AWKWARD: &[(&str, &str, &[&str])] = &[
    (
        "t",
        "text",
        &["NULL", "''", "E'\\\\'", "'\"'", "' '", "E'\\n'", "E'\\t\\r\\v\\f\\b'", "'(,)'", "'é😀'", "'null'"],
    ),
    ("v", "varchar", &["'true'", "'NULL'", "E'\\u0001\\u007f'", "E'\\u00a0\\u0085'"]),
    ("c", "char(3)", &["''", "'a'", "NULL"]),
    ("b", "bytea", &["''", "'\\x00ff'", "NULL", "'\\x5c22'"]),
    ("n", "numeric", &["0", "-0.0", "0.00", "1e20", "'NaN'", "'-Infinity'", "1e-10", "NULL"]),
    ("f", "float8", &["'-0'", "0", "1e300", "5e-324", "'Infinity'", "0.1", "NULL"]),
    ("r", "float4", &["'-0'", "1e-10", "16777217", "'NaN'"]),
    ("y", "boolean", &["true", "false", "NULL"]),
    ("d", "date", &["'infinity'", "'0044-03-15 BC'", "'10000-01-01'"]),
    ("ts", "timestamp", &["'infinity'", "'0044-03-15 12:00 BC'", "'99999-01-01'", "'2024-02-29 23:59:59.999999'"]),
    ("tz", "timestamptz", &["'-infinity'", "'0044-03-15 12:00+00 BC'", "'99999-01-01'", "'2024-01-01 00:00:00.1-11'"]),
    ("i", "interval", &["'0'", "'-1 year -2 days'", "'178000000 years'"]),
];

#[test]
fn every_value_is_equal_by_sums_and_by_rows() {
    let server = Postgres::start();
    let (plain, other): (Vec<_>, Vec<_>) =
        COLUMNS.iter().partition(|(_, kind, _)| !kind.starts_with("json") && !kind.ends_with("[]") && *kind != "codes");
    let mut sql = TYPES.to_owned();
    for (name, columns) in [("plain", &plain), ("other", &other)] {
        let kinds: Vec<_> = columns.iter().map(|(name, kind, _)| format!("\"{name}\" {kind}")).collect();
        let values: Vec<_> = columns.iter().map(|(_, _, value)| *value).collect();
        sql.push_str(&format!(
            "CREATE TABLE {name} (id int PRIMARY KEY, {}, doubled int GENERATED ALWAYS AS (id * 2) STORED); \
             INSERT INTO {name} VALUES (1, {});",
            kinds.join(", "),
            values.join(", ")
        ));
    }
    let kinds: Vec<_> = AWKWARD.iter().map(|(name, kind, _)| format!("{name} {kind}")).collect();
    sql.push_str(&format!("CREATE TABLE awkward (id serial PRIMARY KEY, {});", kinds.join(", ")));
    for (name, kind, values) in AWKWARD {
        for value in *values {
            sql.push_str(&format!("INSERT INTO awkward ({name}) VALUES ({value}::{kind});"));
        }
    }
    // Keys of types whose text in a key is another one.
    sql.push_str(
        "CREATE TABLE keys (a timestamptz, b timestamp, c numeric, d boolean, e bytea, f text, \
         PRIMARY KEY (a, b, c, d, e, f)); INSERT INTO keys VALUES ('2024-01-02 03:04:05+01', 'infinity', 1.10, true, \
         '\\x00', 'a/%\"'), ('-infinity', '2024-01-02', 'NaN', false, '', '');",
    );
    server.psql("postgres", &sql);
    wait(async {
        let (mut feed, mut auditor) = following(&server).await;
        for round in ["as they were read", "as the log told them"] {
            for (table, by_sums) in [("plain", true), ("awkward", true), ("keys", true), ("other", false)] {
                let name = format!("public.{table}");
                for scope in [AuditScope::Sums, AuditScope::Images] {
                    auditor.pieces.clear();
                    let is_by_sums = by_sums && scope == AuditScope::Sums;
                    let found = auditor.audit(&mut feed, &name, scope, FAST).await;
                    assert_eq!(found, Ok(Vec::new()), "{table} {round}");
                    let rows: usize = auditor.pieces.iter().map(|(rows, _)| rows).sum();
                    assert_eq!(rows, auditor.tables[&name].len(), "{table} {round}");
                    assert!(auditor.pieces.iter().all(|(_, by_sums)| *by_sums == is_by_sums), "{table} {round}");
                }
            }
            server.psql(
                "postgres",
                "UPDATE plain SET id = id + 1; UPDATE other SET id = id + 1; UPDATE awkward SET id = id + 1000; \
                 UPDATE keys SET f = f || 'x'",
            );
            auditor.settle(&mut feed).await;
        }
    });
}

#[test]
fn a_row_that_is_wrong_is_found_with_both_images_and_no_other_is() {
    let server = Postgres::start();
    server.psql(
        "postgres",
        "CREATE TABLE rows (at timestamptz, id int, note text, PRIMARY KEY (at, id)); \
         INSERT INTO rows SELECT '2024-01-01 00:00:00+00', i, 'note ' || i FROM generate_series(1, 3000) i",
    );
    wait(async {
        let (mut feed, mut auditor) = following(&server).await;
        let key = |id: u32| vec!["2024-01-01T00:00:00Z".to_owned(), id.to_string()];
        let image = |id: u32, note: &str| format!(r#"{{"at":"2024-01-01T00:00:00Z","id":{id},"note":"{note}"}}"#);
        let rows = auditor.tables.get_mut("public.rows").unwrap();
        let missing = rows.remove(&key(7));
        let differs = rows.insert(key(2001), image(2001, "other"));
        rows.insert(key(9999), image(9999, "nobody's"));
        let mut expected = vec![
            Difference { key: key(7), here: None, there: missing },
            Difference { key: key(2001), here: Some(image(2001, "other")), there: differs },
            Difference { key: key(9999), here: Some(image(9999, "nobody's")), there: None },
        ];
        for scope in [AuditScope::Sums, AuditScope::Images] {
            auditor.pieces.clear();
            let mut found = auditor.audit(&mut feed, "public.rows", scope, FAST).await.unwrap();
            found.sort_by(|a, b| a.key.cmp(&b.key));
            expected.sort_by(|a, b| a.key.cmp(&b.key));
            assert_eq!(found, expected);
            assert!(auditor.pieces.len() > 1, "{:?}", auditor.pieces);
        }
    });
}

#[test]
fn a_table_that_is_written_to_while_it_is_compared_has_no_difference() {
    let server = Postgres::start();
    rows_table(&server);
    wait(async {
        let (mut feed, mut auditor) = following(&server).await;
        let writers = Writers::start(&server, BUSY, 4, 400);
        // Slowly, so that much changes between chunks too.
        let pace = AuditPace { rows_per_second: 4_000, ..FAST };
        for scope in [AuditScope::Sums, AuditScope::Images, AuditScope::Sums] {
            assert_eq!(auditor.audit(&mut feed, "public.rows", scope, pace).await, Ok(Vec::new()));
        }
        let changes = auditor.changes;
        assert!(changes > 100, "it was written to: {changes}");
        assert!(auditor.pieces.iter().all(|(rows, _)| *rows <= 1_000), "{:?}", auditor.pieces);
        drop(writers);
        // A row is wrong, and the noise hides it from nobody.
        auditor.settle(&mut feed).await;
        let (key, image) =
            auditor.tables["public.rows"].first_key_value().map(|(k, i)| (k.clone(), i.clone())).unwrap();
        let wrong = image.replace("\"note\":\"", "\"note\":\"wrong ");
        auditor.tables.get_mut("public.rows").unwrap().insert(key.clone(), wrong.clone());
        let script = BUSY.replace("random(1, 6000)", "random(4000, 6000)");
        let writers = Writers::start(&server, &script, 4, 400);
        let found = auditor.audit(&mut feed, "public.rows", AuditScope::Sums, pace).await;
        assert_eq!(found, Ok(vec![Difference { key, here: Some(wrong), there: Some(image) }]));
        drop(writers);
    });
}

#[test]
fn a_table_that_is_emptied_while_it_is_compared_is_equal_and_what_is_not_followed_is_not_compared() {
    let server = Rc::new(Postgres::start());
    rows_table(&server);
    server.psql(
        "postgres",
        "CREATE TABLE empty (id int PRIMARY KEY); CREATE TABLE soon (id int PRIMARY KEY); CREATE TABLE log_keyless (n int)",
    );
    wait(async {
        let (mut feed, mut auditor) = following(&server).await;
        let pace = AuditPace { rows_per_second: 4_000, ..FAST };
        let (again, sql) = (server.clone(), "TRUNCATE rows; INSERT INTO rows VALUES (1, 'new', '')");
        auditor.then = Some(Box::new(move || drop(again.psql("postgres", sql))));
        assert_eq!(auditor.audit(&mut feed, "public.rows", AuditScope::Sums, pace).await, Ok(Vec::new()));
        assert_eq!(auditor.tables["public.rows"].len(), 1);
        assert_eq!(auditor.audit(&mut feed, "public.empty", AuditScope::Sums, FAST).await, Ok(Vec::new()));
        let code = |found: Result<Vec<Difference>, Reason>| found.unwrap_err().code;
        assert_eq!(code(auditor.audit(&mut feed, "public.none", AuditScope::Sums, FAST).await), "missing");
        assert_eq!(code(auditor.audit(&mut feed, "public.log_keyless", AuditScope::Sums, FAST).await), "no-key");
        server.psql("postgres", "ALTER TABLE soon ADD COLUMN x int DEFAULT 7");
        assert_eq!(auditor.audit(&mut feed, "public.soon", AuditScope::Sums, FAST).await, Ok(Vec::new()));
        server.psql("postgres", "DROP TABLE soon");
        assert_eq!(code(auditor.audit(&mut feed, "public.soon", AuditScope::Sums, FAST).await), "missing");
    });
}

#[test]
fn a_table_that_somebody_has_locked_is_given_up_after_a_while() {
    let server = Arc::new(Postgres::start());
    rows_table(&server);
    wait(async {
        let (mut feed, mut auditor) = following(&server).await;
        let again = server.clone();
        let holder = std::thread::spawn(move || {
            // Until it is cancelled.
            let wait = "BEGIN PERFORM pg_sleep(600); EXCEPTION WHEN query_canceled THEN END";
            again.psql("postgres", &format!("BEGIN; LOCK TABLE rows; DO $$ {wait} $$"))
        });
        let locked = "SELECT count(*) FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND granted \
                      AND relation = 'rows'::regclass";
        while server.psql("postgres", locked) != "1" {}
        let hasty = AuditPace { statement_ms_max: 20, ..FAST };
        let called_off = auditor.audit(&mut feed, "public.rows", AuditScope::Sums, hasty).await;
        assert_eq!(called_off.unwrap_err().code, "too-slow");
        server.psql("postgres", "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'PgSleep'");
        holder.join().unwrap();
        assert_eq!(auditor.audit(&mut feed, "public.rows", AuditScope::Sums, FAST).await, Ok(Vec::new()));
    });
}
