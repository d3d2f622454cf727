//! A raw HTTP/1.1 client: it sends exactly the bytes it is told to and shows exactly the bytes that come back.
//!
//! It is for tests of correctness. It decodes no content coding, follows nothing, retries nothing, and reports a
//! connection that ends where an answer should stand as an error.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};

use serde_json::Value;

use crate::harness::PATIENCE;

/// One request, byte for byte.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    pub target: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Request {
    pub fn new(method: &str, target: &str) -> Request {
        Request { method: method.into(), target: target.into(), headers: Vec::new(), body: Vec::new() }
    }

    pub fn get(target: &str) -> Request {
        Request::new("GET", target)
    }

    pub fn delete(target: &str) -> Request {
        Request::new("DELETE", target)
    }

    pub fn post(target: &str, json: impl Into<Vec<u8>>) -> Request {
        Request::new("POST", target).json(json)
    }

    pub fn put(target: &str, json: impl Into<Vec<u8>>) -> Request {
        Request::new("PUT", target).json(json)
    }

    pub fn json(self, body: impl Into<Vec<u8>>) -> Request {
        self.body("application/json", body)
    }

    pub fn body(self, content_type: &str, body: impl Into<Vec<u8>>) -> Request {
        let mut request = self.header("content-type", content_type);
        request.body = body.into();
        request
    }

    pub fn header(mut self, name: &str, value: &str) -> Request {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// The head as it goes out. `host` and, where there is a body or could be one, `content-length` are added unless
    /// the request says otherwise itself.
    pub fn head(&self) -> Vec<u8> {
        let has = |name: &str| self.headers.iter().any(|(known, _)| known.eq_ignore_ascii_case(name));
        let mut head = format!("{} {} HTTP/1.1\r\n", self.method, self.target);
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if !has("host") {
            head.push_str("host: localhost\r\n");
        }
        if !has("content-length")
            && !has("transfer-encoding")
            && (!self.body.is_empty() || self.method.starts_with('P'))
        {
            head.push_str(&format!("content-length: {}\r\n", self.body.len()));
        }
        head.push_str("\r\n");
        head.into_bytes()
    }

    /// Head and body as they go out.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.head();
        bytes.extend_from_slice(&self.body);
        bytes
    }
}

impl fmt::Display for Request {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = &self.body[..self.body.len().min(200)];
        write!(out, "{} {} {}", self.method, self.target, String::from_utf8_lossy(shown))
    }
}

/// One connection, kept alive as long as the server wants.
pub struct Connection {
    stream: TcpStream,
    unread: Vec<u8>,
}

impl Connection {
    pub fn open(address: SocketAddr) -> Connection {
        Connection::try_open(address).expect("the server takes connections")
    }

    pub fn try_open(address: SocketAddr) -> io::Result<Connection> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Connection { stream, unread: Vec::new() })
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    pub fn exchange(&mut self, request: &Request) -> io::Result<Answer> {
        // A server may answer and stop reading before a large body is through: the answer counts, not the broken pipe.
        let sent = self.send(&request.bytes());
        let answer = if request.method == "HEAD" { self.answer_without_body() } else { self.answer() };
        match (sent, answer) {
            (_, Ok(answer)) => Ok(answer),
            (Err(error), Err(_)) | (Ok(()), Err(error)) => Err(error),
        }
    }

    /// Says that nothing more will be sent.
    pub fn finish_sending(&self) -> io::Result<()> {
        self.stream.shutdown(Shutdown::Write)
    }

    /// The next answer. Interim ones (100 Continue) are answers too.
    pub fn answer(&mut self) -> io::Result<Answer> {
        let mut answer = self.answer_without_body()?;
        answer.body = if answer.status < 200 || answer.status == 204 || answer.status == 304 {
            Vec::new()
        } else if answer.header("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked")) {
            self.chunked_body()?
        } else if let Some(length) = answer.header("content-length") {
            let length = length.parse().map_err(|_| invalid(format!("content-length {length:?}")))?;
            self.take(length)?
        } else {
            self.rest()?
        };
        Ok(answer)
    }

    /// The next answer's head, for a request that forbids a body.
    pub fn answer_without_body(&mut self) -> io::Result<Answer> {
        let line = self.line()?;
        let mut words = line.splitn(3, ' ');
        let version = words.next().unwrap_or_default().to_string();
        if !version.starts_with("HTTP/1.") {
            return Err(invalid(format!("not a status line: {line:?}")));
        }
        let status =
            words.next().and_then(|word| word.parse().ok()).ok_or_else(|| invalid(format!("status line {line:?}")))?;
        let mut headers = Vec::new();
        loop {
            let line = self.line()?;
            if line.is_empty() {
                return Ok(Answer { status, version, headers, body: Vec::new() });
            }
            let (name, value) = line.split_once(':').ok_or_else(|| invalid(format!("header line {line:?}")))?;
            headers.push((name.to_ascii_lowercase(), value.trim().to_string()));
        }
    }

    /// Reads until the server closes, answering whatever comes before.
    pub fn rest(&mut self) -> io::Result<Vec<u8>> {
        while self.more()? {}
        Ok(std::mem::take(&mut self.unread))
    }

    /// Whether the server ends the connection (in whatever way) without another byte, within the time a test may take.
    pub fn is_ended_by_server(&mut self) -> bool {
        if !self.unread.is_empty() {
            return false;
        }
        match self.more() {
            Ok(more) => !more,
            Err(error) => !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut),
        }
    }

    fn chunked_body(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        while let Some(chunk) = self.chunk()? {
            body.extend(chunk);
        }
        Ok(body)
    }

    /// The next chunk of a chunked body, for who reads an answer while it is made; none at the end.
    pub fn chunk(&mut self) -> io::Result<Option<Vec<u8>>> {
        let line = self.line()?;
        let digits = line.split(';').next().unwrap_or_default();
        let length = usize::from_str_radix(digits.trim(), 16).map_err(|_| invalid(format!("chunk size {line:?}")))?;
        let chunk = self.take(length)?;
        if length > 0 {
            self.line()?;
            return Ok(Some(chunk));
        }
        while !self.line()?.is_empty() {}
        Ok(None)
    }

    fn line(&mut self) -> io::Result<String> {
        let mut from = 0;
        let end = loop {
            match self.unread[from..].windows(2).position(|pair| pair == b"\r\n") {
                Some(at) => break from + at,
                None => from = self.unread.len().saturating_sub(1),
            }
            if !self.more()? {
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "the server closed where an answer should stand",
                ));
            }
        };
        let line: Vec<u8> = self.unread.drain(..end + 2).take(end).collect();
        String::from_utf8(line).map_err(|_| invalid("a line that is not UTF-8".into()))
    }

    /// This many bytes, whatever they are.
    pub fn take(&mut self, length: usize) -> io::Result<Vec<u8>> {
        while self.unread.len() < length {
            if !self.more()? {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed within a body"));
            }
        }
        let rest = self.unread.split_off(length);
        Ok(std::mem::replace(&mut self.unread, rest))
    }

    fn more(&mut self) -> io::Result<bool> {
        let mut chunk = [0; 64 * 1024];
        loop {
            match self.stream.read(&mut chunk) {
                Ok(length) => {
                    self.unread.extend_from_slice(&chunk[..length]);
                    return Ok(length > 0);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

fn invalid(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// One answer, byte for byte.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub version: String,
    /// Names in lower case, in the order in which they came.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("the body is UTF-8")
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("no JSON ({error}): {}", self.text()))
    }

    /// Fails the test unless the status is the one expected.
    #[track_caller]
    pub fn expect(self, status: u16) -> Answer {
        let shown = String::from_utf8_lossy(&self.body[..self.body.len().min(2_000)]);
        assert_eq!(self.status, status, "{shown}");
        self
    }

    /// Fails the test unless this is a complete problem document of the status and code expected; answers its detail.
    #[track_caller]
    pub fn expect_problem(&self, status: u16, code: &str) -> String {
        let problem = self.problem();
        assert_eq!((self.status, problem["code"].as_str()), (status, Some(code)), "{}", self.text());
        problem["detail"].as_str().unwrap_or_default().to_string()
    }

    /// Fails the test unless this is a complete problem document.
    #[track_caller]
    pub fn problem(&self) -> Value {
        let shown = String::from_utf8_lossy(&self.body);
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{} {shown}", self.status);
        let problem = self.json();
        assert_eq!(problem["status"].as_u64(), Some(u64::from(self.status)), "{shown}");
        for member in ["code", "detail", "error"] {
            let text = problem[member].as_str().unwrap_or_else(|| panic!("no {member} in {shown}"));
            assert!(!text.is_empty(), "{member} is empty in {shown}");
        }
        problem
    }
}
