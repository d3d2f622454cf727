//! NATS JetStream: a message for each event, and Ok only when JetStream has acknowledged every one.
//!
//! - `Nats-Msg-Id` is `<subscription>.<epoch>.<event id>`: JetStream drops what comes again within the stream's
//!   duplicate window (two minutes, if nothing else is set), also after a restart of either side. The subscription is
//!   part of it because two of them may publish the same event into one stream, and the epoch because whoever moves a
//!   subscription back wants its events again.
//! - The messages of a batch are sent one behind the other, then their acknowledgements are awaited. The server takes
//!   them in order, so a connection that is cut loses an end of them. When it refuses one and takes later ones, these
//!   come again behind it under new ids: an event twice, rather than two events of a row in the wrong order.
//! - Headers: `id` (the event's), `key` (percent-encoded), `content-type`, and the envelope's.

mod login;
mod options;
mod publish;
mod subject;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_nats::jetstream::{self, Context, stream};
use cdc_access::{FileError, Reach};
use cdc_rest::envelope::Format;
use tokio::sync::watch;

pub use options::*;

use self::publish::Stopped;
use crate::connection::{self, ConnectError, within};
use crate::secret::MissingVariable;
use crate::{Event, Failure, Place, Sink};

/// A sink that publishes to NATS JetStream.
pub struct NatsSink {
    options: Options,
    format: Format,
    place: Place,
    reach: Reach,
    /// Taken out while a batch is under way: messages of a batch that failed may still wait in it.
    connection: Option<Connection>,
    /// Ids of messages that JetStream took although it refused an earlier one.
    overtaking: HashSet<String>,
    /// How often that has happened: part of the ids that such messages get next.
    attempts: u64,
}

struct Connection {
    jetstream: Context,
    /// Turns true when the connection is lost. It would be made anew by itself, but with a batch of unknown fate in it.
    lost: watch::Receiver<bool>,
}

#[derive(Debug, thiserror::Error)]
enum NatsFailure {
    #[error(transparent)]
    Variable(#[from] MissingVariable),
    #[error("`credentialsFile`: {0}")]
    Credentials(#[from] FileError),
    #[error("`credentialsFile` has no JWT and seed of a user in it")]
    NoCredentials,
    #[error(transparent)]
    Tls(#[from] ConnectError),
    #[error("{error}{}", cause(.error))]
    Connect {
        #[from]
        error: async_nats::ConnectError,
    },
    #[error("the connection is lost")]
    Lost,
    #[error("no answer within {timeout_ms} ms")]
    Timeout { timeout_ms: u32 },
    #[error("the stream {stream} is not there: set `createStream`, or run: {command}")]
    NoStream { stream: String, command: String },
    #[error("the stream {stream} cannot be looked up: {error}{}", cause(.error))]
    GetStream { stream: String, error: jetstream::context::GetStreamError },
    #[error("the stream {stream} cannot be made: {error}{}", cause(.error))]
    CreateStream { stream: String, error: jetstream::context::CreateStreamError },
    #[error("no stream takes the subject {subject}: set `stream` and `createStream`, or run: {command}")]
    NoSubject { subject: String, command: String },
    #[error("the message for {subject} is not taken: {error}{}", cause(.error))]
    Publish { subject: String, error: jetstream::context::PublishError },
    #[error(
        "the message for {subject} is larger than the server's max_payload takes: raise that, or leave the event out"
    )]
    TooLarge { subject: String },
}

/// What lies behind an error, whose own words say little.
fn cause(error: &dyn std::error::Error) -> String {
    let shown = error.to_string();
    match error.source().map(ToString::to_string) {
        Some(source) if !shown.contains(&source) => format!(": {source}"),
        _ => String::new(),
    }
}

impl NatsSink {
    /// Makes a sink; connects with the first batch.
    pub fn new(options: Options, format: Format, place: Place, reach: Reach) -> Self {
        Self { options, format, place, reach, connection: None, overtaking: HashSet::new(), attempts: 0 }
    }

    async fn connect(&self) -> Result<Connection, NatsFailure> {
        let (jetstream, lost) = self.log_in().await?;
        if let Some(name) = &self.options.stream {
            match (jetstream.get_stream(name).await, &self.options.create_stream) {
                (Ok(_), _) => {}
                (Err(error), Some(create)) if is_missing(&error) => {
                    let config = self.stream_config(name, create);
                    let made = jetstream.create_stream(config).await;
                    made.map_err(|error| NatsFailure::CreateStream { stream: name.clone(), error })?;
                }
                (Err(error), None) if is_missing(&error) => {
                    return Err(NatsFailure::NoStream { stream: name.clone(), command: self.command() });
                }
                (Err(error), _) => return Err(NatsFailure::GetStream { stream: name.clone(), error }),
            }
        }
        Ok(Connection { jetstream, lost })
    }

    async fn log_in(&self) -> Result<(Context, watch::Receiver<bool>), NatsFailure> {
        let options = &self.options;
        let timeout = std::time::Duration::from_millis(u64::from(options.timeout_ms));
        let (tell, lost) = watch::channel(false);
        let is_in = Arc::new(AtomicBool::new(false));
        let connect = login::options(options, is_in.clone(), &self.reach)?;
        let tls = connection::tls(options.ca_file.as_deref(), &self.reach)?;
        // The library looks names up once more. To whatever is there by then it says nothing before that has spoken NATS.
        for server in &options.servers {
            if let Ok(server) = server.parse::<async_nats::ServerAddr>() {
                connection::addresses(server.host(), server.port(), &self.reach).await?;
            }
        }
        let connect = connect
            .name("cdc")
            .tls_client_config((*tls).clone())
            .require_tls(options.servers.iter().any(|server| server.starts_with("tls://")))
            .connection_timeout(timeout)
            .request_timeout(Some(timeout))
            .max_reconnects(options.servers.len())
            .ignore_discovered_servers()
            .event_callback(move |event| {
                if matches!(event, async_nats::Event::Disconnected | async_nats::Event::Closed) {
                    tell.send_replace(true);
                }
                std::future::ready(())
            });
        let client = connect.connect(&options.servers).await?;
        is_in.store(true, Ordering::Release);
        let mut jetstream = jetstream::new(client);
        jetstream.set_timeout(timeout);
        Ok((jetstream, lost))
    }

    fn stream_config(&self, name: &str, create: &CreateStream) -> stream::Config {
        let whole = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        stream::Config {
            name: name.to_owned(),
            subjects: self.subjects(),
            storage: match create.storage {
                Storage::File => stream::StorageType::File,
                Storage::Memory => stream::StorageType::Memory,
            },
            num_replicas: usize::from(create.replicas),
            max_age: std::time::Duration::from_secs(create.max_age_seconds),
            max_bytes: if create.max_bytes == 0 { -1 } else { whole(create.max_bytes) },
            duplicate_window: std::time::Duration::from_secs(create.duplicate_window_seconds),
            ..stream::Config::default()
        }
    }

    /// What a stream for our subjects takes.
    fn subjects(&self) -> Vec<String> {
        match &self.options.create_stream {
            Some(create) if !create.subjects.is_empty() => create.subjects.clone(),
            _ => vec![subject::pattern(&self.options.subject)],
        }
    }

    /// What makes the stream by hand.
    fn command(&self) -> String {
        let name = self.options.stream.as_deref().unwrap_or("CDC");
        format!("nats stream add {name} --subjects '{}' --storage file --defaults", self.subjects().join(","))
    }

    async fn problems(&self) -> Result<Vec<String>, NatsFailure> {
        let (jetstream, _) = self.log_in().await?;
        let mut problems = Vec::new();
        // Not the library's own question, which wants of an answer what only newer servers say.
        let info = jetstream.client().request("$JS.API.INFO", "".into()).await;
        let enabled = info.as_ref().is_ok_and(|answer| !answer.payload.windows(8).any(|bytes| bytes == b"\"error\":"));
        if !enabled {
            let why = info.as_ref().err().map(|error| format!(" ({error})")).unwrap_or_default();
            problems.push(format!("JetStream is not there{why}: start the server with --jetstream"));
            return Ok(problems);
        }
        let sample = subject::of(&self.options.subject.with("table"));
        let found = jetstream.stream_by_subject(sample.as_str()).await.ok();
        match (&self.options.stream, found) {
            (Some(name), Some(other)) if *name != other => {
                problems.push(format!("the subject {sample} is taken by the stream {other}, not {name}"));
            }
            (Some(_), None) if self.options.create_stream.is_some() => {}
            (_, None) => {
                let command = self.command();
                problems.push(NatsFailure::NoSubject { subject: sample, command }.to_string());
            }
            (_, Some(name)) => {
                let stream = jetstream
                    .get_stream(&name)
                    .await
                    .map_err(|error| NatsFailure::GetStream { stream: name.clone(), error })?;
                let config = &stream.cached_info().config;
                if config.storage == stream::StorageType::Memory {
                    problems
                        .push(format!("the stream {name} is kept in memory: a restart of the server loses its events"));
                }
                if config.no_ack {
                    problems.push(format!("the stream {name} acknowledges nothing: nats stream edit {name} --ack"));
                }
            }
        }
        Ok(problems)
    }

    fn named(&self) -> String {
        format!("NATS at {}", self.options.servers.join(", "))
    }
}

fn is_missing(error: &jetstream::context::GetStreamError) -> bool {
    use jetstream::context::GetStreamErrorKind::JetStream;
    matches!(error.kind(), JetStream(error) if error.error_code() == jetstream::ErrorCode::STREAM_NOT_FOUND)
}

impl Sink for NatsSink {
    async fn deliver(&mut self, batch: &[Event<'_>]) -> Result<(), Failure> {
        let timeout_ms = self.options.timeout_ms;
        let mut done = 0;
        let outcome = within(timeout_ms, self.publish(batch, &mut done)).await;
        let stopped = match outcome {
            Some(Ok(())) => return Ok(()),
            Some(Err(stopped)) => stopped,
            None => Stopped { rejects: false, failure: NatsFailure::Timeout { timeout_ms } },
        };
        let message = format!("{}: {}", self.named(), stopped.failure);
        let failure = if stopped.rejects { Failure::reject(done, message) } else { Failure::retry(done, message) };
        Err(failure.because(stopped.failure))
    }

    async fn check(&mut self) -> Vec<String> {
        let timeout_ms = self.options.timeout_ms;
        let problems = match within(timeout_ms, self.problems()).await {
            Some(Ok(problems)) => problems,
            Some(Err(failure)) => vec![failure.to_string()],
            None => vec![NatsFailure::Timeout { timeout_ms }.to_string()],
        };
        problems.into_iter().map(|problem| format!("{}: {problem}", self.named())).collect()
    }
}
