//! One type for every sink.

use cdc_rest::envelope::Format;

use crate::kafka::KafkaSink;
use crate::nats::NatsSink;
use crate::postgres::PostgresSink;
use crate::redis::RedisSink;
use crate::webhook::WebhookSink;
use crate::{Event, Failure, Place, Settings, Sink};

/// A sink of any kind.
pub enum AnySink {
    /// See [`WebhookSink`].
    Webhook(Box<WebhookSink>),
    /// See [`RedisSink`].
    Redis(Box<RedisSink>),
    /// See [`NatsSink`].
    Nats(Box<NatsSink>),
    /// See [`KafkaSink`].
    Kafka(Box<KafkaSink>),
    /// See [`PostgresSink`].
    Postgres(Box<PostgresSink>),
}

impl AnySink {
    /// Makes a sink. Connects to nothing yet, reads no file and no variable: what is wrong with them is a failure of
    /// the first batch, and can be mended while the service runs. Whether settings and format go together,
    /// [`Settings::fits`] has said.
    pub fn open(settings: &Settings, format: Format, place: Place) -> Self {
        match settings {
            Settings::Webhook(options) => Self::Webhook(Box::new(WebhookSink::new(options.clone(), format))),
            Settings::Redis(options) => Self::Redis(Box::new(RedisSink::new(options.clone(), format, place))),
            Settings::Nats(options) => Self::Nats(Box::new(NatsSink::new(options.clone(), format, place))),
            Settings::Kafka(options) => Self::Kafka(Box::new(KafkaSink::new(options.clone(), format))),
            Settings::Postgres(options) => Self::Postgres(Box::new(PostgresSink::new(options.clone(), place))),
        }
    }
}

impl Sink for AnySink {
    async fn deliver(&mut self, batch: &[Event<'_>]) -> Result<(), Failure> {
        match self {
            Self::Webhook(sink) => sink.deliver(batch).await,
            Self::Redis(sink) => sink.deliver(batch).await,
            Self::Nats(sink) => sink.deliver(batch).await,
            Self::Kafka(sink) => sink.deliver(batch).await,
            Self::Postgres(sink) => sink.deliver(batch).await,
        }
    }

    async fn check(&mut self) -> Vec<String> {
        match self {
            Self::Webhook(sink) => sink.check().await,
            Self::Redis(sink) => sink.check().await,
            Self::Nats(sink) => sink.check().await,
            Self::Kafka(sink) => sink.check().await,
            Self::Postgres(sink) => sink.check().await,
        }
    }
}
