//! Asks a running service, over one connection that is kept open between the requests: for commands that are no service
//! themselves.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Far above the pages of a service with default limits: only keeps a stranger from filling the memory.
const ANSWER_BYTES_MAX: usize = 256 << 20;

/// An answer, whatever its status.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) retry_after: Option<Duration>,
    pub(crate) body: Bytes,
}

/// A service.
pub(crate) struct Service {
    base: Uri,
    client: Client<HttpConnector, Full<Bytes>>,
}

impl Service {
    pub(crate) fn new(base: Uri) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        connector.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(1).build(connector);
        Self { base, client }
    }

    /// The URL as it was given, for messages.
    pub(crate) fn url(&self) -> &Uri {
        &self.base
    }

    /// Gets what is at a path, or says why there is no answer.
    pub(crate) async fn get(&self, path: &str) -> Result<Answer, String> {
        self.ask(Method::GET, path, None).await
    }

    /// Asks for something at a path, with a body in JSON, or says why there is no answer.
    pub(crate) async fn ask(&self, method: Method, path: &str, body: Option<Bytes>) -> Result<Answer, String> {
        match tokio::time::timeout(ANSWER_TIMEOUT, self.exchange(method, path, body)).await {
            Ok(answer) => answer,
            Err(_) => Err(format!("no answer within {} s", ANSWER_TIMEOUT.as_secs())),
        }
    }

    async fn exchange(&self, method: Method, path: &str, body: Option<Bytes>) -> Result<Answer, String> {
        let url = format!("{}{path}", self.base.to_string().trim_end_matches('/'));
        let mut request = Request::builder().method(method).uri(url).header(header::ACCEPT, "application/json");
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let request = request.body(Full::new(body.unwrap_or_default()));
        let request = request.map_err(|error| error.to_string())?;
        let answer = self.client.request(request).await.map_err(|error| innermost(&error))?;
        let (status, retry_after) = (answer.status(), retry_after(answer.headers()));
        let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(|error| innermost(&*error))?.to_bytes();
        Ok(Answer { status, retry_after, body })
    }
}

/// `Retry-After` in seconds; its form as a date is not used by the service.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(header::RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    // What a proxy says must not put the tail to sleep for good.
    Some(Duration::from_secs(seconds).min(Duration::from_secs(60)))
}

/// The cause at the bottom is what a person can act on: "connection refused" and not "client error".
fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}
