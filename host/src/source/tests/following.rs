//! What is followed, and what ends that.

use super::*;

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
async fn a_login_that_is_refused_is_tried_again_by_itself() {
    let users = table("users");
    let stage = Stage::new(vec![
        Err(error(Remedy::Stop, "authentication")),
        Err(error(Remedy::Stop, "authentication")),
        Ok(vec![changes("a", vec![change(&users, Action::Replace, "1")])]),
    ]);
    let status = stage.until("refused", |status| status.code.as_deref() == Some("authentication")).await;
    assert_eq!(status.state, SourceState::Reconnecting);
    assert!(status.reason.unwrap().contains("tried again"));
    stage.until_confirmed("a").await;
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
