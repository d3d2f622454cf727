//! The sink for Kafka, against the mock cluster that librdkafka has for its own tests: it speaks the protocol over TCP
//! and keeps what it is sent, but it is no Kafka.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use cdc_rest::envelope::Format;
use cdc_sinks::{AnySink, Remedy, Settings, Sink};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _, DefaultConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::message::{Headers as _, Message as _, OwnedMessage};
use rdkafka::mocking::MockCluster;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use rdkafka::{Offset, TopicPartitionList};
use serde_json::{Value, json};

use crate::events::{Item, deliver, puts};
use crate::receiver::{Faults, Receiver, place};
use crate::suite::contract;

struct KafkaReceiver {
    cluster: MockCluster<'static, rdkafka::producer::DefaultProducerContext>,
}

impl KafkaReceiver {
    fn with(topics: &[(&str, i32)]) -> Self {
        let cluster = MockCluster::new(1).unwrap();
        for (topic, partitions) in topics {
            cluster.create_topic(topic, *partitions, 1).unwrap();
        }
        Self { cluster }
    }

    fn sink_with(&self, options: Value, format: Format) -> AnySink {
        let mut settings = self.settings(5_000).write();
        settings.as_object_mut().unwrap().extend(options.as_object().unwrap().clone());
        AnySink::open(&Settings::parse(&settings).unwrap(), format, place(1))
    }

    /// Everything in a topic, partition by partition.
    fn records(&self, topic: &str) -> Vec<OwnedMessage> {
        let consumer: BaseConsumer<DefaultConsumerContext> = ClientConfig::new()
            .set("bootstrap.servers", self.cluster.bootstrap_servers())
            .set("group.id", "test")
            .set("enable.partition.eof", "true")
            .create()
            .unwrap();
        let metadata = consumer.fetch_metadata(Some(topic), Duration::from_secs(10)).unwrap();
        let mut partitions = TopicPartitionList::new();
        let count = metadata.topics()[0].partitions().len();
        for partition in metadata.topics()[0].partitions() {
            partitions.add_partition_offset(topic, partition.id(), Offset::Beginning).unwrap();
        }
        consumer.assign(&partitions).unwrap();
        let (mut records, mut ended) = (Vec::new(), 0);
        let deadline = Instant::now() + Duration::from_secs(30);
        while ended < count {
            assert!(Instant::now() < deadline, "the end of {topic} does not come");
            match consumer.poll(Duration::from_millis(100)) {
                Some(Ok(record)) => records.push(record.detach()),
                Some(Err(KafkaError::PartitionEOF(_))) => ended += 1,
                Some(Err(_)) | None => {}
            }
        }
        records.sort_by_key(|record| (record.partition(), record.offset()));
        records
    }
}

impl Faults for KafkaReceiver {
    fn refuse(&self) {
        self.cluster.broker_down(1).unwrap();
    }

    fn hang(&self) {
        self.cluster.broker_round_trip_time(1, Duration::from_secs(600)).unwrap();
    }

    /// Answers come too late, which is all that the mock can do.
    fn swallow_answers(&self) {
        self.hang();
    }

    /// The mock counts no bytes: it is gone for a while.
    fn cut_after(&self, bytes: u64) {
        self.cluster.broker_round_trip_time(1, Duration::from_millis(bytes % 50)).unwrap();
        self.refuse();
    }

    fn pass(&self) {
        self.cluster.broker_round_trip_time(1, Duration::ZERO).unwrap();
        self.cluster.broker_up(1).unwrap();
    }
}

impl Receiver for KafkaReceiver {
    const MAY_REPEAT: bool = true;
    const PASSES_OVER: bool = false;

    async fn start() -> Self {
        Self::with(&[("cdc.items", 1)])
    }

    fn faults(&self) -> &dyn Faults {
        self
    }

    fn settings(&self, timeout_ms: u32) -> Settings {
        let brokers = self.cluster.bootstrap_servers();
        let brokers: Vec<&str> = brokers.split(',').collect();
        // A producer waits for its brokers to come back until time is up.
        let settings = json!({"sink": "kafka", "brokers": brokers, "timeoutMs": timeout_ms.clamp(1_500, 3_000)});
        Settings::parse(&settings).unwrap()
    }

    fn kill(&self) {
        self.refuse();
    }

    async fn start_again(&self) {
        self.pass();
    }

    async fn held(&self) -> Vec<(String, u64)> {
        let row = |record: &OwnedMessage| {
            let event: Value = serde_json::from_slice(record.payload().unwrap()).unwrap();
            let image = if event["after"].is_null() { &event["before"] } else { &event["after"] };
            assert_eq!(record.key(), image["id"].as_str().map(str::as_bytes));
            (image["id"].as_str().unwrap().to_owned(), image["n"].as_u64().unwrap())
        };
        self.records("cdc.items").iter().map(row).collect()
    }
}

contract!(KafkaReceiver);

#[tokio::test(flavor = "multi_thread")]
async fn keys_go_to_the_partitions_that_kafkas_java_client_puts_them_in() {
    let receiver = KafkaReceiver::with(&[("cdc.items", 8)]);
    let keys = [
        "21",
        "foobar",
        "a-little-bit-long-string",
        "a-little-bit-longer-string",
        "lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8",
    ];
    let items: Vec<Item> = (1..).zip(keys).map(|(sequence, key)| Item::put(sequence, key)).collect();
    deliver(&mut receiver.sink(5_000, 1), &items).await.unwrap();
    let found: BTreeMap<String, i32> = receiver
        .records("cdc.items")
        .iter()
        .map(|record| (String::from_utf8(record.key().unwrap().to_vec()).unwrap(), record.partition()))
        .collect();
    // Hashes from the tests of Kafka's own client (UtilsTest.testMurmur2).
    let hashes: [i32; 5] = [-973_932_308, -790_332_482, -985_981_536, -1_486_304_829, -58_897_971];
    for (key, hash) in keys.iter().zip(hashes) {
        assert_eq!(found[*key], (hash & 0x7fff_ffff) % 8, "{key}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_has_its_key_its_headers_and_the_topic_of_its_table() {
    let receiver = KafkaReceiver::with(&[("x-items_", 1)]);
    let schema = crate::events::items_schema("items$");
    let item =
        Item::new(36, cdc_rest::Operation::Insert, &schema, "a/b", None, Some(crate::events::image("a/b", 36, "")));
    deliver(&mut receiver.sink_with(json!({"topic": "x-{table}"}), Format::Native), &[item]).await.unwrap();
    let records = receiver.records("x-items_");
    assert_eq!(records[0].key(), Some(b"a/b".as_slice()));
    let headers = records[0].headers().unwrap();
    let header = |at: usize| (headers.get(at).key, headers.get(at).value);
    assert_eq!(header(0), ("id", Some(b"evt_1764000000000_10".as_slice())));
    assert_eq!(header(1), ("content-type", Some(b"application/json".as_slice())));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_is_too_large_is_given_up_and_named() {
    let receiver = KafkaReceiver::with(&[("cdc.items", 1)]);
    let items = [Item::put(1, "a"), Item::noted(2, "b", &"x".repeat(2_000_000)), Item::put(3, "c")];
    let mut sink = receiver.sink(5_000, 1);
    let failure = deliver(&mut sink, &items).await.unwrap_err();
    assert_eq!((failure.index, failure.remedy), (1, Remedy::Reject), "{failure}");
    assert!(failure.message.contains("message.max.bytes"), "{failure}");
    deliver(&mut sink, &items[2..]).await.unwrap();
    receiver.assert_holds(&[items[0].clone(), items[2].clone()]).await;
    let properties = json!({"properties": {"message.max.bytes": "4000000"}});
    deliver(&mut receiver.sink_with(properties, Format::Native), &items[1..2]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn after_an_error_that_ends_a_producer_a_new_one_goes_on() {
    let receiver = KafkaReceiver::with(&[("cdc.items", 1)]);
    let mut sink = receiver.sink(5_000, 1);
    let items = puts(1, 20, 20);
    deliver(&mut sink, &items[..10]).await.unwrap();
    // Whatever is under way fails, since the mock, unlike a broker, takes what comes behind a refused record.
    let lost = RDKafkaRespErr::RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED;
    receiver.cluster.request_errors(RDKafkaApiKey::Produce, &[lost; 10]);
    let failure = deliver(&mut sink, &items[10..]).await.unwrap_err();
    assert_eq!((failure.index, failure.remedy), (0, Remedy::Retry { after: None }), "{failure}");
    receiver.cluster.clear_request_errors(RDKafkaApiKey::Produce);
    crate::events::deliver_stubbornly(&mut sink, &items[10..]).await;
    receiver.assert_holds(&items).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn check_says_what_is_missing_and_failures_say_why() {
    let receiver = KafkaReceiver::with(&[("cdc.items", 1)]);
    let problems = receiver.sink_with(json!({"topic": "elsewhere"}), Format::Native).check().await.join("\n");
    assert!(problems.contains("the topic elsewhere is not there"), "{problems}");
    receiver.refuse();
    let mut sink = receiver.sink(1_000, 1);
    let failure = deliver(&mut sink, &puts(1, 1, 1)).await.unwrap_err();
    assert_eq!((failure.index, failure.remedy), (0, Remedy::Retry { after: None }), "{failure}");
    assert!(!sink.check().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_row_leaves_a_tombstone_with_its_key_in_debeziums_envelopes_alone() {
    let receiver = KafkaReceiver::with(&[("cdc.items", 1), ("native.items", 1)]);
    let items = [Item::put(1, "a"), Item::delete(2, "a")];
    deliver(&mut receiver.sink_with(json!({}), Format::Debezium), &items).await.unwrap();
    let records = receiver.records("cdc.items");
    let values: Vec<bool> = records.iter().map(|record| record.payload().is_some()).collect();
    assert_eq!(values, [true, true, false]);
    assert!(records.iter().all(|record| record.key() == records[0].key()));
    deliver(&mut receiver.sink_with(json!({"topic": "native.{table}"}), Format::Native), &items).await.unwrap();
    assert_eq!(receiver.records("native.items").len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn attributes_of_cloudevents_are_headers_as_kafkas_binding_spells_them() {
    let receiver = KafkaReceiver::with(&[("cdc.items", 1)]);
    deliver(&mut receiver.sink_with(json!({}), Format::CloudEventsBinary), &[Item::put(1, "a")]).await.unwrap();
    let records = receiver.records("cdc.items");
    let names: Vec<&str> = records[0].headers().unwrap().iter().map(|header| header.key).collect();
    assert!(names.contains(&"ce_id") && names.contains(&"ce_specversion"), "{names:?}");
    assert!(!names.iter().any(|name| name.starts_with("ce-")), "{names:?}");
}
