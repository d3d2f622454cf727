//! Log that a database keeps for a source.

use super::*;

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
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_is_resumed_above_its_budget_follows_until_it_is_below_and_then_the_budget_counts() {
    let spec = SourceSpec { max_retained_bytes: Some(1_000), on_max_retained: OnMaxRetained::Stop, ..spec() };
    let stage = Stage::on(MemoryStore::new(), spec, Script::new(Vec::new()));
    stage.until_state(SourceState::Following).await;
    stage.script.set_progress(retaining(1_001));
    let stopped = stage.until_state(SourceState::Stopped).await;
    assert!(stopped.reason.unwrap().contains("POST /sources/shop/resume"));
    // A feed does not know at once how much is retained.
    stage.script.set_progress(following(&["users"]));
    stage.script.add_scene(Ok(vec![portion("a", Vec::new())]));
    stage.sources.resume(&Stage::name()).await.unwrap();
    stage.until_confirmed("a").await;
    stage.script.set_progress(retaining(2_000));
    let status = stage.until("catching up", |status| status.retained_bytes == Some(2_000)).await;
    assert_eq!((status.state, status.code.as_deref()), (SourceState::Following, Some("retained-budget")));
    assert!(status.reason.unwrap().contains("follows until"));
    stage.script.set_progress(retaining(1_000));
    stage.until("below", |status| !status.over_budget && status.code.is_none()).await;
    stage.script.set_progress(retaining(1_001));
    stage.until_state(SourceState::Stopped).await;
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
