//! Tests of sources by scripted feeds, over the real ingest and engine.

#![allow(clippy::unwrap_used, reason = "a test may stop at a surprise")]

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use cdc_rest::{SourceName, SourceState, SourceStatus};
use cdc_sources::{Action, Change, Checkpoint, Portion, Progress, Remedy, Step, Table, TableProgress, TableState};

use super::feeds::Opener;
use super::kept::Kept;
use super::scripted::{Line, Script, change, error, following, table, with_value};
use super::spec::{OnMaxRetained, SourceSpec};
use super::{SourceError, SourceUrl, Sources};
use crate::ingest::{Ingest, IngestOptions};
use crate::metrics::{Metrics, StoreFigures};
use crate::sandbox::{CompileWith, Component, SchemaMode, Settings};
use crate::store::{EventRange, MemoryStore, Store, View};

const NAME: &str = "shop";

/// A service of nothing but a source.
struct Stage {
    store: Arc<MemoryStore>,
    ingest: Ingest,
    script: Arc<Script>,
    sources: Sources,
}

fn component() -> Component {
    static COMPONENT: OnceLock<Component> = OnceLock::new();
    COMPONENT.get_or_init(|| Component::load(None, None, &CompileWith::ThisProcess).unwrap()).clone()
}

fn spec() -> SourceSpec {
    SourceSpec::new(SourceName::parse(NAME).unwrap(), SourceUrl::parse("postgres://cdc:secret@h/d").unwrap())
}

fn door(store: &Arc<MemoryStore>) -> Ingest {
    let settings = Settings {
        schema_mode: SchemaMode::Infer,
        max_row_bytes: 1 << 10,
        max_key_bytes: 512,
        max_depth: 128,
        max_columns: 1_000,
        max_tables: 1_000,
        max_name_bytes: 128,
        max_past_keys: 1_000_000,
    };
    let metrics = Arc::new(Metrics::new("0", Box::new(StoreFigures::default)));
    let options = IngestOptions { max_batch: 1_000, max_queue: 8_192 };
    Ingest::start(component(), store.clone(), settings, &options, metrics).unwrap().0
}

impl Stage {
    fn new(scenes: Vec<Result<Vec<Line>, cdc_sources::FeedError>>) -> Self {
        Self::on(MemoryStore::new(), spec(), Script::new(scenes))
    }

    fn on(store: Arc<MemoryStore>, spec: SourceSpec, script: Arc<Script>) -> Self {
        let ingest = door(&store);
        let openers = vec![(Opener::Scripted(script.clone()), spec)];
        let sources = Sources::start_with(store.clone(), ingest.clone(), openers).unwrap();
        Self { store, ingest, script, sources }
    }

    fn name() -> SourceName {
        SourceName::parse(NAME).unwrap()
    }

    fn status(&self) -> SourceStatus {
        self.sources.status(&Self::name()).unwrap()
    }

    /// Waits until the status is as it should be.
    async fn until(&self, what: &str, is_so: impl Fn(&SourceStatus) -> bool) -> SourceStatus {
        eventually(what, || Some(self.status()).filter(&is_so), || format!("{:?}", self.status())).await
    }

    async fn until_state(&self, state: SourceState) -> SourceStatus {
        self.until(state.as_str(), |status| status.state == state).await
    }

    /// Waits until this checkpoint is confirmed to the feed.
    async fn until_confirmed(&self, checkpoint: &str) {
        let is_there = || self.script.confirmed().iter().any(|known| known == checkpoint).then_some(());
        eventually(checkpoint, is_there, || format!("{:?} {:?}", self.script.confirmed(), self.status())).await;
    }

    fn view(&self) -> Arc<dyn View> {
        self.store.view().unwrap()
    }

    /// `key=image` of each row.
    fn rows(&self, table: &str) -> Vec<String> {
        let rows = self.view().scan(table, None, 10_000, 1 << 30).unwrap();
        rows.iter().map(|row| String::from_utf8_lossy(&row.image).into_owned()).collect()
    }

    fn position(&self) -> Option<String> {
        self.view().position(NAME)
    }

    /// Operation and key of each event.
    fn events(&self) -> Vec<String> {
        let view = self.view();
        let range = EventRange {
            until: view.bounds().newest,
            max_events: 100_000,
            max_bytes: 1 << 30,
            ..EventRange::default()
        };
        let shown = |event: &crate::store::Event| {
            format!("{:?} {}", event.write.operation, String::from_utf8_lossy(&event.write.key))
        };
        view.events(&range).unwrap().events.iter().map(shown).collect()
    }

    fn kept(&self) -> Kept {
        Kept::read(&*self.view(), NAME).unwrap().unwrap_or_default()
    }
}

async fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>, shown: impl Fn() -> String) -> T {
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(std::time::Instant::now() < deadline, "not {what}: {}", shown());
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

fn portion(checkpoint: &str, steps: Vec<Step>) -> Line {
    Line::Portion(Portion { steps, checkpoint: Checkpoint(checkpoint.into()) })
}

fn changes(checkpoint: &str, changes: Vec<Change>) -> Line {
    let table = changes[0].table.clone();
    let described = std::iter::once(Step::Describe(table));
    portion(checkpoint, described.chain(changes.into_iter().map(Step::Change)).collect())
}

/// A table read whole: in one portion, or cut after the rows.
fn read(table: &Arc<Table>, keys: &[&str]) -> Vec<Step> {
    let rows = keys.iter().map(|key| Step::Change(change(table, Action::Read, key)));
    let began = [Step::Describe(table.clone()), Step::ReadBegan(table.clone())];
    began.into_iter().chain(rows).chain([Step::ReadDone(table.clone())]).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn portions_become_events_and_what_is_durable_is_confirmed() {
    let users = table("users");
    let stage = Stage::new(vec![Ok(vec![
        changes("a", vec![change(&users, Action::Replace, "1"), change(&users, Action::Replace, "2")]),
        changes("b", vec![change(&users, Action::Remove, "1")]),
        portion("c", Vec::new()),
    ])]);
    stage.script.set_progress(following(&["users"]));
    stage.until_confirmed("c").await;
    assert_eq!(stage.events(), ["Insert 1", "Insert 2", "Delete 1"]);
    assert_eq!(stage.rows("users"), ["{\"id\":2,\"v\":\"v2\"}"]);
    assert_eq!(
        (stage.position().as_deref(), stage.script.confirmed()),
        (Some("c"), vec!["a".into(), "b".into(), "c".into()])
    );
    let status = stage.until_state(SourceState::Following).await;
    assert_eq!((status.events, status.transactions, status.portions), (3, 3, 3));
    assert!(status.commit_delay_ms.is_some() && status.kind == "postgres");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_lost_is_opened_again_at_what_is_durable() {
    let users = table("users");
    let stage = Stage::new(vec![
        Err(error(Remedy::Retry, "connection")),
        Ok(vec![
            changes("a", vec![change(&users, Action::Replace, "1")]),
            Line::Fails(error(Remedy::Retry, "connection")),
        ]),
        Ok(vec![changes("b", vec![change(&users, Action::Replace, "2")])]),
    ]);
    stage.until_confirmed("b").await;
    assert_eq!(stage.script.openings(), [(None, false), (None, false), (Some("a".into()), false)]);
    assert_eq!(stage.events(), ["Insert 1", "Insert 2"]);
    assert_eq!(stage.status().reconnects, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_stays_away_is_shown_with_why() {
    let scenes = std::iter::repeat_with(|| Err(error(Remedy::Retry, "connection"))).take(50).collect();
    let stage = Stage::new(scenes);
    let status = stage.until_state(SourceState::Reconnecting).await;
    assert_eq!(status.code.as_deref(), Some("connection"));
    assert_eq!(status.reason.as_deref(), Some("the script says connection"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_feed_that_panics_is_opened_again() {
    let users = table("users");
    let stage = Stage::new(vec![
        Ok(vec![changes("a", vec![change(&users, Action::Replace, "1")]), Line::Panics]),
        Ok(vec![changes("b", vec![change(&users, Action::Replace, "2")])]),
    ]);
    stage.until_confirmed("b").await;
    assert_eq!(stage.script.openings()[1], (Some("a".into()), false), "what was in flight came first");
    assert_eq!(stage.events(), ["Insert 1", "Insert 2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_that_a_person_must_mend_stops_the_source_until_it_is_resumed() {
    let users = table("users");
    let stage = Stage::new(vec![Err(error(Remedy::Stop, "privileges"))]);
    let status = stage.until_state(SourceState::Stopped).await;
    assert_eq!(status.code.as_deref(), Some("privileges"));
    let reason = status.reason.unwrap();
    assert!(reason.contains("POST /sources/shop/resume"), "{reason}");
    stage.script.add_scene(Ok(vec![changes("a", vec![change(&users, Action::Replace, "1")])]));
    stage.sources.resume(&Stage::name()).await.unwrap();
    stage.until_confirmed("a").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_engine_refuses_stops_the_source_and_nothing_is_skipped() {
    let users = table("users");
    let large = "x".repeat(2_000);
    let stage = Stage::new(vec![Ok(vec![
        changes("a", vec![change(&users, Action::Replace, "1")]),
        changes("b", vec![with_value(&users, Action::Replace, "2", &large)]),
        changes("c", vec![change(&users, Action::Replace, "3")]),
    ])]);
    let status = stage.until_state(SourceState::Stopped).await;
    assert_eq!(status.code.as_deref(), Some("row-too-large"));
    let reason = status.reason.unwrap();
    assert!(reason.contains("users") && reason.contains('2') && reason.contains("1024"), "{reason}");
    assert_eq!(stage.events(), ["Insert 1"]);
    assert_eq!(stage.position().as_deref(), Some("a"), "what came behind the refused portion is not captured either");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_slot_names_the_repair_and_the_repair_brings_the_rows_to_what_the_table_has() {
    let users = table("users");
    let stage = Stage::new(vec![Ok(vec![
        changes("a", ["1", "2", "3"].map(|key| change(&users, Action::Replace, key)).into()),
        Line::Fails(error(Remedy::Repair, "slot-lost")),
    ])]);
    stage.script.set_progress(following(&["users"]));
    let status = stage.until_state(SourceState::Stopped).await;
    assert_eq!(status.code.as_deref(), Some("slot-lost"));
    assert!(status.reason.unwrap().contains("POST /sources/shop/repair"));
    // Meanwhile 1 was changed, 2 was deleted, and 4 came.
    let mut steps = read(&users, &["3", "4"]);
    steps.insert(2, Step::Change(with_value(&users, Action::Read, "1", "new")));
    stage.script.add_scene(Ok(vec![portion("b", steps), changes("c", vec![change(&users, Action::Replace, "5")])]));
    stage.sources.repair(&Stage::name()).await.unwrap();
    stage.until_confirmed("c").await;
    assert_eq!(stage.script.openings().last(), Some(&(Some("a".into()), true)));
    let rows =
        ["{\"id\":1,\"v\":\"new\"}", "{\"id\":3,\"v\":\"v3\"}", "{\"id\":4,\"v\":\"v4\"}", "{\"id\":5,\"v\":\"v5\"}"];
    assert_eq!(stage.rows("users"), rows);
    let repair = stage.until_state(SourceState::Following).await.last_repair.unwrap();
    assert_eq!((repair.tables, repair.inserted, repair.updated, repair.removed), (1, 1, 1, 1));
    assert!(!stage.kept().needs_reading());
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_come_after_the_reading_in_the_same_portion_are_kept() {
    let users = table("users");
    let mut steps = read(&users, &["1"]);
    steps.push(Step::Change(change(&users, Action::Replace, "2")));
    let stage = Stage::new(vec![Ok(vec![
        portion("a", read(&users, &["0", "1"])),
        portion("b", steps),
        portion("c", Vec::new()),
    ])]);
    stage.until_confirmed("c").await;
    assert_eq!(stage.rows("users"), ["{\"id\":1,\"v\":\"v1\"}", "{\"id\":2,\"v\":\"v2\"}"]);
    assert!(stage.kept().unswept.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_reading_of_a_table_remembers_no_keys_and_removes_nothing() {
    let users = table("users");
    let stage = Stage::new(vec![Ok(vec![portion("a", read(&users, &["1", "2"])), portion("b", Vec::new())])]);
    stage.until_confirmed("b").await;
    assert_eq!(stage.events(), ["Insert 1", "Insert 2"]);
    assert_eq!(stage.status().events, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repair_that_a_crash_cut_short_starts_over() {
    let users = table("users");
    let store = MemoryStore::new();
    let first = Stage::on(
        store.clone(),
        spec(),
        Script::new(vec![
            Ok(vec![
                changes("a", ["1", "2"].map(|key| change(&users, Action::Replace, key)).into()),
                Line::Fails(error(Remedy::Repair, "slot-lost")),
            ]),
            // The reading begins, and its end never comes.
            Ok(vec![portion("b", read(&users, &["3"]).into_iter().take(3).collect())]),
        ]),
    );
    first.script.set_progress(following(&["users"]));
    first.until_state(SourceState::Stopped).await;
    first.sources.repair(&Stage::name()).await.unwrap();
    first.until_confirmed("b").await;
    assert_eq!(first.status().state, SourceState::Repairing);
    assert!(matches!(
        first.sources.repair(&Stage::name()).await,
        Err(SourceError::WrongState { state: SourceState::Repairing, .. })
    ));
    assert_eq!(first.sources.stop(Duration::from_secs(10)).await, 0);
    drop(first);

    let script = Script::new(vec![Ok(vec![portion("c", read(&users, &["2", "3"]))])]);
    script.set_progress(following(&["users"]));
    let second = Stage::on(store, spec(), script);
    second.until_state(SourceState::Following).await;
    assert_eq!(second.script.openings(), [(Some("b".into()), true)]);
    assert_eq!(second.rows("users"), ["{\"id\":2,\"v\":\"v2\"}", "{\"id\":3,\"v\":\"v3\"}"]);
    assert!(!second.kept().needs_reading());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_read_anew_without_a_repair_starts_over_after_a_crash_too() {
    let users = table("users");
    let store = MemoryStore::new();
    let first = Stage::on(
        store.clone(),
        spec(),
        Script::new(vec![Ok(vec![
            portion("a", read(&users, &["1"])),
            portion("b", read(&users, &["2"]).into_iter().take(3).collect()),
        ])]),
    );
    first.until_confirmed("b").await;
    assert_eq!(first.kept().unswept.iter().collect::<Vec<_>>(), ["users"]);
    assert_eq!(first.sources.stop(Duration::from_secs(10)).await, 0);
    drop(first);

    let script = Script::new(vec![Ok(vec![portion("c", read(&users, &["2"])), portion("d", Vec::new())])]);
    script.set_progress(following(&["users"]));
    let second = Stage::on(store, spec(), script);
    second.until_confirmed("d").await;
    assert_eq!(second.script.openings(), [(Some("b".into()), true)]);
    assert_eq!(second.rows("users"), ["{\"id\":2,\"v\":\"v2\"}"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_the_log_told_before_a_new_table_was_read_are_no_reason_to_read_it_again() {
    let users = table("users");
    let store = MemoryStore::new();
    let first = Stage::on(
        store.clone(),
        spec(),
        Script::new(vec![Ok(vec![
            changes("a", vec![change(&users, Action::Replace, "1")]),
            portion("b", read(&users, &["2"]).into_iter().take(3).collect()),
        ])]),
    );
    first.until_confirmed("b").await;
    assert!(!first.kept().needs_reading() && first.kept().unread.contains_key("users"));
    assert_eq!(first.sources.stop(Duration::from_secs(10)).await, 0);
    drop(first);

    let rest = read(&users, &["3"]).split_off(2);
    let second = Stage::on(store, spec(), Script::new(vec![Ok(vec![portion("c", rest), portion("d", Vec::new())])]));
    second.until_confirmed("d").await;
    assert_eq!(second.script.openings(), [(Some("b".into()), false)], "it goes on where it was");
    assert_eq!(second.rows("users").len(), 3);
    assert!(second.kept().unread.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_table_whose_key_changes_before_it_is_read_keeps_no_row_under_the_old_one() {
    let users = table("users");
    let mut other = (*users).clone();
    other.key = vec!["v".into()];
    let other = Arc::new(other);
    let row = Change {
        key: vec!["x".into()],
        image: Some("{\"id\":1,\"v\":\"x\"}".into()),
        ..change(&other, Action::Read, "1")
    };
    let steps = vec![
        Step::Describe(other.clone()),
        Step::ReadBegan(other.clone()),
        Step::Change(row),
        Step::ReadDone(other.clone()),
    ];
    let stage = Stage::new(vec![Ok(vec![
        changes("a", vec![change(&users, Action::Replace, "1")]),
        portion("b", steps),
        portion("c", Vec::new()),
    ])]);
    stage.until_confirmed("c").await;
    assert_eq!(stage.rows("users"), ["{\"id\":1,\"v\":\"x\"}"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_source_stays_paused_over_a_restart() {
    let users = table("users");
    let store = MemoryStore::new();
    let first = Stage::on(store.clone(), spec(), Script::new(vec![Ok(vec![portion("a", Vec::new())])]));
    first.until_confirmed("a").await;
    first.sources.pause(&Stage::name()).await.unwrap();
    first.until_state(SourceState::Paused).await;
    let wrong = first.sources.repair(&Stage::name()).await.unwrap_err().to_string();
    assert!(wrong.contains("paused") && wrong.contains("resume"), "{wrong}");
    assert!(first.sources.pause(&Stage::name()).await.is_err());
    assert_eq!(first.sources.stop(Duration::from_secs(10)).await, 0);
    drop(first);

    let second =
        Stage::on(store, spec(), Script::new(vec![Ok(vec![changes("b", vec![change(&users, Action::Replace, "1")])])]));
    second.until_state(SourceState::Paused).await;
    assert!(second.script.openings().is_empty());
    second.sources.resume(&Stage::name()).await.unwrap();
    second.until_confirmed("b").await;
    assert_eq!(second.script.openings(), [(Some("a".into()), false)]);
    assert!(second.sources.resume(&Stage::name()).await.is_err(), "it runs");
}

fn retaining(bytes: u64) -> Progress {
    Progress { retained_bytes: Some(bytes), ..following(&["users"]) }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_budget_of_retained_log_warns_stops_or_drops_the_slot() {
    for (policy, state, code, dropped) in [
        (OnMaxRetained::Warn, SourceState::Following, None, 0),
        (OnMaxRetained::Stop, SourceState::Stopped, Some("retained-budget"), 0),
        (OnMaxRetained::DropSlot, SourceState::Stopped, Some("slot-lost"), 1),
    ] {
        let spec = SourceSpec { max_retained_bytes: Some(1_000), on_max_retained: policy, ..spec() };
        let stage = Stage::on(MemoryStore::new(), spec, Script::new(Vec::new()));
        stage.script.set_progress(retaining(1_000));
        stage.until_state(SourceState::Following).await;
        assert!(!stage.status().over_budget);
        stage.script.set_progress(retaining(1_001));
        let status = stage.until("over budget", |status| status.over_budget && status.state == state).await;
        assert_eq!((status.code.as_deref(), status.retained_budget), (code, Some(1_000)), "{policy:?}");
        assert_eq!(stage.script.slots_dropped(), dropped);
        // Resumed, it may catch up: it stops again only when it has been within its budget before.
        if policy == OnMaxRetained::Stop {
            stage.script.add_scene(Ok(vec![portion("a", Vec::new())]));
            stage.sources.resume(&Stage::name()).await.unwrap();
            stage.until_confirmed("a").await;
            stage.until_state(SourceState::Following).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_budget_holds_while_a_source_rests() {
    for (policy, state, code, dropped) in [
        (OnMaxRetained::Warn, SourceState::Paused, None, 0),
        (OnMaxRetained::Stop, SourceState::Paused, None, 0),
        (OnMaxRetained::DropSlot, SourceState::Stopped, Some("slot-lost"), 1),
    ] {
        let spec = SourceSpec { max_retained_bytes: Some(1_000), on_max_retained: policy, ..spec() };
        let stage = Stage::on(MemoryStore::new(), spec, Script::new(Vec::new()));
        stage.until_state(SourceState::Following).await;
        stage.sources.pause(&Stage::name()).await.unwrap();
        stage.until_state(SourceState::Paused).await;
        stage.script.set_progress(retaining(1_001));
        let status = stage.until("over budget", |status| status.over_budget && status.state == state).await;
        assert_eq!((status.code.as_deref(), status.retained_bytes), (code, Some(1_001)), "{policy:?}");
        assert_eq!(stage.script.slots_dropped(), dropped);
        stage.script.set_progress(retaining(1_000));
        stage.until("within its budget", |status| !status.over_budget).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_that_are_being_read_are_shown() {
    let stage = Stage::new(Vec::new());
    let reading = TableProgress {
        table: "users".into(),
        state: TableState::Reading,
        reason: None,
        rows_read: 7,
        rows_estimated: None,
    };
    stage.script.set_progress(Progress { tables: vec![reading], ..Progress::default() });
    let status = stage.until_state(SourceState::Reading).await;
    assert_eq!(status.tables[0].rows_read, 7);
    stage.script.set_progress(following(&["users"]));
    stage.until_state(SourceState::Following).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_nobody_knows_is_said_to_be_unknown() {
    let stage = Stage::new(Vec::new());
    let other = SourceName::parse("other").unwrap();
    assert!(matches!(stage.sources.status(&other), Err(SourceError::Unknown(_))));
    assert!(matches!(stage.sources.repair(&other).await, Err(SourceError::Unknown(_))));
    assert_eq!(stage.sources.statuses().len(), 1);
    assert_eq!(stage.sources.figures()[0].name, NAME);
    drop(stage.ingest);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_is_remembered_without_its_password() {
    let stage = Stage::new(vec![Ok(vec![portion("a", Vec::new())])]);
    stage.until_confirmed("a").await;
    assert_eq!(stage.kept().url, "postgres://cdc:***@h/d");
}
