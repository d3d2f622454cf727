//! The sink for NATS JetStream.

use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::{self, stream};
use cdc_sinks::{AnySink, Remedy, Settings, Sink};
use cdc_test_servers::{Nats, Proxy};
use serde_json::{Value, json};

use crate::events::{Item, deliver, puts};
use crate::receiver::{Faults, Receiver, place};
use crate::suite::contract;

struct NatsReceiver {
    nats: Nats,
    proxy: Proxy,
}

impl NatsReceiver {
    fn with(options: &[&str]) -> Self {
        let nats = Nats::with(options);
        Self { proxy: Proxy::to(nats.port()), nats }
    }

    fn sink_with(&self, options: Value) -> AnySink {
        let mut settings = self.settings(5_000).write();
        let object = settings.as_object_mut().unwrap();
        object.extend(options.as_object().unwrap().clone());
        object.retain(|_, value| !value.is_null());
        AnySink::open(&Settings::parse(&settings).unwrap(), Default::default(), place(1))
    }

    async fn jetstream(&self) -> jetstream::Context {
        jetstream::new(async_nats::connect(self.nats.url()).await.unwrap())
    }

    /// All messages of the stream.
    async fn messages(&self) -> Vec<StreamMessage> {
        let stream = self.jetstream().await.get_stream("CDC").await.unwrap();
        let state = &stream.cached_info().state;
        let mut messages = Vec::new();
        for sequence in state.first_sequence..=state.last_sequence {
            messages.push(stream.get_raw_message(sequence).await.unwrap());
        }
        messages
    }
}

impl Receiver for NatsReceiver {
    const MAY_REPEAT: bool = false;
    const PASSES_OVER: bool = true;

    async fn start() -> Self {
        Self::with(&[])
    }

    fn faults(&self) -> &dyn Faults {
        &self.proxy
    }

    fn settings(&self, timeout_ms: u32) -> Settings {
        let server = format!("nats://127.0.0.1:{}", self.proxy.port());
        let settings =
            json!({"sink": "nats", "servers": [server], "stream": "CDC", "createStream": {}, "timeoutMs": timeout_ms});
        Settings::parse(&settings).unwrap()
    }

    fn kill(&self) {
        self.nats.kill();
    }

    async fn start_again(&self) {
        self.nats.start_again();
    }

    async fn held(&self) -> Vec<(String, u64)> {
        let row = |message: &StreamMessage| {
            let event: Value = serde_json::from_slice(&message.payload).unwrap();
            let image = if event["after"].is_null() { &event["before"] } else { &event["after"] };
            (image["id"].as_str().unwrap().to_owned(), image["n"].as_u64().unwrap())
        };
        self.messages().await.iter().map(row).collect()
    }
}

contract!(NatsReceiver);

#[tokio::test(flavor = "multi_thread")]
async fn a_message_has_its_subject_its_id_and_its_key() {
    let receiver = NatsReceiver::start().await;
    let mut sink = receiver.sink_with(json!({"subject": "x.{table}.{operation}"}));
    deliver(&mut sink, &[Item::put(36, "ä b")]).await.unwrap();
    let messages = receiver.messages().await;
    let header = |name: &str| messages[0].headers.get(name).unwrap().to_string();
    assert_eq!(messages[0].subject.as_str(), "x.items.insert");
    assert_eq!(header("Nats-Msg-Id"), "contract.1.evt_1764000000000_10");
    assert_eq!(header("id"), "evt_1764000000000_10");
    assert_eq!((header("key"), header("content-type")), ("%C3%A4%20b".into(), "application/json".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_made_as_it_was_asked_for_and_one_that_is_there_is_left_alone() {
    let receiver = NatsReceiver::start().await;
    let create = json!({"storage": "memory", "maxAgeSeconds": 60, "maxBytes": 1_000_000, "duplicateWindowSeconds": 30});
    deliver(&mut receiver.sink_with(json!({"createStream": create})), &puts(1, 1, 1)).await.unwrap();
    deliver(&mut receiver.sink(5_000, 1), &puts(2, 1, 1)).await.unwrap();
    let stream = receiver.jetstream().await.get_stream("CDC").await.unwrap();
    let config = &stream.cached_info().config;
    assert_eq!(config.subjects, ["cdc.>"]);
    assert_eq!((config.storage, config.max_bytes), (stream::StorageType::Memory, 1_000_000));
    assert_eq!((config.max_age.as_secs(), config.duplicate_window.as_secs()), (60, 30));
    let problems = receiver.sink(5_000, 1).check().await.join("\n");
    assert!(problems.contains("kept in memory"), "{problems}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_subscriptions_may_write_into_one_stream() {
    let receiver = NatsReceiver::start().await;
    let settings = receiver.settings(5_000);
    for subscription in ["one", "other"] {
        let place = cdc_sinks::Place { subscription: subscription.into(), ..place(1) };
        deliver(&mut AnySink::open(&settings, Default::default(), place), &puts(1, 5, 5)).await.unwrap();
    }
    assert_eq!(receiver.messages().await.len(), 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_jetstream_refuses_stops_the_batch_and_rows_keep_their_order() {
    let receiver = NatsReceiver::start().await;
    // Refuses what is larger, and takes what comes behind it.
    let config = stream::Config {
        name: "CDC".into(),
        subjects: vec!["cdc.>".into()],
        max_message_size: 2_000,
        ..stream::Config::default()
    };
    receiver.jetstream().await.create_stream(config.clone()).await.unwrap();
    let items = [Item::put(1, "a"), Item::noted(2, "a", &"x".repeat(3_000)), Item::put(3, "a"), Item::put(4, "b")];
    let mut sink = receiver.sink(5_000, 1);
    for done in [0, 1] {
        let failure = deliver(&mut sink, &items[done..]).await.unwrap_err();
        assert_eq!((failure.index, failure.remedy), (1 - done, Remedy::Retry { after: None }), "{failure}");
        assert!(failure.message.contains("cdc.items") && failure.message.contains("maximum"), "{failure}");
    }
    let larger = stream::Config { max_message_size: 10_000, ..config };
    receiver.jetstream().await.update_stream(larger).await.unwrap();
    deliver(&mut sink, &items[1..]).await.unwrap();
    let held = receiver.held().await;
    let of_a: Vec<u64> = held.iter().filter(|(key, _)| key == "a").map(|(_, n)| *n).collect();
    assert_eq!(of_a.last(), Some(&3), "{of_a:?}");
    let from_two = of_a.iter().position(|&n| n == 2).unwrap();
    assert_eq!(of_a[from_two..], [2, 3]);
    assert_eq!(held.iter().filter(|(key, _)| key == "a").count(), of_a.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_is_too_large_for_the_server_is_given_up_and_named() {
    let receiver = NatsReceiver::start().await;
    let items = [Item::put(1, "a"), Item::noted(2, "b", &"x".repeat(1 << 20)), Item::put(3, "c")];
    let mut sink = receiver.sink(5_000, 1);
    let failure = deliver(&mut sink, &items).await.unwrap_err();
    assert_eq!((failure.index, failure.remedy), (1, Remedy::Reject), "{failure}");
    assert!(failure.message.contains("max_payload"), "{failure}");
    deliver(&mut sink, &items[2..]).await.unwrap();
    assert_eq!(receiver.held().await, [("a".into(), 1), ("c".into(), 3)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_missing_is_told_with_the_command() {
    let receiver = NatsReceiver::start().await;
    let mut sink = receiver.sink_with(json!({"createStream": null}));
    for problem in [
        deliver(&mut sink, &puts(1, 1, 1)).await.unwrap_err().message,
        sink.check().await.join("\n"),
        deliver(&mut receiver.sink_with(json!({"stream": null, "createStream": null})), &puts(1, 1, 1))
            .await
            .unwrap_err()
            .message,
    ] {
        assert!(problem.contains("nats stream add CDC --subjects 'cdc.>'"), "{problem}");
    }
    // Another stream takes the subject.
    let other = stream::Config { name: "OTHER".into(), subjects: vec!["cdc.>".into()], ..stream::Config::default() };
    receiver.jetstream().await.create_stream(other).await.unwrap();
    let problems = sink.check().await.join("\n");
    assert!(problems.contains("taken by the stream OTHER, not CDC"), "{problems}");
    let failure =
        deliver(&mut receiver.sink_with(json!({"createStream": {"subjects": ["elsewhere"]}})), &puts(1, 1, 1))
            .await
            .unwrap_err();
    assert_eq!(failure.remedy, Remedy::Retry { after: None }, "{failure}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_way_of_logging_in_works_and_no_secret_is_shown() {
    let items = puts(1, 3, 3);
    let pair = nkeys::KeyPair::new_user();
    let (seed, public) = (pair.seed().unwrap(), pair.public_key());
    let folder = std::env::temp_dir().join(format!("cdc-nats-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let config = folder.join("nkey.conf");
    std::fs::write(&config, format!("authorization {{ users = [ {{ nkey: {public} }} ] }}")).unwrap();
    for (server, options) in [
        (vec!["--user", "u", "--pass", "correct-horse"], json!({"user": "u", "password": "correct-horse"})),
        (vec!["--auth", "correct-horse"], json!({"token": "correct-horse"})),
        (vec!["--config", config.to_str().unwrap()], json!({"nkeySeed": seed})),
    ] {
        let receiver = NatsReceiver::with(&server);
        deliver(&mut receiver.sink_with(options.clone()), &items).await.unwrap();
        let mut without = receiver.sink_with(json!({"token": "hunter2"}));
        if options["token"].is_null() {
            without = receiver.sink_with(json!({}));
        }
        let failure = deliver(&mut without, &items).await.unwrap_err();
        assert_eq!(failure.remedy, Remedy::Retry { after: None });
        assert!(failure.message.to_lowercase().contains("authorization"), "{failure}");
        assert!(!format!("{failure:?}").contains("hunter2"), "{failure:?}");
    }
    std::fs::remove_dir_all(folder).unwrap();
}
