//! Connections: accepted, told apart by protocol, bounded in number and time, and drained at the end.
//!
//! HTTP/1.1 (keep-alive, pipelining) and HTTP/2 without TLS share the port. A client that does not finish its request's
//! head in time is disconnected.

use std::convert::Infallible;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tower_http::compression::Compression;
use tower_http::compression::predicate::{NotForContentType, Predicate, SizeAbove};

use crate::api::{Api, Connection};
use crate::metrics::{Held, Metrics};
use crate::refused_heads::{Explained, MAX_HEAD_BYTES};

/// What every HTTP/2 connection begins with (RFC 9113, section 3.4).
const HTTP2_PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Answers shorter than this are not worth compressing.
const COMPRESS_ABOVE_BYTES: u64 = 1_024;
/// How long to wait when the process has no file handle left for another connection.
const BREATHER: Duration = Duration::from_millis(50);

/// Limits of connections.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// The most connections; more wait to be accepted.
    pub max_connections: usize,
    /// How long a client may take to send a request's head, the time between two requests included.
    pub header_timeout: Duration,
    /// How long requests under way may take once the service stops.
    pub drain_timeout: Duration,
}

/// Serves until `stop` is done, then lets what is under way finish. Answers how many connections had to be cut.
pub async fn serve(
    listener: TcpListener,
    api: Arc<Api>,
    metrics: Arc<Metrics>,
    options: ServerOptions,
    stop: impl Future<Output = ()>,
) -> usize {
    raise_file_limit();
    let room = Arc::new(Semaphore::new(options.max_connections));
    // Every connection's task holds a receiver.
    let (stopping, open) = watch::channel(());
    let mut stop = pin!(stop);
    loop {
        let next = async {
            // Before accepting: whoever cannot be served yet waits in the listener's queue, unread.
            let turn = room.clone().acquire_owned().await.map_err(io::Error::other)?;
            listener.accept().await.map(|(stream, _)| (stream, turn))
        };
        let accepted = tokio::select! {
            biased;
            () = &mut stop => break,
            accepted = next => accepted,
        };
        let (stream, turn) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(BREATHER).await;
                continue;
            }
        };
        let (api, options, open) = (api.clone(), options.clone(), open.clone());
        let held = (turn, metrics.http.connection());
        tokio::spawn(async move {
            if let Err(error) = connection(stream, api, &options, open, held).await {
                tracing::debug!(error = %error, "a connection ended early");
            }
        });
    }
    drop((listener, open));
    api.drain();
    stopping.send_replace(());
    // A WebSocket is no connection of HTTP any more.
    let ended = async { tokio::join!(stopping.closed(), api.streams().ended()) };
    match tokio::time::timeout(options.drain_timeout, ended).await {
        Ok(_) => 0,
        Err(_) => stopping.receiver_count(),
    }
}

/// The client of a stream takes nothing any more.
#[derive(Debug, thiserror::Error)]
#[error("it was cut off")]
struct Cut;

type ConnectionError = Box<dyn std::error::Error + Send + Sync>;

async fn connection(
    stream: TcpStream,
    api: Arc<Api>,
    options: &ServerOptions,
    mut stopping: watch::Receiver<()>,
    held: (OwnedSemaphorePermit, Held),
) -> Result<(), ConnectionError> {
    // Answers are written whole, so waiting for more to send along only costs time.
    stream.set_nodelay(true)?;
    let http2 = tokio::time::timeout(options.header_timeout, is_http2(&stream)).await??;
    let client = Connection::new(http2, held);
    // A compressor would keep events back until it has enough of them.
    let worth_it = SizeAbove::new(COMPRESS_ABOVE_BYTES).and(NotForContentType::SSE);
    let service = Compression::new(ApiService { api, client: client.clone() }).compress_when(worth_it);
    let service = TowerToHyperService::new(service);
    if http2 {
        let stream = TokioIo::new(stream);
        let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .keep_alive_interval(Some(options.header_timeout))
            .max_concurrent_streams(256)
            .max_header_list_size(64 << 10);
        let mut connection = pin!(builder.serve_connection(stream, service));
        tokio::select! {
            served = connection.as_mut() => served?,
            _ = stopping.changed() => {
                connection.as_mut().graceful_shutdown();
                connection.await?;
            }
        }
    } else {
        let stream = TokioIo::new(Explained::new(stream));
        let mut builder = hyper::server::conn::http1::Builder::new();
        builder
            .timer(TokioTimer::new())
            .header_read_timeout(options.header_timeout)
            // A client that has sent its request and closed its side still gets its answer.
            .half_close(true)
            .max_buf_size(MAX_HEAD_BYTES);
        let mut connection = pin!(builder.serve_connection(stream, service).with_upgrades());
        tokio::select! {
            served = connection.as_mut() => served?,
            () = client.cut() => return Err(Cut.into()),
            _ = stopping.changed() => {
                connection.as_mut().graceful_shutdown();
                tokio::select! {
                    served = connection => served?,
                    () = client.cut() => return Err(Cut.into()),
                }
            }
        }
    }
    Ok(())
}

/// A connection is an open file, and what a shell gives by default is not enough for thousands.
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }) {
        tracing::debug!(%error, "the limit of open files stays as it is");
    }
}

/// Looks at the first bytes without taking them.
async fn is_http2(stream: &TcpStream) -> io::Result<bool> {
    let mut seen = [0; HTTP2_PREFACE.len()];
    loop {
        let length = stream.peek(&mut seen).await?;
        if length == 0 || seen[..length] != HTTP2_PREFACE[..length] {
            return Ok(false);
        }
        if length == HTTP2_PREFACE.len() {
            return Ok(true);
        }
        // Half a preface: peeking again at once would find the same. The caller's deadline bounds this.
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// The API as a service.
#[derive(Clone)]
struct ApiService {
    api: Arc<Api>,
    client: Arc<Connection>,
}

impl tower_service::Service<Request<Incoming>> for ApiService {
    type Response = crate::api::Answer;
    type Error = Infallible;
    type Future = std::pin::Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Infallible>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Incoming>) -> Self::Future {
        let Self { api, client } = self.clone();
        Box::pin(async move { Ok(api.answer(request, &client).await) })
    }
}
