//! Webhooks: HTTP POST, signed as Standard Webhooks wants it.
//!
//! A request has `webhook-id`, `webhook-timestamp`, `webhook-signature` (see the module `signature`), and the envelope's
//! headers. The id is made of the ids of the first and the last event in it, so that it is the same whenever these
//! events are sent again, also after a restart: what a receiver tells repetitions by.
//!
//! What answers mean:
//!
//! | status | meaning |
//! | --- | --- |
//! | 2xx | the receiver has it |
//! | 408, 425, 429, 5xx | try again, not before `Retry-After` |
//! | 3xx, 401, 402, 403, 404, 405, 407, 410 | try again: about the address or the login, not about the event, and somebody has to mend it. Redirects are not followed |
//! | other 4xx (400, 409, 413, 415, 422…) | the event is refused for good; an array is sent again in halves until it is known which |
//!
//! An answer that was lost is not known from a request that was lost: the request is sent again, and the receiver may
//! get it twice.

mod answer;
mod options;
mod request;
mod signature;

use cdc_access::Reach;
use cdc_rest::envelope::Format;
use http::Uri;
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::task::JoinHandle;

pub use options::*;

use self::answer::{Answer, Verdict};
use self::signature::SigningKey;
use crate::connection::{ConnectError, connect, within};
use crate::secret::MissingVariable;
use crate::{Event, Failure, Remedy, Sink};

/// A sink that posts to a webhook.
pub struct WebhookSink {
    options: Options,
    format: Format,
    reach: Reach,
    /// Kept while the receiver keeps it. Taken out while a request is under way.
    connection: Option<Connection>,
}

struct Connection {
    sender: SendRequest<Full<Bytes>>,
    driver: JoinHandle<()>,
    target: Target,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// What the options mean, with the secrets looked up.
struct Target {
    uri: Uri,
    headers: http::HeaderMap,
    keys: Vec<SigningKey>,
}

#[derive(Debug, thiserror::Error)]
enum WebhookFailure {
    #[error(transparent)]
    Variable(#[from] MissingVariable),
    #[error("`{member}` {why}")]
    Option { member: &'static str, why: &'static str },
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("the connection failed: {0}")]
    Http(#[from] hyper::Error),
    #[error("no request can be made: {0}")]
    Request(#[from] http::Error),
    #[error("no answer within {timeout_ms} ms")]
    Timeout { timeout_ms: u32 },
}

impl WebhookSink {
    /// Makes a sink; connects with the first batch.
    pub fn new(options: Options, format: Format, reach: Reach) -> Self {
        Self { options, format, reach, connection: None }
    }

    async fn connect(&self) -> Result<Connection, WebhookFailure> {
        let target = self.target()?;
        let host = target.uri.host().unwrap_or_default();
        let is_tls = target.uri.scheme_str() == Some("https");
        let port = target.uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let stream = connect(host, port, is_tls, self.options.ca_file.as_deref(), &self.reach).await?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let driver = tokio::spawn(async move {
            // How it ended, whoever waits for an answer learns.
            let _ = connection.await;
        });
        Ok(Connection { sender, driver, target })
    }

    fn target(&self) -> Result<Target, WebhookFailure> {
        let wrong = |member| move |why| WebhookFailure::Option { member, why };
        let uri = parse_url(&self.options.url.reveal()?).map_err(wrong("url"))?;
        let mut keys = Vec::new();
        for secret in &self.options.secrets {
            keys.push(SigningKey::parse(&secret.reveal()?).map_err(wrong("secrets"))?);
        }
        let mut headers = http::HeaderMap::new();
        for (name, value) in &self.options.headers {
            let name = http::HeaderName::from_bytes(name.as_bytes()).map_err(http::Error::from)?;
            let mut value = http::HeaderValue::from_str(&value.reveal()?).map_err(http::Error::from)?;
            value.set_sensitive(true);
            headers.insert(name, value);
        }
        Ok(Target { uri, headers, keys })
    }

    /// Posts a body, and waits for what the receiver says.
    async fn post(&mut self, message: &request::Message) -> Result<Answer, WebhookFailure> {
        let mut kept = self.connection.take();
        if let Some(connection) = &mut kept
            && connection.sender.ready().await.is_err()
        {
            // The receiver has closed it in the meantime.
            kept = None;
        }
        let mut connection = match kept {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        let request = message.request(&connection.target)?;
        let response = match connection.sender.try_send_request(request).await {
            Ok(response) => response,
            Err(mut error) => match error.take_message() {
                // Nothing of it was sent: the connection ended just before. Once more, on a new one.
                Some(request) => {
                    connection = self.connect().await?;
                    connection.sender.send_request(request).await?
                }
                None => return Err(error.into_error().into()),
            },
        };
        let (answer, is_drained) = Answer::read(response, !self.reach.is_of_strangers()).await;
        if is_drained {
            self.connection = Some(connection);
        }
        Ok(answer)
    }

    /// Posts what becomes of these events.
    async fn hand_over(&mut self, events: &[Event<'_>]) -> Result<(), Failure> {
        let timeout_ms = self.options.timeout_ms;
        for message in request::Message::of(self.format, self.options.batch, events) {
            let answer = match within(timeout_ms, self.post(&message)).await {
                Some(Ok(answer)) => answer,
                Some(Err(failure)) => return Err(self.failure(failure)),
                None => return Err(self.failure(WebhookFailure::Timeout { timeout_ms })),
            };
            match answer.verdict() {
                Verdict::Taken => {}
                Verdict::Refused => return Err(Failure::reject(0, answer.told(&self.named()))),
                Verdict::Again { after } => {
                    let failure = Failure::retry(0, answer.told(&self.named()));
                    return Err(Failure { remedy: Remedy::Retry { after }, ..failure });
                }
            }
        }
        Ok(())
    }

    /// Where it is, without path and query, which may be secret.
    fn named(&self) -> String {
        let url = self.options.url.reveal().ok();
        let uri = url.and_then(|url| parse_url(&url).ok());
        match uri.as_ref().and_then(|uri| Some((uri.scheme_str()?, uri.authority()?))) {
            Some((scheme, authority)) => format!("the webhook at {scheme}://{authority}"),
            None => "the webhook".to_owned(),
        }
    }

    fn failure(&self, failure: WebhookFailure) -> Failure {
        Failure::retry(0, format!("{}: {failure}", self.named())).because(failure)
    }
}

impl Sink for WebhookSink {
    async fn deliver(&mut self, batch: &[Event<'_>]) -> Result<(), Failure> {
        let (mut index, mut length) = (0, if self.options.batch { batch.len() } else { 1 });
        while index < batch.len() {
            let events = &batch[index..batch.len().min(index + length)];
            match self.hand_over(events).await {
                Ok(()) => index += events.len(),
                // It is about one of them, or about their size: which, is found in halves.
                Err(failure) if failure.remedy == Remedy::Reject && events.len() > 1 => length = events.len() / 2,
                Err(failure) => return Err(Failure { index, ..failure }),
            }
        }
        Ok(())
    }

    async fn check(&mut self) -> Vec<String> {
        let timeout_ms = self.options.timeout_ms;
        let problem = match within(timeout_ms, self.connect()).await {
            Some(Ok(_)) => return Vec::new(),
            Some(Err(failure)) => failure,
            None => WebhookFailure::Timeout { timeout_ms },
        };
        vec![format!("{}: {problem}", self.named())]
    }
}
