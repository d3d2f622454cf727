//! Standard output and standard error of a guest: lines of the service's log, and no more of them than may be.

use std::fmt::{self, Debug};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Instant;

use tokio::io::AsyncWrite;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};

/// A longer line is cut into several.
const LINE_BYTES: usize = 4 << 10;
/// So much may come at once, as seconds of what may come over time.
const BURST_SECONDS: u32 = 10;
/// How much of the end of standard error is kept for the report of a trap: a panic's message goes there.
const TAIL_BYTES: usize = 1 << 10;

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

/// Takes whole lines, without their line feed.
pub type WriteLine = Arc<dyn Fn(Stream, &str) + Send + Sync>;

/// Where a guest's lines go. Clones share what may still be written.
#[derive(Clone)]
pub struct Output {
    shared: Arc<Mutex<Shared>>,
    write: WriteLine,
}

impl Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Output").finish_non_exhaustive()
    }
}

struct Shared {
    bytes_per_second: f64,
    budget: f64,
    filled: Instant,
    dropped_lately: u64,
    dropped_in_all: u64,
    partial: [Vec<u8>; 2],
    tail: Vec<u8>,
}

impl Output {
    /// Output that writes at most so much over time, and ten seconds' worth at once.
    #[must_use]
    pub fn new(bytes_per_second: u32, write: WriteLine) -> Self {
        let shared = Shared {
            bytes_per_second: f64::from(bytes_per_second),
            budget: f64::from(bytes_per_second) * f64::from(BURST_SECONDS),
            filled: Instant::now(),
            dropped_lately: 0,
            dropped_in_all: 0,
            partial: [Vec::new(), Vec::new()],
            tail: Vec::new(),
        };
        Self { shared: Arc::new(Mutex::new(shared)), write }
    }

    /// Lines that were not written because there were too many.
    #[must_use]
    pub fn dropped_lines(&self) -> u64 {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner).dropped_in_all
    }

    /// The end of what was written to standard error since the last call of this.
    pub(super) fn take_error_tail(&self) -> String {
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        let tail = std::mem::take(&mut shared.tail);
        String::from_utf8_lossy(&tail).trim().to_owned()
    }

    /// Writes what stands in unfinished lines.
    pub(super) fn flush(&self) {
        for stream in [Stream::Out, Stream::Err] {
            let rest = {
                let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
                std::mem::take(&mut shared.partial[stream as usize])
            };
            if !rest.is_empty() {
                self.line(stream, &rest);
            }
        }
    }

    pub(super) fn take(&self, stream: Stream, bytes: &[u8]) {
        let mut lines = Vec::new();
        {
            let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
            if stream == Stream::Err {
                shared.tail.extend_from_slice(&bytes[bytes.len().saturating_sub(TAIL_BYTES)..]);
                let over = shared.tail.len().saturating_sub(TAIL_BYTES);
                shared.tail.drain(..over);
            }
            let partial = &mut shared.partial[stream as usize];
            for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
                for part in piece.chunks(LINE_BYTES) {
                    partial.extend_from_slice(part);
                    if partial.last() == Some(&b'\n') || partial.len() >= LINE_BYTES {
                        lines.push(std::mem::take(partial));
                    }
                }
            }
        }
        for line in lines {
            self.line(stream, &line);
        }
    }

    fn line(&self, stream: Stream, line: &[u8]) {
        let dropped = {
            let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
            let full = shared.bytes_per_second * f64::from(BURST_SECONDS);
            let now = Instant::now();
            let earned = now.duration_since(shared.filled).as_secs_f64() * shared.bytes_per_second;
            shared.budget = (shared.budget + earned).min(full);
            shared.filled = now;
            if shared.budget < line.len() as f64 {
                shared.dropped_lately += 1;
                shared.dropped_in_all += 1;
                return;
            }
            shared.budget -= line.len() as f64;
            std::mem::take(&mut shared.dropped_lately)
        };
        if dropped > 0 {
            let text = format!("({dropped} lines before this one were dropped: more than logBytesPerSecond allows)");
            (self.write)(Stream::Err, &text);
        }
        // Control characters could forge lines of the log or drive a terminal.
        let text: String = String::from_utf8_lossy(line)
            .trim_end_matches(['\n', '\r'])
            .chars()
            .map(|char| if char.is_control() && char != '\t' { '\u{fffd}' } else { char })
            .collect();
        (self.write)(stream, &text);
    }
}

/// One of the two streams, as WASI wants it.
pub(super) struct Pipe {
    pub(super) output: Output,
    pub(super) stream: Stream,
}

impl IsTerminal for Pipe {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Pipe {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(Writer { output: self.output.clone(), stream: self.stream })
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(Writer { output: self.output.clone(), stream: self.stream })
    }
}

struct Writer {
    output: Output,
    stream: Stream,
}

impl OutputStream for Writer {
    fn write(&mut self, bytes: bytes::Bytes) -> StreamResult<()> {
        self.output.take(self.stream, &bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(64 << 10)
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for Writer {
    async fn ready(&mut self) {}
}

impl AsyncWrite for Writer {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        self.output.take(self.stream, bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
