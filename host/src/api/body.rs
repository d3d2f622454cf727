//! Bodies: requests' read within limits of size and time, answers' whole or streamed.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use cdc_rest::{BodyKind, Limits, Problem};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::sync::mpsc;

use super::stream::EventStream;

/// How much of a body that is too long is read and thrown away, so that the client reads the answer before it finds
/// the connection closed.
const DISCARD_BYTES: u64 = 128 << 20;
/// How long that may take.
const DISCARD_TIME: Duration = Duration::from_secs(2);

/// Reads a whole body.
pub(super) async fn read(
    mut body: Incoming,
    kind: BodyKind,
    limits: &Limits,
    timeout: Duration,
) -> Result<Vec<u8>, Problem> {
    let max_bytes = kind.max_bytes(limits);
    let announced = body.size_hint().exact();
    let reading = async {
        if announced.is_some_and(|announced| announced > max_bytes) {
            return Ok(None);
        }
        let mut bytes = Vec::with_capacity(usize::try_from(announced.unwrap_or(0)).unwrap_or(0));
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| broken(&error))?;
            let Some(data) = frame.data_ref() else { continue };
            if (bytes.len() + data.len()) as u64 > max_bytes {
                return Ok(None);
            }
            bytes.extend_from_slice(data);
        }
        Ok(Some(bytes))
    };
    match tokio::time::timeout(timeout, reading).await {
        Ok(Ok(Some(bytes))) => Ok(bytes),
        Ok(Ok(None)) => {
            discard(&mut body).await;
            Err(kind.too_large(limits))
        }
        Ok(Err(problem)) => Err(problem),
        Err(_) => Err(Problem::request_timeout(timeout)),
    }
}

/// The next piece of a body that is read as a stream.
pub(super) async fn next(body: &mut Incoming, timeout: Duration) -> Result<Option<Bytes>, Problem> {
    loop {
        match tokio::time::timeout(timeout, body.frame()).await {
            Err(_) => return Err(Problem::request_timeout(timeout)),
            Ok(None) => return Ok(None),
            Ok(Some(Err(error))) => return Err(broken(&error)),
            Ok(Some(Ok(frame))) => {
                if let Ok(data) = frame.into_data() {
                    return Ok(Some(data));
                }
            }
        }
    }
}

/// Reads on without keeping anything, up to a bound.
pub(super) async fn discard(body: &mut Incoming) {
    let reading = async {
        let mut discarded = 0;
        while discarded < DISCARD_BYTES {
            match body.frame().await {
                Some(Ok(frame)) => discarded += frame.data_ref().map_or(0, |data| data.len() as u64),
                _ => return,
            }
        }
    };
    // Out of patience is as good as done: the answer goes out either way.
    let _ = tokio::time::timeout(DISCARD_TIME, reading).await;
}

/// The body broke off, or its framing is broken. The client is mostly gone, but a proxy may show it this.
fn broken(error: &hyper::Error) -> Problem {
    Problem::new(cdc_rest::Code::MalformedRequest, format!("the body could not be read: {error}"))
}

/// The body of an answer.
#[derive(Debug)]
pub enum AnswerBody {
    /// All of it.
    Full(Option<Bytes>),
    /// Pieces as they are made. When the sender is dropped in the middle, the answer is cut off so that the client
    /// notices: the last piece sent must be `None`.
    Stream(mpsc::Receiver<Option<Bytes>>),
    /// Events as they come.
    Events(EventStream),
    /// Nothing more.
    Done,
}

impl From<Bytes> for AnswerBody {
    fn from(bytes: Bytes) -> Self {
        Self::Full(Some(bytes))
    }
}

/// A streamed answer that was cut off.
#[derive(Debug, thiserror::Error)]
#[error("the answer was cut off")]
pub struct CutOff;

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = CutOff;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, CutOff>>> {
        match &mut *self {
            Self::Full(bytes) => {
                let bytes = bytes.take().filter(|bytes| !bytes.is_empty());
                Poll::Ready(bytes.map(|bytes| Ok(Frame::data(bytes))))
            }
            Self::Stream(pieces) => match pieces.poll_recv(context) {
                Poll::Pending => Poll::Pending,
                Poll::Ready(Some(Some(piece))) => Poll::Ready(Some(Ok(Frame::data(piece)))),
                Poll::Ready(Some(None)) => {
                    *self = Self::Done;
                    Poll::Ready(None)
                }
                Poll::Ready(None) => {
                    *self = Self::Done;
                    Poll::Ready(Some(Err(CutOff)))
                }
            },
            Self::Events(stream) => stream.poll_piece(context).map(|piece| piece.map(|piece| piece.map(Frame::data))),
            Self::Done => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Full(bytes) => bytes.as_ref().is_none_or(Bytes::is_empty),
            Self::Stream(_) | Self::Events(_) => false,
            Self::Done => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Full(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Self::Stream(_) | Self::Events(_) => SizeHint::default(),
            Self::Done => SizeHint::with_exact(0),
        }
    }
}
