//! A thousand readers of `GET /events/stream`: what each costs while it waits, and how soon all have what is new.

use std::collections::HashSet;
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use cdc_tests::harness::{Launch, PATIENCE, Server};
use cdc_tests::http::Request;
use cdc_tests::latency::median;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use crate::Scale;
use crate::rows;
use crate::table::{Table, grouped, ms};

pub(crate) fn measure(scale: Scale, table: &mut Table) {
    // The readers' sockets are ours.
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let all = rustix::process::Rlimit { current: limit.maximum, maximum: limit.maximum };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, all)
        .expect("the limit can be raised to the hard one");

    let (mut memory, mut took, mut written) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..scale.rounds {
        let server = Launch::new().start();
        // Once through everything, so that what is measured is the readers.
        insert(&server, 0..scale.stream_events);
        let before = server.memory().resident;
        let mut readers = Readers::open(server.address(), scale.stream_readers);
        let per_reader = server.memory().resident.saturating_sub(before) / scale.stream_readers as u64;
        memory.push(per_reader as f64 / 1024.0);
        let server = &server;
        let (wrote, received) = thread::scope(|scope| {
            let began = Instant::now();
            let writer = scope.spawn(move || {
                insert(server, scale.stream_events..2 * scale.stream_events);
                began.elapsed()
            });
            readers.receive(scale.stream_events);
            (writer.join().expect("the writer ends"), began.elapsed())
        });
        written.push(wrote.as_secs_f64());
        took.push(received.as_secs_f64());
    }
    let (readers, events) = (scale.stream_readers, scale.stream_events);
    let per_reader = median(&memory);
    table.against_bar(
        &format!("{} SSE readers, memory of each while it waits", grouped(readers as f64)),
        format!("{per_reader:.1} KiB"),
        "< 32 KiB",
        per_reader < 32.0,
    );
    let (took, written) = (median(&took), median(&written));
    let behind = Duration::from_secs_f64((took - written).max(0.0));
    // A reader that misses one ends the run.
    table.against_bar(
        &format!("{} events one by one, until each of the readers has all", grouped(events as f64)),
        format!(
            "{took:.2} s, {} after the last write; {} deliveries/s",
            ms(behind),
            grouped(readers as f64 * events as f64 / took)
        ),
        "all of all",
        true,
    );
}

fn insert(server: &Server, numbers: std::ops::Range<u64>) {
    let mut connection = server.connect();
    for number in numbers {
        let mut row = Vec::new();
        rows::write_row(number, &mut row);
        connection.exchange(&Request::post("/data/users", row)).expect("a write is answered").expect(200);
    }
}

/// Readers on one poll.
struct Readers {
    poll: Poll,
    readers: Vec<Reader>,
}

struct Reader {
    stream: TcpStream,
    /// The beginning of a line whose end has not come yet.
    line: Vec<u8>,
    /// The id of the message that is being read.
    id: u64,
    /// The last event, 0 before the stream has begun.
    last: u64,
    events: u64,
    is_open: bool,
}

impl Readers {
    /// Opens streams and waits until each has begun.
    fn open(address: SocketAddr, count: usize) -> Readers {
        let poll = Poll::new().expect("a poll");
        let readers = (0..count)
            .map(|i| {
                let mut stream = std::net::TcpStream::connect(address).expect("the server takes connections");
                stream
                    .write_all(b"GET /events/stream HTTP/1.1\r\nhost: localhost\r\n\r\n")
                    .expect("the request goes out");
                stream.set_nonblocking(true).expect("a socket that does not block");
                let mut stream = TcpStream::from_std(stream);
                poll.registry().register(&mut stream, Token(i), Interest::READABLE).expect("the poll takes it");
                Reader { stream, line: Vec::new(), id: 0, last: 0, events: 0, is_open: false }
            })
            .collect();
        let mut readers = Readers { poll, readers };
        readers.until(|reader| reader.is_open);
        readers
    }

    /// Waits until each has this many events.
    fn receive(&mut self, events: u64) {
        self.until(|reader| reader.events >= events);
        assert!(self.readers.iter().all(|reader| reader.events == events), "more than was written");
    }

    fn until(&mut self, is_done: impl Fn(&Reader) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        let mut buffer = vec![0; 256 << 10];
        let mut happened = Events::with_capacity(1024);
        let mut waiting: HashSet<usize> = (0..self.readers.len()).filter(|i| !is_done(&self.readers[*i])).collect();
        while !waiting.is_empty() {
            assert!(Instant::now() < deadline, "{} readers still wait after {PATIENCE:?}", waiting.len());
            self.poll.poll(&mut happened, Some(Duration::from_millis(100))).expect("the poll works");
            for event in &happened {
                let reader = &mut self.readers[event.token().0];
                reader.read(&mut buffer);
                if is_done(reader) {
                    waiting.remove(&event.token().0);
                }
            }
        }
    }
}

impl Reader {
    fn read(&mut self, buffer: &mut [u8]) {
        loop {
            match self.stream.read(buffer) {
                Ok(0) => panic!("a reader was cut off after event {}", self.last),
                Ok(length) => self.take(&buffer[..length]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => panic!("a reader failed after event {}: {error}", self.last),
            }
        }
    }

    /// Takes the lines apart. Those of the head and of the chunks between are none that matter.
    fn take(&mut self, bytes: &[u8]) {
        let mut lines = bytes.split(|byte| *byte == b'\n');
        let rest = lines.next_back().unwrap_or_default();
        for line in lines {
            if self.line.is_empty() {
                self.whole_line(line);
            } else {
                let mut whole = std::mem::take(&mut self.line);
                whole.extend_from_slice(line);
                self.whole_line(&whole);
            }
        }
        self.line.extend_from_slice(rest);
    }

    fn whole_line(&mut self, line: &[u8]) {
        if let Some(id) = line.strip_prefix(b"id: ") {
            self.id = std::str::from_utf8(id).ok().and_then(|id| id.parse().ok()).expect("a sequence number");
            if !self.is_open {
                (self.is_open, self.last) = (true, self.id);
            }
        } else if line.starts_with(b"data: ") {
            assert_eq!(self.id, self.last + 1, "a gap or a repetition");
            self.last = self.id;
            self.events += 1;
        }
    }
}
