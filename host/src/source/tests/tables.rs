//! Tables as the unit: one that stops, goes, or is steered, beside others that go on.

use super::*;

/// A change that is larger than a row may be.
fn large(table: &Arc<Table>, key: &str) -> Change {
    with_value(table, Action::Replace, key, &"x".repeat(2_000))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_engine_refuses_stops_its_table_and_the_others_go_on() {
    let [users, orders] = ["users", "orders"].map(table);
    let stage = Stage::new(vec![
        Ok(vec![
            changes("a", vec![change(&users, Action::Replace, "1")]),
            changes("b", vec![change(&orders, Action::Replace, "2"), large(&users, "2")]),
            changes("c", vec![change(&orders, Action::Replace, "3")]),
        ]),
        // The same again, without the table that is held.
        Ok(vec![
            changes("b", vec![change(&orders, Action::Replace, "2")]),
            changes("c", vec![change(&orders, Action::Replace, "3")]),
        ]),
    ]);
    stage.until_confirmed("c").await;
    // Said once the table is held: a feed that said so before would count as another stop.
    stage.script.set_progress(progress(&[("orders", TableState::Following), ("users", TableState::Stopped)]));
    assert_eq!(stage.events(), ["Insert 1", "Insert 2", "Insert 3"]);
    assert_eq!(stage.script.openings(), [(None, false), (Some("a".into()), false)]);
    assert!(matches!(&stage.script.orders().held["users"], Hold::Stopped(why) if why.code == "row-too-large"));
    let lists_both = |status: &SourceStatus| status.state == SourceState::Following && status.tables.len() == 2;
    let status = stage.until("following, with both tables", lists_both).await;
    assert_eq!((status.reconnects, status.code), (0, None));
    let users = stage.table("users");
    assert_eq!((users.state, users.code.as_deref()), (SourceTableState::Stopped, Some("row-too-large")));
    let reason = users.reason.unwrap();
    for part in ["the row 2 of table users", "1024", "max-row-bytes", "POST /sources/shop/tables/users/reread"] {
        assert!(reason.contains(part), "{part}: {reason}");
    }
    assert_eq!((users.events, stage.table("orders").events), (Some(1), Some(2)));
    let figures = &stage.sources.figures()[0];
    assert_eq!(figures.table_stops, 1);
    assert!(figures.tables.contains(&("stopped", 1)) && figures.tables.contains(&("following", 1)), "{figures:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_stopped_stays_so_over_a_restart_and_is_read_anew_on_request() {
    let [users, orders] = ["users", "orders"].map(table);
    let store = MemoryStore::new();
    let first = Stage::on(
        store.clone(),
        spec(),
        Script::new(vec![Ok(vec![
            portion("a", read(&users, &["1", "2"])),
            changes("b", vec![change(&orders, Action::Replace, "1"), large(&users, "1")]),
        ])]),
    );
    first.until_openings(2).await;
    assert_eq!(first.sources.stop(Duration::from_secs(10)).await, 0);
    drop(first);

    let script = Script::new(vec![Ok(vec![changes("b", vec![change(&orders, Action::Replace, "1")])])]);
    let second = Stage::on(store, spec(), script);
    second.until_confirmed("b").await;
    assert!(second.script.orders().held.contains_key("users"));
    assert_eq!(second.table("users").state, SourceTableState::Stopped);
    // Meanwhile the row was made small, and another one went.
    let mut steps = read(&users, &[]);
    steps.insert(2, Step::Change(with_value(&users, Action::Read, "1", "small")));
    second.script.set_progress(following(&["users", "orders"]));
    second.script.add_scene(Ok(vec![portion("c", steps)]));
    second.steer("users", TableAction::Reread).await.unwrap();
    second.until_confirmed("c").await;
    assert_eq!(second.script.orders().reread["users"].code, "requested");
    assert!(second.script.orders().held.is_empty());
    second.until_state(SourceState::Following).await;
    assert_eq!(second.rows("users"), ["{\"id\":1,\"v\":\"small\"}"]);
    assert_eq!((second.kept().reread.len(), second.kept().held.len()), (0, 0));
    assert_eq!(second.table("users").state, SourceTableState::Following);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_a_reading_that_never_ended_go_when_another_does_not_find_them() {
    let users = table("users");
    let store = MemoryStore::new();
    let mut begun = read(&users, &["1", "2"]);
    begun.pop();
    let first = Stage::on(store.clone(), spec(), Script::new(vec![Ok(vec![portion("a", begun)])]));
    first.until_confirmed("a").await;
    assert_eq!(first.sources.stop(Duration::from_secs(10)).await, 0);
    drop(first);

    // The feed begins anew: the table was altered meanwhile, and a row went without a word.
    let second = Stage::on(store, spec(), Script::new(vec![Ok(vec![portion("b", read(&users, &["1"]))])]));
    second.until_confirmed("b").await;
    let row_is_gone = || (second.rows("users").len() == 1).then_some(());
    eventually("one row", row_is_gone, || format!("{:?}", second.rows("users"))).await;
    assert!(second.kept().unread.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_feed_that_goes_on_telling_of_a_table_that_is_held_stops_the_source() {
    let users = table("users");
    let refused = || Ok(vec![changes("a", vec![large(&users, "1")])]);
    let stage = Stage::new(vec![refused(), refused()]);
    let status = stage.until_state(SourceState::Stopped).await;
    assert_eq!(status.code.as_deref(), Some("row-too-large"));
    assert_eq!(stage.script.openings().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_is_taken_stops_the_table_that_has_it() {
    let [users, orders] = ["users", "orders"].map(table);
    let stage = Stage::new(Vec::new());
    stage.until_openings(1).await;
    let row = crate::sandbox::Change {
        table: "users".into(),
        action: crate::sandbox::Action::Insert,
        key: Vec::new(),
        image: b"{\"id\":1}".to_vec(),
    };
    stage.ingest.submit(vec![row]).await.unwrap();
    stage.script.add_scene(Ok(vec![changes("a", vec![change(&orders, Action::Replace, "1")])]));
    stage.script.go_on(changes("a", vec![change(&orders, Action::Replace, "1"), change(&users, Action::Replace, "1")]));
    stage.until_confirmed("a").await;
    let users = stage.table("users");
    assert_eq!(users.code.as_deref(), Some("schema-conflict"));
    assert!(users.reason.unwrap().contains("table-name"));
    assert_eq!(stage.rows("orders").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_follow_a_rule_before_the_portion_that_brings_it() {
    let users = table("users");
    let mut wide = (*users).clone();
    wide.columns[1].name = "w".into();
    wide.columns.push(cdc_sources::Column { name: "x".into(), ..wide.columns[1].clone() });
    let wide = Arc::new(wide);
    let rule = Arc::new(Rewrite {
        table: wide.clone(),
        renamed: vec![("w".into(), "v".into())],
        added: vec![("x".into(), "7".into())],
        reason: "two columns changed".into(),
    });
    let row = Change { image: Some("{\"id\":3,\"w\":\"n\",\"x\":8}".into()), ..change(&wide, Action::Replace, "3") };
    let steps = || vec![Step::Rewrite(rule.clone()), Step::Describe(wide.clone()), Step::Change(row.clone())];
    let stage = Stage::new(vec![
        Ok(vec![
            changes("a", ["1", "2"].map(|key| change(&users, Action::Replace, key)).into()),
            portion("b", steps()),
            Line::Fails(error(Remedy::Retry, "connection")),
        ]),
        // As after a crash: it comes again.
        Ok(vec![portion("c", steps()), portion("d", Vec::new())]),
    ]);
    stage.until_confirmed("d").await;
    let rows = ["{\"id\":1,\"w\":\"v1\",\"x\":7}", "{\"id\":2,\"w\":\"v2\",\"x\":7}", "{\"id\":3,\"w\":\"n\",\"x\":8}"];
    assert_eq!(stage.rows("users"), rows);
    let events = ["Insert 1", "Insert 2", "Update 1", "Update 2", "Insert 3", "Update 3"];
    assert_eq!(stage.events(), events, "what was rewritten is not told twice");
    assert_eq!(stage.sources.figures()[0].rows_read, 0, "no row was read");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_that_stops_in_the_middle_is_applied_whole_after_a_restart() {
    let users = table("users");
    let store = MemoryStore::new();
    let many: Vec<String> = (1..=1_500).map(|key| key.to_string()).collect();
    let first = Stage::on(
        store.clone(),
        spec(),
        Script::new(vec![Ok(vec![changes(
            "a",
            many.iter().map(|key| change(&users, Action::Replace, key)).collect(),
        )])]),
    );
    first.until_confirmed("a").await;
    assert_eq!(first.sources.stop(Duration::from_secs(10)).await, 0);
    let mut wide = (*users).clone();
    wide.columns.push(cdc_sources::Column { name: "x".into(), ..wide.columns[1].clone() });
    let wide = Arc::new(wide);
    let rule = Rewrite {
        table: wide.clone(),
        renamed: Vec::new(),
        added: vec![("x".into(), "7".into())],
        reason: "a column came".into(),
    };
    // A part of the rows, and then the service was killed.
    let ahead: Vec<Change> = many[..100].iter().map(|key| change(&wide, Action::Read, key)).collect();
    let ahead = ahead.into_iter().map(|row| Change { image: rule.apply(row.image.as_deref().unwrap()), ..row });
    let script = Script::new(vec![Ok(vec![portion("a", ahead.map(Step::Change).collect())])]);
    let between = Stage::on(store.clone(), spec(), script);
    between.until("written", |_| between.events().len() == 1_600).await;
    assert_eq!(between.sources.stop(Duration::from_secs(10)).await, 0);
    drop((first, between));

    let rewritten = vec![Step::Rewrite(Arc::new(rule)), Step::Describe(wide)];
    let second = Stage::on(store, spec(), Script::new(vec![Ok(vec![portion("b", rewritten)])]));
    second.until_confirmed("b").await;
    let rows = second.rows("users");
    assert!(rows.len() == 1_500 && rows.iter().all(|row| row.ends_with(",\"x\":7}")), "{:?}", &rows[..3]);
    assert_eq!(second.events().len(), 3_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_gone_is_forgotten_and_may_come_again() {
    let users = table("users");
    let stage = Stage::new(vec![Ok(vec![
        portion("a", read(&users, &["1"])),
        portion("b", read(&users, &["2"]).into_iter().take(3).collect()),
    ])]);
    stage.script.set_progress(following(&["users"]));
    stage.until_confirmed("b").await;
    assert!(stage.kept().reread.contains_key("users"));
    let mut gone = vec![Step::Change(change(&users, Action::Truncate, "")), Step::Gone(users.clone())];
    stage.script.set_progress(following(&[]));
    stage.script.go_on(portion("c", gone.clone()));
    stage.until_confirmed("c").await;
    eventually("forgotten", || stage.kept().reread.is_empty().then_some(()), String::new).await;
    assert_eq!(stage.rows("users").len(), 0);
    // It comes again and goes, and comes under its name, all at once.
    stage.script.set_progress(following(&["users"]));
    let mut steps = read(&users, &["3"]);
    steps.append(&mut gone);
    steps.extend(read(&users, &["4"]));
    stage.script.go_on(portion("d", steps));
    stage.script.go_on(portion("e", Vec::new()));
    stage.until_confirmed("e").await;
    assert_eq!(stage.rows("users"), ["{\"id\":4,\"v\":\"v4\"}"]);
    assert!(stage.kept().reread.is_empty() && stage.kept().unread.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_stopped_and_is_gone_is_held_no_longer() {
    let users = table("users");
    let stage = Stage::new(vec![
        Ok(vec![changes("a", vec![change(&users, Action::Replace, "1")]), changes("b", vec![large(&users, "2")])]),
        Ok(vec![portion("b", vec![Step::Change(change(&users, Action::Truncate, "")), Step::Gone(users.clone())])]),
        Ok(vec![changes("c", vec![change(&users, Action::Replace, "3")])]),
    ]);
    stage.until_confirmed("c").await;
    assert_eq!(stage.script.openings().len(), 3, "opened anew, so that a new table of the name is not held");
    assert!(stage.script.orders().held.is_empty());
    assert_eq!(stage.rows("users"), ["{\"id\":3,\"v\":\"v3\"}"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_is_paused_over_restarts_and_read_anew_when_it_is_resumed() {
    let users = table("users");
    let store = MemoryStore::new();
    let first = Stage::on(
        store.clone(),
        spec(),
        Script::new(vec![Ok(vec![changes("a", vec![change(&users, Action::Replace, "1")])])]),
    );
    first.script.set_progress(following(&["users"]));
    first.until_confirmed("a").await;
    first.steer("users", TableAction::Pause).await.unwrap();
    assert_eq!(first.table("users").state, SourceTableState::Paused);
    first.until_openings(2).await;
    assert_eq!(first.script.orders().held["users"], Hold::Paused);
    first.until_state(SourceState::Following).await;
    assert_eq!(first.sources.stop(Duration::from_secs(10)).await, 0);
    drop(first);

    let second = Stage::on(store, spec(), Script::new(Vec::new()));
    second.until_openings(1).await;
    assert_eq!(second.script.orders().held["users"], Hold::Paused);
    for action in [TableAction::Pause, TableAction::Reread] {
        let error = second.steer("users", action).await.unwrap_err();
        assert!(matches!(error, SourceError::WrongTable { state: SourceTableState::Paused, .. }), "{error}");
    }
    second.script.add_scene(Ok(vec![portion("b", read(&users, &["2"]))]));
    second.script.set_progress(following(&["users"]));
    second.steer("users", TableAction::Resume).await.unwrap();
    second.until_confirmed("b").await;
    assert!(second.script.orders().reread.contains_key("users"));
    second.until_state(SourceState::Following).await;
    assert_eq!(second.rows("users"), ["{\"id\":2,\"v\":\"v2\"}"]);
    assert!(second.steer("users", TableAction::Resume).await.is_err(), "it follows");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_the_feed_stopped_is_resumed_by_reading_it_anew() {
    let stage = Stage::new(vec![Ok(vec![portion("a", Vec::new())])]);
    stage.script.set_progress(progress(&[("users", TableState::Stopped)]));
    let status = stage.until("seen", |status| !status.tables.is_empty()).await;
    assert_eq!(
        (status.tables[0].state, status.tables[0].code.as_deref()),
        (SourceTableState::Stopped, Some("scripted"))
    );
    assert!(stage.steer("users", TableAction::Pause).await.is_err());
    stage.steer("users", TableAction::Resume).await.unwrap();
    stage.until_openings(2).await;
    assert!(stage.script.orders().reread.contains_key("users") && stage.script.orders().held.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_dropped_is_empty_until_it_is_resumed() {
    let users = table("users");
    let store = MemoryStore::new();
    let first = Stage::on(
        store.clone(),
        spec(),
        Script::new(vec![Ok(vec![changes("a", vec![change(&users, Action::Replace, "1")])])]),
    );
    first.script.set_progress(following(&["users"]));
    first.until_confirmed("a").await;
    first.script.set_progress(following(&[]));
    first.steer("users", TableAction::Drop).await.unwrap();
    first.until_openings(2).await;
    assert_eq!(first.script.orders().held["users"], Hold::Dropped);
    assert_eq!((first.rows("users").len(), first.position().as_deref()), (0, Some("a")));
    assert_eq!(first.events(), ["Insert 1", "Truncate "]);
    assert_eq!(first.table("users").state, SourceTableState::Dropped);
    assert_eq!(first.sources.stop(Duration::from_secs(10)).await, 0);
    drop(first);

    let script =
        Script::new(vec![Ok(Vec::new()), Ok(vec![portion("b", read(&users, &["1", "2"])), portion("c", Vec::new())])]);
    let second = Stage::on(store, spec(), script);
    second.until_openings(1).await;
    assert_eq!(second.events().len(), 2, "it is not emptied twice");
    assert!(second.steer("users", TableAction::Reread).await.is_err());
    second.steer("users", TableAction::Resume).await.unwrap();
    second.until_confirmed("c").await;
    assert_eq!((second.rows("users").len(), second.kept().held.len(), second.kept().reread.len()), (2, 0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_wait_while_the_source_rests() {
    let users = table("users");
    let stage = Stage::new(vec![
        Ok(vec![changes("a", vec![change(&users, Action::Replace, "1")]), Line::Fails(error(Remedy::Stop, "tls"))]),
        Ok(vec![portion("b", Vec::new())]),
    ]);
    stage.until_state(SourceState::Stopped).await;
    stage.steer("users", TableAction::Pause).await.unwrap();
    assert!(matches!(stage.steer("nobody", TableAction::Pause).await, Err(SourceError::UnknownTable { .. })));
    assert_eq!(stage.table("users").state, SourceTableState::Paused);
    tokio::time::timeout(Duration::from_millis(100), stage.until_openings(2)).await.unwrap_err();
    assert_eq!(stage.status().state, SourceState::Stopped);
    stage.sources.resume(&Stage::name()).await.unwrap();
    stage.until_confirmed("b").await;
    assert_eq!(stage.script.orders().held["users"], Hold::Paused);
    assert_eq!(stage.kept().held["users"], Held::Paused);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_follows_only_when_no_table_is_on_its_way() {
    let stage = Stage::new(vec![Ok(vec![portion("a", Vec::new())])]);
    for state in [TableState::Waiting, TableState::Reading, TableState::Rereading] {
        stage.script.set_progress(progress(&[("users", TableState::Following), ("orders", state)]));
        let status = stage.until("on its way", |status| status.tables.iter().any(|table| table.state.is_underway()));
        assert_eq!(status.await.state, SourceState::Reading, "{state:?}");
    }
    for state in [TableState::Paused, TableState::Stopped] {
        stage.script.set_progress(progress(&[("users", TableState::Following), ("orders", state)]));
        stage.until_state(SourceState::Following).await;
    }
}
