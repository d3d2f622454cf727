//! The contract of a sink, as tests that every sink passes unchanged.

use std::time::{Duration, Instant};

use cdc_sinks::{Remedy, Sink};

use crate::events::{Item, deliver, deliver_stubbornly, puts};
use crate::receiver::Receiver;

const LONG_MS: u32 = 20_000;
const SHORT_MS: u32 = 400;

pub async fn events_arrive_in_order<R: Receiver>() {
    let receiver = R::start().await;
    let mut sink = receiver.sink(LONG_MS, 1);
    let items = puts(1, 30, 7);
    for batch in items.chunks(11) {
        deliver(&mut sink, batch).await.unwrap();
    }
    receiver.assert_holds(&items).await;
}

pub async fn a_batch_of_a_thousand_is_one_batch<R: Receiver>() {
    let receiver = R::start().await;
    let mut sink = receiver.sink(LONG_MS, 1);
    let items = puts(1, 3_000, 1_000);
    for batch in items.chunks(1_000) {
        deliver(&mut sink, batch).await.unwrap();
    }
    receiver.assert_holds(&items).await;
}

pub async fn a_large_event_arrives_whole<R: Receiver>() {
    let receiver = R::start().await;
    let mut sink = receiver.sink(LONG_MS, 1);
    let items = [Item::put(1, "a"), Item::noted(2, "b", &"ä\"\n".repeat(150_000)), Item::put(3, "c")];
    deliver(&mut sink, &items).await.unwrap();
    receiver.assert_holds(&items).await;
}

pub async fn a_refused_connection_is_a_failure_and_the_sink_goes_on_later<R: Receiver>() {
    let receiver = R::start().await;
    let mut sink = receiver.sink(2_000, 1);
    receiver.faults().refuse();
    let items = puts(1, 5, 5);
    let failure = deliver(&mut sink, &items).await.unwrap_err();
    assert_eq!((failure.index, failure.remedy), (0, Remedy::Retry { after: None }), "{failure}");
    assert!(!sink.check().await.is_empty());
    receiver.faults().pass();
    deliver_stubbornly(&mut sink, &items).await;
    receiver.faults().refuse();
    let more = puts(6, 5, 5);
    let failure = deliver(&mut sink, &more).await.unwrap_err();
    assert_eq!((failure.index, failure.remedy), (0, Remedy::Retry { after: None }), "{failure}");
    receiver.faults().pass();
    deliver_stubbornly(&mut sink, &more).await;
    receiver.assert_holds(&[items, more].concat()).await;
}

pub async fn a_receiver_that_hangs_is_a_failure_in_time<R: Receiver>() {
    let receiver = R::start().await;
    let mut sink = receiver.sink(SHORT_MS, 1);
    let items = puts(1, 20, 20);
    deliver_stubbornly(&mut sink, &items[..5]).await;
    receiver.faults().hang();
    for _ in 0..2 {
        let start = Instant::now();
        let failure = deliver(&mut sink, &items[5..]).await.unwrap_err();
        assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
        assert!(matches!(failure.remedy, Remedy::Retry { .. }), "{failure}");
        assert_eq!(failure.index, 0, "{failure}");
    }
    // What was held back comes through now, late.
    receiver.faults().pass();
    deliver_stubbornly(&mut sink, &items[5..]).await;
    receiver.assert_holds(&items).await;
}

pub async fn an_answer_that_is_lost_costs_no_event<R: Receiver>() {
    let receiver = R::start().await;
    let mut sink = receiver.sink(3_000, 1);
    let items = puts(1, 40, 40);
    deliver(&mut sink, &items[..10]).await.unwrap();
    receiver.faults().swallow_answers();
    let failure = deliver(&mut sink, &items[10..]).await.unwrap_err();
    assert!(matches!(failure.remedy, Remedy::Retry { .. }), "{failure}");
    receiver.faults().pass();
    deliver_stubbornly(&mut sink, &items[10 + failure.index..]).await;
    receiver.assert_holds(&items).await;
}

pub async fn a_connection_that_is_cut_in_a_batch_costs_no_event<R: Receiver>() {
    let receiver = R::start().await;
    let mut sink = receiver.sink(5_000, 1);
    let mut items = Vec::new();
    for (round, bytes) in [1, 150, 900, 5_000, 20_000, 60_000].into_iter().enumerate() {
        let batch = puts(1 + round as u64 * 500, 500, 97);
        receiver.faults().cut_after(bytes);
        let done = match deliver(&mut sink, &batch).await {
            Ok(()) => batch.len(),
            Err(failure) => failure.index,
        };
        receiver.faults().pass();
        deliver_stubbornly(&mut sink, &batch[done..]).await;
        items.extend(batch);
    }
    receiver.assert_holds(&items).await;
}

pub async fn a_receiver_that_is_killed_and_started_again_lacks_nothing<R: Receiver>() {
    let receiver = R::start().await;
    let mut sink = receiver.sink(5_000, 1);
    let items = puts(1, 60, 13);
    for batch in items.chunks(20) {
        receiver.kill();
        let failure = deliver(&mut sink, batch).await.unwrap_err();
        assert!(matches!(failure.remedy, Remedy::Retry { .. }), "{failure}");
        receiver.start_again().await;
        deliver_stubbornly(&mut sink, &batch[failure.index..]).await;
    }
    receiver.assert_holds(&items).await;
}

pub async fn a_sink_that_is_made_anew_repeats_nothing_where_it_keeps_its_place<R: Receiver>() {
    let receiver = R::start().await;
    let items = puts(1, 30, 30);
    deliver(&mut receiver.sink(LONG_MS, 1), &items[..20]).await.unwrap();
    // The service had not yet noted the last batch.
    deliver(&mut receiver.sink(LONG_MS, 1), &items[10..]).await.unwrap();
    if R::PASSES_OVER {
        assert_eq!(receiver.held().await.len(), items.len());
    }
    receiver.assert_holds(&items).await;
}

pub async fn another_epoch_delivers_again<R: Receiver>() {
    let receiver = R::start().await;
    let items = puts(1, 10, 10);
    deliver(&mut receiver.sink(LONG_MS, 1), &items).await.unwrap();
    deliver(&mut receiver.sink(LONG_MS, 2), &items).await.unwrap();
    let twice: Vec<_> = items.iter().chain(&items).map(Item::written_row).collect();
    assert_eq!(receiver.held().await, twice);
}

pub async fn rows_of_a_snapshot_share_a_sequence_number_and_all_arrive<R: Receiver>() {
    let receiver = R::start().await;
    let rows: Vec<Item> = (0..30).map(|n| Item::row(7, &format!("k{n}"), n)).collect();
    let mut sink = receiver.sink(LONG_MS, 1);
    deliver(&mut sink, &rows[..10]).await.unwrap();
    deliver(&mut sink, &rows[10..20]).await.unwrap();
    // Again from the last batch, in smaller ones, by a sink that knows of nothing.
    let mut sink = receiver.sink(LONG_MS, 1);
    for batch in rows[10..].chunks(6) {
        deliver(&mut sink, batch).await.unwrap();
    }
    let after = puts(8, 5, 5);
    deliver(&mut sink, &after).await.unwrap();
    // And the end of it once more, rows and events in one batch.
    let end = [&rows[28..], &after].concat();
    let mut sink = receiver.sink(LONG_MS, 1);
    if R::PASSES_OVER {
        deliver(&mut sink, &end).await.unwrap();
    }
    receiver.assert_holds(&[rows, after].concat()).await;
}

pub async fn a_dead_letter_is_delivered_behind_later_events<R: Receiver>() {
    let receiver = R::start().await;
    let items = puts(1, 10, 10);
    let mut sink = receiver.sink(LONG_MS, 1);
    deliver(&mut sink, &items[..3]).await.unwrap();
    deliver(&mut sink, &items[4..7]).await.unwrap();
    deliver(&mut sink, &[items[3].clone().late()]).await.unwrap();
    deliver(&mut sink, &items[7..]).await.unwrap();
    let order = [&items[..3], &items[4..7], &items[3..4], &items[7..]].concat();
    receiver.assert_holds(&order).await;
}

pub async fn a_delivery_that_is_dropped_leaves_the_sink_usable<R: Receiver>() {
    let receiver = R::start().await;
    let mut sink = receiver.sink(LONG_MS, 1);
    let items = puts(1, 100, 100);
    deliver(&mut sink, &items[..1]).await.unwrap();
    receiver.faults().hang();
    let dropped = tokio::time::timeout(Duration::from_millis(100), deliver(&mut sink, &items[1..])).await;
    assert!(dropped.is_err());
    receiver.faults().pass();
    deliver_stubbornly(&mut sink, &items[1..]).await;
    receiver.assert_holds(&items).await;
}

pub async fn check_finds_nothing_where_all_is_well_and_changes_nothing<R: Receiver>() {
    let receiver = R::start().await;
    let mut sink = receiver.sink(LONG_MS, 1);
    let items = puts(1, 10, 10);
    deliver(&mut sink, &items[..5]).await.unwrap();
    assert_eq!(sink.check().await, Vec::<String>::new());
    deliver(&mut sink, &items[5..]).await.unwrap();
    receiver.assert_holds(&items).await;
}

pub async fn whatever_happens_everything_arrives<R: Receiver>() {
    let receiver = R::start().await;
    let mut sink = receiver.sink(SHORT_MS, 1);
    let mut items = Vec::new();
    // A fixed sequence that looks like none: a linear congruence.
    let mut random = 12_345_u64;
    let mut next = |below: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % below
    };
    for _ in 0..40 {
        let batch = puts(items.len() as u64 + 1, 1 + next(60), 31);
        let fault = next(6);
        match fault {
            0 => receiver.faults().refuse(),
            1 => receiver.faults().swallow_answers(),
            2 | 3 => receiver.faults().cut_after(next(4_000)),
            4 if next(3) == 0 => receiver.faults().hang(),
            _ => {}
        }
        let mut done = 0;
        // Some attempts under the fault.
        for _ in 0..1 + next(2) {
            match deliver(&mut sink, &batch[done..]).await {
                Ok(()) => done = batch.len(),
                Err(failure) => done += failure.index,
            }
            if done == batch.len() {
                break;
            }
        }
        receiver.faults().pass();
        if next(4) == 0 {
            // The service itself is killed, before it noted how far it was.
            sink = receiver.sink(SHORT_MS, 1);
            done = 0;
        }
        deliver_stubbornly(&mut sink, &batch[done..]).await;
        items.extend(batch);
    }
    receiver.assert_holds(&items).await;
}

/// The whole suite for one receiver.
macro_rules! contract {
    ($receiver:ty: $($test:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                crate::suite::$test::<$receiver>().await;
            }
        )*
    };
    ($receiver:ty) => {
        crate::suite::contract! {
            $receiver:
            events_arrive_in_order
            a_batch_of_a_thousand_is_one_batch
            a_large_event_arrives_whole
            a_refused_connection_is_a_failure_and_the_sink_goes_on_later
            a_receiver_that_hangs_is_a_failure_in_time
            an_answer_that_is_lost_costs_no_event
            a_connection_that_is_cut_in_a_batch_costs_no_event
            a_receiver_that_is_killed_and_started_again_lacks_nothing
            a_sink_that_is_made_anew_repeats_nothing_where_it_keeps_its_place
            another_epoch_delivers_again
            rows_of_a_snapshot_share_a_sequence_number_and_all_arrive
            a_dead_letter_is_delivered_behind_later_events
            a_delivery_that_is_dropped_leaves_the_sink_usable
            check_finds_nothing_where_all_is_well_and_changes_nothing
            whatever_happens_everything_arrives
        }
    };
}
pub(crate) use contract;
