//! Clients of streams that show every byte's meaning.

use std::fmt::Write;
use std::io;

use cdc_tests::captured::Captured;
use cdc_tests::harness::Server;
use cdc_tests::http::{Answer, Connection, Request};
use serde_json::Value;

/// A reader of Server-Sent Events.
pub(super) struct Stream {
    connection: Connection,
    pub(super) head: Answer,
    unread: String,
}

/// One message, as the fields say.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Message {
    pub(super) comment: Option<String>,
    pub(super) id: Option<u64>,
    pub(super) event: Option<String>,
    pub(super) data: Option<String>,
}

impl Stream {
    /// Opens a stream and reads what it begins with: a comment and its place.
    pub(super) fn open(server: &Server, request: Request) -> (Stream, u64) {
        let mut stream = Stream::open_only(server, request);
        let opening = stream.message();
        assert_eq!((opening.comment.as_deref(), &opening.data), (Some("open"), &None));
        (stream, opening.id.expect("the stream's place"))
    }

    pub(super) fn open_only(server: &Server, request: Request) -> Stream {
        let mut connection = server.connect();
        connection.send(&request.bytes()).unwrap();
        let head = connection.answer_without_body().unwrap().expect(200);
        Stream { connection, head, unread: String::new() }
    }

    /// Everything from now on.
    pub(super) fn from_now(server: &Server) -> Stream {
        Stream::open(server, Request::get("/events/stream")).0
    }

    /// The next message; none at the end.
    pub(super) fn next(&mut self) -> io::Result<Option<Message>> {
        let end = loop {
            if let Some(end) = self.unread.find("\n\n") {
                break end;
            }
            match self.connection.chunk()? {
                Some(chunk) => self.unread.push_str(std::str::from_utf8(&chunk).unwrap()),
                None => {
                    assert_eq!(self.unread, "", "the stream ends within a message");
                    return Ok(None);
                }
            }
        };
        let text: String = self.unread.drain(..end + 2).collect();
        let mut message = Message::default();
        for line in text.trim_end().lines() {
            let (field, value) = line.split_once(": ").unwrap_or_else(|| panic!("{line:?}"));
            let value = value.to_owned();
            match field {
                "" => message.comment = Some(value),
                "id" => message.id = Some(value.parse().unwrap()),
                "event" => message.event = Some(value),
                "data" => assert_eq!(message.data.replace(value), None, "one line holds an event"),
                other => panic!("a field {other:?}"),
            }
        }
        Ok(Some(message))
    }

    pub(super) fn message(&mut self) -> Message {
        self.next().unwrap().expect("the stream goes on")
    }

    /// The next event and its JSON; heartbeats are passed over.
    pub(super) fn event(&mut self) -> (u64, String) {
        loop {
            let message = self.message();
            assert_eq!(message.event, None, "{message:?}");
            if let Some(data) = message.data {
                return (message.id.expect("an event has an id"), data);
            }
        }
    }

    /// The sequence numbers of the next events.
    pub(super) fn sequences(&mut self, count: usize) -> Vec<u64> {
        (0..count).map(|_| self.event().0).collect()
    }
}

/// What a client of a WebSocket is sent.
#[derive(Debug, PartialEq)]
pub(super) enum Frame {
    Text(String),
    Ping,
    Pong(Vec<u8>),
    Close(u16, String),
}

/// A client of a WebSocket that does nothing by itself.
pub(super) struct Socket {
    connection: Connection,
}

/// The handshake of RFC 6455, section 1.3.
pub(super) fn handshake(target: &str) -> Request {
    Request::get(target)
        .header("connection", "keep-alive, Upgrade")
        .header("upgrade", "WebSocket")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
}

impl Socket {
    pub(super) fn open(server: &Server, target: &str) -> Socket {
        let mut connection = server.connect();
        connection.send(&handshake(target).bytes()).unwrap();
        let answer = connection.answer_without_body().unwrap();
        assert_eq!(answer.status, 101, "{answer:?}");
        assert_eq!(answer.header("upgrade"), Some("websocket"));
        assert_eq!(answer.header("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
        Socket { connection }
    }

    pub(super) fn frame(&mut self) -> Frame {
        let head = self.connection.take(2).unwrap();
        assert_eq!(head[0] & 0xf0, 0x80, "whole frames without extensions");
        assert_eq!(head[1] & 0x80, 0, "servers mask nothing");
        let length = match head[1] {
            126 => u64::from(u16::from_be_bytes(self.connection.take(2).unwrap().try_into().unwrap())),
            127 => u64::from_be_bytes(self.connection.take(8).unwrap().try_into().unwrap()),
            short => u64::from(short),
        };
        let payload = self.connection.take(length as usize).unwrap();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        match head[0] & 0x0f {
            1 => Frame::Text(text(&payload)),
            8 => Frame::Close(u16::from_be_bytes([payload[0], payload[1]]), text(&payload[2..])),
            9 => Frame::Ping,
            10 => Frame::Pong(payload),
            other => panic!("opcode {other}"),
        }
    }

    /// The next event's JSON; pings are answered.
    pub(super) fn event(&mut self) -> String {
        loop {
            match self.frame() {
                Frame::Text(text) => return text,
                Frame::Ping => self.send(10, b""),
                other => panic!("{other:?}"),
            }
        }
    }

    pub(super) fn sequences(&mut self, count: usize) -> Vec<u64> {
        (0..count).map(|_| sequence(&self.event())).collect()
    }

    /// What closes the socket; pings before are answered, events passed over.
    pub(super) fn close(&mut self) -> (u16, String) {
        loop {
            match self.frame() {
                Frame::Close(code, reason) => return (code, reason),
                Frame::Ping => self.send(10, b""),
                Frame::Text(_) | Frame::Pong(_) => {}
            }
        }
    }

    /// Sends a whole frame; the mask is zero, which leaves the bytes as they are.
    pub(super) fn send(&mut self, opcode: u8, payload: &[u8]) {
        let mut frame = vec![0x80 | opcode];
        match u16::try_from(payload.len()) {
            Ok(short) if short < 126 => frame.push(0x80 | short as u8),
            Ok(middling) => {
                frame.push(0x80 | 126);
                frame.extend_from_slice(&middling.to_be_bytes());
            }
            Err(_) => panic!("no test sends as much"),
        }
        frame.extend_from_slice(&[0; 4]);
        frame.extend_from_slice(payload);
        self.connection.send(&frame).unwrap();
    }

    /// Whether the server ends the connection and says nothing more.
    pub(super) fn is_ended_by_server(&mut self) -> bool {
        self.connection.is_ended_by_server()
    }
}

pub(super) fn sequence(event: &str) -> u64 {
    let event: Value = serde_json::from_str(event).unwrap();
    event["metadata"]["sequenceNumber"].as_u64().unwrap()
}

/// Inserts rows with ids of their own; answers the sequence numbers.
pub(super) fn insert(server: &Server, table: &str, ids: std::ops::Range<u64>) -> Vec<u64> {
    let mut connection = server.connect();
    let one = |id: u64| {
        let request = Request::post(&format!("/data/{table}"), format!(r#"{{"id":{id}}}"#));
        Captured::of_write(connection.exchange(&request).unwrap().expect(200).text()).sequence
    };
    ids.map(one).collect()
}

/// Inserts rows that no compression makes small, of about this size, as one load.
pub(super) fn insert_large(server: &Server, ids: std::ops::Range<u64>, bytes: usize) {
    for id in ids {
        let mut noise = String::with_capacity(bytes);
        for i in 0..bytes as u64 / 16 {
            write!(noise, "{:016x}", cdc_tests::random::scramble(id * 1_000_000 + i)).unwrap();
        }
        server.post("/data/large", &format!(r#"{{"id":{id},"noise":"{noise}"}}"#)).expect(200);
    }
}

/// The value of a metric, by its whole name.
pub(super) fn metric(server: &Server, name: &str) -> u64 {
    let text = server.get("/metrics").expect(200);
    let line = text.text().lines().find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(' ')));
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or_else(|| panic!("{name}"))
}
