#![allow(clippy::unwrap_used, reason = "a test may stop at a surprise")]

#[cfg(target_family = "wasm")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::*;
use crate::event::{ColumnType, Event};
use crate::memory::{self, MemoryStore};

/// A portion in the making: texts are pushed as they come.
#[derive(Default)]
struct Draft(Portion);

fn relation(source: &str) -> Relation {
    Relation {
        source: source.to_owned(),
        connector: "postgresql".to_owned(),
        database: "shop".to_owned(),
        namespace: "public".to_owned(),
        name: "users".to_owned(),
    }
}

fn described(columns: &[&str]) -> Described {
    let column = |name: &&str| Column {
        name: (*name).to_owned(),
        column_type: if *name == "id" { ColumnType::Number } else { ColumnType::String },
        nullable: *name != "id",
        native_type: Some(if *name == "id" { "integer".to_owned() } else { "text".to_owned() }),
    };
    Described {
        name: "users".to_owned(),
        columns: columns.iter().map(column).collect(),
        primary_key: vec!["id".to_owned()],
        relation: relation("pg"),
    }
}

impl Draft {
    /// Of a table with these columns, by the source `pg`.
    fn of(columns: &[&str]) -> Self {
        let mut draft = Self::default();
        draft.0.source = "pg".to_owned();
        draft.table(described(columns));
        draft
    }

    /// From here on changes are about this table.
    fn table(&mut self, described: Described) -> &mut Self {
        self.0.tables.push(described);
        self
    }

    fn transaction(&mut self, name: &str, committed_at_ms: u64) -> &mut Self {
        let name = self.0.texts.push(name);
        self.0.transactions.push(Transaction { name, committed_at_ms: Some(committed_at_ms) });
        self
    }

    fn push(&mut self, action: Action, key: &str, image: Option<&str>) -> &mut Change {
        let texts = &mut self.0.texts;
        let change = Change {
            table: self.0.tables.len() as u32 - 1,
            action,
            key: texts.push(key),
            image: image.map(|image| texts.push(image)),
            before: None,
            transaction: self.0.transactions.len().checked_sub(1).map(|last| last as u32),
            position: None,
            detail: None,
        };
        self.0.changes.push(change);
        self.0.changes.last_mut().unwrap()
    }

    fn replace(&mut self, key: &str, image: &str) -> &mut Self {
        self.push(Action::Replace, key, Some(image));
        self
    }

    /// A replace whose image lacks unchanged columns.
    fn patch(&mut self, key: &str, image: &str, unchanged: &[u32], previous_key: Option<&str>) -> &mut Self {
        let previous_key = previous_key.map(|key| self.0.texts.push(key));
        self.0.details.push(Detail { unchanged: unchanged.to_vec(), previous_key });
        let detail = self.0.details.len() as u32 - 1;
        self.push(Action::Replace, key, Some(image)).detail = Some(detail);
        self
    }

    fn read(&mut self, key: &str, image: &str) -> &mut Self {
        self.push(Action::Read, key, Some(image));
        self
    }

    fn remove(&mut self, key: &str) -> &mut Self {
        self.push(Action::Remove, key, None);
        self
    }

    /// What the log told of the row before, of the change before this one.
    fn told(&mut self, before: &str) -> &mut Self {
        let before = self.0.texts.push(before);
        self.0.changes.last_mut().unwrap().before = Some(before);
        self
    }

    fn at(&mut self, position: &str) -> &mut Self {
        let position = self.0.texts.push(position);
        self.0.changes.last_mut().unwrap().position = Some(position);
        self
    }

    fn truncate(&mut self) -> &mut Self {
        self.push(Action::Truncate, "", None);
        self
    }

    fn describe(&mut self) -> &mut Self {
        self.push(Action::Describe, "", None);
        self
    }

    fn until(&mut self, checkpoint: &str) -> &mut Self {
        self.0.checkpoint = Some(checkpoint.to_owned());
        self
    }

    fn follow(&self, store: &MemoryStore) -> Result<Followed, FollowError> {
        Capture::default().follow(store, 1_000, self.0.clone())
    }

    fn refusal(&self, store: &MemoryStore) -> (u32, RefusalCode, String) {
        match self.follow(store).unwrap_err() {
            FollowError::Refused { change, refusal } => (change, refusal.code, refusal.message),
            FollowError::Store(error) => panic!("{error}"),
        }
    }
}

/// What happened, in short: operation, key, before, after.
fn story(store: &MemoryStore) -> Vec<String> {
    let text = |image: &Option<String>| image.clone().unwrap_or_else(|| "-".to_owned());
    let line =
        |event: &Event| format!("{:?} {} {} {}", event.operation, event.key, text(&event.before), text(&event.after));
    store.state().events.iter().map(line).collect()
}

fn rows(store: &MemoryStore) -> Vec<(String, String)> {
    store.state().rows.iter().map(|((_, key), image)| (key.clone(), image.clone())).collect()
}

#[test]
fn what_a_database_did_becomes_events_with_both_images() {
    let store = MemoryStore::default();
    let mut draft = Draft::of(&["id", "name"]);
    draft
        .transaction("741", 5)
        .replace("1", r#"{"id":1,"name":"a"}"#)
        .at("0/16/1")
        .replace("1", r#"{"id":1,"name":"b"}"#)
        .at("0/16/2")
        .transaction("742", 6)
        .remove("1")
        .at("0/17/1")
        .until("0/17");
    let followed = draft.follow(&store).unwrap();
    assert_eq!((followed.first, followed.events), (1, 3));
    assert_eq!(
        story(&store),
        [
            r#"Insert 1 - {"id":1,"name":"a"}"#,
            r#"Update 1 {"id":1,"name":"a"} {"id":1,"name":"b"}"#,
            r#"Delete 1 {"id":1,"name":"b"} -"#,
        ]
    );
    assert_eq!((rows(&store).len(), store.state().positions["pg"].as_str()), (0, "0/17"));
    let origins: Vec<_> = store.state().events.iter().map(|event| event.origin.clone().unwrap()).collect();
    let shown = |at: usize| {
        let origin = &origins[at];
        (origin.transaction.as_deref(), origin.position.as_deref(), origin.committed_at_ms, origin.snapshot)
    };
    assert_eq!(shown(1), (Some("741"), Some("0/16/2"), Some(5), false));
    assert_eq!(shown(2), (Some("742"), Some("0/17/1"), Some(6), false));
    assert!(origins.iter().all(|origin| origin.source == "pg" && origin.unavailable.is_none()));
}

#[test]
fn an_update_of_a_row_that_nobody_saw_is_an_insert_unless_the_log_tells_what_it_was() {
    let store = MemoryStore::default();
    let mut draft = Draft::of(&["id", "name"]);
    draft.replace("1", r#"{"id":1,"name":"a"}"#);
    draft.replace("2", r#"{"id":2,"name":"b"}"#).told(r#"{"id":2,"name":"before"}"#);
    // What is stored is stronger: it is what events have said.
    draft.replace("1", r#"{"id":1,"name":"c"}"#).told(r#"{"id":1,"name":"?"}"#);
    draft.follow(&store).unwrap();
    assert_eq!(
        story(&store),
        [
            r#"Insert 1 - {"id":1,"name":"a"}"#,
            r#"Update 2 {"id":2,"name":"before"} {"id":2,"name":"b"}"#,
            r#"Update 1 {"id":1,"name":"a"} {"id":1,"name":"c"}"#,
        ]
    );
}

#[test]
fn a_delete_of_a_row_that_nobody_saw_has_its_key() {
    let store = MemoryStore::default();
    let mut draft = Draft::of(&["id", "name"]);
    draft.remove("7").remove("8").told(r#"{"id":8,"name":"b"}"#);
    let mut composite = described(&["id", "na\"me"]);
    composite.name = "lines".to_owned();
    composite.primary_key.push("na\"me".to_owned());
    draft.table(composite).remove("1/a%2Fb%25");
    draft.follow(&store).unwrap();
    assert_eq!(
        story(&store),
        [
            r#"Delete 7 {"id":7} -"#,
            r#"Delete 8 {"id":8,"name":"b"} -"#,
            r#"Delete 1/a%2Fb%25 {"id":1,"na\"me":"a/b%"} -"#,
        ]
    );
}

#[test]
fn unchanged_columns_are_filled_from_the_row_as_it_was() {
    let store = MemoryStore::default();
    Draft::of(&["id", "name", "note"]).replace("1", r#"{"id":1,"name":"a","note":"long"}"#).follow(&store).unwrap();
    // From the store, then from the change before it, then under another key.
    let mut draft = Draft::of(&["id", "name", "note"]);
    draft.patch("1", r#"{"id":1,"name":"b"}"#, &[2], None).patch("1", r#"{"id":1,"name":"c"}"#, &[2], None);
    draft.remove("1").patch("2", r#"{"id":2,"name":"d"}"#, &[2], Some("1"));
    draft.follow(&store).unwrap();
    assert_eq!(
        story(&store)[1..],
        [
            r#"Update 1 {"id":1,"name":"a","note":"long"} {"id":1,"name":"b","note":"long"}"#,
            r#"Update 1 {"id":1,"name":"b","note":"long"} {"id":1,"name":"c","note":"long"}"#,
            r#"Delete 1 {"id":1,"name":"c","note":"long"} -"#,
            r#"Insert 2 - {"id":2,"name":"d","note":"long"}"#,
        ]
    );
}

#[test]
fn a_value_that_nobody_knows_is_left_out_and_named() {
    let store = MemoryStore::default();
    let mut draft = Draft::of(&["id", "na\"me", "note"]);
    draft.patch("1", r#"{"id":1}"#, &[1, 2], None).follow(&store).unwrap();
    let event = store.state().events[0].clone();
    assert_eq!(event.after.as_deref(), Some(r#"{"id":1}"#));
    let unavailable = event.origin.unwrap().unavailable.unwrap();
    assert_eq!(unavailable, r#"["na\"me","note"]"#);
    assert_eq!(image::strings(&unavailable), ["na\"me", "note"]);
    // A read of the row mends it.
    Draft::of(&["id", "na\"me", "note"]).read("1", r#"{"id":1,"na\"me":"a","note":null}"#).follow(&store).unwrap();
    assert_eq!(store.state().events[1].origin.as_ref().unwrap().unavailable, None);
    assert_eq!(rows(&store)[0].1, r#"{"id":1,"na\"me":"a","note":null}"#);
}

#[test]
fn unchanged_columns_of_a_row_that_nobody_saw_are_what_the_log_told() {
    let store = MemoryStore::default();
    let mut draft = Draft::of(&["id", "name", "note"]);
    draft.patch("1", r#"{"id":1,"name":"b"}"#, &[2], None).told(r#"{"id":1, "name":"a","note":"long"}"#);
    draft.remove("2").told(r#"{"id":2,"name":"c","note":"other"}"#).patch("3", r#"{"id":3}"#, &[1, 2], Some("2"));
    draft.follow(&store).unwrap();
    assert_eq!(
        story(&store),
        [
            r#"Update 1 {"id":1,"name":"a","note":"long"} {"id":1,"name":"b","note":"long"}"#,
            r#"Delete 2 {"id":2,"name":"c","note":"other"} -"#,
            r#"Insert 3 - {"id":3,"name":"c","note":"other"}"#,
        ]
    );
    let mut broken = Draft::of(&["id", "name", "note"]);
    broken.remove("9").told(r#"{"id":9"#);
    assert_eq!(broken.refusal(&store).1, RefusalCode::InvalidJson);
}

#[test]
fn what_is_read_is_an_event_only_if_it_is_news() {
    let store = MemoryStore::default();
    let mut draft = Draft::of(&["id", "name"]);
    draft.read("1", r#"{"id":1,"name":"a"}"#).read("2", r#"{"id":2,"name":"b"}"#).read("1", r#"{"id":1,"name":"a"}"#);
    draft.follow(&store).unwrap();
    let again = draft.read("2", r#"{"id":2,"name":"c"}"#).until("9").follow(&store).unwrap();
    assert_eq!((again.first, again.events), (3, 1));
    assert_eq!(
        story(&store),
        [
            r#"Insert 1 - {"id":1,"name":"a"}"#,
            r#"Insert 2 - {"id":2,"name":"b"}"#,
            r#"Update 2 {"id":2,"name":"b"} {"id":2,"name":"c"}"#,
        ]
    );
    assert!(store.state().events.iter().all(|event| event.origin.as_ref().unwrap().snapshot));
}

#[test]
fn a_table_that_is_known_may_be_emptied_by_a_source_that_knows_only_its_name() {
    let store = MemoryStore::default();
    Draft::of(&["id", "name"]).replace("1", r#"{"id":1,"name":"a"}"#).follow(&store).unwrap();
    let nameless = || Described { columns: Vec::new(), primary_key: Vec::new(), ..described(&["id", "name"]) };
    Draft::of(&["id", "name"]).table(nameless()).truncate().follow(&store).unwrap();
    assert_eq!(story(&store)[1..], ["Truncate  - -".to_owned()]);
    assert_eq!(rows(&store), []);
    assert_eq!(store.state().events[1].schema_version, 1, "it looks as it did");
    // One that nobody has heard of is none.
    let unknown = Described { name: "other".into(), ..nameless() };
    assert!(Draft::of(&["id", "name"]).table(unknown).truncate().follow(&store).is_err());
}

#[test]
fn a_truncate_empties_the_table_for_what_comes_after_it_too() {
    let store = MemoryStore::default();
    Draft::of(&["id", "name"]).replace("1", r#"{"id":1,"name":"a"}"#).follow(&store).unwrap();
    let mut draft = Draft::of(&["id", "name"]);
    draft.replace("2", r#"{"id":2,"name":"b"}"#).truncate().replace("1", r#"{"id":1,"name":"c"}"#);
    draft.follow(&store).unwrap();
    assert_eq!(story(&store)[2..], ["Truncate  - -".to_owned(), r#"Insert 1 - {"id":1,"name":"c"}"#.to_owned()]);
    assert_eq!(rows(&store), [("1".to_owned(), r#"{"id":1,"name":"c"}"#.to_owned())]);
}

#[test]
fn a_table_is_what_the_database_says_at_each_place() {
    let store = MemoryStore::default();
    let mut draft = Draft::of(&["id", "name"]);
    draft.describe().replace("1", r#"{"id":1,"name":"a"}"#);
    // Dropped, added, retyped: all in one portion.
    let mut retyped = described(&["id", "age"]);
    retyped.columns[1].native_type = Some("bigint".to_owned());
    draft.table(described(&["id"])).describe().table(retyped.clone()).replace("1", r#"{"id":1,"age":"7"}"#);
    draft.follow(&store).unwrap();
    let versions: Vec<_> = store.state().events.iter().map(|event| event.schema_version).collect();
    assert_eq!(versions, [1, 3]);
    let mut again = Draft::default();
    again.0.source = "pg".to_owned();
    again.table(retyped.clone()).describe();
    assert_eq!(again.follow(&store).unwrap().events, 0);
    let schema = store.schema("users").unwrap().unwrap();
    assert_eq!((schema.version, schema.columns, schema.relation), (3, retyped.columns, Some(relation("pg"))));
}

#[test]
fn one_change_that_cannot_be_captured_refuses_the_portion() {
    let store = MemoryStore::default();
    store.settings.borrow_mut().max_row_bytes = 60;
    store.settings.borrow_mut().max_key_bytes = 8;
    let fine = r#"{"id":1,"name":"a"}"#;
    let long = format!(r#"{{"id":1,"name":"{}"}}"#, "x".repeat(60));
    for (key, image, code) in [
        ("1", long.as_str(), RefusalCode::RowTooLarge),
        ("1", r#"{"id":1"#, RefusalCode::InvalidJson),
        ("", fine, RefusalCode::InvalidKey),
        ("123456789", fine, RefusalCode::KeyTooLong),
    ] {
        let mut draft = Draft::of(&["id", "name"]);
        draft.replace("1", fine).replace(key, image).until("9");
        let (change, found, message) = draft.refusal(&store);
        assert_eq!((change, found), (1, code), "{message}");
    }
    // Filled up, a row can become too long as well.
    let half = format!(r#"{{"id":1,"name":"{}","note":"{}"}}"#, "x".repeat(10), "y".repeat(10));
    let mut draft = Draft::of(&["id", "name", "note"]);
    draft.replace("1", &half).patch("1", &format!(r#"{{"id":1,"name":"{}"}}"#, "x".repeat(30)), &[2], None);
    assert_eq!(draft.refusal(&store).1, RefusalCode::RowTooLarge);
    assert_eq!((*store.commits.borrow(), store.state().events.len()), (0, 0));
}

#[test]
fn a_table_belongs_to_one_writer() {
    let store = MemoryStore::default();
    store.capture(1, vec![memory::change(crate::capture::Action::Insert, "users", &[], r#"{"id":1}"#)]);
    let (_, code, message) = Draft::of(&["id"]).describe().refusal(&store);
    assert_eq!(code, RefusalCode::SchemaConflict);
    assert!(message.contains("the service's own API"), "{message}");

    let store = MemoryStore::default();
    Draft::of(&["id"]).replace("1", r#"{"id":1}"#).follow(&store).unwrap();
    let mut other = Draft::default();
    other.0.source = "other".to_owned();
    other.table(Described { relation: relation("other"), ..described(&["id"]) }).describe();
    let (_, code, message) = other.refusal(&store);
    assert_eq!(code, RefusalCode::SchemaConflict);
    assert!(message.contains("`pg`"), "{message}");

    let written = vec![memory::change(crate::capture::Action::Upsert, "users", &[], r#"{"id":2}"#)];
    let outcome = store.capture(2, written).outcomes.remove(0).unwrap_err();
    assert_eq!(outcome.code, RefusalCode::CapturedTable);
    assert!(outcome.message.contains("shop.public.users"), "{}", outcome.message);
    let declared = memory::declaration("users", &[], &["id"]);
    let refused = Capture::default().declare(&store, 3, declared).unwrap_err();
    assert!(
        matches!(refused, crate::capture::DeclareError::Refused(refusal) if refusal.code == RefusalCode::CapturedTable)
    );
}

#[test]
fn limits_of_tables_and_names_hold_for_databases_too() {
    let store = MemoryStore::default();
    store.settings.borrow_mut().max_tables = 1;
    store.settings.borrow_mut().max_columns = 2;
    let mut draft = Draft::of(&["id"]);
    draft.describe().table(Described { name: "other".to_owned(), ..described(&["id"]) }).describe();
    assert_eq!(draft.refusal(&store).1, RefusalCode::TooManyTables);
    assert_eq!(Draft::of(&["id", "a", "b"]).describe().refusal(&store).1, RefusalCode::TooManyColumns);
    let mut slash = Draft::default();
    slash.0.source = "pg".to_owned();
    slash.table(described(&["id"])).describe().table(Described { name: "a/b".to_owned(), ..described(&["id"]) });
    let (change, code, _) = slash.describe().refusal(&store);
    assert_eq!((change, code), (1, RefusalCode::InvalidTableName));
}

#[test]
fn a_strict_service_takes_what_a_database_declares() {
    let store = MemoryStore::default();
    store.settings.borrow_mut().schema_mode = crate::store::SchemaMode::Strict;
    Draft::of(&["id", "name"]).replace("1", r#"{"id":1,"name":null}"#).follow(&store).unwrap();
    assert_eq!(rows(&store).len(), 1);
}

#[test]
fn a_portion_that_fails_leaves_no_trace_and_comes_again() {
    let store = MemoryStore::default();
    let mut capture = Capture::default();
    let mut draft = Draft::of(&["id", "name"]);
    draft.replace("1", r#"{"id":1,"name":"a"}"#).until("1");
    *store.failure.borrow_mut() = Some(StoreError::Full("the disk".to_owned()));
    let failed = capture.follow(&store, 1, draft.0.clone()).unwrap_err();
    assert!(matches!(failed, FollowError::Store(StoreError::Full(_))), "{failed:?}");
    assert!(store.state().positions.is_empty());
    let followed = capture.follow(&store, 2, draft.0.clone()).unwrap();
    assert_eq!((followed.first, followed.events, followed.timestamp_ms), (1, 1, 2));
}

#[test]
fn a_portion_without_changes_moves_the_checkpoint_alone() {
    let store = MemoryStore::default();
    let followed = Draft::of(&["id"]).until("0/20").follow(&store).unwrap();
    assert_eq!((followed.events, store.state().positions["pg"].as_str()), (0, "0/20"));
    assert!(store.schema("users").unwrap().is_none());
    let nothing = Draft::of(&["id"]).follow(&store).unwrap();
    assert_eq!((nothing.events, *store.commits.borrow()), (0, 1));
}

#[test]
fn a_portion_that_names_what_it_has_not_is_refused_as_none() {
    let store = MemoryStore::default();
    let broken: [fn(&mut Portion); 6] = [
        |portion| portion.changes[0].table = 7,
        |portion| portion.changes[0].transaction = Some(7),
        |portion| portion.changes[0].detail = Some(7),
        |portion| portion.changes[0].key = Span { offset: 9_999, length: 1 },
        |portion| portion.changes[0].image = Some(Span { offset: 9_999, length: 1 }),
        |portion| portion.changes[0].image = None,
    ];
    for change in broken {
        let mut draft = Draft::of(&["id"]);
        draft.replace("1", r#"{"id":1}"#);
        change(&mut draft.0);
        assert!(matches!(draft.follow(&store), Err(FollowError::Store(StoreError::Failed(_)))));
    }
    assert_eq!(*store.commits.borrow(), 0);
}
