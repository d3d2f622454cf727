//! A closed loop over N kept-alive connections: each sends its next request when its last answer is in.
//!
//! One thread and one poll serve all connections, nothing is allocated per request once buffers have grown, and an
//! answer is looked at only as far as its status and length. It shares the cores with the server it loads, so every
//! cycle it saves is one that the measurement does not distort. Chunked answers are not understood: what is loaded here
//! answers with a length.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use crate::latency::Latencies;

/// When a run ends.
#[derive(Clone, Copy, Debug)]
pub enum Until {
    /// No request is sent after this time.
    Elapsed(Duration),
    /// This many requests are sent.
    Sent(u64),
}

/// What a run came to.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub answers: u64,
    /// Answers with another status than 200.
    pub failures: u64,
    pub elapsed: Duration,
    pub latencies: Latencies,
    /// The first failure's bytes, for the message.
    pub first_failure: Option<String>,
}

impl Outcome {
    pub fn per_second(&self) -> f64 {
        self.answers as f64 / self.elapsed.as_secs_f64()
    }

    /// Fails when any answer was not a 200: a rate of errors is no rate.
    pub fn expect_all_good(self) -> Outcome {
        if let Some(failure) = &self.first_failure {
            panic!("{} of {} answers are failures, the first: {failure}", self.failures, self.answers);
        }
        self
    }
}

/// Runs a load. `write_request` appends request number n (from 0, over all connections) to the buffer it is given.
pub fn run(
    address: SocketAddr,
    connections: usize,
    until: Until,
    mut write_request: impl FnMut(u64, &mut Vec<u8>),
) -> io::Result<Outcome> {
    let mut poll = Poll::new()?;
    let mut events = Events::with_capacity(connections.max(16));
    let mut loops = Vec::with_capacity(connections);
    for index in 0..connections {
        let mut stream = TcpStream::from_std(connect(address)?);
        poll.registry().register(&mut stream, Token(index), Interest::READABLE)?;
        loops.push(Loop {
            stream,
            request: Vec::new(),
            answer: Vec::new(),
            sent_at: Instant::now(),
            is_waiting: false,
        });
    }

    let began = Instant::now();
    let mut outcome = Outcome {
        answers: 0,
        failures: 0,
        elapsed: Duration::ZERO,
        latencies: Latencies::with_capacity(1 << 16),
        first_failure: None,
    };
    let mut sent = 0;
    let mut waiting = 0;
    let goes_on = |sent: u64, now: Instant| match until {
        Until::Elapsed(limit) => now.duration_since(began) < limit,
        Until::Sent(limit) => sent < limit,
    };
    for connection in &mut loops {
        if goes_on(sent, began) {
            connection.send(sent, &mut write_request)?;
            sent += 1;
            waiting += 1;
        }
    }
    while waiting > 0 {
        poll.poll(&mut events, Some(Duration::from_secs(60)))?;
        if events.is_empty() {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "no answer within a minute"));
        }
        for event in &events {
            let connection = &mut loops[event.token().0];
            while connection.is_waiting && connection.receive()? {
                let now = Instant::now();
                outcome.latencies.record(now.duration_since(connection.sent_at));
                outcome.answers += 1;
                if !connection.answer.starts_with(b"HTTP/1.1 200") {
                    outcome.failures += 1;
                    outcome
                        .first_failure
                        .get_or_insert_with(|| String::from_utf8_lossy(&connection.answer).into_owned());
                }
                connection.is_waiting = false;
                waiting -= 1;
                if goes_on(sent, now) {
                    connection.send(sent, &mut write_request)?;
                    sent += 1;
                    waiting += 1;
                }
            }
        }
    }
    outcome.elapsed = began.elapsed();
    Ok(outcome)
}

fn connect(address: SocketAddr) -> io::Result<std::net::TcpStream> {
    let stream = std::net::TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_nonblocking(true)?;
    Ok(stream)
}

struct Loop {
    stream: TcpStream,
    request: Vec<u8>,
    answer: Vec<u8>,
    sent_at: Instant,
    is_waiting: bool,
}

impl Loop {
    fn send(&mut self, number: u64, write_request: &mut impl FnMut(u64, &mut Vec<u8>)) -> io::Result<()> {
        self.request.clear();
        self.answer.clear();
        write_request(number, &mut self.request);
        self.sent_at = Instant::now();
        self.is_waiting = true;
        let mut rest = self.request.as_slice();
        while !rest.is_empty() {
            match self.stream.write(rest) {
                Ok(length) => rest = &rest[length..],
                // Only a request larger than the socket's buffer comes here; the server reads it in a moment.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => std::thread::yield_now(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Reads what is there; answers whether the answer is complete.
    fn receive(&mut self) -> io::Result<bool> {
        loop {
            let filled = self.answer.len();
            self.answer.resize(filled + 16 * 1024, 0);
            let read = self.stream.read(&mut self.answer[filled..]);
            self.answer.truncate(filled + *read.as_ref().unwrap_or(&0));
            match read {
                Ok(0) => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed a connection")),
                Ok(_) if is_complete(&self.answer)? => return Ok(true),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

fn is_complete(answer: &[u8]) -> io::Result<bool> {
    let Some(head) = answer.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(false) };
    let length = content_length(&answer[..head])
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "an answer without a length"))?;
    Ok(answer.len() >= head + 4 + length)
}

fn content_length(head: &[u8]) -> Option<usize> {
    const NAME: &[u8] = b"content-length:";
    let line = head
        .split(|byte| *byte == b'\n')
        .find(|line| line.get(..NAME.len()).is_some_and(|name| name.eq_ignore_ascii_case(NAME)))?;
    std::str::from_utf8(&line[NAME.len()..]).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_complete_with_its_last_body_byte() {
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc";
        assert!(is_complete(answer).unwrap());
        assert!(!is_complete(&answer[..answer.len() - 1]).unwrap());
        assert!(!is_complete(b"HTTP/1.1 200 OK\r\nConte").unwrap());
        assert!(is_complete(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
    }
}
