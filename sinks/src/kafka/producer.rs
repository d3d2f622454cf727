//! librdkafka's producer, with what it complains about.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::KafkaError;
use rdkafka::producer::future_producer::{DeliveryFuture, FutureProducer, FutureRecord};
use rdkafka::producer::{Producer as _, PurgeConfig};

use super::{KafkaFailure, Options, properties};

/// A producer. Dropping it forgets all that waits in it.
pub(super) struct Producer {
    /// None once it is being dropped.
    inner: Option<FutureProducer<Complaints>>,
    complaints: Complaints,
}

/// What librdkafka complained about last: its errors of records say little more than that time was up.
#[derive(Clone, Default)]
struct Complaints(Arc<Mutex<String>>);

impl ClientContext for Complaints {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(target: "cdc::kafka", ?level, facility, "{message}");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(target: "cdc::kafka", %error, "{reason}");
        reason.clone_into(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl Producer {
    /// Makes a producer. It connects by itself.
    pub(super) fn new(options: &Options) -> Result<Self, KafkaFailure> {
        let mut config = ClientConfig::new();
        // What has to wait longer than a batch may take has failed.
        let timeout_ms = options.timeout_ms.to_string();
        config
            .set("client.id", "cdc")
            .set("linger.ms", "0")
            .set("queue.buffering.max.kbytes", "1048576")
            .set("socket.timeout.ms", timeout_ms.as_str());
        for (name, value) in &options.properties {
            properties::set(&mut config, name, &value.reveal()?)
                .map_err(|why| KafkaFailure::Property { name: name.clone(), why })?;
        }
        config
            .set("bootstrap.servers", options.brokers.join(","))
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("partitioner", "murmur2")
            .set("message.timeout.ms", timeout_ms);
        let complaints = Complaints::default();
        let producer = config.create_with_context(complaints.clone());
        let inner = producer.map_err(|error| KafkaFailure::Producer { error: error.into() })?;
        Ok(Self { inner: Some(inner), complaints })
    }

    pub(super) fn send(&self, record: FutureRecord<'_, [u8], [u8]>) -> Result<DeliveryFuture, KafkaError> {
        match &self.inner {
            Some(producer) => producer.send_result(record).map_err(|(error, _)| error),
            None => Err(KafkaError::Canceled),
        }
    }

    /// What it complained about last, to be put behind a message.
    pub(super) fn complaint(&self) -> String {
        let text = self.complaints.0.lock().unwrap_or_else(PoisonError::into_inner);
        if text.is_empty() { String::new() } else { format!(": {text}") }
    }

    pub(super) fn record_failure(&self, topic: &str, error: KafkaError) -> KafkaFailure {
        KafkaFailure::Record { topic: topic.to_owned(), error: error.into(), cause: self.complaint() }
    }

    /// Asks the cluster about itself, and about a topic.
    pub(super) async fn check(self, topic: Option<String>, timeout_ms: u32) -> Result<Vec<String>, KafkaFailure> {
        let checked = tokio::task::spawn_blocking(move || {
            let timeout = Duration::from_millis(u64::from(timeout_ms));
            let Some(producer) = &self.inner else { return Err(KafkaFailure::Ended) };
            let metadata = producer
                .client()
                .fetch_metadata(None, timeout)
                .map_err(|error| KafkaFailure::Metadata { error: error.into(), cause: self.complaint() })?;
            let mut problems = Vec::new();
            if let Some(topic) = topic
                && !metadata.topics().iter().any(|known| known.name() == topic)
            {
                problems.push(format!(
                    "the topic {topic} is not there: kafka-topics --create --topic {topic}, unless the brokers create \
                     topics by themselves"
                ));
            }
            Ok(problems)
        });
        checked.await.unwrap_or(Err(KafkaFailure::Ended))
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        if let Some(producer) = self.inner.take() {
            producer.purge(PurgeConfig::default().queue().inflight());
            // Its threads are waited for, which nobody who calls us needs to do.
            std::thread::spawn(move || drop(producer));
        }
    }
}
