//! Tables without a key, whose rows have ids of their own.

use super::*;

fn audit() -> Arc<Table> {
    let mut table = Table::clone(&table("audit"));
    let id = cdc_sources::Column {
        name: cdc_sources::keyless::ROW_ID.into(),
        kind: cdc_sources::Kind::String,
        nullable: false,
        native_type: "cdc-row-id".into(),
    };
    table.columns.remove(0);
    table.columns.insert(0, id);
    table.key = vec![cdc_sources::keyless::ROW_ID.into()];
    assert!(table.is_append_only());
    table.into()
}

fn row(table: &Arc<Table>, action: Action, id: &str, v: &str) -> Step {
    let image = format!(r#"{{"_row":"{id}","v":"{v}"}}"#);
    Step::Change(Change { image: Some(image), position: None, ..change(table, action, id) })
}

fn reading(table: &Arc<Table>, rows: Vec<Step>) -> Vec<Step> {
    let (began, done) = (Step::ReadBegan(table.clone()), Step::ReadDone(table.clone()));
    [Step::Describe(table.clone()), began].into_iter().chain(rows).chain([done]).collect()
}

fn values(stage: &Stage) -> Vec<String> {
    let value = |row: &String| row.split(r#""v":"#).nth(1).unwrap().to_owned();
    let mut values: Vec<_> = stage.rows("audit").iter().map(value).collect();
    values.sort();
    values
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_are_read_anew_are_compared_by_what_they_hold() {
    let audit = audit();
    let first = ["a", "a", "a", "b", "c"];
    let first = first.iter().enumerate().map(|(at, v)| row(&audit, Action::Read, &format!("1-{at}"), v)).collect();
    let mut second: Vec<Step> = ["c", "a", "a", "d", "d"]
        .iter()
        .enumerate()
        .map(|(at, v)| row(&audit, Action::Read, &format!("2-{at}"), v))
        .collect();
    // What the log told after the snapshot is none of what was read.
    second.insert(2, row(&audit, Action::Replace, "log-1", "a"));
    // Between two readings of one portion rows come and count as rows of before.
    let mut third = vec![row(&audit, Action::Replace, "log-2", "e")];
    third.extend(reading(
        &audit,
        ["a", "a", "a", "c", "d", "d", "e"]
            .iter()
            .enumerate()
            .map(|(at, v)| row(&audit, Action::Read, &format!("3-{at}"), v))
            .collect(),
    ));
    let stage = Stage::new(vec![Ok(vec![
        portion("a", reading(&audit, first)),
        portion("b", reading(&audit, second)),
        portion("c", third),
        portion("d", Vec::new()),
    ])]);
    stage.until_confirmed("d").await;
    assert_eq!(values(&stage), [r#""a"}"#, r#""a"}"#, r#""a"}"#, r#""c"}"#, r#""d"}"#, r#""d"}"#, r#""e"}"#]);
    let events = stage.events();
    let (inserts, others): (Vec<_>, Vec<_>) = events.iter().partition(|event| event.starts_with("Insert"));
    // Five at first; then `a` of the log and twice `d`; then `e`. One `a` and the `b` went.
    assert_eq!((inserts.len(), others.len()), (9, 2), "{events:?}");
    assert!(stage.kept().reread.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_reading_that_was_cut_short_begins_anew_and_nothing_is_there_twice() {
    let audit = audit();
    let read = |name: &str, values: &[&str]| {
        let row = |(at, v): (usize, &&str)| row(&audit, Action::Read, &format!("{name}-{at}"), v);
        values.iter().enumerate().map(row).collect::<Vec<_>>()
    };
    let store = MemoryStore::new();
    let begun: Vec<Step> = reading(&audit, read("1", &["a", "b"])).into_iter().take(4).collect();
    let script = Script::new(vec![Ok(vec![portion("a", begun), portion("b", Vec::new())])]);
    let first = Stage::on(store.clone(), spec(), script);
    first.until_confirmed("b").await;
    assert_eq!(first.sources.stop(Duration::from_secs(10)).await, 0);
    drop(first);

    let again = reading(&audit, read("2", &["b", "a", "a"]));
    let script = Script::new(vec![Ok(vec![portion("c", again), portion("d", Vec::new())])]);
    script.set_progress(following(&["audit"]));
    let second = Stage::on(store, spec(), script);
    second.until_confirmed("d").await;
    assert_eq!(values(&second), [r#""a"}"#, r#""a"}"#, r#""b"}"#]);
    assert_eq!(second.events().len(), 3, "{:?}", second.events());
    assert!(second.kept().reread.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_the_time_with_a_key_go_and_so_do_ids_when_there_is_one() {
    let (audit, keyed) = (audit(), table("audit"));
    let back: Vec<Step> = read(&keyed, &["1"]);
    let stage = Stage::new(vec![Ok(vec![
        portion("a", read(&keyed, &["1", "2"])),
        portion("b", reading(&audit, vec![row(&audit, Action::Read, "1-0", "v1")])),
        portion("c", Vec::new()),
    ])]);
    stage.until_confirmed("c").await;
    assert_eq!(stage.rows("audit"), [r#"{"_row":"1-0","v":"v1"}"#]);
    stage.script.go_on(portion("d", back));
    stage.script.go_on(portion("e", Vec::new()));
    stage.until_confirmed("e").await;
    assert_eq!(stage.rows("audit"), [r#"{"id":1,"v":"v1"}"#]);
}
