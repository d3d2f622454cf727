//! What can't be captured is refused by a name that says what to do.

use cdc_sources::{Feed as _, TableState};

use crate::Run;
use crate::log::Log;
use crate::server::{Described, Replay};

/// Why a log's table is not captured, after at most so many changes.
async fn refusal(name: &str, version: &str, tables: Vec<Described>, changes: usize) -> String {
    refusal_in(Log::read(name, 4), version, tables, changes).await
}

async fn refusal_in(log: Log, version: &str, tables: Vec<Described>, changes: usize) -> String {
    let replay = Replay::start(version, log, tables, None);
    let mut run = Run::open(&replay).await;
    let refusal = run.refusal().await;
    assert!(run.changes <= changes, "{}", run.told());
    refusal
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_of_json_without_what_they_change_are_refused() {
    let columns = "id int\njson_col json null\nname varchar(100) charset utf8mb4 null\nage int null";
    let table = vec![Described::new("myown.t", &["id"], columns)];
    let refusal = refusal("json.binlog.000001", "8.0.22", table, 12).await;
    assert!(refusal.contains("myown.t (json_col)") && refusal.contains("binlog_row_value_options = ''"), "{refusal}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_without_a_key_are_refused() {
    for (log, version, table) in [
        ("json-opaque.binlog", "9.0.1", Described::new("foo.test", &[], "a json null")),
        (
            "mysql_type_bit.000001",
            "8.0.26",
            Described::new("myown.foo", &[], "a bit(3) null\nb text charset utf8mb4 null\nc bit(8) null"),
        ),
    ] {
        let refusal = refusal(log, version, vec![table], 0).await;
        assert!(refusal.contains("has no primary key"), "{refusal}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_rows_that_are_not_whole_are_refused() {
    let columns = "id int\na blob null\nb char(2) charset utf8mb4 null\nc int null\nd int unsigned null";
    let table = Described::new("noria.t1", &["id"], columns);
    let refused = refusal("minimal_row_metadata.000001", "8.0.40", vec![table], 0).await;
    let whole = |name: &str, refused: &str| {
        let parts = [name, "binlog_row_image = 'FULL'", "have the table read anew"];
        assert!(parts.iter().all(|part| refused.contains(part)), "{refused}");
    };
    whole("noria.t1", &refused);
    // Four whole rows of the same transaction go before it.
    let table = Described::new("test.ba", &["a"], "a int\nb int null\nc int null");
    let refused = refusal("write-partial-row.binlog", "5.1.37-ndb-6.2.19-debug-log", vec![table], 4).await;
    whole("test.ba", &refused);
}

/// Logs with statements, of which some tables are dropped later, and the tables.
const STATEMENTS: [(&str, &str, &str, bool); 3] = [
    ("binlog_transaction_with_GTID.000001", "5.6.24-debug-log", "test.t1", true),
    ("binlog_transaction_with_anonymous_GTID.000001", "5.7.6-m16-debug-log", "test.t2", false),
    ("rpl_cross_version_default_utf8mb4_collation.000001", "5.7.22-debug-log", "test.foobar", true),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statements_instead_of_rows_are_refused() {
    for (name, version, table, dropped) in STATEMENTS {
        let mut log = Log::read(name, 4);
        if dropped {
            // A table that is no more is not stopped either.
            log.events.truncate(log.transaction_of("DROP TABLE"));
        }
        let refusal = refusal_in(log, version, vec![Described::new(table, &["id"], "id int")], 0).await;
        let parts = [table, "INSERT INTO", "binlog_format = 'ROW'", "have the table read anew"];
        assert!(parts.iter().all(|part| refusal.contains(part)), "{refusal}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_statement_stopped_is_forgotten_when_it_is_dropped_and_others_go_on() {
    for (name, version, table, _) in STATEMENTS.into_iter().filter(|(.., dropped)| *dropped) {
        let mut log = Log::read(name, 4);
        log.events.truncate(log.transaction_of("DROP TABLE") + 2);
        log.put_row(log.events.len(), "other", 7);
        let tables = vec![Described::new(table, &["id"], "id int"), Described::new("test.other", &["id"], "id int")];
        let replay = Replay::start(version, log, tables, None);
        let mut run = Run::open(&replay).await;
        run.until(1).await;
        assert_eq!(run.images(), [r#"{"id":7}"#]);
        let known = run.feed.progress().tables.into_iter().map(|table| (table.table, table.state));
        assert_eq!(known.collect::<Vec<_>>(), [("test.other".to_owned(), TableState::Following)], "{}", run.told());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn columns_that_the_log_does_not_name_and_the_table_has_no_longer_are_refused() {
    // The log's columns are an INT, a hidden BIGINT and a TEXT, and nothing explains the one in the middle.
    let table = Described::new("test.t", &["a"], "a int\nb text charset utf8mb4 null");
    let log = Log::read("rpl_unfiltered_hidden_gcol.000001", 203);
    let replay = Replay::start("8.0.17-debug", log, vec![table], None);
    let mut run = Run::open(&replay).await;
    let refusal = run.refusal().await;
    assert!(refusal.contains("test.t") && refusal.contains("binlog_row_metadata = FULL"), "{refusal}");
    assert_eq!(run.changes, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_compressed_transaction_that_lies_about_its_size_is_refused() {
    let mut log = Log::read("transaction_compression.000001", 4);
    let payload = log.events.iter_mut().find(|event| event[4] == 40).unwrap();
    // The size follows the method: `02 01 00`, `03 01 b3`.
    assert_eq!(payload[19..25], [2, 1, 0, 3, 1, 0xb3]);
    payload[24] = 0xb2;
    crate::log::seal(payload);
    let replay = Replay::start("8.0.32", log, Vec::new(), None);
    let mut run = Run::open(&replay).await;
    let refusal = run.refusal().await;
    assert!(refusal.contains("it holds more than it says"), "{refusal}");
}
