//! Tables that are compared with their database.

use cdc_rest::{AuditRequest, AuditState, DifferenceKind, SourceAudit, TableAudit};
use cdc_sources::{AuditOrder, AuditPiece, AuditRows, AuditScope, Reason, RowText, TextForm};

use super::*;
use crate::source::AuditSchedule;

fn text() -> Arc<RowText> {
    Arc::new(RowText::new([("id", TextForm::Plain), ("v", TextForm::Plain)]))
}

/// Rows of the database: `v<key>` unless a value is given.
fn images(table: &Arc<Table>, rows: &[(&str, &str)], is_last: bool) -> Step {
    let row = |(key, value): &(&str, &str)| {
        let image = with_value(table, Action::Read, key, value).image.unwrap();
        (vec![(*key).to_owned()], image)
    };
    let rows = AuditRows::Images(rows.iter().map(row).collect());
    Step::Audited(Arc::new(AuditPiece { table: table.clone(), rows, is_last }))
}

/// The same, as their sums.
fn sums(table: &Arc<Table>, rows: &[(&str, &str)], is_last: bool) -> Step {
    let row = |(key, value): &(&str, &str)| {
        let image = with_value(table, Action::Read, key, value).image.unwrap();
        (vec![(*key).to_owned()], text().sum(&image).unwrap())
    };
    let rows = AuditRows::Sums { text: text(), rows: rows.iter().map(row).collect() };
    Step::Audited(Arc::new(AuditPiece { table: table.clone(), rows, is_last }))
}

fn asked(tables: &[&str], mends: bool) -> AuditRequest {
    AuditRequest { tables: tables.iter().map(|&table| table.to_owned()).collect(), mends }
}

impl Stage {
    async fn audit(&self, tables: &[&str], mends: bool) -> Result<(), SourceError> {
        self.sources.begin_audit(&Self::name(), asked(tables, mends)).await
    }

    fn shown(&self) -> SourceAudit {
        self.sources.audit(&Self::name()).unwrap()
    }

    async fn until_audits(&self, count: usize) -> AuditOrder {
        let orders = || self.script.audits();
        let is_so = || orders().get(count - 1).cloned();
        eventually("ordered", is_so, || format!("{:?} {:?}", orders(), self.shown())).await
    }

    async fn until_over(&self) -> SourceAudit {
        let is_so = || Some(self.shown()).filter(|audit| audit.state.is_over());
        eventually("over", is_so, || format!("{:?}", self.shown())).await
    }
}

fn differences(table: &TableAudit) -> Vec<(&str, DifferenceKind, Option<&str>, Option<&str>)> {
    let mut rows: Vec<_> = (table.shown.iter())
        .map(|row| (row.key.as_str(), row.kind, row.here.as_deref(), row.there.as_deref()))
        .collect();
    rows.sort_by_key(|row| row.0);
    rows
}

/// A source that follows `users`, of which rows 1 to `count` are here.
async fn following_users(store: Arc<MemoryStore>, count: u32) -> (Stage, Arc<Table>) {
    let users = table("users");
    let rows = (1..=count).map(|key| change(&users, Action::Replace, &key.to_string()));
    let script = Script::new(vec![Ok(vec![changes("a", rows.collect())])]);
    script.set_progress(following(&["users"]));
    let stage = Stage::on(store, spec(), script);
    stage.until_confirmed("a").await;
    stage.until_state(SourceState::Following).await;
    (stage, users)
}

#[tokio::test(flavor = "multi_thread")]
async fn equal_rows_are_equal_whatever_the_log_has_changed_meanwhile() {
    let (stage, users) = following_users(MemoryStore::new(), 3).await;
    assert_eq!(stage.shown().state, AuditState::None);
    stage.audit(&[], false).await.unwrap();
    let order = stage.until_audits(1).await;
    assert_eq!((order.table.as_str(), order.scope), ("users", AuditScope::Sums));
    assert!(matches!(stage.audit(&[], false).await, Err(SourceError::WrongState { .. })), "one at a time");
    stage.script.go_on(portion("b", vec![sums(&users, &[("1", "v1")], false)]));
    // 2 was changed after the snapshot of its chunk, 4 came and 3 went.
    let changed = [
        with_value(&users, Action::Replace, "2", "new"),
        change(&users, Action::Remove, "3"),
        change(&users, Action::Replace, "4"),
    ];
    stage.script.go_on(changes("c", changed.into()));
    stage.script.go_on(portion("d", vec![sums(&users, &[("4", "v4")], true)]));
    let audit = stage.until_over().await;
    assert_eq!((audit.state, audit.tables.len()), (AuditState::Equal, 1));
    let table = &audit.tables[0];
    assert_eq!((table.state, table.by, table.rows, table.differences), (AuditState::Equal, Some("sums"), 2, 0));
    stage.until_confirmed("d").await;
    let figures = &stage.sources.figures()[0];
    assert_eq!((figures.audit_rows, figures.audit_differences), (2, 0));
    assert_eq!(figures.last_audit, Some((audit.ended_at_ms.unwrap(), true)));
    assert_eq!(stage.events(), ["Insert 1", "Insert 2", "Insert 3", "Update 2", "Delete 3", "Insert 4"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn sums_that_differ_are_looked_at_by_their_rows_and_shown_and_nothing_is_changed() {
    let (stage, users) = following_users(MemoryStore::new(), 3).await;
    stage.audit(&["users"], false).await.unwrap();
    stage.until_audits(1).await;
    stage.script.go_on(portion("b", vec![sums(&users, &[("1", "other"), ("2", "v2"), ("4", "v4")], true)]));
    let order = stage.until_audits(2).await;
    let keys = ["1", "4", "3"].map(|key| vec![key.to_owned()]);
    assert_eq!(order.scope, AuditScope::Keys(keys.into()));
    stage.script.go_on(portion("c", vec![images(&users, &[("1", "other"), ("4", "v4")], true)]));
    let audit = stage.until_over().await;
    let row = |key: &str, value: &str| format!("{{\"id\":{key},\"v\":\"{value}\"}}");
    assert_eq!(
        differences(&audit.tables[0]),
        [
            ("1", DifferenceKind::Differs, Some(row("1", "v1").as_str()), Some(row("1", "other").as_str())),
            ("3", DifferenceKind::OnlyHere, Some(row("3", "v3").as_str()), None),
            ("4", DifferenceKind::MissingHere, None, Some(row("4", "v4").as_str())),
        ]
    );
    assert_eq!((audit.state, audit.tables[0].differences, audit.tables[0].mended), (AuditState::Different, 3, 0));
    assert_eq!(stage.rows("users"), ["1", "2", "3"].map(|key| row(key, &format!("v{key}"))));
    let figures = &stage.sources.figures()[0];
    assert_eq!((figures.audit_differences, figures.audit_mended, figures.last_audit.unwrap().1), (3, 0, false));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_differed_and_is_as_it_should_be_at_the_second_look_is_no_difference() {
    let (stage, users) = following_users(MemoryStore::new(), 2).await;
    stage.audit(&[], true).await.unwrap();
    stage.until_audits(1).await;
    stage.script.go_on(portion("b", vec![sums(&users, &[("1", "other")], true)]));
    assert_eq!(stage.until_audits(2).await.scope, AuditScope::Keys(vec![vec!["1".into()], vec!["2".into()]]));
    stage.script.go_on(portion("c", vec![images(&users, &[("1", "v1"), ("2", "v2")], true)]));
    assert_eq!(stage.until_over().await.state, AuditState::Equal);
    assert_eq!(stage.events(), ["Insert 1", "Insert 2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_differ_are_mended_by_events() {
    let (stage, users) = following_users(MemoryStore::new(), 3).await;
    stage.audit(&[], true).await.unwrap();
    stage.until_audits(1).await;
    stage.script.go_on(portion("b", vec![images(&users, &[("1", "other"), ("2", "v2")], false)]));
    // After a piece that was mended the log goes on.
    stage.script.go_on(changes("c", vec![with_value(&users, Action::Replace, "1", "newer")]));
    stage.script.go_on(portion("d", vec![images(&users, &[("4", "v4")], true)]));
    let audit = stage.until_over().await;
    let table = &audit.tables[0];
    assert_eq!((table.by, table.rows, table.differences, table.mended), (Some("rows"), 3, 3, 3));
    stage.until_confirmed("d").await;
    let events = ["Insert 1", "Insert 2", "Insert 3", "Update 1", "Update 1", "Insert 4", "Delete 3"];
    assert_eq!(stage.events(), events);
    let rows = ["{\"id\":1,\"v\":\"newer\"}", "{\"id\":2,\"v\":\"v2\"}", "{\"id\":4,\"v\":\"v4\"}"];
    assert_eq!(stage.rows("users"), rows);
    assert_eq!(stage.sources.figures()[0].audit_mended, 3);
    assert_eq!(stage.position().as_deref(), Some("d"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_of_which_too_much_differs_is_compared_by_its_rows() {
    let (stage, users) = following_users(MemoryStore::new(), 6).await;
    stage.audit(&[], false).await.unwrap();
    stage.until_audits(1).await;
    let wrong = [("1", "x"), ("2", "x"), ("3", "x"), ("4", "x"), ("5", "v5")];
    stage.script.go_on(portion("b", vec![sums(&users, &wrong, false)]));
    // On its way still, and of no use any more.
    stage.script.go_on(portion("c", vec![sums(&users, &[("6", "x")], true)]));
    assert_eq!(stage.until_audits(2).await.scope, AuditScope::Images);
    stage.script.go_on(portion("d", vec![images(&users, &wrong, false)]));
    stage.script.go_on(portion("e", vec![images(&users, &[], true)]));
    let audit = stage.until_over().await;
    let table = &audit.tables[0];
    assert_eq!((table.by, table.rows, table.differences), (Some("rows"), 5, 5));
    assert_eq!(table.shown.last().map(|row| row.kind), Some(DifferenceKind::OnlyHere));
    assert_eq!(stage.script.audits().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_audit_goes_on_after_a_restart_with_the_table_that_it_was_at() {
    let store = MemoryStore::new();
    let [users, orders] = ["users", "orders"].map(table);
    let script = Script::new(vec![Ok(vec![
        changes("a", vec![change(&users, Action::Replace, "1")]),
        changes("b", vec![change(&orders, Action::Replace, "1"), change(&orders, Action::Replace, "2")]),
    ])]);
    script.set_progress(following(&["orders", "users"]));
    let first = Stage::on(store.clone(), spec(), script);
    first.until_confirmed("b").await;
    first.until_state(SourceState::Following).await;
    first.audit(&[], true).await.unwrap();
    assert_eq!(first.until_audits(1).await.table, "orders");
    first.script.go_on(portion("c", vec![images(&orders, &[("1", "v1")], false)]));
    first.until_confirmed("c").await;
    assert_eq!(first.sources.stop(Duration::from_secs(10)).await, 0);
    drop(first);

    let script = Script::new(Vec::new());
    script.set_progress(following(&["orders", "users"]));
    let second = Stage::on(store, spec(), script);
    assert_eq!(second.until_audits(1).await.table, "orders");
    second.script.go_on(portion("d", vec![images(&orders, &[("2", "v2")], false)]));
    second.script.go_on(portion("e", vec![images(&orders, &[], true)]));
    assert_eq!(second.until_audits(2).await.table, "users");
    second.script.go_on(portion("f", vec![sums(&users, &[("1", "v1")], true)]));
    let audit = second.until_over().await;
    let states: Vec<_> = audit.tables.iter().map(|table| (table.table.as_str(), table.state, table.mended)).collect();
    assert_eq!(states, [("orders", AuditState::Different, 1), ("users", AuditState::Equal, 0)]);
    assert_eq!(
        second.rows("orders"),
        ["{\"id\":2,\"v\":\"v2\"}"],
        "what was compared before the restart counts for nothing"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_compared_says_why() {
    let (stage, users) = following_users(MemoryStore::new(), 1).await;
    let unknown = stage.audit(&["nobody"], false).await;
    assert!(matches!(unknown, Err(SourceError::UnknownTable { .. })), "{unknown:?}");
    stage.audit(&[], false).await.unwrap();
    stage.until_audits(1).await;
    let reason = Reason::new("reading", "its rows are being read");
    stage.script.go_on(portion("b", vec![Step::AuditOff { table: "users".into(), reason: reason.clone() }]));
    let audit = stage.until_over().await;
    assert_eq!((audit.state, audit.tables[0].state), (AuditState::Unfinished, AuditState::Unfinished));
    assert_eq!(audit.tables[0].code.as_deref(), Some("reading"));
    // Late, and of an audit that is over.
    stage.script.go_on(portion("c", vec![images(&users, &[("1", "x")], true)]));
    stage.until_confirmed("c").await;
    assert_eq!(stage.shown(), audit);

    stage.audit(&[], false).await.unwrap();
    stage.until_audits(2).await;
    stage.sources.pause(&Stage::name()).await.unwrap();
    let audit = stage.until_over().await;
    assert_eq!((audit.state, audit.tables[0].code.as_deref()), (AuditState::Unfinished, Some("paused")));
    assert!(matches!(stage.audit(&[], false).await, Err(SourceError::WrongState { .. })), "it is paused");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_connection_begins_the_table_anew() {
    let (stage, users) = following_users(MemoryStore::new(), 2).await;
    stage.audit(&[], false).await.unwrap();
    stage.until_audits(1).await;
    stage.script.go_on(portion("b", vec![sums(&users, &[("1", "v1")], false)]));
    stage.script.add_scene(Ok(Vec::new()));
    stage.script.go_on(Line::Fails(error(Remedy::Retry, "connection")));
    stage.until_audits(2).await;
    stage.script.go_on(portion("c", vec![sums(&users, &[("1", "v1"), ("2", "v2")], true)]));
    let audit = stage.until_over().await;
    assert_eq!((audit.state, audit.tables[0].rows), (AuditState::Equal, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_compares_every_table_by_itself_once_in_its_time() {
    let store = MemoryStore::new();
    let users = table("users");
    let script = Script::new(vec![Ok(vec![changes("a", vec![change(&users, Action::Replace, "1")])])]);
    script.set_progress(following(&["users"]));
    let daily = SourceSpec { audit: AuditSchedule::Daily, audit_mends: true, audit_rows_per_second: 77, ..spec() };
    let first = Stage::on(store.clone(), daily.clone(), script);
    let order = first.until_audits(1).await;
    assert_eq!(order.pace.rows_per_second, 77);
    first.script.go_on(portion("b", vec![images(&users, &[("1", "new")], true)]));
    let audit = first.until_over().await;
    assert_eq!((audit.state, audit.mends, audit.tables[0].mended), (AuditState::Different, true, 1));
    assert_eq!(first.sources.stop(Duration::from_secs(10)).await, 0);
    drop(first);

    // Not again so soon, over restarts too: it would be ordered before what somebody asks for.
    let script = Script::new(vec![Ok(vec![portion("c", Vec::new())])]);
    script.set_progress(following(&["users"]));
    let second = Stage::on(store, daily, script);
    second.until_confirmed("c").await;
    second.until_state(SourceState::Following).await;
    second.audit(&["users"], false).await.unwrap();
    second.until_audits(1).await;
    second.script.go_on(portion("d", vec![images(&users, &[("1", "new")], true)]));
    assert_eq!(second.until_over().await.state, AuditState::Equal);
    assert_eq!(second.script.audits().len(), 1);
}
