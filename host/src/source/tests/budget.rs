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
