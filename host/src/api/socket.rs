//! `GET /events/ws`: events over a WebSocket (RFC 6455), one text message each.
//!
//! Each socket has a task. It writes a bounded batch and waits until the connection has taken it, so nothing piles up
//! for a client that is slow. Nothing is expected from the client but answers to pings, which tell that it is there.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use cdc_rest::{Problem, StreamQuery};
use futures_util::{SinkExt, StreamExt};
use http::header::{
    CONNECTION, HeaderMap, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION,
    UPGRADE,
};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::time::{Instant, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes};

use super::body::AnswerBody;
use super::progress::Progress;
use super::{Answer, Api, Connection, Outcome, problems};
use crate::live::{Chunk, Reader, Seat, Step};
use crate::metrics::{StreamEnd, StreamKind};
use crate::store::StoreError;

/// About what is written before the connection must have taken it.
const BATCH_BYTES: usize = 16 << 10;
/// The longest message from a client. It has nothing to say but control frames, which have at most 125 bytes.
const MAX_MESSAGE_BYTES: usize = 1 << 10;
/// The most control frames from a client between two heartbeats.
const MAX_CONTROL_FRAMES: u32 = 100;
/// What is read from the connection at once.
const READ_BYTES: usize = 1 << 10;
/// How long a client has to take the close frame and answer it.
const CLOSE_PATIENCE: Duration = Duration::from_millis(500);

impl Api {
    /// `GET /events/ws`.
    pub(super) fn event_socket(
        &self,
        query: StreamQuery,
        head: &mut http::request::Parts,
        connection: &Arc<Connection>,
    ) -> Outcome {
        let accept = accept(&head.headers)?;
        let upgrade = head.extensions.remove::<OnUpgrade>().filter(|_| head.method == http::Method::GET);
        let upgrade = upgrade.filter(|_| !connection.is_shared()).ok_or_else(|| {
            Problem::upgrade_required("a WebSocket is opened by a GET over HTTP/1.1; GET /events/stream takes any")
        })?;
        let (seat, reader) =
            self.streams.open(query, StreamKind::WebSocket, None).map_err(|error| problems::open_stream(&error))?;
        let (connection, stall_timeout) = (connection.clone(), self.streams.options().stall_timeout);
        let heartbeat = self.streams.options().heartbeat;
        tokio::spawn(async move {
            // When it fails the client has left before it had our answer.
            if let Ok(upgraded) = upgrade.await {
                Socket::new(upgraded, seat, stall_timeout, heartbeat).await.run(reader).await;
            }
            drop(connection);
        });
        let mut answer = Answer::new(AnswerBody::Done);
        *answer.status_mut() = http::StatusCode::SWITCHING_PROTOCOLS;
        let headers = answer.headers_mut();
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
        Ok(answer)
    }
}

/// Checks a handshake, whose origin the gate has looked at, and answers its `Sec-WebSocket-Accept`.
fn accept(headers: &HeaderMap) -> Result<HeaderValue, Problem> {
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    if !has_token(headers, &CONNECTION, "upgrade") || !has_token(headers, &UPGRADE, "websocket") {
        return Err(Problem::upgrade_required(
            "this path speaks WebSocket: send `Connection: Upgrade` and `Upgrade: websocket`, or use GET /events/stream",
        ));
    }
    if text(SEC_WEBSOCKET_VERSION) != Some("13") {
        return Err(Problem::websocket_version());
    }
    // 16 bytes in Base64.
    let is_key = |key: &&str| {
        let digits = key.strip_suffix("==").unwrap_or_default();
        digits.len() == 22 && digits.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+/".contains(&byte))
    };
    let key = text(SEC_WEBSOCKET_KEY).filter(is_key).ok_or_else(|| {
        Problem::new(cdc_rest::Code::MalformedRequest, "`Sec-WebSocket-Key` has to be 16 random bytes in Base64")
    })?;
    HeaderValue::from_str(&derive_accept_key(key.as_bytes())).map_err(|_| Problem::engine_failed())
}

fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|known| known.trim().eq_ignore_ascii_case(token))
}

/// Why a socket is closed: what the client is told and what is counted.
struct Farewell {
    code: CloseCode,
    reason: String,
    end: StreamEnd,
}

impl Farewell {
    fn new(code: CloseCode, reason: impl Into<String>, end: StreamEnd) -> Self {
        Self { code, reason: reason.into(), end }
    }
}

/// What became of the socket: go on, say farewell, or it is gone already.
type Going = ControlFlow<Option<Farewell>>;

/// One open socket.
struct Socket {
    stream: WebSocketStream<Progress<TokioIo<Upgraded>>>,
    seat: Seat,
    stall_timeout: Duration,
    heartbeat: Duration,
    /// When the client was last heard of.
    heard: Instant,
    control_frames: u32,
}

impl Socket {
    async fn new(upgraded: Upgraded, seat: Seat, stall_timeout: Duration, heartbeat: Duration) -> Self {
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BYTES)
            .write_buffer_size(BATCH_BYTES)
            .max_message_size(Some(MAX_MESSAGE_BYTES))
            .max_frame_size(Some(MAX_MESSAGE_BYTES));
        let stream = Progress::new(TokioIo::new(upgraded));
        let stream = WebSocketStream::from_raw_socket(stream, Role::Server, Some(config)).await;
        Self { stream, seat, stall_timeout, heartbeat, heard: Instant::now(), control_frames: 0 }
    }

    /// Sends until one of the two has enough.
    async fn run(mut self, mut reader: Reader) {
        let farewell = loop {
            let going = tokio::select! {
                // What the client says first: it may be the answer to a ping that is about to be missed.
                biased;
                message = self.stream.next() => self.hear(message).await,
                step = reader.next() => self.step(step, &mut reader).await,
            };
            if let ControlFlow::Break(farewell) = going {
                break farewell;
            }
        };
        let Some(Farewell { code, reason, end }) = farewell else { return };
        self.seat.end(end);
        if end == StreamEnd::Slow {
            tracing::warn!(
                timeout_ms = self.stall_timeout.as_millis(),
                "a WebSocket's reader took nothing for too long"
            );
        }
        let frame = CloseFrame { code, reason: reason.into() };
        // A client that takes or answers nothing is left to itself.
        let _ = timeout(CLOSE_PATIENCE, async {
            if self.stream.close(Some(frame)).await.is_ok() {
                while let Some(Ok(_)) = self.stream.next().await {}
            }
        })
        .await;
    }

    /// Takes what the client says.
    async fn hear(&mut self, message: Option<Result<Message, Error>>) -> Going {
        self.heard = Instant::now();
        match message {
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => {
                self.control_frames += 1;
                if self.control_frames > MAX_CONTROL_FRAMES {
                    return refused(CloseCode::Policy, "too many pings");
                }
                // The answer to a ping waits in the socket.
                self.flush().await
            }
            Some(Ok(Message::Text(_) | Message::Binary(_))) => {
                refused(CloseCode::Unsupported, "this stream takes no messages")
            }
            Some(Err(Error::Capacity(_))) => refused(CloseCode::Size, "this stream takes no messages"),
            Some(Err(Error::Protocol(_) | Error::Utf8(_))) => refused(CloseCode::Protocol, "not WebSocket"),
            Some(Ok(Message::Close(_))) => {
                let _ = self.flush().await;
                ControlFlow::Break(None)
            }
            Some(Ok(Message::Frame(_))) => ControlFlow::Continue(()),
            Some(Err(_)) | None => ControlFlow::Break(None),
        }
    }

    async fn step(&mut self, step: Step, reader: &mut Reader) -> Going {
        match step {
            Step::Events(chunk) => self.send(&chunk, reader).await,
            Step::Beat => {
                self.control_frames = 0;
                if self.heard.elapsed() >= self.heartbeat * 2 {
                    return end(CloseCode::Policy, "no answer to two pings", StreamEnd::Silent);
                }
                if self.stream.feed(Message::Ping(bytes::Bytes::new())).await.is_err() {
                    return ControlFlow::Break(None);
                }
                self.flush().await
            }
            Step::Stopping => end(CloseCode::Away, "the service stops", StreamEnd::Stopping),
            Step::Failed(StoreError::Dropped { oldest }) => end(
                CloseCode::Policy,
                format!("too slow: the oldest event that is kept is {oldest}"),
                StreamEnd::Dropped,
            ),
            Step::Failed(error) => {
                // It is logged there.
                let problem = problems::store(&error);
                end(CloseCode::Error, problem.code().as_str(), StreamEnd::Failed)
            }
        }
    }

    /// Sends about a batch of a chunk's events.
    async fn send(&mut self, chunk: &Chunk, reader: &mut Reader) -> Going {
        let (mut bytes, mut sent) = (0, 0);
        for event in chunk.events_after(reader.after()) {
            if bytes >= BATCH_BYTES {
                break;
            }
            reader.advance(event.event.sequence);
            if !reader.wants(&event.event) {
                continue;
            }
            // Images are UTF-8 since the engine took them; an event that is not would be ours to answer for.
            let text = reader.envelope(event).ok().and_then(|json| Utf8Bytes::try_from(json).ok());
            let Some(text) = text else {
                tracing::error!(sequence = event.event.sequence, "an event cannot be written");
                return end(CloseCode::Error, "store-failed", StreamEnd::Failed);
            };
            bytes += text.len();
            sent += 1;
            let fed = self.stream.feed(Message::Text(text));
            // Waits only while the batch before has not left, which `flush` has seen to.
            if fed.await.is_err() {
                return ControlFlow::Break(None);
            }
        }
        self.seat.sent(sent);
        if sent == 0 {
            tokio::task::yield_now().await;
            return ControlFlow::Continue(());
        }
        self.flush().await
    }

    /// Waits until the connection has taken everything, as long as it takes something.
    async fn flush(&mut self) -> Going {
        loop {
            let taken = self.stream.get_ref().taken();
            match timeout(self.stall_timeout, self.stream.flush()).await {
                Ok(Ok(())) => return ControlFlow::Continue(()),
                Ok(Err(_)) => return ControlFlow::Break(None),
                Err(_) if self.stream.get_ref().taken() > taken => {}
                Err(_) => return end(CloseCode::Policy, "too slow", StreamEnd::Slow),
            }
        }
    }
}

fn end(code: CloseCode, reason: impl Into<String>, end: StreamEnd) -> Going {
    ControlFlow::Break(Some(Farewell::new(code, reason, end)))
}

fn refused(code: CloseCode, reason: &'static str) -> Going {
    end(code, reason, StreamEnd::Refused)
}
