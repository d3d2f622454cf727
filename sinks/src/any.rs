//! One type for every sink.

use cdc_access::Reach;
use cdc_rest::envelope::Format;

use crate::hidden::Hidden;
use crate::kafka::KafkaSink;
use crate::nats::NatsSink;
use crate::postgres::PostgresSink;
use crate::redis::RedisSink;
use crate::webhook::WebhookSink;
use crate::{Event, Failure, Place, Settings, Sink};

/// A sink of any kind. Whatever it says of a failure shows no secret, whoever said it.
pub struct AnySink {
    kind: Kind,
    hidden: Hidden,
}

enum Kind {
    Webhook(Box<WebhookSink>),
    Redis(Box<RedisSink>),
    Nats(Box<NatsSink>),
    Kafka(Box<KafkaSink>),
    Postgres(Box<PostgresSink>),
}

impl AnySink {
    /// Makes a sink for whoever configures the service. Connects to nothing yet, reads no file and no variable: what is wrong with them is a failure of
    /// the first batch, and can be mended while the service runs. Whether settings and format go together,
    /// [`Settings::fits`] has said.
    pub fn open(settings: &Settings, format: Format, place: Place) -> Self {
        Self::open_within(settings, format, place, Reach::of_operator())
    }

    /// Makes a sink that touches no more than whoever defined it may name.
    pub fn open_within(settings: &Settings, format: Format, place: Place, reach: Reach) -> Self {
        let kind = match settings {
            Settings::Webhook(options) => Kind::Webhook(Box::new(WebhookSink::new(options.clone(), format, reach))),
            Settings::Redis(options) => Kind::Redis(Box::new(RedisSink::new(options.clone(), format, place, reach))),
            Settings::Nats(options) => Kind::Nats(Box::new(NatsSink::new(options.clone(), format, place, reach))),
            Settings::Kafka(options) => Kind::Kafka(Box::new(KafkaSink::new(options.clone(), format, reach))),
            Settings::Postgres(options) => Kind::Postgres(Box::new(PostgresSink::new(options.clone(), place, reach))),
        };
        Self { kind, hidden: settings.hidden() }
    }
}

impl Sink for AnySink {
    async fn deliver(&mut self, batch: &[Event<'_>]) -> Result<(), Failure> {
        let outcome = match &mut self.kind {
            Kind::Webhook(sink) => sink.deliver(batch).await,
            Kind::Redis(sink) => sink.deliver(batch).await,
            Kind::Nats(sink) => sink.deliver(batch).await,
            Kind::Kafka(sink) => sink.deliver(batch).await,
            Kind::Postgres(sink) => sink.deliver(batch).await,
        };
        outcome.map_err(|failure| self.hidden.failure(failure))
    }

    async fn check(&mut self) -> Vec<String> {
        let problems = match &mut self.kind {
            Kind::Webhook(sink) => sink.check().await,
            Kind::Redis(sink) => sink.check().await,
            Kind::Nats(sink) => sink.check().await,
            Kind::Kafka(sink) => sink.check().await,
            Kind::Postgres(sink) => sink.check().await,
        };
        problems.into_iter().map(|problem| self.hidden.text(problem)).collect()
    }
}
