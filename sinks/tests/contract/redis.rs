//! The sink for Redis Streams.

use cdc_sinks::{AnySink, Remedy, Settings, Sink};
use cdc_test_servers::{Proxy, Redis};
use serde_json::{Value, json};

use crate::events::{Item, deliver, puts};
use crate::receiver::{Faults, Receiver, place};
use crate::suite::contract;

struct RedisReceiver {
    redis: Redis,
    proxy: Proxy,
}

impl RedisReceiver {
    async fn with(options: &[&str]) -> Self {
        let redis = Redis::with(options);
        Self { proxy: Proxy::to(redis.port()), redis }
    }

    /// A sink with further options.
    fn sink_with(&self, options: Value) -> AnySink {
        let mut settings = self.settings(5_000).write();
        settings.as_object_mut().unwrap().extend(options.as_object().unwrap().clone());
        AnySink::open(&Settings::parse(&settings).unwrap(), Default::default(), place(1))
    }
}

impl Receiver for RedisReceiver {
    const MAY_REPEAT: bool = false;
    const PASSES_OVER: bool = true;

    async fn start() -> Self {
        Self::with(&[]).await
    }

    fn faults(&self) -> &dyn Faults {
        &self.proxy
    }

    fn settings(&self, timeout_ms: u32) -> Settings {
        let url = format!("redis://127.0.0.1:{}", self.proxy.port());
        Settings::parse(&json!({"sink": "redis", "url": url, "timeoutMs": timeout_ms})).unwrap()
    }

    fn kill(&self) {
        self.redis.kill();
    }

    async fn start_again(&self) {
        self.redis.start_again();
    }

    async fn held(&self) -> Vec<(String, u64)> {
        let row = |fields: Vec<(String, String)>| {
            let field = |name: &str| fields.iter().find(|(field, _)| field == name).unwrap().1.clone();
            let event: Value = serde_json::from_str(&field("value")).unwrap();
            assert_eq!(event["id"].as_str().map(|id| id.starts_with("evt_")), Some(true));
            let image = if event["after"].is_null() { &event["before"] } else { &event["after"] };
            (field("key"), image["n"].as_u64().unwrap())
        };
        self.redis.entries("cdc.items").into_iter().map(row).collect()
    }
}

contract!(RedisReceiver);

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_has_the_event_its_key_and_what_it_is() {
    let receiver = RedisReceiver::start().await;
    let item = Item::put(36, "a/b");
    deliver(&mut receiver.sink(5_000, 1), &[item]).await.unwrap();
    let entries = receiver.redis.entries("cdc.items");
    let names: Vec<&str> = entries[0].iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["id", "key", "value", "content-type"]);
    let field = |at: usize| entries[0][at].1.as_str();
    assert_eq!((field(0), field(1), field(3)), ("evt_1764000000000_10", "a/b", "application/json"));
}

#[tokio::test(flavor = "multi_thread")]
async fn each_table_has_its_stream_and_streams_are_cut_to_their_length() {
    let receiver = RedisReceiver::start().await;
    let mut sink = receiver.sink_with(json!({"stream": "s:{table}", "maxLength": 100}));
    for from in 0..5 {
        deliver(&mut sink, &puts(1 + from * 1_000, 1_000, 10)).await.unwrap();
    }
    let length: u64 = receiver.redis.command(&["XLEN", "s:items"]).parse().unwrap();
    assert!((100..1_000).contains(&length), "{length}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_that_redis_refuses_stops_the_batch_there_and_nothing_comes_twice() {
    let receiver = RedisReceiver::start().await;
    receiver.redis.command(&["SET", "cdc.other", "taken"]);
    let mut items = puts(1, 10, 10);
    let schema = crate::events::items_schema("other");
    let other = Item::new(4, cdc_rest::Operation::Insert, &schema, "x", None, Some(crate::events::image("x", 4, "")));
    items[3] = other;
    let mut sink = receiver.sink(5_000, 1);
    for expected in [3, 0, 0] {
        let failure = deliver(&mut sink, &items[if expected == 3 { 0 } else { 3 }..]).await.unwrap_err();
        assert_eq!((failure.index, failure.remedy), (expected, Remedy::Retry { after: None }), "{failure}");
        assert!(failure.message.contains("WRONGTYPE") && failure.message.contains("cdc.other"), "{failure}");
    }
    // From the beginning, as after a crash.
    let failure = deliver(&mut receiver.sink(5_000, 1), &items).await.unwrap_err();
    assert_eq!(failure.index, 3);
    receiver.redis.command(&["DEL", "cdc.other"]);
    deliver(&mut sink, &items[3..]).await.unwrap();
    assert_eq!(receiver.redis.command(&["XLEN", "cdc.other"]), "1");
    let other = items.remove(3);
    assert_eq!(other.table, "other");
    receiver.assert_holds(&items).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_lost_what_it_had_acknowledged_is_not_written_to_in_silence() {
    let receiver = RedisReceiver::with(&["--appendonly", "no"]).await;
    let mut sink = receiver.sink(5_000, 1);
    let items = puts(1, 10, 10);
    deliver(&mut sink, &items[..5]).await.unwrap();
    receiver.kill();
    receiver.start_again().await;
    // At first it is the old connection that fails.
    deliver(&mut sink, &items[5..]).await.unwrap_err();
    for _ in 0..2 {
        let failure = deliver(&mut sink, &items[5..]).await.unwrap_err();
        assert!(matches!(failure.remedy, Remedy::Retry { .. }));
        assert!(failure.message.contains("events are lost that had been acknowledged"), "{failure}");
    }
    // The subscription is moved back.
    deliver(&mut receiver.sink(5_000, 2), &items).await.unwrap();
    receiver.assert_holds(&items).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_redis_is_a_failure_that_passes() {
    let receiver = RedisReceiver::with(&["--maxmemory", "3mb", "--maxmemory-policy", "noeviction"]).await;
    let mut sink = receiver.sink(5_000, 1);
    let big: Vec<Item> = (1..100).map(|n| Item::noted(n, &format!("k{n}"), &"x".repeat(100_000))).collect();
    let mut done = 0;
    let failure = loop {
        match deliver(&mut sink, &big[done..done + 5]).await {
            Ok(()) => done += 5,
            Err(failure) => break failure,
        }
    };
    assert!(failure.message.contains("OOM") && failure.message.contains("maxLength"), "{failure}");
    assert_eq!(failure.remedy, Remedy::Retry { after: None });
    receiver.redis.command(&["CONFIG", "SET", "maxmemory", "0"]);
    let done = done + failure.index;
    deliver(&mut sink, &big[done..]).await.unwrap();
    receiver.assert_holds(&big).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_is_used_asked_for_and_never_shown() {
    let receiver = RedisReceiver::with(&["--requirepass", "correct-horse"]).await;
    let items = puts(1, 3, 3);
    let failure = deliver(&mut receiver.sink(5_000, 1), &items).await.unwrap_err();
    assert!(failure.message.contains("`password`"), "{failure}");
    let mut wrong = receiver.sink_with(json!({"password": "hunter2"}));
    let failure = deliver(&mut wrong, &items).await.unwrap_err();
    assert!(matches!(failure.remedy, Remedy::Retry { .. }));
    assert!(!format!("{failure} {failure:?}").contains("hunter2"), "{failure:?}");
    let mut sink = receiver.sink_with(json!({"password": "correct-horse"}));
    deliver(&mut sink, &items).await.unwrap();
    let url = format!("redis://:correct-horse@127.0.0.1:{}/2", receiver.proxy.port());
    deliver(&mut receiver.sink_with(json!({"url": url})), &items).await.unwrap();
    let databases = receiver.redis.command(&["-a", "correct-horse", "--no-auth-warning", "INFO", "keyspace"]);
    assert!(databases.contains("db0:") && databases.contains("db2:"), "{databases}");
}

#[tokio::test(flavor = "multi_thread")]
async fn check_says_what_is_missing() {
    let receiver =
        RedisReceiver::with(&["--appendonly", "no", "--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"]).await;
    receiver.redis.command(&["SET", "cdc:place:contract:3", "taken"]);
    let problems = receiver.sink(5_000, 1).check().await.join("\n");
    for word in ["CONFIG SET appendonly yes", "maxmemory-policy noeviction", "cdc:place:contract:3"] {
        assert!(problems.contains(word), "{word}: {problems}");
    }
    receiver.redis.command(&["REPLICAOF", "127.0.0.1", "1"]);
    let problems = receiver.sink(5_000, 1).check().await.join("\n");
    assert!(problems.contains("replica"), "{problems}");
    let failure = deliver(&mut receiver.sink_with(json!({"stream": "x"})), &puts(1, 1, 1)).await.unwrap_err();
    assert!(matches!(failure.remedy, Remedy::Retry { .. }), "{failure}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_row_is_one_entry_in_every_envelope() {
    use cdc_rest::envelope::Format;
    let receiver = RedisReceiver::start().await;
    for (epoch, &format) in (1..).zip(Format::ALL) {
        let mut sink = AnySink::open(&receiver.settings(5_000), format, place(epoch));
        deliver(&mut sink, &[Item::delete(1, "a")]).await.unwrap();
    }
    assert_eq!(receiver.redis.entries("cdc.items").len(), Format::ALL.len());
}
