//! Tables that are read, and rows that go.

use super::*;

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
    assert!(!stage.kept().is_repairing);
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
    assert!(stage.kept().reread.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reading_that_begins_anew_in_the_portion_in_which_it_ended_removes_nothing_before_its_own_end() {
    let users = table("users");
    let row = |key: &str| Step::Change(change(&users, Action::Read, key));
    let mut ended = read(&users, &["1", "2"]);
    ended.extend([Step::ReadBegan(users.clone()), row("1")]);
    let rest = vec![Step::Describe(users.clone()), row("2"), Step::ReadDone(users.clone())];
    let stage = Stage::new(vec![Ok(vec![
        portion("a", read(&users, &["1", "2", "3"])),
        portion("b", ended),
        portion("c", rest),
        portion("d", Vec::new()),
    ])]);
    stage.until_confirmed("d").await;
    assert_eq!(stage.events(), ["Insert 1", "Insert 2", "Insert 3", "Delete 3"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_that_are_read_at_the_same_time_do_not_lose_rows_to_each_other() {
    let (users, orders) = (table("users"), table("orders"));
    let before = [read(&users, &["1", "2"]), read(&orders, &["1", "2"])].concat();
    let row = |table: &Arc<Table>, key: &str| Step::Change(change(table, Action::Read, key));
    let stage = Stage::new(vec![Ok(vec![
        portion("a", before),
        portion("b", vec![Step::ReadBegan(users.clone()), Step::ReadBegan(orders.clone()), row(&orders, "2")]),
        portion("c", vec![row(&users, "1"), Step::ReadDone(users.clone()), row(&orders, "3")]),
        portion("d", vec![Step::ReadDone(orders.clone())]),
        portion("e", Vec::new()),
    ])]);
    stage.until_confirmed("e").await;
    assert_eq!(stage.rows("users"), ["{\"id\":1,\"v\":\"v1\"}"]);
    assert_eq!(stage.rows("orders"), ["{\"id\":2,\"v\":\"v2\"}", "{\"id\":3,\"v\":\"v3\"}"]);
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
    assert!(!second.kept().is_repairing);
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
    assert_eq!(first.kept().reread.keys().collect::<Vec<_>>(), ["users"]);
    assert_eq!(first.sources.stop(Duration::from_secs(10)).await, 0);
    drop(first);

    let script = Script::new(vec![Ok(vec![portion("c", read(&users, &["2"])), portion("d", Vec::new())])]);
    script.set_progress(following(&["users"]));
    let second = Stage::on(store, spec(), script);
    second.until_confirmed("d").await;
    assert_eq!(second.script.openings(), [(Some("b".into()), false)], "no other table is read");
    assert_eq!(second.script.orders().reread.keys().collect::<Vec<_>>(), ["users"]);
    assert_eq!(second.rows("users"), ["{\"id\":2,\"v\":\"v2\"}"]);
    assert!(second.kept().reread.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repair_ends_without_tables_that_are_gone_or_stand_still() {
    let [users, gone, stopped] = ["users", "gone", "stopped"].map(table);
    let stage = Stage::new(vec![Ok(vec![
        changes("a", [&users, &gone, &stopped].map(|table| change(table, Action::Replace, "1")).into()),
        Line::Fails(error(Remedy::Repair, "slot-lost")),
    ])]);
    let tables = [&users, &gone, &stopped].map(|table| (table.name.as_str(), TableState::Rereading));
    stage.script.set_progress(progress(&tables));
    stage.until_state(SourceState::Stopped).await;
    let mut steps = read(&users, &["2"]);
    // The readings of two tables begin and do not end.
    steps.extend([&gone, &stopped].map(|table| Step::ReadBegan(table.clone())));
    stage.script.add_scene(Ok(vec![portion("b", steps)]));
    stage.sources.repair(&Stage::name()).await.unwrap();
    stage.until_confirmed("b").await;
    assert_eq!(stage.status().state, SourceState::Repairing);

    stage.script.set_progress(progress(&[("users", TableState::Following), ("stopped", TableState::Stopped)]));
    let truncate = Step::Change(change(&gone, Action::Truncate, ""));
    stage.script.go_on(portion("c", vec![truncate, Step::Gone(gone.clone())]));
    // The repair may be over before, by the list alone.
    stage.until_confirmed("c").await;
    let status = stage.until_state(SourceState::Following).await;
    let repair = status.last_repair.unwrap();
    assert_eq!((repair.tables, repair.inserted, repair.removed), (1, 1, 1));
    assert_eq!((stage.rows("gone").len(), stage.rows("stopped").len(), stage.rows("users").len()), (0, 1, 1));
    assert!(!stage.kept().is_repairing);
}

#[tokio::test(flavor = "multi_thread")]
async fn how_long_a_reading_takes_yet_is_told_by_the_rate_so_far() {
    let now = std::time::Instant::now();
    let mut shown = Shown::new(NAME, Phase::Open, SourceState::Starting, &Kept::default());
    let reading = |rows_read| {
        let mut progress = progress(&[("users", TableState::Reading)]);
        progress.tables[0].rows_read = rows_read;
        progress.tables[0].rows_estimated = Some(1_000);
        progress
    };
    shown.progressed(reading(100), now);
    assert_eq!(shown.tables()[0].seconds_left, None, "nothing to go by");
    shown.progressed(reading(300), now + Duration::from_secs(2));
    assert_eq!((shown.tables()[0].rows_estimated, shown.tables()[0].seconds_left), (Some(1_000), Some(7)));
    shown.progressed(reading(1_200), now + Duration::from_secs(9));
    assert_eq!(shown.tables()[0].seconds_left, None, "there are more than was believed");
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
    assert!(first.kept().reread.is_empty() && first.kept().unread.is_empty());
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
