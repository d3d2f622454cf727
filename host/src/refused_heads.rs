//! Requests whose head hyper refuses by itself: no service sees them, and hyper's answer has no body. This gives it
//! the problem document that every other refusal has.
//!
//! It stands between hyper's HTTP/1 connection and the socket and looks at what goes out. hyper's own refusals are the
//! only answers of the statuses 400, 414 and 431 without a byte of body, and the last of their connection.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use cdc_rest::{Code, Problem};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A stream whose refusals are explained.
#[derive(Debug)]
pub(crate) struct Explained<S> {
    stream: S,
    /// What goes out in place of a refusal, and how much of it has.
    instead: Vec<u8>,
    sent: usize,
}

/// The longest head that hyper is set up to take.
pub(crate) const MAX_HEAD_BYTES: usize = 128 << 10;

const NO_BODY: &[u8] = b"\r\ncontent-length: 0\r\n";

/// What is said in place of these bytes, if they end with one of hyper's own refusals.
fn explained(bytes: &[u8]) -> Option<Vec<u8>> {
    if !bytes.ends_with(b"\r\n\r\n") {
        return None;
    }
    let version = b"HTTP/1.";
    let start = bytes.windows(version.len()).rposition(|window| window == version)?;
    let head = &bytes[start..];
    let no_body = head.windows(NO_BODY.len()).position(|window| window == NO_BODY)?;
    let (code, detail) = match head.get(9..12)? {
        b"400" => (Code::MalformedRequest, "this is not a well-formed HTTP/1.1 request".to_owned()),
        b"414" => (Code::UriTooLong, "the path and query may have at most 65534 bytes".to_owned()),
        b"431" => (Code::HeadersTooLarge, format!("the head may have at most {MAX_HEAD_BYTES} bytes and 100 fields")),
        _ => return None,
    };
    let problem = Problem::new(code, format!("{detail}; the connection is closed"));
    let mut body = Vec::with_capacity(256);
    problem.write(&mut body);
    let mut out = bytes[..start + no_body + 2].to_vec();
    for (name, value) in problem.headers() {
        out.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
    }
    out.extend_from_slice(format!("content-length: {}\r\n", body.len()).as_bytes());
    out.extend_from_slice(&head[no_body + NO_BODY.len()..]);
    out.extend_from_slice(&body);
    Some(out)
}

impl<S: AsyncWrite + Unpin> Explained<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, instead: Vec::new(), sent: 0 }
    }

    fn poll_instead(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.sent < self.instead.len() {
            let written = ready!(Pin::new(&mut self.stream).poll_write(context, &self.instead[self.sent..]))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent += written;
        }
        self.instead.clear();
        self.sent = 0;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Explained<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Explained<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_instead(context))?;
        // The look at the end comes first: hardly any other answer ends so.
        if parts.last().is_some_and(|last| last.ends_with(b"\r\n\r\n")) {
            let all: Vec<u8> = parts.iter().flat_map(|part| part.iter().copied()).collect();
            if let Some(instead) = explained(&all) {
                self.instead = instead;
                // What is left of it after this goes out with the flush that hyper ends a connection with.
                let _ = self.poll_instead(context)?;
                return Poll::Ready(Ok(all.len()));
            }
        }
        Pin::new(&mut self.stream).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_instead(context))?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_instead(context))?;
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    fn refusal(status: &str) -> Vec<u8> {
        format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: 0\r\ndate: now\r\n\r\n").into_bytes()
    }

    #[test]
    fn a_refusal_gets_a_document_and_keeps_its_head() {
        for (status, code) in [
            ("400 Bad Request", "malformed-request"),
            ("414 URI Too Long", "uri-too-long"),
            ("431 Request Header Fields Too Large", "headers-too-large"),
        ] {
            let out = String::from_utf8(explained(&refusal(status)).unwrap()).unwrap();
            let (head, body) = out.split_once("\r\n\r\n").unwrap();
            assert!(head.starts_with(&format!("HTTP/1.1 {status}\r\nconnection: close\r\n")), "{head}");
            assert!(head.contains("\r\ncontent-type: application/problem+json\r\n"), "{head}");
            assert!(head.contains(&format!("\r\ncontent-length: {}\r\n", body.len())), "{head}");
            assert!(head.ends_with("\r\ndate: now"), "{head}");
            assert!(body.contains(code), "{body}");
        }
    }

    #[test]
    fn whatever_else_goes_out_stays_as_it_is() {
        for other in [
            &refusal("404 Not Found")[..],
            b"HTTP/1.1 400 Bad Request\r\ncontent-length: 4\r\n\r\n",
            b"HTTP/1.1 204 No Content\r\ncontent-length: 0\r\n\r\n",
            b"\r\n\r\n",
            b"",
        ] {
            assert_eq!(explained(other), None, "{:?}", String::from_utf8_lossy(other));
        }
    }

    #[tokio::test]
    async fn a_refusal_behind_an_answer_is_explained_however_slowly_it_is_taken() {
        let (near, mut far) = tokio::io::duplex(7);
        let mut stream = Explained::new(near);
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";
        let sent = [&answer[..], &refusal("400 Bad Request")].concat();
        let expected = [&answer[..], &explained(&refusal("400 Bad Request")).unwrap()].concat();
        let writing = async move {
            stream.write_all(&sent).await.unwrap();
            stream.shutdown().await.unwrap();
        };
        let mut taken = Vec::new();
        let (_, read) = tokio::join!(writing, far.read_to_end(&mut taken));
        read.unwrap();
        assert_eq!(taken, expected);
    }
}
