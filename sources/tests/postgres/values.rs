//! Every type, as it is read and as the log tells it, against a golden file; and what the rules hide.

use std::fmt::Write;

use cdc_sources::{Feed as _, Kind, Rules, Step};
use cdc_test_servers::Postgres;

use crate::model::{Model, open, options, until, until_now, wait};

/// What the columns need.
pub(crate) const TYPES: &str = "CREATE TYPE mood AS ENUM ('fine', 'so so'); \
    CREATE DOMAIN positive AS int CHECK (VALUE > 0); CREATE DOMAIN codes AS int[]; CREATE TYPE pair AS (a int, b text);";

/// Columns by name, type, and two values of a row.
pub(crate) const COLUMNS: &[(&str, &str, &str)] = &[
    ("bool", "boolean", "true"),
    ("int2", "smallint", "-32768"),
    ("int4", "integer", "2147483647"),
    ("int8", "bigint", "9223372036854775807"),
    ("oid", "oid", "4294967295"),
    ("float4", "real", "0.1"),
    ("float8", "double precision", "1e-300"),
    ("float8_nan", "double precision", "'NaN'"),
    ("float8_inf", "double precision", "'-Infinity'"),
    ("numeric", "numeric(20,2)", "1.10"),
    ("numeric_any", "numeric", "'12345678901234567890.12345678901234567890'"),
    ("numeric_nan", "numeric", "'NaN'"),
    ("numeric_inf", "numeric", "'Infinity'"),
    ("money", "money", "1234.5"),
    ("text", "text", "E'a\"b\\\\c\\t\\n\\u00e9'"),
    ("varchar", "varchar(10)", "'v'"),
    ("char", "char(4)", "'c'"),
    ("name", "name", "'n'"),
    ("char1", "\"char\"", "'x'"),
    ("uuid", "uuid", "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'"),
    ("bytea", "bytea", "'\\xdeadbeef'"),
    ("date", "date", "'2024-01-02'"),
    ("date_inf", "date", "'infinity'"),
    ("date_bc", "date", "'0044-03-15 BC'"),
    ("time", "time", "'03:04:05.5'"),
    ("timetz", "timetz", "'03:04:05+02'"),
    ("timestamp", "timestamp", "'2024-01-02 03:04:05.123456'"),
    ("timestamp_0", "timestamp(0)", "'2024-01-02 03:04:05'"),
    ("timestamptz", "timestamptz", "'2024-01-02 03:04:05.123456+02'"),
    ("timestamptz_inf", "timestamptz", "'-infinity'"),
    ("timestamptz_bc", "timestamptz", "'0044-03-15 12:00:00+00 BC'"),
    ("interval", "interval", "'1 year 2 days 03:04:05.6'"),
    ("json", "json", "'{ \"b\" : 1.10, \"a\": [ 1, 2 ], \"b\": null }'"),
    ("jsonb", "jsonb", "'{\"b\": 1.10, \"a\": {\"x\": \"y z\"}}'"),
    ("inet", "inet", "'10.0.0.1/8'"),
    ("cidr", "cidr", "'10.0.0.0/8'"),
    ("macaddr", "macaddr", "'08:00:2b:01:02:03'"),
    ("macaddr8", "macaddr8", "'08:00:2b:01:02:03:04:05'"),
    ("bit", "bit(3)", "B'101'"),
    ("varbit", "bit varying", "B'10'"),
    ("point", "point", "'(1,2)'"),
    ("box", "box", "'(2,2),(0,0)'"),
    ("polygon", "polygon", "'((0,0),(1,1))'"),
    ("int4range", "int4range", "'[1,5)'"),
    ("multirange", "int4multirange", "'{[1,3),[5,7)}'"),
    ("tstzrange", "tstzrange", "'[2024-01-01 00:00:00+00,)'"),
    ("xml", "xml", "'<a>b</a>'"),
    ("tsvector", "tsvector", "'a:1 b:2'"),
    ("pg_lsn", "pg_lsn", "'16/B374D848'"),
    ("ints", "int[]", "'{1,NULL,3}'"),
    ("ints_empty", "int[]", "'{}'"),
    ("ints_2d", "int[]", "'{{1,2},{3,4}}'"),
    ("ints_bounds", "int[]", "'[0:1]={1,2}'"),
    ("texts", "text[]", "ARRAY['a', 'b,\"c', NULL, 'NULL', '']"),
    ("bools", "boolean[]", "'{t,f}'"),
    ("numerics", "numeric[]", "'{1.10,NaN}'"),
    ("jsons", "jsonb[]", "ARRAY['{\"a\": 1}'::jsonb]"),
    ("timestamps", "timestamptz[]", "'{2024-01-02 03:04:05+00}'"),
    ("boxes", "box[]", "'{(1,1),(0,0);(2,2),(0,0)}'"),
    ("mood", "mood", "'fine'"),
    ("moods", "mood[]", "'{fine,\"so so\"}'"),
    ("domain", "positive", "5"),
    ("domain_array", "codes", "'{1,2}'"),
    ("composite", "pair", "'(1,\"a b\")'"),
    ("null", "text", "NULL"),
];

#[test]
fn every_type_is_written_alike_from_the_table_and_from_the_log() {
    let server = Postgres::start();
    let (columns, values): (Vec<String>, Vec<&str>) =
        COLUMNS.iter().map(|(name, kind, value)| (format!("\"{name}\" {kind}"), *value)).unzip();
    let (columns, values) = (columns.join(", "), values.join(", "));
    server.psql(
        "postgres",
        &format!(
            "{TYPES} CREATE TABLE samples (id int PRIMARY KEY, {columns}, doubled int GENERATED ALWAYS AS (id * 2) STORED); \
             INSERT INTO samples VALUES (1, {values})"
        ),
    );
    wait(async {
        let mut model = Model::default();
        let mut feed = open(&options(&server, "postgres"), &model).await.unwrap();
        let mut images = Vec::new();
        let mut table = None;
        while images.len() < 2 {
            let portion = feed.next().await.unwrap();
            for step in &portion.steps {
                match step {
                    Step::Change(change) => {
                        table = Some(change.table.clone());
                        images.push(change.image.clone().unwrap());
                    }
                    Step::ReadDone(_) => {
                        server.psql("postgres", &format!("INSERT INTO samples VALUES (2, {values})"));
                    }
                    _ => {}
                }
            }
            model.apply(&portion);
        }
        let table = table.unwrap();
        assert_eq!(images[0].replacen("1", "2", 1), images[1]);
        let row: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&images[0]).unwrap();
        assert_eq!(row.len(), COLUMNS.len() + 1, "generated columns are left out, and no other");

        let mut golden = String::from("column | type | kind | nullable | value\n");
        let members = members(&images[0]);
        for (column, (name, value)) in table.columns.iter().zip(&members) {
            assert_eq!(&format!("\"{}\"", column.name), name);
            check_kind(column.kind, value);
            let _ = writeln!(
                golden,
                "{} | {} | {:?} | {} | {value}",
                column.name, column.native_type, column.kind, column.nullable
            );
        }
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/sources/postgres-types.txt");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, &golden).unwrap();
        }
        assert_eq!(golden, std::fs::read_to_string(&path).unwrap(), "UPDATE_GOLDEN=1 writes {}", path.display());
    });
}

fn check_kind(kind: Kind, value: &str) {
    let good = match kind {
        Kind::Boolean => matches!(value, "true" | "false"),
        Kind::Number => {
            value.starts_with(['-', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9'])
                || matches!(value, "\"NaN\"" | "\"Infinity\"" | "\"-Infinity\"")
        }
        Kind::Array => value.starts_with('['),
        Kind::String => value.starts_with('"') || value == "null",
        Kind::Object | Kind::Any => true,
    };
    assert!(good, "{value} is no {kind:?}");
}

/// Names and values of an object's members, as they are written.
fn members(image: &str) -> Vec<(String, String)> {
    let raw: std::collections::BTreeMap<String, Box<serde_json::value::RawValue>> =
        serde_json::from_str(image).unwrap();
    let mut members: Vec<(usize, String, String)> = Vec::new();
    for (name, value) in raw {
        let lead = format!("\"{name}\":{}", value.get());
        let at = image.find(&format!(",{lead}")).or_else(|| image.find(&format!("{{{lead}"))).unwrap();
        members.push((at, format!("\"{name}\""), value.get().to_owned()));
    }
    members.sort();
    members.into_iter().map(|(_, name, value)| (name, value)).collect()
}

#[test]
fn what_the_rules_hide_never_leaves_the_feed() {
    let server = Postgres::start();
    server.psql(
        "postgres",
        "CREATE TABLE users (id int PRIMARY KEY, mail text, phone text, password text); \
         CREATE TABLE secrets (id int PRIMARY KEY, secret text); \
         INSERT INTO users VALUES (1, 'a@geheim', '0geheim', 'geheim'); INSERT INTO secrets VALUES (1, 'geheim')",
    );
    wait(async {
        let mut model = Model::default();
        let mut options = options(&server, "postgres");
        options.rules = Rules {
            exclude: vec!["*.secrets".into()],
            exclude_columns: vec!["public.users.password".into()],
            hash_columns: vec!["*.mail".into()],
            redact_columns: vec!["*.phone".into()],
            salt: "salt".into(),
            ..Rules::default()
        };
        let hash = options.rules.hash("a@geheim");
        let mut feed = open(&options, &model).await.unwrap();
        let mut told = String::new();
        let row = |id: u32| serde_json::json!({"id": id, "mail": hash, "phone": "[redacted]"});
        while model.rows("public.users").len() < 2 {
            let portion = feed.next().await.unwrap();
            let _ = write!(told, "{portion:?}");
            if portion.steps.iter().any(|step| matches!(step, Step::ReadDone(_))) {
                server.psql(
                    "postgres",
                    "ALTER TABLE users REPLICA IDENTITY FULL; \
                     INSERT INTO users VALUES (2, 'a@geheim', '1geheim', 'geheim'); \
                     UPDATE users SET password = 'geheim'; INSERT INTO secrets VALUES (2, 'geheim')",
                );
            }
            model.apply(&portion);
        }
        assert_eq!(model.rows("public.users"), [row(1), row(2)]);
        until_now(&mut feed, &mut model, &server, "postgres").await;
        assert!(!told.contains("geheim"), "{told}");
        assert!(!model.tables.contains_key("public.secrets"));
    });
}

#[test]
fn a_column_list_and_a_row_filter_hold_for_what_is_read_too() {
    let server = Postgres::start();
    server.psql(
        "postgres",
        "CREATE TABLE users (id int PRIMARY KEY, mail text, secret text); \
         INSERT INTO users SELECT i, 'read', 'x' FROM generate_series(1, 10) i; \
         CREATE PUBLICATION mine FOR TABLE users (id, mail) WHERE (id % 2 = 0)",
    );
    wait(async {
        let mut model = Model::default();
        let mut options = options(&server, "postgres");
        options.publication = "mine".into();
        options.create_publication = false;
        let mut feed = open(&options, &model).await.unwrap();
        until(&mut feed, &mut model, |model| model.tables.get("public.users").is_some_and(|t| t.read_done)).await;
        server.psql("postgres", "INSERT INTO users SELECT i, 'log', 'x' FROM generate_series(11, 20) i");
        until(&mut feed, &mut model, |model| model.rows("public.users").len() >= 10).await;
        for row in model.rows("public.users") {
            assert_eq!(row.as_object().unwrap().len(), 2);
            assert_eq!(row["id"].as_u64().unwrap() % 2, 0);
        }
    });
}

#[test]
fn json_null_is_not_sql_null() {
    let server = Postgres::start();
    let rows = |first: u32| {
        format!(
            "INSERT INTO documents SELECT {first} + row_number() OVER (), a, b FROM (VALUES (NULL::jsonb, NULL::json), \
             ('null', ' null '), ('{{\"$json\": null}}', '{{\"\\u0024json\": 1}}'), \
             ('{{\"$json\": 1, \"a\": 2}}', '\"null\"')) AS v(a, b)"
        )
    };
    server.psql("postgres", "CREATE TABLE documents (id int PRIMARY KEY, a jsonb, b json)");
    server.psql("postgres", &rows(0));
    wait(async {
        let mut model = Model::default();
        let mut feed = open(&options(&server, "postgres"), &model).await.unwrap();
        until(&mut feed, &mut model, |model| model.tables.get("public.documents").is_some_and(|t| t.read_done)).await;
        server.psql("postgres", &rows(4));
        until_now(&mut feed, &mut model, &server, "postgres").await;
        let images: Vec<&str> =
            model.log.iter().filter_map(|line| line.split_once(",\"a\":").map(|(_, rest)| rest)).collect();
        let expected = [
            r#"null,"b":null}"#,
            r#"{"$json":null},"b":{"$json":null}}"#,
            r#"{"$json":{"$json":null}},"b":{"$json":{"\u0024json":1}}}"#,
            // jsonb orders members by length.
            r#"{"a":2,"$json":1},"b":"null"}"#,
        ];
        assert_eq!(images, expected);
        let read = model.rows("public.documents");
        for place in 0..4 {
            assert_eq!((&read[place]["a"], &read[place]["b"]), (&read[place + 4]["a"], &read[place + 4]["b"]));
        }
    });
}
