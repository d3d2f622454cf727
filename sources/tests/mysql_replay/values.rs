//! Values, each log by itself. What is expected was decoded by hand from the logs' bytes, or told by the statements in
//! them, or by another program that reads logs (`mariadb-binlog -vv`, where it knows the events).

use cdc_sources::{Feed as _, Step};
use sha2::{Digest, Sha256};

use crate::log::{self, Log};
use crate::server::{Described, Replay};
use crate::{Run, golden, maps};

async fn run(name: &str, version: &str, tables: Vec<Described>, changes: usize) -> Run {
    run_from(name, 4, version, tables, changes).await
}

async fn run_from(name: &str, from: usize, version: &str, tables: Vec<Described>, changes: usize) -> Run {
    let replay = Replay::start(version, Log::read(name, from), tables, None);
    let mut run = Run::open(&replay).await;
    run.until(changes).await;
    run
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn vectors_of_9_0_are_arrays_of_numbers() {
    let tables = vec![
        Described::new("dtb.foo", &["id"], "id bigint unsigned\nvector_column vector(3)"),
        Described::new(
            "dtb.bar",
            &["id"],
            "id bigint unsigned\nvector_column vector(2)\nfoo text charset utf8mb4 null\nvector_column2 vector(4)",
        ),
    ];
    // Four rows, two tables that are dropped with their database, four rows again, one removed and one added.
    let run = run("vector.binlog", "9.0.1", tables, 12).await;
    let images = run.images();
    let expected = [
        r#"{"id":1,"vector_column":[1.1,2.2,3.3]}"#,
        r#"{"id":2,"vector_column":[1,-1,0]}"#,
        r#"{"id":1,"vector_column":[1.1,2.2],"foo":null,"vector_column2":[1.1,2.2,3.3,4.4]}"#,
        r#"{"id":2,"vector_column":[1.01,-1.01],"foo":"bar","vector_column2":[42,43,44,45]}"#,
    ];
    assert_eq!(images[..4], expected);
    assert_eq!(images[4..8], expected);
    assert_eq!(images[8], r#"{"id":3,"vector_column":[2.01,-2.01],"foo":null,"vector_column2":[42.1,43.2,44.3,45.4]}"#);
    golden("vector", &run.told());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn vectors_are_read_from_the_table_as_they_are_told_by_the_log() {
    let log = Log::read("binlog_transaction_with_GTID_TAG.000001", 4);
    let columns = "id bigint unsigned\nvector_column vector(3)";
    let mut table = Described::new("dtb.foo", &["id"], columns);
    table.rows = vec![vec![Some(b"1".to_vec()), Some(b"\xcd\xcc\x8c?\xcd\xcc\x0c@33S@".to_vec())]];
    let replay = Replay::start("9.6.0", log, vec![table], Some(""));
    let options = cdc_sources::mysql::Options { snapshot: true, ..crate::options(&replay) };
    let options = cdc_sources::mysql::Options {
        rules: cdc_sources::Rules { include: vec!["dtb.*".into()], ..Default::default() },
        ..options
    };
    let feed = cdc_sources::mysql::Feed::open(options, None).await.unwrap();
    let mut run = Run { feed, steps: Vec::new(), changes: 0, checkpoint: None };
    run.until(1).await;
    assert_eq!(run.images(), [r#"{"id":1,"vector_column":[1.1,2.2,3.3]}"#]);
}

/// The table of the logs of JSON.
fn json_table() -> Vec<Described> {
    let columns = "id int\njson_col json null\nname varchar(100) charset utf8mb4 null\nage int null";
    vec![Described::new("myown.t", &["id"], columns)]
}

fn person(id: u32, name: &str, data: &str, age: u32) -> String {
    format!(r#"{{"id":{id},"json_col":{{"age":{age},"data":"{data}","name":"{name}"}},"name":"{name}","age":{age}}}"#)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn json_of_8_0_is_itself() {
    // Six rows put in, and each of them a year older; then come changes without what they change.
    let mut log = Log::read("json.binlog.000001", 4);
    let partial = log.events.iter().position(|event| event[4] == 39).unwrap();
    // The identifier, the beginning and the table map of its transaction stand before it.
    log.events.truncate(partial - 3);
    let replay = Replay::start("8.0.22", log, json_table(), None);
    let mut run = Run::open(&replay).await;
    run.until(12).await;
    let people = [("Joe", "xxxxxxxxxx", 24), ("Sue", "yyyyyyyyyy", 32), ("Pete", "zzzzzzzzzz", 40)];
    let row = |id: u32, older: u32| {
        let (name, data, age) = people[(id as usize - 1) % 3];
        person(id, name, data, age + older)
    };
    let expected: Vec<String> = (1..=6).map(|id| row(id, 0)).chain((1..=6).map(|id| row(id, 1))).collect();
    assert_eq!(run.images(), expected);
    golden("json", &run.told());
}

/// The last change of `json.binlog.000001`, made whole as `binlog_row_image=FULL` makes it: the rows before are those
/// of the change before it, and the differences are the server's.
fn whole_partial_update() -> Log {
    let mut log = Log::read("json.binlog.000001", 4);
    let of = |kind: u8| log.events.iter().position(|event| event[4] == kind).unwrap();
    let (update, partial) = (of(31), of(39));
    let body = |at: usize| &log.events[at][19..log.events[at].len() - 4];
    // Behind the head of the event: table, flags, extra data, columns, two bitmaps.
    let rows = |at: usize| &body(at)[13..];
    let mut before = rows(update);
    let mut differences = rows(partial);
    let mut out = body(update)[..13].to_vec();
    fn split(rest: &mut &[u8], count: usize) -> Vec<u8> {
        let (taken, after) = rest.split_at(count);
        *rest = after;
        taken.to_vec()
    }
    // Nulls, the key, a document after its length, a text after its own, a number.
    fn image(rest: &mut &[u8]) -> Vec<u8> {
        let json = u32::from_le_bytes(rest[5..9].try_into().unwrap()) as usize;
        let name = usize::from(u16::from_le_bytes([rest[9 + json], rest[10 + json]]));
        split(rest, 9 + json + 2 + name + 4)
    }
    for _ in 0..6 {
        image(&mut before);
        let now = image(&mut before);
        // The row before held its key alone; the row after everything else.
        let key = split(&mut differences, 5);
        assert_eq!(key[1..5], now[1..5]);
        let options = split(&mut differences, 3);
        assert_eq!(options, [1, 1, 0]);
        let length = u32::from_le_bytes(differences[..4].try_into().unwrap()) as usize;
        let json = split(&mut differences, 4 + length);
        let name = usize::from(u16::from_le_bytes([differences[0], differences[1]]));
        let rest = split(&mut differences, 2 + name + 4);
        out.extend(now);
        out.extend([&options[..], &key[1..], &json, &rest].concat());
    }
    assert!(before.is_empty() && differences.is_empty());
    let end = u32::from_le_bytes(log.events[partial][13..17].try_into().unwrap());
    let table_and_flags = body(partial)[..8].to_vec();
    out[..8].copy_from_slice(&table_and_flags);
    log.events[partial] = log::event(39, 0, end, &out, true);
    log
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_changed_in_json_is_put_into_what_it_was() {
    let replay = Replay::start("8.0.22", whole_partial_update(), json_table(), None);
    let mut run = Run::open(&replay).await;
    run.until(18).await;
    let older = [
        person(1, "Joe", "xxxxxxxxxx", 26),
        person(2, "Sue", "yyyyyyyyyy", 34),
        person(3, "Pete", "zzzzzzzzzz", 42),
        person(4, "Joe", "xxxxxxxxxx", 26),
        person(5, "Sue", "yyyyyyyyyy", 34),
        person(6, "Pete", "zzzzzzzzzz", 42),
    ];
    assert_eq!(run.images()[12..], older);
    let mut befores = run.steps.iter().rev().filter_map(|step| match step {
        Step::Change(change) => change.before.as_deref(),
        _ => None,
    });
    assert_eq!(befores.next(), Some(person(6, "Pete", "zzzzzzzzzz", 41).as_str()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_of_sql_inside_json_are_written_as_the_server_does() {
    // The table has no key; one is lent to it, so that its values are seen.
    let tables = vec![Described::new("foo.test", &["a"], "a json")];
    let run = run("json-opaque.binlog", "9.0.1", tables, 8).await;
    golden("json-opaque", &run.told());
    let images = run.images();
    let expected = [
        r#"{"a":{"a":"base64:type15:VQ=="}}"#,
        r#"{"a":{"b":"2012-03-18"}}"#,
        r#"{"a":{"c":"2012-03-18 11:30:45.000000"}}"#,
        r#"{"a":{"c":"87:31:46.654321"}}"#,
        r#"{"a":{"d":123.456}}"#,
        r#"{"a":{"e":9.0}}"#,
        r#"{"a":{"e":[0,1,true,false]}}"#,
        r#"{"a":{"e":null}}"#,
    ];
    assert_eq!(images, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn invisible_columns_of_8_0_are_columns() {
    let columns = "f1 int unsigned null\nf2 int unsigned null\nf3 int\nf4 text charset utf8mb4 null\nf5 blob null\n\
        f6 bigint unsigned null";
    let tables = vec![Described::new("myown.t1", &["f3"], columns)];
    // Two rows put in; the key of one changes, which is two changes.
    let run = run("binlog-invisible-columns.000001", "8.0.26", tables, 4).await;
    let expected = [
        r#"{"f1":1,"f2":2,"f3":-3,"f4":"4","f5":"BQ==","f6":6000000000}"#,
        r#"{"f1":null,"f2":null,"f3":-33,"f4":"44","f5":"VQ==","f6":null}"#,
        r#"{"f1":111,"f2":222,"f3":-333,"f4":"444","f5":"VQ==","f6":null}"#,
    ];
    golden("invisible-columns", &run.told());
    assert_eq!(run.images(), expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn enumerations_and_sets_of_8_0_are_named_by_the_log_itself() {
    let columns = "f1 char(128) charset utf8mb4\nf2 varchar(300) charset utf8mb4 null\n\
        f3 enum('var1','variant2','foo') charset utf8mb4 null\nf4 set('one','two','three','four') charset utf8mb4 null\n\
        f5 text charset utf8mb4 null";
    let run = run("mysql-enum-string-set.000001", "8.0.28", vec![Described::new("myown.t", &["f1"], columns)], 4).await;
    let images = run.images();
    assert!(images[0].contains(r#""f3":"var1","f4":["one","three"],"f5":"0123456789""#), "{}", images[0]);
    assert!(images[1].starts_with(r#"{"f1":"field1","f2":"field_2","f3":"variant2","f4":["two","four"],"f5":"01234"#));
    golden("enum-string-set", &run.told());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bits_of_8_0_are_numbers() {
    let columns = "a bit(3)\nb text charset utf8mb4 null\nc bit(8) null";
    let run = run("mysql_type_bit.000001", "8.0.26", vec![Described::new("myown.foo", &["a"], columns)], 1).await;
    assert_eq!(run.images(), [r#"{"a":4,"b":"foo","c":32}"#]);
    golden("type-bit", &run.told());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_column_behind_an_indexed_expression_is_left_out() {
    // `CREATE TABLE t (a INT, INDEX i((a+1)))`, and `b` added behind the column that nobody sees.
    let mut table = Described::new("test.t", &["a"], "a int\nb text charset utf8mb4 null");
    table.expressions = 1;
    // A replica's copy of the log, which begins with the replica's own events.
    let run = run_from("rpl_unfiltered_hidden_gcol.000001", 203, "8.0.17-debug", vec![table], 1).await;
    assert_eq!(run.images(), [r#"{"a":1,"b":"1"}"#]);
    golden("hidden-column", &run.told());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compressed_transactions_are_transactions() {
    let columns = "id int\ntitle varchar(256) charset utf8mb4\nyear int\ncountry varchar(256) charset utf8mb4\n\
        genre varchar(256) charset utf8mb4\nactors varchar(1024) charset utf8mb4\n\
        director varchar(512) charset utf8mb4\ncomposer varchar(256) charset utf8mb4\n\
        screenwriter varchar(256) charset utf8mb4\ncinematographer varchar(256) charset utf8mb4\n\
        production varchar(256) charset utf8mb4";
    let tables = vec![Described::new("demo.movies", &["id"], columns)];
    let movie = run("mysql-bin.compressed", "8.0.28", tables, 1).await;
    let images = movie.images();
    let begins = r#"{"id":1,"title":"Once Upon a Time in the West","year":1968,"country":"Italy","genre":"Western|Action","actors""#;
    assert!(images[0].starts_with(begins), "{}", images[0]);
    assert!(images[0].ends_with(r#""cinematographer":"Tonino Delli Colli","production":"Paramount Pictures"}"#));
    golden("compressed", &movie.told());
    let tables = vec![Described::new("test.tb1", &["id"], "id int")];
    let run = run("transaction_compression.000001", "8.0.32", tables, 1).await;
    assert_eq!(run.images(), [r#"{"id":1}"#]);
    golden("transaction-compression", &run.told());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_as_aurora_pads_it_is_read_over_its_padding() {
    let mut log = Log::read("mysql-bin.aurora-padding", 4);
    // It ends behind the beginning of a transaction, which is ended here.
    log.events.push(log::event(16, 0, 1325, &[0; 8], true));
    let replay = Replay::start("5.7.12-log", log, Vec::new(), None);
    let mut run = Run::open(&replay).await;
    let reached = |run: &Run| {
        run.checkpoint
            .as_ref()
            .is_some_and(|checkpoint| checkpoint.0.contains(":1325 ") || checkpoint.0.contains(" 1325 "))
    };
    while !reached(&run) {
        run.next().await.unwrap();
    }
    assert_eq!(run.changes, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logs_with_and_without_checksums_and_without_names_are_read() {
    for (name, version, changes) in
        [("mysql-bin.checksum-crc32", "5.7.21-log", 63), ("mysql-bin.checksum-none", "5.7.20-log", 36)]
    {
        let log = Log::read(name, 4);
        let tables = maps::described(&log);
        let replay = Replay::start(version, log, tables, None);
        let mut run = Run::open(&replay).await;
        run.until(changes).await;
        golden(name, &digests(&run));
    }
}

/// What is too much to keep: how many changes each table has, and a digest of them.
fn digests(run: &Run) -> String {
    if let Some(folder) = std::env::var_os("CDC_TOLD") {
        // To be compared with what another program reads in the log.
        let name = std::path::Path::new(&folder).join(format!("{}.txt", run.changes));
        std::fs::write(name, run.told()).unwrap();
    }
    let mut tables = std::collections::BTreeMap::<&str, (usize, Sha256)>::new();
    for step in &run.steps {
        if let Step::Change(change) = step {
            let (count, digest) = tables.entry(&change.table.name).or_default();
            *count += 1;
            for image in [&change.before, &change.image] {
                digest.update(image.as_deref().unwrap_or("-"));
                digest.update("\n");
            }
        }
    }
    let line = |(name, (count, digest)): (&str, (usize, Sha256))| {
        let digest: String = digest.finalize()[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{name} {count} {digest}\n")
    };
    tables.into_iter().map(line).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_of_5_1_that_are_not_whole_keep_what_they_had() {
    let table = || vec![Described::new("test.ba", &["a"], "a int\nb int null\nc int null")];
    let run_full = run("update-full-row.binlog", "5.1.37-ndb-6.2.19-debug-log", table(), 6).await;
    let run_partial = run("update-partial-row.binlog", "5.1.37-ndb-6.2.19-debug-log", table(), 6).await;
    let told = run_partial.steps.iter().filter_map(|step| match step {
        Step::Change(change) if !change.unchanged.is_empty() => Some((change.image.as_deref(), &change.unchanged)),
        _ => None,
    });
    let told: Vec<_> = told.collect();
    assert_eq!(told, [(Some(r#"{"a":4,"c":40}"#), &vec!["b".to_owned()])]);
    assert_eq!(run_full.images()[4], r#"{"a":4,"b":4,"c":40}"#);
    golden("update-full-row", &run_full.told());
    golden("update-partial-row", &run_partial.told());
    let run = run("write-full-row.binlog", "5.1.37-ndb-6.2.19-debug-log", table(), 6).await;
    golden("write-full-row", &run.told());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_is_dropped_with_one_that_was_never_made() {
    for told in [false, true] {
        let mut log = Log::read("rpl_atomic_ddl_rollback_table.000001", 4);
        let drop = log.transaction_of("DROP TABLE");
        log.events.truncate(drop + 2);
        log.put_row(log.events.len(), "other", 7);
        if told {
            log.put_row(drop, "t1", 1);
        }
        let tables = vec![Described::new("test.t1", &["i"], "i int"), Described::new("test.other", &["i"], "i int")];
        let replay = Replay::start("5.7.22-debug-log", log, tables, None);
        let mut run = Run::open(&replay).await;
        run.until(if told { 3 } else { 1 }).await;
        let steps = run.steps.iter().filter_map(|step| match step {
            Step::Change(change) => Some(format!("{:?} {}", change.action, change.table.name)),
            Step::Audited(_) | Step::AuditOff { .. } => None,
            Step::Gone(table) => Some(format!("Gone {}", table.name)),
            _ => None,
        });
        let steps: Vec<String> = steps.collect();
        // Of a table that had no rows there is nothing to say.
        let gone = ["Replace test.t1", "Truncate test.t1", "Gone test.t1"];
        assert_eq!(steps, [if told { &gone[..] } else { &[] }, &["Replace test.other"]].concat(), "{}", run.told());
        let known: Vec<String> = run.feed.progress().tables.into_iter().map(|table| table.table).collect();
        assert_eq!(known, ["test.other"]);
    }
}

/// A statement in the log.
fn statement(database: &str, sql: &str, end: u32) -> Vec<u8> {
    let mut body = vec![0; 8];
    body.push(database.len() as u8);
    body.extend([0; 4]);
    body.extend(database.as_bytes());
    body.push(0);
    body.extend(sql.as_bytes());
    log::event(2, 0, end, &body, true)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_is_made_with_its_rows_is_one_transaction() {
    for framed in [true, false] {
        // The description and the identifier of a real log, and between them and its commit what 8.0.21 documents for
        // `CREATE TABLE … SELECT`: the statement and the rows.
        let mut log = Log::read("transaction_compression.000001", 4);
        log.events.truncate(3);
        if framed {
            log.events.push(statement("test", "BEGIN", 300));
        }
        let create = "CREATE TABLE `tb1` (\n  `id` int NOT NULL\n) START TRANSACTION";
        log.events.push(statement("test", create, 400));
        let map = b"\x58\0\0\0\0\0\x01\0\x04test\0\x03tb1\0\x01\x03\0\0\x01\x01\0";
        log.events.push(log::event(19, 0, 500, map, true));
        log.events.push(log::event(30, 0, 600, b"\x58\0\0\0\0\0\x01\0\x02\0\x01\xff\0\x07\0\0\0\0\x08\0\0\0", true));
        log.events.push(log::event(16, 0, 700, &[0; 8], true));
        let replay = Replay::start("8.0.32", log, vec![Described::new("test.tb1", &["id"], "id int")], None);
        let mut run = Run::open(&replay).await;
        run.until(2).await;
        assert_eq!(run.images(), [r#"{"id":7}"#, r#"{"id":8}"#]);
        let positions = run.steps.iter().filter_map(|step| match step {
            Step::Change(change) => change.position.clone(),
            _ => None,
        });
        // Number 0 is the statement, which empties what may have had the table's name.
        assert_eq!(positions.collect::<Vec<_>>(), ["binlog.000001:197/1", "binlog.000001:197/2"]);
        let checkpoint = run.checkpoint.unwrap().0;
        assert!(checkpoint.contains("place binlog.000001 700 "), "{checkpoint}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_whole_database_of_5_5_is_loaded() {
    let log = Log::read("mysql-bin.sakila.gz", 4);
    let tables: Vec<Described> = include_str!("sakila.txt")
        .split("\n\n")
        .map(|table| {
            let (head, columns) = table.trim().split_once('\n').unwrap();
            let (name, key) = head.split_once(' ').unwrap();
            Described::new(name, &key.split(',').collect::<Vec<_>>(), columns)
        })
        .collect();
    let replay = Replay::start("5.5.27-log", log, tables, None);
    let mut run = Run::open(&replay).await;
    run.until(47_273).await;
    golden("sakila", &digests(&run));
    let last = run.images().last().copied().unwrap_or_default();
    assert!(
        last.starts_with(r#"{"store_id":2,"manager_staff_id":2,"address_id":2,"last_update":"2006-02-15T"#),
        "{last}"
    );
}
