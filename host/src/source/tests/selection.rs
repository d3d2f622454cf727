//! Which tables are captured, and what becomes of those that are not any more.

use super::*;

fn choice(tables: &[&str], exclude: &[&str]) -> TableChoice {
    let owned = |patterns: &[&str]| patterns.iter().map(|&pattern| pattern.to_owned()).collect();
    TableChoice { tables: owned(tables), exclude: owned(exclude) }
}

/// Two tables with a row each, under the names that the rules give them.
fn two() -> [Arc<Table>; 2] {
    ["public.users", "public.orders"].map(|name| {
        let mut table = (*table(name)).clone();
        table.relation = name.trim_start_matches("public.").into();
        Arc::new(table)
    })
}

fn script_of(tables: &[Arc<Table>]) -> Arc<Script> {
    let rows = tables.iter().map(|table| change(table, Action::Replace, "1")).collect();
    let script = Script::new(vec![Ok(vec![changes("a", rows)])]);
    script.set_progress(following(&tables.iter().map(|table| table.name.as_str()).collect::<Vec<_>>()));
    script
}

/// With tables named as they are by default.
fn plain() -> SourceSpec {
    let mut spec = spec();
    spec.selection.table_name = None;
    spec
}

fn excluding(pattern: &str) -> SourceSpec {
    let mut spec = plain();
    spec.selection.exclude = vec![pattern.to_owned()];
    spec
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_the_rules_leave_out_is_emptied_and_read_anew_should_it_come_again() {
    let [users, orders] = two();
    let store = MemoryStore::new();
    let first = Stage::on(store.clone(), plain(), script_of(&[users.clone(), orders.clone()]));
    first.until_confirmed("a").await;
    assert_eq!(first.sources.stop(Duration::from_secs(10)).await, 0);
    drop(first);

    // Although the database is away: the rules are known without it.
    let away = Script::new(vec![Err(error(Remedy::Retry, "connection"))]);
    let second = Stage::on(store.clone(), excluding("public.orders"), away);
    second.until_openings(2).await;
    assert_eq!((second.rows("public.users").len(), second.rows("public.orders").len()), (1, 0));
    assert_eq!((second.events().last().unwrap().as_str(), second.position().as_deref()), ("Truncate ", Some("a")));
    assert!(second.kept().left_out.contains("public.orders"));
    assert_eq!(second.sources.stop(Duration::from_secs(10)).await, 0);
    drop(second);

    let script = Script::new(vec![Ok(vec![portion("b", read(&orders, &["1"])), portion("c", Vec::new())])]);
    let third = Stage::on(store, plain(), script);
    third.until_confirmed("c").await;
    assert_eq!(third.script.orders().reread["public.orders"].code, "left-out");
    assert_eq!((third.rows("public.orders").len(), third.kept().left_out.len()), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_whose_name_here_is_another_one_by_now_is_emptied_under_its_old_name() {
    let [users, _] = two();
    let store = MemoryStore::new();
    let first = Stage::on(store.clone(), plain(), script_of(&[users]));
    first.until_confirmed("a").await;
    assert_eq!(first.sources.stop(Duration::from_secs(10)).await, 0);
    drop(first);
    let mut named = spec();
    named.selection.table_name = Some("{relation}".to_owned());
    let second = Stage::on(store, named, Script::new(Vec::new()));
    second.until_openings(1).await;
    assert_eq!(second.rows("public.users").len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_the_database_no_longer_shows_is_said_to_be_missing_and_keeps_its_rows() {
    let [users, orders] = two();
    let stage = Stage::on(MemoryStore::new(), plain(), script_of(&[users.clone(), orders.clone()]));
    stage.until_confirmed("a").await;
    stage.script.set_progress(following(&["public.users"]));
    let is_missing = |status: &SourceStatus| {
        let found = status.tables.iter().find(|table| table.table == "public.orders");
        found.is_some_and(|table| table.code.as_deref() == Some("missing"))
    };
    let status = stage.until("missing", is_missing).await;
    assert_eq!(status.state, SourceState::Following);
    let table = stage.table("public.orders");
    assert_eq!((table.state, stage.rows("public.orders").len()), (SourceTableState::Stopped, 1));
    assert!(table.reason.unwrap().contains("POST /sources/shop/tables/public.orders/drop"));
    // It shows again, as when a privilege comes back.
    stage.script.set_progress(following(&["public.users", "public.orders"]));
    stage.until("there again", |status| !is_missing(status)).await;
    assert_eq!(stage.table("public.orders").state, SourceTableState::Following);
    // Or somebody is done with it.
    stage.script.set_progress(following(&["public.users"]));
    stage.until("missing", is_missing).await;
    stage.steer("public.orders", TableAction::Drop).await.unwrap();
    stage.until_openings(2).await;
    assert_eq!(stage.rows("public.orders").len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_are_chosen_while_the_source_runs_and_over_restarts() {
    let [users, orders] = two();
    let store = MemoryStore::new();
    let first = Stage::on(store.clone(), excluding("public.tmp"), script_of(&[users, orders]));
    first.until_confirmed("a").await;
    let selection = first.status().selection;
    assert_eq!((selection.exclude.as_slice(), selection.is_chosen), (&["public.tmp".to_owned()][..], false));
    first.script.set_progress(following(&["public.users"]));
    first.sources.select(&Stage::name(), Some(choice(&["public.users"], &[]))).await.unwrap();
    let selection = first.sources.selection(&Stage::name()).unwrap();
    assert_eq!((selection.tables.as_slice(), selection.exclude.len()), (&["public.users".to_owned()][..], 0));
    assert!(selection.is_chosen);
    first.until_openings(2).await;
    assert_eq!(first.script.wanted().selected.unwrap().tables, ["public.users"]);
    assert_eq!((first.rows("public.users").len(), first.rows("public.orders").len()), (1, 0));
    assert_eq!(first.sources.stop(Duration::from_secs(10)).await, 0);
    drop(first);

    let second = Stage::on(store, excluding("public.tmp"), Script::new(Vec::new()));
    second.until_openings(1).await;
    assert!(second.script.wanted().selected.is_some() && second.status().selection.is_chosen);
    second.sources.select(&Stage::name(), None).await.unwrap();
    second.until_openings(2).await;
    assert_eq!(second.script.wanted().selected, None);
    assert_eq!(second.script.orders().reread.keys().collect::<Vec<_>>(), ["public.orders"]);
    assert_eq!(second.status().selection.exclude, ["public.tmp"]);
}
