//! The sink that keeps a replica in PostgreSQL.

use std::sync::Arc;

use cdc_rest::{Column, ColumnType, Operation, Relation, TableSchema};
use cdc_sinks::{AnySink, Remedy, Settings, Sink};
use cdc_test_servers::{Postgres, Proxy};
use serde_json::{Value, json};

use crate::events::{Item, deliver, image, items_schema, puts};
use crate::receiver::{Faults, Receiver, place};
use crate::suite::contract;

/// A database whose table `items` notes every write.
struct PostgresReceiver {
    postgres: Postgres,
    proxy: Proxy,
}

const NOTED: &str = "
CREATE TABLE items (id text PRIMARY KEY, n numeric, note text);
CREATE TABLE writes (place bigserial, id text, n bigint);
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS
  $$BEGIN INSERT INTO writes (id, n) VALUES (NEW.id, NEW.n); RETURN NULL; END$$;
CREATE TRIGGER note AFTER INSERT OR UPDATE ON items FOR EACH ROW EXECUTE FUNCTION note();";

impl PostgresReceiver {
    /// A database with nothing in it.
    fn empty() -> Self {
        let postgres = Postgres::start();
        Self { proxy: Proxy::to(postgres.port()), postgres }
    }

    fn sql(&self, sql: &str) -> String {
        self.postgres.psql("postgres", sql)
    }

    fn sink_with(&self, options: Value) -> AnySink {
        let mut settings = self.settings(10_000).write();
        settings.as_object_mut().unwrap().extend(options.as_object().unwrap().clone());
        AnySink::open(&Settings::parse(&settings).unwrap(), Default::default(), place(1))
    }
}

impl Receiver for PostgresReceiver {
    const MAY_REPEAT: bool = false;
    const PASSES_OVER: bool = true;
    const COALESCES: bool = true;

    async fn start() -> Self {
        let receiver = Self::empty();
        receiver.sql(NOTED);
        receiver
    }

    fn faults(&self) -> &dyn Faults {
        &self.proxy
    }

    fn settings(&self, timeout_ms: u32) -> Settings {
        let url = format!("postgres://postgres:{}@127.0.0.1:{}/postgres", Postgres::PASSWORD, self.proxy.port());
        let settings = json!({"sink": "postgres", "url": url, "createTables": true, "timeoutMs": timeout_ms});
        Settings::parse(&settings).unwrap()
    }

    fn kill(&self) {
        self.postgres.kill();
    }

    async fn start_again(&self) {
        self.postgres.start_again();
    }

    async fn held(&self) -> Vec<(String, u64)> {
        let writes = self.sql("SELECT id, n FROM writes ORDER BY place");
        let row = |line: &str| line.split_once('|').map(|(id, n)| (id.to_owned(), n.parse().unwrap())).unwrap();
        writes.lines().map(row).collect()
    }
}

contract!(PostgresReceiver);

fn item(sequence: u64, schema: &Arc<TableSchema>, key: &str, after: Option<&str>) -> Item {
    let operation = if after.is_some() { Operation::Update } else { Operation::Delete };
    Item::new(sequence, operation, schema, key, None, after.map(str::to_owned))
}

/// A table of a PostgreSQL, with the types of its columns there.
fn native_schema(table: &str, version: u32, key: &[&str], columns: &[(&str, ColumnType, &str)]) -> Arc<TableSchema> {
    let column = |&(name, column_type, native): &(&str, ColumnType, &str)| Column {
        name: name.into(),
        column_type,
        nullable: !key.contains(&name),
        native_type: Some(native.into()),
    };
    let relation = Relation {
        source: "pg".into(),
        connector: "postgresql".into(),
        database: "shop".into(),
        namespace: "public".into(),
        name: table.into(),
    };
    Arc::new(TableSchema {
        name: table.into(),
        columns: columns.iter().map(column).collect(),
        primary_key: key.iter().map(|&name| name.to_owned()).collect(),
        version,
        relation: Some(relation),
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_are_made_rows_come_change_and_go_and_a_truncate_empties() {
    let receiver = PostgresReceiver::empty();
    let mut sink = receiver.sink(10_000, 1);
    let mut items = puts(1, 10, 5);
    items.push(Item::delete(11, "k1"));
    items.push(Item::put(12, "new"));
    items.push(Item::delete(13, "never there"));
    deliver(&mut sink, &items).await.unwrap();
    let rows = || receiver.sql("SELECT id, n, note FROM items ORDER BY n");
    assert_eq!(rows(), "k2|7|\nk3|8|\nk4|9|\nk0|10|\nnew|12|");
    assert_eq!(
        receiver.sql("SELECT subscription, lane, epoch, sequence FROM cdc_places WHERE lane = 3"),
        "contract|3|1|13"
    );
    let truncate = Item::new(14, Operation::Truncate, &items_schema("items"), "", None, None);
    deliver(&mut sink, &[Item::put(13, "x"), truncate, Item::put(15, "after")]).await.unwrap();
    assert_eq!(rows(), "after|15|");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_replica_is_equal_to_its_source_in_every_type() {
    let receiver = PostgresReceiver::empty();
    receiver.sql("CREATE DATABASE source");
    let types = "CREATE TYPE mood AS ENUM ('sad', 'so \"so\"'); CREATE TYPE pair AS (a int, b text);
        CREATE DOMAIN blob AS bytea; CREATE DOMAIN small AS int CHECK (VALUE < 10);";
    // The native type, the value in SQL, and the value as the source's images have it.
    let columns = [
        ("boolean", "true", "true"),
        ("smallint", "-7", "-7"),
        ("bigint", "9223372036854775807", "9223372036854775807"),
        ("numeric", "'12345678901234567890.12300'", "12345678901234567890.12300"),
        ("numeric(10,2)", "1.10", "1.10"),
        ("numeric", "'NaN'", "\"NaN\""),
        ("double precision", "0.1", "0.1"),
        ("double precision", "'-Infinity'", "\"-Infinity\""),
        ("real", "1.5e-7", "1.5e-07"),
        ("timestamp without time zone", "'2024-01-02 03:04:05.123456'", "\"2024-01-02T03:04:05.123456\""),
        ("timestamp with time zone", "'2024-01-02 03:04:05.1+00'", "\"2024-01-02T03:04:05.1Z\""),
        ("timestamp with time zone", "'0044-03-15 12:00:00+00 BC'", "\"0044-03-15 12:00:00+00 BC\""),
        ("timestamp without time zone", "'infinity'", "\"infinity\""),
        ("date", "'2024-01-02'", "\"2024-01-02\""),
        ("time with time zone", "'03:04:05+02'", "\"03:04:05+02\""),
        ("interval", "'1 day 2 hours'", "\"P1DT2H\""),
        ("bytea", "'\\xdeadbeef'", "\"3q2+7w==\""),
        ("blob", "'\\x00ff'", "\"AP8=\""),
        ("small", "5", "5"),
        ("jsonb", "'{\"b\": [1.10, null], \"a\": \"x\"}'", "{\"a\":\"x\",\"b\":[1.10,null]}"),
        ("jsonb", "'\"text\"'", "\"text\""),
        ("jsonb", "'null'", "{\"$json\":null}"),
        ("json", "'null'", "{\"$json\":null}"),
        ("jsonb", "'{\"$json\": null}'", "{\"$json\":{\"$json\":null}}"),
        ("jsonb", "'{\"a\": 2, \"$json\": 1}'", "{\"a\":2,\"$json\":1}"),
        ("jsonb", "NULL", "null"),
        ("integer[]", "'{1,NULL,3}'", "[1,null,3]"),
        ("text[]", "'{{a,\"b,c\"},{\"\\\"\",NULL}}'", "[[\"a\",\"b,c\"],[\"\\\"\",null]]"),
        ("bytea[]", "array['\\xdead', NULL]::bytea[]", "[\"3q0=\",null]"),
        ("jsonb[]", "array['{\"a\":1}', '[2]', NULL]::jsonb[]", "[{\"a\":1},[2],null]"),
        ("mood", "'so \"so\"'", "\"so \\\"so\\\"\""),
        ("mood[]", "'{sad}'", "[\"sad\"]"),
        ("pair", "'(1,\"x y\")'", "\"(1,\\\"x y\\\")\""),
        ("pair[]", "array['(1,x)']::pair[]", "[\"(1,x)\"]"),
        ("uuid", "'6f1c1f2e-0d1c-4a53-8c35-6a2f3e1a2b3c'", "\"6f1c1f2e-0d1c-4a53-8c35-6a2f3e1a2b3c\""),
        ("inet", "'10.0.0.1/8'", "\"10.0.0.1/8\""),
        ("int4range", "'[1,5)'", "\"[1,5)\""),
        ("tstzrange", "'[2024-01-01 00:00:00+00,)'", "\"[\\\"2024-01-01 00:00:00+00\\\",)\""),
        ("bit(3)", "B'101'", "\"101\""),
        ("money", "'$1.00'", "\"$1.00\""),
        ("character varying(20)", "'ä\\b\"'", "\"ä\\\\b\\\"\""),
        ("character(5)", "'ab'", "\"ab   \""),
        ("point", "'(1,2)'", "\"(1,2)\""),
        ("tsvector", "'fat cat'", "\"'cat' 'fat'\""),
        ("xml", "'<a>b</a>'", "\"<a>b</a>\""),
        ("text", "NULL", "null"),
        ("text", "''", "\"\""),
    ];
    let names: Vec<String> = (0..columns.len()).map(|number| format!("c{number}")).collect();
    let definitions: Vec<String> =
        names.iter().zip(&columns).map(|(name, (native, ..))| format!("{name} {native}")).collect();
    let values: Vec<&str> = columns.iter().map(|(_, value, _)| *value).collect();
    let source = |sql: &str| receiver.postgres.psql("source", &format!("SET timezone = 'UTC'; {sql}"));
    source(types);
    receiver.sql(types);
    source(&format!("CREATE TABLE types (id int PRIMARY KEY, {})", definitions.join(", ")));
    source(&format!("INSERT INTO types VALUES (1, {})", values.join(", ")));
    let mut schema_columns = vec![("id", ColumnType::Number, "integer")];
    schema_columns
        .extend(names.iter().zip(&columns).map(|(name, (native, ..))| (name.as_str(), ColumnType::Any, *native)));
    let schema = native_schema("types", 1, &["id"], &schema_columns);
    let members: Vec<String> =
        names.iter().zip(&columns).map(|(name, (.., json))| format!("\"{name}\":{json}")).collect();
    let image = format!("{{\"id\":1,{}}}", members.join(","));
    serde_json::from_str::<Value>(&image).unwrap();
    deliver(&mut receiver.sink(10_000, 1), &[item(1, &schema, "1", Some(&image))]).await.unwrap();
    for (name, (native, ..)) in names.iter().zip(&columns) {
        let of = |database: &str| {
            receiver
                .postgres
                .psql(database, &format!("SET timezone = 'UTC'; SELECT {name}::text, pg_typeof({name}) FROM types"))
        };
        assert_eq!(of("postgres"), of("source"), "{name} {native}");
    }
    let of = |database: &str| receiver.postgres.psql(database, "SET timezone = 'UTC'; SELECT t::text FROM types t");
    assert_eq!(of("postgres"), of("source"));
    let form = "SELECT string_agg(format_type(atttypid, atttypmod), ',' ORDER BY attnum) FROM pg_attribute WHERE attrelid = 'types'::regclass AND attnum > 0";
    assert_eq!(receiver.sql(form), receiver.postgres.psql("source", form));
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_of_tables_without_a_database_behind_them_follow_their_json_types() {
    let receiver = PostgresReceiver::empty();
    let column = |name: &str, column_type| Column { name: name.into(), column_type, nullable: true, native_type: None };
    let mut schema = (*items_schema("mixed")).clone();
    schema.columns.extend([
        column("flag", ColumnType::Boolean),
        column("list", ColumnType::Array),
        column("any", ColumnType::Any),
        column("select", ColumnType::Object),
    ]);
    let schema = Arc::new(schema);
    let row = r#"{"id":"a","n":1.50,"note":"x","flag":true,"list":[1],"any":"text","select":{"a":null}}"#;
    deliver(&mut receiver.sink(10_000, 1), &[item(1, &schema, "a", Some(row))]).await.unwrap();
    assert_eq!(receiver.sql("SELECT * FROM mixed"), r#"a|1.50|x|t|[1]|"text"|{"a": null}"#);
}

#[tokio::test(flavor = "multi_thread")]
async fn new_columns_and_changed_types_follow_the_schema_and_old_versions_do_not_undo_them() {
    let receiver = PostgresReceiver::empty();
    let first =
        native_schema("t", 1, &["id"], &[("id", ColumnType::Number, "integer"), ("v", ColumnType::Number, "integer")]);
    let second = native_schema(
        "t",
        2,
        &["id"],
        &[
            ("id", ColumnType::Number, "integer"),
            ("v", ColumnType::Number, "numeric(10,2)"),
            ("w", ColumnType::String, "text"),
        ],
    );
    let mut sink = receiver.sink(10_000, 1);
    deliver(&mut sink, &[item(1, &first, "1", Some(r#"{"id":1,"v":7}"#))]).await.unwrap();
    let batch = [
        item(2, &first, "2", Some(r#"{"id":2,"v":8}"#)),
        item(3, &second, "3", Some(r#"{"id":3,"v":1.25,"w":"x"}"#)),
        item(4, &second, "1", Some(r#"{"id":1,"v":7.10,"w":"y"}"#)),
    ];
    deliver(&mut sink, &batch).await.unwrap();
    let rows = || receiver.sql("SELECT * FROM t ORDER BY id");
    assert_eq!(rows(), "1|7.10|y\n2|8.00|\n3|1.25|x");
    // Everything again, by a sink that has seen nothing.
    let mut sink = receiver.sink(10_000, 2);
    deliver(&mut sink, &[item(1, &first, "1", Some(r#"{"id":1,"v":7}"#))]).await.unwrap();
    deliver(&mut sink, &batch).await.unwrap();
    assert_eq!(rows(), "1|7.10|y\n2|8.00|\n3|1.25|x");
}

#[tokio::test(flavor = "multi_thread")]
async fn values_that_are_unavailable_stay_as_they_are() {
    let receiver = PostgresReceiver::empty();
    let mut sink = receiver.sink(10_000, 1);
    let schema = items_schema("items");
    let partial = |sequence, key: &str| {
        item(sequence, &schema, key, Some(&format!(r#"{{"id":"{key}","n":{sequence}}}"#))).lacking(&["note"])
    };
    deliver(&mut sink, &[Item::noted(1, "a", "kept"), Item::noted(2, "b", "old")]).await.unwrap();
    let batch = [
        partial(3, "a"),
        Item::noted(4, "b", "new"),
        partial(5, "b"),
        Item::delete(6, "a"),
        partial(7, "a"),
        // Left out of an image although it is known: it is null.
        item(8, &schema, "c", Some(r#"{"id":"c","n":8}"#)),
    ];
    deliver(&mut sink, &batch).await.unwrap();
    assert_eq!(
        receiver.sql("SELECT id, n, coalesce(note, 'null') FROM items ORDER BY id"),
        "a|7|null\nb|5|new\nc|8|null"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_several_columns_and_of_any_characters_name_their_rows() {
    let receiver = PostgresReceiver::empty();
    let mut sink = receiver.sink(10_000, 1);
    let columns =
        [("a", ColumnType::String, "text"), ("b", ColumnType::Number, "bigint"), ("v", ColumnType::Number, "integer")];
    let schema = native_schema("we\"ird.ta\"ble", 1, &["a", "b"], &columns);
    let put = |sequence, a: &str, b: u64| {
        let key = format!("{}/{b}", a.replace('%', "%25").replace('/', "%2F"));
        item(sequence, &schema, &key, Some(&json!({"a": a, "b": b, "v": sequence}).to_string()))
    };
    let gone = |sequence, key: &str| item(sequence, &schema, key, None);
    let batch = [put(1, "x/y%", 1), put(2, "x/y%", 2), put(3, "%2F", 1), put(4, "'\"\\", 1)];
    deliver(&mut sink, &batch).await.unwrap();
    deliver(&mut sink, &[gone(5, "x%2Fy%25/1"), gone(6, "%252F/1")]).await.unwrap();
    assert_eq!(receiver.sql(r#"SELECT a, b FROM "we""ird"."ta""ble" ORDER BY v"#), "x/y%|2\n'\"\\|1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_is_refused_is_named_and_what_comes_before_it_is_kept() {
    let receiver = PostgresReceiver::start().await;
    receiver.sql("ALTER TABLE items ADD CHECK (n <> 5)");
    let items = puts(1, 10, 10);
    let mut sink = receiver.sink(10_000, 1);
    let failure = deliver(&mut sink, &items).await.unwrap_err();
    assert_eq!((failure.index, failure.remedy), (4, Remedy::Reject), "{failure}");
    assert!(failure.message.contains("items_n_check") && failure.message.contains("SQLSTATE 23514"), "{failure}");
    assert_eq!(receiver.sql("SELECT sequence FROM cdc_places WHERE lane = 3"), "4");
    deliver(&mut sink, &items[5..]).await.unwrap();
    let rest = [&items[..4], &items[5..]].concat();
    receiver.assert_holds(&rest).await;
    // The constraint goes, and the dead letter is tried again.
    receiver.sql("ALTER TABLE items DROP CONSTRAINT items_n_check");
    deliver(&mut sink, &[items[4].clone().late()]).await.unwrap();
    assert_eq!(receiver.sql("SELECT count(*) FROM items"), "10");
    assert_eq!(receiver.sql("SELECT sequence FROM cdc_places WHERE lane = 3"), "10");
    // A text that no PostgreSQL takes.
    let nul = item(11, &items_schema("items"), "z", Some(r#"{"id":"z","n":11,"note":"\u0000"}"#));
    let failure = deliver(&mut sink, &[nul]).await.unwrap_err();
    assert_eq!((failure.index, failure.remedy), (0, Remedy::Reject), "{failure}");
}

#[tokio::test(flavor = "multi_thread")]
async fn references_between_tables_hold_in_whatever_order_a_batch_needs() {
    let receiver = PostgresReceiver::empty();
    receiver.sql(
        "CREATE TABLE parents (id text PRIMARY KEY, n numeric UNIQUE, note text);
         CREATE TABLE children (id text PRIMARY KEY, n numeric, note text REFERENCES parents);",
    );
    let (parents, children) = (items_schema("parents"), items_schema("children"));
    let parent = |sequence, key: &str, n| item(sequence, &parents, key, Some(&image(key, n, "")));
    let child = |sequence, key: &str, of: &str| item(sequence, &children, key, Some(&image(key, sequence, of)));
    let gone = |sequence, schema: &Arc<TableSchema>, key: &str| item(sequence, schema, key, None);
    let mut sink = receiver.sink(10_000, 1);
    // The children's table is named first, and a unique value wanders from row to row.
    let batch = [
        gone(1, &children, "nobody"),
        parent(2, "a", 1),
        child(3, "x", "a"),
        parent(4, "a", 2),
        parent(5, "b", 1),
        parent(6, "a", 3),
        child(7, "x", "b"),
        gone(8, &parents, "a"),
        parent(9, "c", 3),
    ];
    deliver(&mut sink, &batch).await.unwrap();
    assert_eq!(receiver.sql("SELECT id, n FROM parents ORDER BY id"), "b|1\nc|3");
    assert_eq!(receiver.sql("SELECT id, note FROM children"), "x|b");
    let orphan = child(10, "y", "nowhere");
    let failure = deliver(&mut sink, &[orphan]).await.unwrap_err();
    assert_eq!(failure.remedy, Remedy::Reject, "{failure}");
    assert!(failure.message.contains("children_note_fkey"), "{failure}");
    // A table that others refer to.
    let truncates = [
        Item::new(11, Operation::Truncate, &children, "", None, None),
        Item::new(12, Operation::Truncate, &parents, "", None, None),
    ];
    deliver(&mut sink, &truncates).await.unwrap();
    assert_eq!(receiver.sql("SELECT count(*) FROM parents"), "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_database_lacks_is_told_with_the_sql_and_no_event_is_given_up() {
    let receiver = PostgresReceiver::empty();
    let mut sink = receiver.sink_with(json!({"createTables": false}));
    let items = puts(1, 3, 3);
    let mut told = Vec::new();
    // Each time somebody does as they are told.
    for _ in 0..5 {
        match deliver(&mut sink, &items).await {
            Ok(()) => break,
            Err(failure) => {
                assert_eq!((failure.index, failure.remedy), (0, Remedy::Retry { after: None }), "{failure}");
                let sql = failure.message.split_once("run: ").unwrap().1.to_owned();
                if told.is_empty() {
                    assert_eq!(
                        sink.check().await.join(""),
                        format!(
                            "PostgreSQL at 127.0.0.1:{}: the table \"cdc_places\" is not there: {sql}",
                            receiver.proxy.port()
                        )
                    );
                }
                receiver.sql(&sql);
                if sql.contains("\"items\"") && told.len() == 1 {
                    receiver.sql("ALTER TABLE items DROP COLUMN note");
                    receiver.sql("ALTER TABLE items DROP CONSTRAINT items_pkey");
                }
                told.push(sql);
            }
        }
    }
    assert_eq!(receiver.sql("SELECT count(*) FROM items"), "3");
    assert_eq!(told.len(), 4, "{told:?}");
    assert!(told[2].contains("ADD COLUMN") && told[3].contains("ADD PRIMARY KEY"), "{told:?}");
    assert_eq!(sink.check().await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn rights_that_are_missing_are_told() {
    let receiver = PostgresReceiver::start().await;
    receiver.sql("CREATE ROLE writer LOGIN PASSWORD 'hunter2'");
    let url = format!("postgres://writer@127.0.0.1:{}/postgres", receiver.proxy.port());
    let mut sink = receiver.sink_with(json!({"url": url, "password": "hunter2"}));
    let problems = sink.check().await.join("\n");
    assert!(problems.contains("GRANT CREATE ON SCHEMA public TO \"writer\""), "{problems}");
    let failure = deliver(&mut sink, &puts(1, 1, 1)).await.unwrap_err();
    assert_eq!(failure.remedy, Remedy::Retry { after: None }, "{failure}");
    assert!(failure.message.contains("GRANT"), "{failure}");
    receiver.sql(
        "GRANT CREATE ON SCHEMA public TO writer; GRANT SELECT, INSERT, UPDATE, DELETE ON items TO writer;
        GRANT INSERT ON writes TO writer; GRANT USAGE ON SEQUENCE writes_place_seq TO writer",
    );
    deliver(&mut sink, &puts(1, 1, 1)).await.unwrap();
    assert_eq!(sink.check().await, Vec::<String>::new());
    let mut wrong = receiver.sink_with(json!({"url": url, "password": "hunter3"}));
    let failure = deliver(&mut wrong, &puts(2, 1, 1)).await.unwrap_err();
    assert!(failure.message.contains("`password`") && !format!("{failure:?}").contains("hunter"), "{failure:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_only_reads_is_a_failure_that_passes() {
    let receiver = PostgresReceiver::start().await;
    let mut sink = receiver.sink(10_000, 1);
    deliver(&mut sink, &puts(1, 2, 2)).await.unwrap();
    receiver.sql("ALTER SYSTEM SET default_transaction_read_only = on");
    receiver.sql("SELECT pg_reload_conf()");
    let read_only = || receiver.sql("SHOW default_transaction_read_only") == "on";
    while !read_only() {}
    let failure = deliver(&mut receiver.sink(10_000, 1), &puts(3, 2, 2)).await.unwrap_err();
    assert_eq!(failure.remedy, Remedy::Retry { after: None }, "{failure}");
    assert!(sink.check().await.join("").contains("read-only"));
    receiver
        .postgres
        .psql("postgres", "SET default_transaction_read_only = off; ALTER SYSTEM RESET default_transaction_read_only");
    receiver.postgres.psql("postgres", "SELECT pg_reload_conf()");
    while read_only() {}
    deliver(&mut receiver.sink(10_000, 1), &puts(3, 2, 2)).await.unwrap();
    receiver.assert_holds(&puts(1, 4, 2)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_encrypted_and_the_server_is_verified() {
    let postgres = Postgres::with_tls(&[]);
    let settings = json!({"sink": "postgres", "url": postgres.url("postgres"), "createTables": true});
    let mut sink = AnySink::open(&Settings::parse(&settings).unwrap(), Default::default(), place(1));
    deliver(&mut sink, &puts(1, 3, 3)).await.unwrap();
    assert_eq!(postgres.psql("postgres", "SELECT count(*) FROM items"), "3");
    // Of another authority.
    let url = postgres.url("postgres").split_once('?').unwrap().0.to_owned() + "?sslmode=require";
    let settings = json!({"sink": "postgres", "url": url});
    let failure =
        deliver(&mut AnySink::open(&Settings::parse(&settings).unwrap(), Default::default(), place(1)), &puts(1, 1, 1))
            .await
            .unwrap_err();
    assert!(failure.message.contains("TLS"), "{failure}");
}
