//! `GET /events/stream`: Server-Sent Events.
//!
//! The stream is pulled: when the connection has room, the next piece is taken from the log's tail. So a reader holds no
//! events in memory but those that the connection is sending, and these are shared with all who send them too.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use cdc_rest::{EVENT_STREAM, Problem, StreamQuery, write_stream_error, write_stream_position};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue};

use super::body::{AnswerBody, CutOff};
use super::{Answer, Api, Connection, Outcome, problems};
use crate::live::{Reader, Seat, Step};
use crate::metrics::{StreamEnd, StreamKind};
use crate::store::StoreError;

/// Where a browser goes on after a break.
pub(super) const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// What the connection is given at once.
const PART_BYTES: usize = 32 << 10;

impl Api {
    /// `GET /events/stream`.
    pub(super) fn event_stream(
        &self,
        query: StreamQuery,
        head: &http::request::Parts,
        connection: &Connection,
    ) -> Outcome {
        let (seat, reader) = self
            .streams
            .open(query, StreamKind::Sse, connection.scissors())
            .map_err(|error| problems::open_stream(&error))?;
        let body = match head.method {
            http::Method::HEAD => AnswerBody::Done,
            _ => AnswerBody::Events(EventStream::new(
                seat,
                reader,
                Problem::too_slow(self.streams.options().stall_timeout),
            )),
        };
        let mut answer = Answer::new(body);
        let headers = answer.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(EVENT_STREAM));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        // nginx keeps answers back until they are whole unless it is told not to.
        headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
        Ok(answer)
    }
}

/// What comes out of waiting for the next piece.
enum Turn {
    /// The reader, bytes to be sent, and how many events they are.
    Piece(Reader, Bytes, u64),
    /// The last bytes, and why.
    Last(StreamEnd, Vec<u8>),
}

/// The body of a stream.
pub struct EventStream {
    seat: Seat,
    too_slow: Problem,
    /// What is left of a piece.
    rest: Bytes,
    /// None once the last words are said.
    turn: Option<Pin<Box<dyn Future<Output = Turn> + Send>>>,
}

impl std::fmt::Debug for EventStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EventStream").field("seat", &self.seat).finish_non_exhaustive()
    }
}

impl EventStream {
    fn new(seat: Seat, reader: Reader, too_slow: Problem) -> Self {
        // At once, so that the client sees the stream open, and knows its place before the first event.
        let opening = position("open", &reader);
        let turn = async move { Turn::Piece(reader, opening.into(), 0) };
        Self { seat, too_slow, rest: Bytes::new(), turn: Some(Box::pin(turn)) }
    }

    /// The next bytes to send; none at the end. Being asked means that the client has taken what was sent before, but
    /// for what connections buffer, which is bounded.
    pub(super) fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, CutOff>>> {
        self.seat.sending(false);
        if !self.rest.is_empty() {
            // Last words would read as a part of the event.
            return Poll::Ready(Some(if self.seat.ended().is_some() { Err(CutOff) } else { Ok(self.part()) }));
        }
        let Some(turn) = &mut self.turn else { return Poll::Ready(None) };
        let (why, last) = match self.seat.ended() {
            Some(StreamEnd::Slow) => (StreamEnd::Slow, error(&self.too_slow)),
            Some(why) => (why, Vec::new()),
            None => match ready!(turn.as_mut().poll(context)) {
                Turn::Piece(reader, bytes, events) => {
                    self.turn = Some(Box::pin(next(reader)));
                    self.seat.sent(events);
                    self.rest = bytes;
                    return Poll::Ready(Some(Ok(self.part())));
                }
                Turn::Last(why, bytes) => (why, bytes),
            },
        };
        self.turn = None;
        self.seat.end(why);
        Poll::Ready((!last.is_empty()).then(|| Ok(last.into())))
    }

    /// The next part of a piece: a large event goes out bit by bit, so that a client that takes it slowly is seen to.
    fn part(&mut self) -> Bytes {
        self.seat.sending(true);
        self.rest.split_to(self.rest.len().min(PART_BYTES))
    }
}

/// Waits for the next piece.
async fn next(mut reader: Reader) -> Turn {
    loop {
        match reader.next().await {
            Step::Events(chunk) => {
                let piece = match reader.piece(&chunk) {
                    Ok(piece) => piece,
                    Err(failure) => return Turn::Last(StreamEnd::Failed, error(&problems::store(&failure))),
                };
                reader.advance(piece.until);
                if piece.events > 0 {
                    reader.postpone_beat();
                    return Turn::Piece(reader, piece.bytes, piece.events);
                }
                // A long way over events that are not wanted is shared with others.
                tokio::task::yield_now().await;
            }
            Step::Beat => {
                let beat = position("heartbeat", &reader);
                return Turn::Piece(reader, beat.into(), 0);
            }
            Step::Stopping => return Turn::Last(StreamEnd::Stopping, position("the service stops", &reader)),
            Step::Failed(failure) => {
                let why = match failure {
                    StoreError::Dropped { .. } => StreamEnd::Dropped,
                    _ => StreamEnd::Failed,
                };
                return Turn::Last(why, error(&problems::store(&failure)));
            }
        }
    }
}

fn position(comment: &str, reader: &Reader) -> Vec<u8> {
    let mut out = Vec::with_capacity(64);
    write_stream_position(&mut out, comment, reader.after());
    out
}

fn error(problem: &Problem) -> Vec<u8> {
    let mut out = Vec::with_capacity(512);
    write_stream_error(&mut out, problem);
    out
}
