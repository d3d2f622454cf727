//! Identifiers with tags, over a restart.

use cdc_sources::Step;
use cdc_sources::mysql::Feed;

use crate::log::Log;
use crate::server::{Described, Replay};
use crate::{Run, golden, options};

const UUID: &str = "55778904-0299-11f1-b1b8-4ef0c4956feb";

fn replay(executed: &str, begin: u64) -> Replay {
    let mut log = Log::read("binlog_transaction_with_GTID_TAG.000001", 4);
    // Where it goes on.
    log.file = "binlog.000005".into();
    log.begin = begin;
    let columns = "id int\ncustomer int null\namount decimal(10,2) null";
    Replay::start("9.6.0", log, vec![Described::new("test.orders", &["id"], columns)], Some(executed))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transactions_with_tags_are_followed_kept_and_asked_for() {
    let first = replay(&format!("{UUID}:1-13:mytag:1-2"), 4);
    let mut run = Run::open(&first).await;
    run.until(1).await;
    let Some(Step::Change(change)) = run.steps.last() else { panic!("{}", run.told()) };
    assert_eq!(change.image.as_deref(), Some(r#"{"id":3,"customer":100,"amount":250.00}"#));
    assert_eq!(change.position, Some(format!("{UUID}:mytag:3/0")));
    assert_eq!(change.committed_at_ms, Some(1_770_368_687_207));
    golden("gtid-tag", &run.told());
    // What the server wrote as the transactions before its log is what is asked for, byte by byte.
    let previous = &first.server.log.events[1];
    let asked = first.server.dumps.lock().unwrap()[0].clone();
    assert_eq!(asked[0], 0x1e);
    assert_eq!(asked[23..], previous[19..previous.len() - 4]);

    let checkpoint = run.checkpoint.clone().unwrap();
    assert!(checkpoint.0.contains(&format!("\nseen {UUID}:1-13:mytag:1-3\n")), "{}", checkpoint.0);
    drop(run);
    let again = replay(&format!("{UUID}:1-13:mytag:1-3"), 1000);
    let feed = Feed::open(options(&again), Some(&checkpoint)).await.unwrap();
    let asked = again.server.dumps.lock().unwrap()[0].clone();
    let mut expected = previous[19..previous.len() - 4].to_vec();
    let end = expected.len() - 8;
    expected[end..].copy_from_slice(&4_u64.to_le_bytes());
    assert_eq!(asked[23..], expected);
    drop(feed);
}
