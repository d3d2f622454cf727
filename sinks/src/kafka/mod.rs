//! Kafka: a record for each event, and Ok only when the cluster has acknowledged every one (`acks=all`).
//!
//! - librdkafka's idempotent producer: its own retries neither repeat nor reorder. After a failure of a batch it is
//!   thrown away with all that waits in it, and a new one sends everything again from the first record that was not
//!   acknowledged. So a record may be there twice, but a key's records always end in their order.
//! - Keys go to partitions by the murmur2 hash that Kafka's Java client uses, so that topics which both write to agree.
//!   Records without a key (truncates) all go to one partition.
//! - With Debezium's envelopes a deleted row leaves a tombstone: its key and no value, for log compaction.
//! - Headers: `id` (the event's), `content-type`, and the envelope's; CloudEvents' as `ce_…`.
//!
//! A record is given up if it is too large. Everything else is tried again.

mod options;
mod producer;
mod properties;

use std::borrow::Cow;

use cdc_access::Reach;
use cdc_rest::envelope::{Format, Message, Tombstones};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::future_producer::{DeliveryFuture, FutureRecord};

pub use options::*;

use self::producer::Producer;
use crate::connection::{ConnectError, addresses, within};
use crate::secret::MissingVariable;
use crate::{Event, Failure, Sink, render};

/// A sink that produces to Kafka.
pub struct KafkaSink {
    options: Options,
    format: Format,
    reach: Reach,
    /// Taken out while a batch is under way.
    producer: Option<Producer>,
}

#[derive(Debug, thiserror::Error)]
enum KafkaFailure {
    #[error(transparent)]
    Variable(#[from] MissingVariable),
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("`properties.{name}` {why}")]
    Property { name: String, why: String },
    #[error("no producer can be made: {}", without_value(.error))]
    Producer { error: Box<KafkaError> },
    #[error("topic {topic}: {error}{cause}{}", hint(.error))]
    Record {
        topic: String,
        error: Box<KafkaError>,
        /// What librdkafka complained about last.
        cause: String,
    },
    #[error("the cluster tells nothing of itself: {error}{cause}")]
    Metadata { error: Box<KafkaError>, cause: String },
    #[error("no answer within {timeout_ms} ms{cause}")]
    Timeout { timeout_ms: u32, cause: String },
    #[error("the producer ended")]
    Ended,
}

/// An error of making a producer: librdkafka's words about a property quote its value.
fn without_value(error: &KafkaError) -> String {
    match error {
        KafkaError::ClientConfig(_, _, name, _) => {
            format!("`properties.{name}` has a value that librdkafka does not take")
        }
        other => other.to_string(),
    }
}

/// What to do about an error, where that is known.
fn hint(error: &KafkaError) -> &'static str {
    match error.rdkafka_error_code() {
        Some(RDKafkaErrorCode::MessageSizeTooLarge) => {
            ": raise message.max.bytes in `properties`, and max.message.bytes of the topic"
        }
        Some(RDKafkaErrorCode::UnknownTopic | RDKafkaErrorCode::UnknownTopicOrPartition) => {
            ": create it, or set auto.create.topics.enable at the brokers"
        }
        Some(RDKafkaErrorCode::TopicAuthorizationFailed) => ": allow the user WRITE and DESCRIBE on it",
        Some(RDKafkaErrorCode::ClusterAuthorizationFailed) => ": allow the user IDEMPOTENT_WRITE on the cluster",
        _ => "",
    }
}

impl KafkaFailure {
    fn is_about_the_event(&self) -> bool {
        matches!(self, Self::Record { error, .. }
            if error.rdkafka_error_code() == Some(RDKafkaErrorCode::MessageSizeTooLarge))
    }
}

/// A record that was handed over.
struct Sent {
    topic: String,
    /// The event that is done with it; none if a further record of it follows.
    event: Option<usize>,
    delivery: DeliveryFuture,
}

impl KafkaSink {
    /// Makes a sink; connects with the first batch.
    pub fn new(options: Options, format: Format, reach: Reach) -> Self {
        Self { options, format, reach, producer: None }
    }

    /// Delivers. `done` counts the events that are acknowledged without a gap.
    async fn produce(&self, producer: &Producer, batch: &[Event<'_>], done: &mut usize) -> Result<(), KafkaFailure> {
        let mut sent = Vec::with_capacity(batch.len());
        let mut name = String::new();
        for (index, event) in batch.iter().enumerate() {
            self.options.topic.write(&mut name, &event.subject.event);
            let topic = topic(&name);
            let messages = render::messages(self.format, Tombstones::On, event);
            let last = messages.len();
            for (number, message) in messages.into_iter().enumerate() {
                let whole = (number + 1 == last).then_some(index);
                let id = render::message_id(event, number);
                match send(producer, &topic, &id, &message) {
                    Ok(delivery) => sent.push(Sent { topic: topic.clone().into_owned(), event: whole, delivery }),
                    Err(error) => {
                        settle(producer, sent, done).await?;
                        return Err(producer.record_failure(&topic, error));
                    }
                }
            }
        }
        settle(producer, sent, done).await
    }

    /// A producer, if its brokers may be reached. It connects to whatever brokers those name, and that is in nobody's
    /// hand here: so callers on other machines may not define such a sink at all ([`Options::fits_reach`]).
    async fn producer(&self) -> Result<Producer, KafkaFailure> {
        for broker in &self.options.brokers {
            if let Some((host, port)) = broker.rsplit_once(':') {
                let host = host.trim_start_matches('[').trim_end_matches(']');
                addresses(host, port.parse().unwrap_or_default(), &self.reach).await?;
            }
        }
        Producer::new(&self.options)
    }

    async fn problems(&self) -> Result<Vec<String>, KafkaFailure> {
        let producer = self.producer().await?;
        let is_fixed = self.options.topic.with("\u{1}") == self.options.topic.to_string();
        let name = self.options.topic.to_string();
        let topic = is_fixed.then(|| topic(&name).into_owned());
        producer.check(topic, self.options.timeout_ms).await
    }

    fn named(&self) -> String {
        format!("Kafka at {}", self.options.brokers.join(", "))
    }
}

fn send(producer: &Producer, topic: &str, id: &str, message: &Message) -> Result<DeliveryFuture, KafkaError> {
    let mut headers = OwnedHeaders::new_with_capacity(2 + message.headers.len())
        .insert(Header { key: "id", value: Some(id) })
        .insert(Header { key: "content-type", value: Some(message.content_type) });
    for (name, value) in &message.headers {
        // CloudEvents' Kafka binding (1.0.3, section 3.2.3.1) spells HTTP's `ce-id` as `ce_id`.
        let name = match name.strip_prefix("ce-") {
            Some(attribute) => Cow::Owned(format!("ce_{attribute}")),
            None => Cow::Borrowed(*name),
        };
        headers = headers.insert(Header { key: &name, value: Some(value) });
    }
    let record = FutureRecord {
        topic,
        partition: None,
        payload: message.value.as_deref(),
        key: message.key.as_deref(),
        timestamp: None,
        headers: Some(headers),
    };
    producer.send(record)
}

/// Waits for all delivery reports, in order, up to the first that is none.
async fn settle(producer: &Producer, sent: Vec<Sent>, done: &mut usize) -> Result<(), KafkaFailure> {
    for record in sent {
        match record.delivery.await {
            Ok(Ok(_)) => {
                if let Some(index) = record.event {
                    *done = index + 1;
                }
            }
            Ok(Err((error, _))) => return Err(producer.record_failure(&record.topic, error)),
            Err(_) => return Err(KafkaFailure::Ended),
        }
    }
    Ok(())
}

/// A name as a topic: letters, digits, `.`, `_` and `-`; what else there is becomes `_`, as with Debezium.
fn topic(name: &str) -> Cow<'_, str> {
    let is_plain = |character: char| character.is_ascii_alphanumeric() || matches!(character, '.' | '_' | '-');
    if name.chars().all(is_plain) && name.len() <= 249 {
        return Cow::Borrowed(name);
    }
    Cow::Owned(name.chars().map(|character| if is_plain(character) { character } else { '_' }).take(249).collect())
}

impl Sink for KafkaSink {
    async fn deliver(&mut self, batch: &[Event<'_>]) -> Result<(), Failure> {
        let timeout_ms = self.options.timeout_ms;
        let producer = match self.producer.take() {
            Some(producer) => producer,
            None => match self.producer().await {
                Ok(producer) => producer,
                Err(failure) => return Err(Failure::retry(0, format!("{}: {failure}", self.named())).because(failure)),
            },
        };
        let mut done = 0;
        let failure = match within(timeout_ms, self.produce(&producer, batch, &mut done)).await {
            Some(Ok(())) => {
                self.producer = Some(producer);
                return Ok(());
            }
            Some(Err(failure)) => failure,
            None => KafkaFailure::Timeout { timeout_ms, cause: producer.complaint() },
        };
        let message = format!("{}: {failure}", self.named());
        let told =
            if failure.is_about_the_event() { Failure::reject(done, message) } else { Failure::retry(done, message) };
        Err(told.because(failure))
    }

    async fn check(&mut self) -> Vec<String> {
        let problems = self.problems().await.unwrap_or_else(|failure| vec![failure.to_string()]);
        problems.into_iter().map(|problem| format!("{}: {problem}", self.named())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_have_only_what_topics_may_have() {
        assert_eq!(topic("cdc.public.users-1_x"), "cdc.public.users-1_x");
        assert_eq!(topic("cdc.été$"), "cdc._t__");
        assert_eq!(topic(&"x".repeat(300)).len(), 249);
    }
}
