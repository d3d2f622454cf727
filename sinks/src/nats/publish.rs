//! A batch's way into JetStream.

use async_nats::HeaderMap;
use async_nats::jetstream::context::{PublishAckFuture, PublishErrorKind};
use async_nats::jetstream::message::PublishMessage;
use cdc_rest::envelope::{Message, Tombstones, http_header_value};

use super::{Connection, NatsFailure, NatsSink, subject};
use crate::{Event, render};

/// So many messages are under way at once: fewer than the client has room for.
const WINDOW: usize = 1_000;

/// Why a batch is not done, and whether giving up the event helps that it stopped at.
pub(super) struct Stopped {
    pub(super) rejects: bool,
    pub(super) failure: NatsFailure,
}

impl From<NatsFailure> for Stopped {
    fn from(failure: NatsFailure) -> Self {
        Self { rejects: false, failure }
    }
}

/// A message that was sent.
struct Sent {
    id: String,
    subject: String,
    /// The event that is done with it; none if a further message of it follows.
    event: Option<usize>,
    acknowledgement: PublishAckFuture,
}

impl NatsSink {
    /// Publishes a batch. `done` counts the events that are acknowledged without a gap.
    pub(super) async fn publish(&mut self, batch: &[Event<'_>], done: &mut usize) -> Result<(), Stopped> {
        let connection = match self.connection.take() {
            Some(connection) if !*connection.lost.borrow() => connection,
            _ => self.connect().await?,
        };
        let mut lost = connection.lost.clone();
        let outcome = tokio::select! {
            // What is there already counts, also when the connection has just been lost.
            biased;
            outcome = self.publish_over(&connection, batch, done) => outcome,
            _ = lost.wait_for(|is_lost| *is_lost) => Err(NatsFailure::Lost.into()),
        };
        if outcome.as_ref().err().is_none_or(|stopped| stopped.rejects) {
            self.connection = Some(connection);
        }
        if outcome.is_ok() {
            self.overtaking.clear();
        }
        outcome
    }

    async fn publish_over(
        &mut self,
        connection: &Connection,
        batch: &[Event<'_>],
        done: &mut usize,
    ) -> Result<(), Stopped> {
        let mut window = Vec::with_capacity(batch.len().min(WINDOW));
        for (index, event) in batch.iter().enumerate() {
            let messages = render::messages(self.format, Tombstones::Off, event);
            let last = messages.len();
            for (number, message) in messages.into_iter().enumerate() {
                let whole = (number + 1 == last).then_some(index);
                match self.send(connection, event, number, message, whole).await {
                    Ok(sent) => window.push(sent),
                    Err(stopped) => {
                        self.settle(window, done).await?;
                        return Err(stopped);
                    }
                }
            }
            if window.len() >= WINDOW {
                self.settle(std::mem::take(&mut window), done).await?;
            }
        }
        self.settle(window, done).await
    }

    async fn send(
        &self,
        connection: &Connection,
        event: &Event<'_>,
        number: usize,
        message: Message,
        whole: Option<usize>,
    ) -> Result<Sent, Stopped> {
        let mut name = String::new();
        self.options.subject.write(&mut name, &event.subject.event);
        let subject = subject::of(&name);
        let place = &self.place;
        let event_id = render::message_id(event, number);
        // Keys of rows may be in it.
        let event_id = http_header_value(&event_id);
        let mut id = format!("{}.{}.{event_id}", place.subscription, place.epoch);
        if self.overtaking.contains(&id) {
            id = format!("{id}.again{}", self.attempts);
        }
        let mut headers = HeaderMap::new();
        headers.insert("id", event_id.as_ref());
        if let Some(key) = &message.key {
            headers.insert("key", http_header_value(&String::from_utf8_lossy(key)).as_ref());
        }
        headers.insert("content-type", message.content_type);
        for (name, value) in &message.headers {
            headers.insert(*name, http_header_value(value).as_ref());
        }
        // Ids and streams go in after the headers, which they are part of.
        let mut publish =
            PublishMessage::build().payload(message.value.unwrap_or_default().into()).headers(headers).message_id(&id);
        if let Some(stream) = &self.options.stream {
            publish = publish.expected_stream(stream);
        }
        match connection.jetstream.send_publish(subject.clone(), publish).await {
            Ok(acknowledgement) => Ok(Sent { id, subject, event: whole, acknowledgement }),
            Err(error) if error.kind() == PublishErrorKind::MaxPayloadExceeded => {
                Err(Stopped { rejects: true, failure: NatsFailure::TooLarge { subject } })
            }
            Err(error) => Err(NatsFailure::Publish { subject, error }.into()),
        }
    }

    /// Waits for all acknowledgements, in order. At the first that is none it still looks which later messages were
    /// taken.
    async fn settle(&mut self, window: Vec<Sent>, done: &mut usize) -> Result<(), Stopped> {
        let mut first: Option<NatsFailure> = None;
        for sent in window {
            let acknowledgement = sent.acknowledgement.await;
            match (acknowledgement, &first) {
                (Ok(_), None) => {
                    if let Some(index) = sent.event {
                        *done = index + 1;
                    }
                }
                (Ok(_), Some(_)) => {
                    if self.overtaking.insert(sent.id) {
                        self.attempts += 1;
                    }
                }
                (Err(error), None) => {
                    first = Some(match error.kind() {
                        PublishErrorKind::StreamNotFound => {
                            NatsFailure::NoSubject { subject: sent.subject, command: self.command() }
                        }
                        _ => NatsFailure::Publish { subject: sent.subject, error },
                    });
                }
                (Err(_), Some(_)) => {}
            }
        }
        match first {
            Some(failure) => Err(failure.into()),
            None => Ok(()),
        }
    }
}
