#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
#[cfg(target_family = "wasm")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::*;
use crate::event::{Column, Origin};
use crate::memory::{Change, MemoryStore, change, declaration};
use crate::oracle::{self, Oracle, column, word};
use crate::store::View;

fn insert(table: &str, image: &str) -> Change {
    change(Action::Insert, table, &[], image)
}

fn update(table: &str, key: &[&str], image: &str) -> Change {
    change(Action::Update, table, key, image)
}

fn upsert(table: &str, key: &[&str], image: &str) -> Change {
    change(Action::Upsert, table, key, image)
}

fn delete(table: &str, key: &[&str]) -> Change {
    change(Action::Delete, table, key, "")
}

/// What became of each change: its sequence number, or the refusal's code.
fn outcomes(captured: &Captured) -> Vec<Result<u64, RefusalCode>> {
    captured.outcomes.iter().map(|outcome| outcome.as_ref().map(|&sequence| sequence).map_err(|r| r.code)).collect()
}

fn capture(store: &MemoryStore, changes: Vec<Change>) -> Vec<Result<u64, RefusalCode>> {
    outcomes(&store.capture(1_000, changes))
}

/// Captures one change that is refused.
fn refused(store: &MemoryStore, change: Change) -> Refusal {
    let before = (store.state().events.len(), *store.commits.borrow());
    let refusal = store.capture(1_000, vec![change]).outcomes.remove(0).unwrap_err();
    assert_eq!((store.state().events.len(), *store.commits.borrow()), before, "a refused change left a trace");
    refusal
}

/// An event without what is the same for all of them here.
type Captured4 = (Operation, String, Option<String>, Option<String>);

fn events(store: &MemoryStore) -> Vec<Captured4> {
    let event =
        |event: &crate::event::Event| (event.operation, event.key.clone(), event.before.clone(), event.after.clone());
    store.state().events.iter().map(event).collect()
}

fn event(operation: Operation, key: &str, before: Option<&str>, after: Option<&str>) -> Captured4 {
    (operation, key.to_owned(), before.map(str::to_owned), after.map(str::to_owned))
}

fn row(store: &MemoryStore, table: &str, key: &str) -> Option<String> {
    store.state().rows.get(&(table.to_owned(), key.to_owned())).cloned()
}

fn version(store: &MemoryStore, table: &str) -> u32 {
    Store::schema(store, table).unwrap().unwrap().version
}

fn declare(store: &MemoryStore, name: &str, columns: &[oracle::Column], key: &[&str]) -> TableSchema {
    Capture::default().declare(store, 0, declaration(name, columns, key)).unwrap()
}

#[test]
fn an_insert_has_an_after_image_as_it_came_but_for_white_space() {
    let store = MemoryStore::default();
    capture(&store, vec![insert("t", "{ \"n\" : 1.50e+2,\r\n\"id\":\"a\" , \"o\" : {\"b\": [ ]} }")]);
    assert_eq!(events(&store), [event(Operation::Insert, "a", None, Some(r#"{"n":1.50e+2,"id":"a","o":{"b":[]}}"#))]);
}

#[test]
fn an_update_keeps_the_order_of_the_row_and_adds_new_members_behind_in_the_order_of_the_patch() {
    let store = MemoryStore::default();
    let before = r#"{"id":1,"a":"x","b":[1, 2],"c":null}"#;
    let changes = vec![insert("t", before), update("t", &["1"], r#"{"z":0.10,"c":{"deep": true},"a":null,"y":1}"#)];
    capture(&store, changes);
    assert_eq!(
        events(&store)[1],
        event(
            Operation::Update,
            "1",
            Some(r#"{"id":1,"a":"x","b":[1,2],"c":null}"#),
            Some(r#"{"id":1,"a":null,"b":[1,2],"c":{"deep":true},"z":0.10,"y":1}"#),
        )
    );
}

#[test]
fn a_merge_is_shallow_and_finds_names_however_they_are_spelled() {
    let store = MemoryStore::default();
    capture(
        &store,
        vec![
            insert("t", r#"{"id":1,"é":{"a":1,"b":2}}"#),
            update("t", &["1"], r#"{"\u00e9":{"a":3}}"#),
            update("t", &["1"], r#"{"\u00e9\u00e9":0}"#),
            update("t", &["1"], r#"{"éé":1}"#),
        ],
    );
    // A row's own spelling of a name stays.
    assert_eq!(row(&store, "t", "1").unwrap(), r#"{"id":1,"é":{"a":3},"\u00e9\u00e9":1}"#);
}

#[test]
fn an_update_that_changes_nothing_is_captured() {
    let store = MemoryStore::default();
    let row = r#"{"id":1}"#;
    capture(&store, vec![insert("t", row), update("t", &["1"], "{}"), update("t", &[], row)]);
    assert_eq!(
        events(&store)[1..],
        [event(Operation::Update, "1", Some(row), Some(row)), event(Operation::Update, "1", Some(row), Some(row))]
    );
}

#[test]
fn a_delete_has_a_before_image_and_its_own_image_is_not_looked_at() {
    let store = MemoryStore::default();
    let mut gone = delete("t", &["1"]);
    gone.image = b"\xff no JSON".to_vec();
    capture(&store, vec![insert("t", r#"{"id":1,"a":2}"#), gone]);
    assert_eq!(events(&store)[1], event(Operation::Delete, "1", Some(r#"{"id":1,"a":2}"#), None));
    assert_eq!(row(&store, "t", "1"), None);
}

#[test]
fn a_delete_names_its_row() {
    let store = MemoryStore::default();
    capture(&store, vec![insert("t", r#"{"id":1}"#)]);
    let refusal = refused(&store, change(Action::Delete, "t", &[], r#"{"id":1}"#));
    assert_eq!((refusal.code, refusal.column.as_deref()), (RefusalCode::MissingKey, Some("id")));
}

#[test]
fn an_upsert_updates_what_is_there_and_inserts_what_is_not() {
    let store = MemoryStore::default();
    capture(&store, vec![upsert("t", &[], r#"{"id":"a","n":1}"#), upsert("t", &["a"], r#"{"n":2}"#)]);
    assert_eq!(
        events(&store),
        [
            event(Operation::Insert, "a", None, Some(r#"{"id":"a","n":1}"#)),
            event(Operation::Update, "a", Some(r#"{"id":"a","n":1}"#), Some(r#"{"id":"a","n":2}"#)),
        ]
    );
}

#[test]
fn an_upsert_of_a_missing_row_takes_its_key_from_the_path_as_a_number_where_the_column_is_one() {
    let store = MemoryStore::default();
    capture(&store, vec![insert("numbers", r#"{"id":1}"#), insert("strings", r#"{"id":"1"}"#)]);
    capture(
        &store,
        vec![
            upsert("numbers", &["2"], r#"{"a":1}"#),
            upsert("numbers", &["007"], "{}"),
            upsert("strings", &["2"], "{}"),
            upsert("unborn", &["2"], "{}"),
            upsert("unborn", &["a\"\\\n"], "{}"),
        ],
    );
    let afters: Vec<_> = events(&store).into_iter().skip(2).map(|event| event.3.unwrap()).collect();
    assert_eq!(
        afters,
        [r#"{"id":2,"a":1}"#, r#"{"id":"007"}"#, r#"{"id":"2"}"#, r#"{"id":"2"}"#, "{\"id\":\"a\\\"\\\\\\u000a\"}"]
    );
}

#[test]
fn what_a_key_from_the_path_becomes_does_not_depend_on_how_changes_are_batched() {
    let changes = || {
        vec![
            insert("t", r#"{"id":1}"#),
            upsert("t", &["2"], "{}"),
            insert("t", r#"{"id":"x"}"#),
            upsert("t", &["3"], "{}"),
        ]
    };
    let (together, alone) = (MemoryStore::default(), MemoryStore::default());
    capture(&together, changes());
    for change in changes() {
        capture(&alone, vec![change]);
    }
    assert_eq!(events(&together), events(&alone));
    assert_eq!(row(&together, "t", "2").unwrap(), r#"{"id":2}"#);
    // By now the column holds strings too.
    assert_eq!(row(&together, "t", "3").unwrap(), r#"{"id":"3"}"#);
}

#[test]
fn a_missing_key_column_of_a_composite_key_comes_from_the_path_in_its_place() {
    let store = MemoryStore::default();
    declare(&store, "t", &[column("x", "String", false), column("y", "Number", false)], &["x", "y"]);
    capture(&store, vec![upsert("t", &["a/b", "5"], r#"{"y":5}"#), upsert("t", &["%", "6"], "{}")]);
    assert_eq!(
        events(&store),
        [
            event(Operation::Insert, "a%2Fb/5", None, Some(r#"{"x":"a/b","y":5}"#)),
            event(Operation::Insert, "%25/6", None, Some(r#"{"x":"%","y":6}"#)),
        ]
    );
}

#[test]
fn a_composite_key_addresses_its_row_and_no_other() {
    let store = MemoryStore::default();
    declare(&store, "t", &[column("x", "String", false), column("y", "String", false)], &["x", "y"]);
    let batch = vec![
        insert("t", r#"{"x":"a/b","y":"c"}"#),
        insert("t", r#"{"x":"a","y":"b/c"}"#),
        insert("t", r#"{"y":"c","x":"a/b"}"#),
        update("t", &["a", "b/c"], r#"{"y":"b/c"}"#),
        delete("t", &["a", "b"]),
        delete("t", &["a/b/c"]),
        delete("t", &["a", ""]),
    ];
    assert_eq!(
        capture(&store, batch),
        [
            Ok(1),
            Ok(2),
            Err(RefusalCode::RowExists),
            Ok(3),
            Err(RefusalCode::UnknownRow),
            Err(RefusalCode::UnknownRow),
            Err(RefusalCode::InvalidKey),
        ]
    );
    let keys: Vec<_> = events(&store).into_iter().map(|event| event.1).collect();
    assert_eq!(keys, ["a%2Fb/c", "a/b%2Fc", "a/b%2Fc"]);
}

#[test]
fn forty_two_and_its_text_are_one_row() {
    let store = MemoryStore::default();
    let batch =
        vec![insert("t", r#"{"id":42}"#), insert("t", r#"{"id":"42"}"#), update("t", &["42"], r#"{"id":"42"}"#)];
    assert_eq!(capture(&store, batch), [Ok(1), Err(RefusalCode::RowExists), Ok(2)]);
    // Its type is what was written last, which the schema follows.
    assert_eq!(row(&store, "t", "42").unwrap(), r#"{"id":"42"}"#);
    assert_eq!(version(&store, "t"), 2);
}

#[test]
fn a_change_may_not_change_the_key_it_is_addressed_by() {
    let store = MemoryStore::default();
    capture(&store, vec![insert("t", r#"{"id":1}"#), insert("t", r#"{"id":2}"#)]);
    for change in [
        update("t", &["1"], r#"{"id":2}"#),
        upsert("t", &["1"], r#"{"a":1,"id":"3"}"#),
        upsert("t", &["9"], r#"{"id":1}"#),
    ] {
        let refusal = refused(&store, change);
        assert_eq!((refusal.code, refusal.column.as_deref()), (RefusalCode::KeyMismatch, Some("id")));
    }
}

#[test]
fn a_key_is_a_non_empty_string_or_an_integer() {
    let store = MemoryStore::default();
    for (image, code) in [
        (r#"{"a":1}"#, RefusalCode::MissingKey),
        (r#"{"id":null}"#, RefusalCode::InvalidKey),
        (r#"{"id":""}"#, RefusalCode::InvalidKey),
        (r#"{"id":1.0}"#, RefusalCode::InvalidKey),
        (r#"{"id":{}}"#, RefusalCode::InvalidKey),
    ] {
        let refusal = refused(&store, insert("t", image));
        assert_eq!((refusal.code, refusal.column.as_deref()), (code, Some("id")), "{image}");
    }
    let refusal = refused(&store, update("t", &[""], "{}"));
    assert_eq!(refusal.code, RefusalCode::InvalidKey);
    store.settings.borrow_mut().max_key_bytes = 3;
    assert_eq!(refused(&store, insert("t", r#"{"id":"four"}"#)).code, RefusalCode::KeyTooLong);
    assert_eq!(refused(&store, delete("t", &["four"])).code, RefusalCode::KeyTooLong);
    assert_eq!(capture(&store, vec![insert("t", r#"{"id":"abc"}"#)]), [Ok(1)]);
}

#[test]
fn changes_of_one_row_in_one_batch_each_see_the_one_before() {
    let store = MemoryStore::default();
    let batch = vec![
        insert("t", r#"{"id":1,"n":1}"#),
        update("t", &["1"], r#"{"n":2}"#),
        delete("t", &["1"]),
        update("t", &["1"], r#"{"n":3}"#),
        insert("t", r#"{"id":1,"m":4}"#),
        insert("t", r#"{"id":1}"#),
        upsert("t", &["1"], r#"{"n":5}"#),
    ];
    assert_eq!(
        capture(&store, batch),
        [Ok(1), Ok(2), Ok(3), Err(RefusalCode::UnknownRow), Ok(4), Err(RefusalCode::RowExists), Ok(5)]
    );
    assert_eq!(
        events(&store),
        [
            event(Operation::Insert, "1", None, Some(r#"{"id":1,"n":1}"#)),
            event(Operation::Update, "1", Some(r#"{"id":1,"n":1}"#), Some(r#"{"id":1,"n":2}"#)),
            event(Operation::Delete, "1", Some(r#"{"id":1,"n":2}"#), None),
            event(Operation::Insert, "1", None, Some(r#"{"id":1,"m":4}"#)),
            event(Operation::Update, "1", Some(r#"{"id":1,"m":4}"#), Some(r#"{"id":1,"m":4,"n":5}"#)),
        ]
    );
}

#[test]
fn a_row_deleted_and_inserted_in_one_batch_is_a_new_row() {
    let store = MemoryStore::default();
    capture(&store, vec![insert("t", r#"{"id":1,"old":1}"#)]);
    capture(&store, vec![delete("t", &["1"]), insert("t", r#"{"id":1}"#)]);
    assert_eq!(
        events(&store)[1..],
        [
            event(Operation::Delete, "1", Some(r#"{"id":1,"old":1}"#), None),
            event(Operation::Insert, "1", None, Some(r#"{"id":1}"#)),
        ]
    );
}

#[test]
fn a_refused_change_leaves_no_trace_in_the_rows_that_later_changes_see() {
    let store = MemoryStore::default();
    store.settings.borrow_mut().max_row_bytes = 24;
    let batch = vec![
        insert("t", r#"{"id":1,"n":"12345678"}"#),
        update("t", &["1"], r#"{"m":"too much"}"#),
        update("t", &["1"], r#"{"n":0,"n":1}"#),
        update("t", &["1"], "[]"),
        update("t", &["1"], r#"{"n":1}"#),
        delete("t", &["1"]),
    ];
    let no = Err;
    assert_eq!(
        capture(&store, batch),
        [
            Ok(1),
            no(RefusalCode::RowTooLarge),
            no(RefusalCode::DuplicateMember),
            no(RefusalCode::NotAnObject),
            Ok(2),
            Ok(3),
        ]
    );
    assert_eq!(
        events(&store)[1..],
        [
            event(Operation::Update, "1", Some(r#"{"id":1,"n":"12345678"}"#), Some(r#"{"id":1,"n":1}"#)),
            event(Operation::Delete, "1", Some(r#"{"id":1,"n":1}"#), None),
        ]
    );
    // The refused one would have brought a column.
    assert_eq!(version(&store, "t"), 2);
}

#[test]
fn rows_are_limited_as_they_come_and_once_they_are_merged() {
    let store = MemoryStore::default();
    store.settings.borrow_mut().max_row_bytes = 20;
    assert_eq!(refused(&store, insert("t", r#"{"id":1,"a":"0123456"}"#)).code, RefusalCode::RowTooLarge);
    assert_eq!(capture(&store, vec![insert("t", r#"{"id":1,"a":"01234"}"#)]), [Ok(1)]);
    assert_eq!(refused(&store, update("t", &["1"], r#"{"b":1}"#)).code, RefusalCode::RowTooLarge);
    assert_eq!(refused(&store, upsert("t", &["123"], r#"{"a":"01234567"}"#)).code, RefusalCode::RowTooLarge);
    assert_eq!(capture(&store, vec![update("t", &["1"], r#"{"a":1,"b":2}"#)]), [Ok(2)]);
}

#[test]
fn a_schema_evolves_within_a_batch_once_for_each_row_that_does_not_fit() {
    let store = MemoryStore::default();
    capture(
        &store,
        vec![
            insert("t", r#"{"id":1,"n":1}"#),
            insert("t", r#"{"id":2,"n":2}"#),
            insert("t", r#"{"id":3}"#),
            update("t", &["1"], r#"{"n":"x","m":true}"#),
            update("t", &["2"], r#"{"m":false}"#),
        ],
    );
    let versions: Vec<u32> = store.state().events.iter().map(|event| event.schema_version).collect();
    assert_eq!(versions, [1, 1, 2, 3, 3]);
    let history = store.view().unwrap().schema_history("t").unwrap();
    let column =
        |name: &str, column_type, nullable| Column { name: name.to_owned(), column_type, nullable, native_type: None };
    let id = column("id", ColumnType::Number, false);
    assert_eq!(history[0].columns, [id.clone(), column("n", ColumnType::Number, false)]);
    assert_eq!(history[1].columns, [id.clone(), column("n", ColumnType::Number, true)]);
    assert_eq!(history[2].columns, [id, column("n", ColumnType::Any, true), column("m", ColumnType::Boolean, true)]);
    assert_eq!(history.len(), 3);
}

#[test]
fn columns_are_limited() {
    let store = MemoryStore::default();
    store.settings.borrow_mut().max_columns = 2;
    capture(&store, vec![insert("t", r#"{"id":1,"a":1}"#)]);
    let refusal = refused(&store, update("t", &["1"], r#"{"b":1}"#));
    assert_eq!((refusal.code, refusal.column.as_deref()), (RefusalCode::TooManyColumns, Some("b")));
}

#[test]
fn in_strict_mode_tables_are_declared_and_rows_fit_them() {
    let store = MemoryStore::default();
    store.settings.borrow_mut().schema_mode = SchemaMode::Strict;
    // Whatever else is wrong with a change of an unknown table, that it is unknown is what matters.
    for change in [
        insert("u", r#"{"id":1}"#),
        insert("u", r#"{"no":"key"}"#),
        insert("u", "no JSON"),
        upsert("u", &["1"], "{}"),
        upsert("u", &["1", "2"], "{}"),
        update("u", &["1"], "{}"),
        delete("u", &["1"]),
    ] {
        assert_eq!(refused(&store, change).code, RefusalCode::UnknownTable);
    }
    declare(&store, "t", &[column("id", "Number", false), column("s", "String", true)], &["id"]);
    for (image, named) in [(r#"{"id":1,"s":1}"#, "s"), (r#"{"id":1,"x":1}"#, "x"), (r#"{"id":"a"}"#, "id")] {
        let refusal = refused(&store, insert("t", image));
        assert_eq!((refusal.code, refusal.column.as_deref()), (RefusalCode::SchemaViolation, Some(named)));
    }
    let batch = vec![upsert("t", &["1"], "{}"), update("t", &["1"], r#"{"s":null}"#), upsert("t", &["a"], "{}")];
    assert_eq!(capture(&store, batch), [Ok(1), Ok(2), Err(RefusalCode::SchemaViolation)]);
    assert_eq!(version(&store, "t"), 1);
}

#[test]
fn a_declared_table_widens_in_infer_mode() {
    let store = MemoryStore::default();
    declare(&store, "t", &[column("id", "String", false), column("n", "Number", false)], &["id"]);
    assert_eq!(capture(&store, vec![insert("t", r#"{"id":"a","n":"x"}"#)]), [Ok(1)]);
    assert_eq!(version(&store, "t"), 2);
}

#[test]
fn tables_are_limited_those_of_the_same_batch_included() {
    let store = MemoryStore::default();
    store.settings.borrow_mut().max_tables = 2;
    let row = r#"{"id":1}"#;
    let batch =
        vec![insert("a", row), insert("refused", "{}"), insert("b", row), insert("c", row), insert("a", r#"{"id":2}"#)];
    let missing = Err(RefusalCode::MissingKey);
    assert_eq!(capture(&store, batch), [Ok(1), missing, Ok(2), Err(RefusalCode::TooManyTables), Ok(3)]);
    assert_eq!(refused(&store, insert("d", row)).code, RefusalCode::TooManyTables);
    let refusal = Capture::default().declare(&store, 0, declaration("d", &[column("id", "String", false)], &["id"]));
    assert!(matches!(refusal, Err(DeclareError::Refused(Refusal { code: RefusalCode::TooManyTables, .. }))));
    // Those that are there may still be declared on.
    declare(&store, "a", &[column("id", "Any", false)], &["id"]);
}

#[test]
fn an_unknown_table_is_told_from_an_unknown_row() {
    let store = MemoryStore::default();
    assert_eq!(refused(&store, update("t", &["1"], "{}")).code, RefusalCode::UnknownTable);
    assert_eq!(refused(&store, delete("t", &["1"])).code, RefusalCode::UnknownTable);
    assert_eq!(refused(&store, delete("t", &["1", "2"])).code, RefusalCode::UnknownTable);
    capture(&store, vec![insert("t", r#"{"id":1}"#), delete("t", &["1"])]);
    assert_eq!(refused(&store, update("t", &["1"], "{}")).code, RefusalCode::UnknownRow);
    assert_eq!(refused(&store, delete("t", &["1"])).code, RefusalCode::UnknownRow);
    assert_eq!(refused(&store, delete("t", &["1", "2"])).code, RefusalCode::UnknownRow);
}

#[test]
fn a_table_comes_into_being_with_its_first_row_also_for_later_changes_of_the_batch() {
    let store = MemoryStore::default();
    let batch = vec![update("t", &["1"], "{}"), insert("t", r#"{"id":1}"#), update("t", &["2"], "{}")];
    assert_eq!(capture(&store, batch), [Err(RefusalCode::UnknownTable), Ok(1), Err(RefusalCode::UnknownRow)]);
}

#[test]
fn a_table_name_must_be_one() {
    let refusal = refused(&MemoryStore::default(), insert("../etc", r#"{"id":1}"#));
    assert_eq!(refusal.code, RefusalCode::InvalidTableName);
}

#[test]
fn a_failed_commit_is_an_error_and_the_next_capture_is_right() {
    let store = MemoryStore::default();
    let mut capture = Capture::default();
    store.capture_with(&mut capture, 1, vec![insert("t", r#"{"id":1}"#)], vec![]).unwrap();
    let full = StoreError::Full("no room".to_owned());
    *store.failure.borrow_mut() = Some(full.clone());
    let batch = vec![insert("t", r#"{"id":2,"n":1}"#), insert("u", r#"{"id":1}"#), delete("t", &["1"])];
    assert_eq!(store.capture_with(&mut capture, 2, batch, vec![]), Err(full));
    assert_eq!(store.state().events.len(), 1);
    // Neither the column `n` nor the table `u` may be remembered, though the store's schemas never changed.
    let batch = vec![update("t", &["1"], r#"{"n":"x"}"#), delete("u", &["1"]), insert("t", r#"{"id":2}"#)];
    let captured = store.capture_with(&mut capture, 3, batch, vec![]).unwrap();
    assert_eq!(outcomes(&captured), [Ok(2), Err(RefusalCode::UnknownTable), Ok(3)]);
    let schema = Store::schema(&store, "t").unwrap().unwrap();
    assert_eq!(
        schema.columns[1],
        Column { name: "n".to_owned(), column_type: ColumnType::String, nullable: true, native_type: None }
    );
    assert_eq!(schema.version, 2);
}

#[test]
fn what_another_instance_changed_is_seen() {
    let store = MemoryStore::default();
    let mut capture = Capture::default();
    store.capture_with(&mut capture, 1, vec![insert("t", r#"{"id":1}"#)], vec![]).unwrap();
    store.capture(2, vec![insert("t", r#"{"id":2,"n":1}"#)]);
    let captured = store.capture_with(&mut capture, 3, vec![insert("t", r#"{"id":3,"n":2}"#)], vec![]).unwrap();
    assert_eq!((outcomes(&captured), version(&store, "t")), (vec![Ok(3)], 2));
}

#[test]
fn names_that_are_no_tables_are_not_remembered() {
    let store = MemoryStore::default();
    let mut capture = Capture::default();
    store.capture_with(&mut capture, 1, vec![insert("t", r#"{"id":1}"#)], vec![]).unwrap();
    for name in ["a", "b", "c"] {
        store.capture_with(&mut capture, 1, vec![delete(name, &["1"]), update("t", &["1"], "{}")], vec![]).unwrap();
        assert!(capture.tables.iter().all(|known| known.name == "t"), "whoever makes up names fills the memory");
    }
}

#[test]
fn timestamps_never_go_backwards_and_a_batch_has_one() {
    let store = MemoryStore::default();
    let captured = |now_ms, id: u32| {
        let batch = vec![insert("t", &format!("{{\"id\":{id}}}")), insert("t", &format!("{{\"id\":-{id}}}"))];
        store.capture(now_ms, batch).timestamp_ms
    };
    assert_eq!([captured(5_000, 1), captured(4_000, 2), captured(5_001, 3)], [5_000, 5_000, 5_001]);
    let times: Vec<u64> = store.state().events.iter().map(|event| event.timestamp_ms).collect();
    assert_eq!(times, [5_000, 5_000, 5_000, 5_000, 5_001, 5_001]);
}

#[test]
fn a_batch_is_one_read_of_each_table_and_one_commit() {
    let store = MemoryStore::default();
    capture(&store, vec![insert("t", r#"{"id":1}"#), insert("u", r#"{"id":1}"#)]);
    store.reads.borrow_mut().clear();
    *store.commits.borrow_mut() = 0;
    capture(
        &store,
        vec![
            update("t", &["1"], "{}"),
            update("u", &["1"], "{}"),
            insert("t", r#"{"id":2}"#),
            update("t", &["1"], "{}"),
            insert("new", r#"{"id":2}"#),
        ],
    );
    assert_eq!(*store.commits.borrow(), 1);
    let read = |table: &str, keys: &[&str]| (table.to_owned(), keys.iter().map(|&key| key.to_owned()).collect());
    // A table without rows has none to read, and no key is asked for twice.
    assert_eq!(*store.reads.borrow(), [read("t", &["1", "2"]), read("u", &["1"])]);
}

#[test]
fn nothing_accepted_is_nothing_committed() {
    let store = MemoryStore::default();
    assert_eq!(capture(&store, vec![]), []);
    assert_eq!(capture(&store, vec![delete("t", &["1"])]), [Err(RefusalCode::UnknownTable)]);
    assert_eq!(*store.commits.borrow(), 0);
}

#[test]
fn a_source_moves_on_even_when_nothing_of_its_batch_is_accepted() {
    let store = MemoryStore::default();
    let position = SourcePosition { source: "pg".to_owned(), position: "0/16".to_owned() };
    store.capture_with(&mut Capture::default(), 1, vec![delete("t", &["1"])], vec![position]).unwrap();
    assert_eq!(*store.commits.borrow(), 1);
    assert_eq!(store.state().positions["pg"], "0/16");
}

#[test]
fn an_event_keeps_where_it_came_from() {
    let store = MemoryStore::default();
    let origin = Origin {
        source: "pg".to_owned(),
        transaction: Some("7".to_owned()),
        position: Some("0/16".to_owned()),
        snapshot: true,
        committed_at_ms: Some(17),
        unavailable: None,
    };
    capture(&store, vec![Change { origin: Some(origin.clone()), ..insert("t", r#"{"id":1}"#) }]);
    assert_eq!(store.state().events[0].origin, Some(origin));
}

#[test]
fn a_damaged_row_in_the_store_is_the_stores_fault_and_fails_the_batch() {
    let store = MemoryStore::default();
    capture(&store, vec![insert("t", r#"{"id":1}"#)]);
    store.change(|state| drop(state.rows.insert(("t".to_owned(), "1".to_owned()), "{\"id\":".to_owned())));
    let mut capture = Capture::default();
    let batch = vec![insert("t", r#"{"id":2,"n":1}"#), update("t", &["1"], "{}"), insert("t", r#"{"id":1}"#)];
    let error = store.capture_with(&mut capture, 1, batch, vec![]).unwrap_err();
    assert!(matches!(&error, StoreError::Failed(message) if message.contains("`t`")), "{error}");
    assert_eq!((store.state().events.len(), version(&store, "t")), (1, 1));
    // The column `n` was given up with the batch.
    store.capture_with(&mut capture, 1, vec![insert("t", r#"{"id":3}"#)], vec![]).unwrap();
    assert_eq!(version(&store, "t"), 1);
}

#[test]
fn a_declared_table_takes_rows_at_once() {
    let store = MemoryStore::default();
    let mut capture = Capture::default();
    // What was learned of the name before must not stick.
    store.capture_with(&mut capture, 1, vec![delete("t", &["1"])], vec![]).unwrap();
    let columns = [column("code", "String", false), column("n", "Number", true)];
    let schema = capture.declare(&store, 1, declaration("t", &columns, &["code"])).unwrap();
    assert_eq!((schema.version, schema.primary_key), (1, vec!["code".to_owned()]));
    let captured = store.capture_with(&mut capture, 1, vec![insert("t", r#"{"code":"x"}"#)], vec![]).unwrap();
    assert_eq!((outcomes(&captured), version(&store, "t")), (vec![Ok(1)], 1));
}

#[test]
fn declaring_what_is_in_force_commits_nothing() {
    let store = MemoryStore::default();
    let columns = [column("id", "String", false)];
    declare(&store, "t", &columns, &["id"]);
    assert_eq!(declare(&store, "t", &columns, &["id"]).version, 1);
    assert_eq!(*store.commits.borrow(), 1);
    let wider = [column("id", "String", false), column("n", "Any", true)];
    assert_eq!(declare(&store, "t", &wider, &["id"]).version, 2);
    let refused = Capture::default().declare(&store, 0, declaration("t", &columns, &["id"]));
    assert!(matches!(refused, Err(DeclareError::Refused(Refusal { code: RefusalCode::SchemaConflict, .. }))));
}

#[test]
fn a_declaration_that_cannot_be_committed_is_not_in_force() {
    let store = MemoryStore::default();
    let failed = StoreError::Failed("broken".to_owned());
    *store.failure.borrow_mut() = Some(failed.clone());
    let mut capture = Capture::default();
    let columns = [column("id", "String", false)];
    let error = capture.declare(&store, 0, declaration("t", &columns, &["id"])).unwrap_err();
    assert_eq!(error, DeclareError::Store(failed));
    let captured = store.capture_with(&mut capture, 1, vec![delete("t", &["1"])], vec![]).unwrap();
    assert_eq!(outcomes(&captured), [Err(RefusalCode::UnknownTable)]);
}

/// Columns as the oracle has them.
fn columns(schema: &TableSchema) -> Vec<(String, String, bool)> {
    schema.columns.iter().map(|column| (column.name.clone(), word(column.column_type), column.nullable)).collect()
}

/// Natively, under Node and in a browser: what the property tests draw is no matter of the platform.
#[test]
fn every_platform_draws_the_same_batches() {
    assert_eq!(crate::draws::digest(oracle::batches(8, 12), 512), 0xcaaf_8f0d_20da_f7ba);
}

proptest! {
    #![proptest_config(oracle::config(512))]

    /// However changes are batched, and whether an instance remembers or is new, each is decided as if it came alone.
    #[test]
    fn random_batches_are_decided_as_the_oracle_decides_them_one_by_one(
        batches in oracle::batches(8, 12),
        strict in any::<bool>(),
        fresh in any::<bool>(),
    ) {
        let mut oracle = Oracle { strict, ..Oracle::declared() };
        let store = MemoryStore::like(&oracle);
        let mut capture = Capture::default();
        for batch in &batches {
            if fresh {
                capture = Capture::default();
            }
            let expected: Vec<Result<u64, String>> =
                batch.iter().map(|change| oracle.decide(change).map_err(str::to_owned)).collect();
            *store.commits.borrow_mut() = 0;
            store.reads.borrow_mut().clear();
            let captured = store.capture_with(&mut capture, 1_000, batch.iter().map(Into::into).collect(), vec![]).unwrap();
            let outcomes: Vec<Result<u64, String>> = captured
                .outcomes
                .into_iter()
                .map(|outcome| outcome.map_err(|refusal| word(refusal.code)))
                .collect();
            prop_assert_eq!(&outcomes, &expected);
            prop_assert_eq!(*store.commits.borrow(), usize::from(outcomes.iter().any(Result::is_ok)));
            let mut tables: Vec<String> = store.reads.borrow().iter().map(|(table, _)| table.clone()).collect();
            tables.dedup();
            prop_assert_eq!(tables.len(), store.reads.borrow().len());
        }
        let state = store.state();
        let events: Vec<oracle::Event> = state.events.iter().map(|event| oracle::Event {
            sequence: event.sequence,
            table: event.table.clone(),
            key: event.key.clone(),
            operation: oracle.events[event.sequence as usize - 1].operation,
            before: event.before.clone(),
            after: event.after.clone(),
            schema_version: event.schema_version,
        }).collect();
        prop_assert_eq!(&events, &oracle.events);
        for event in &state.events {
            prop_assert_eq!(word(event.operation), oracle.events[event.sequence as usize - 1].operation);
        }
        let view = store.view().unwrap();
        for (name, table) in &oracle.tables {
            let rows: oracle::Rows = state.rows.iter()
                .filter(|((table, _), _)| table == name)
                .map(|((_, key), image)| (key.clone(), image.clone()))
                .collect();
            prop_assert_eq!(rows, oracle.rows_at(name, oracle.events.len() as u64));
            let history: Vec<_> = view.schema_history(name).unwrap().iter().map(columns).collect();
            let expected: Vec<Vec<_>> = table.versions.iter().map(|columns| {
                columns.iter().map(|column| (column.name.clone(), column.kind.to_owned(), column.nullable)).collect()
            }).collect();
            prop_assert_eq!(history, expected);
        }
        prop_assert_eq!(view.schemas().unwrap().len(), oracle.tables.len());
    }
}
