//! A connection to PostgreSQL: the protocol's version 3 over a blocking socket, with SCRAM and TLS, simple queries,
//! COPY out, and the replication stream.
//!
//! It blocks because each connection belongs to a thread of its own. That is what the replication stream needs: while a
//! thread sleeps, nothing wakes it for every message that the server sends, and those wake-ups, not the bytes, are what
//! following a log costs. A runtime's sockets are woken for each of them.
//!
//! Values are text both ways. All connections have the same settings, so that the log's rows and those that are read
//! from tables are written alike: see [`SETTINGS`].
//!
//! Protocol: PostgreSQL's manual, "Frontend/Backend Protocol" and "Streaming Replication Protocol".

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream, ToSocketAddrs};
use std::ops::Range;
use std::os::fd::AsFd;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::BytesMut;
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256};
use postgres_protocol::message::frontend;
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};

use super::address::{Address, SslMode};
use super::tls;
use crate::feed::{FeedError, Remedy};

/// How values are written, and how long things may take, whatever the server's, the database's or the role's settings
/// are. `row_security` off makes a query fail that would silently leave out rows. They are asked for when the connection
/// begins, so that a pooler which would forget them refuses, and looked at then, because one can be told to ignore them.
/// Compiling a query about the catalog takes seconds, and running it milliseconds: so without `jit`.
const SETTINGS: [(&str, &str); 12] = [
    ("client_encoding", "UTF8"),
    ("DateStyle", "ISO"),
    ("IntervalStyle", "iso_8601"),
    ("TimeZone", "UTC"),
    ("extra_float_digits", "1"),
    ("bytea_output", "hex"),
    ("lc_monetary", "C"),
    ("row_security", "off"),
    ("statement_timeout", "0"),
    ("jit", "off"),
    ("lock_timeout", "0"),
    ("idle_in_transaction_session_timeout", "0"),
];

/// The same, of which older servers know nothing: since which version there is one.
const LATER_SETTINGS: [(u32, &str, &str); 2] = [(14, "idle_session_timeout", "0"), (17, "transaction_timeout", "0")];

/// The encoding of databases in which texts may be any bytes.
const ANY_BYTES: &str = "SQL_ASCII";

/// Frames larger than this are no frames: PostgreSQL's own limit is 1 GiB.
const MAX_FRAME_BYTES: usize = 1 << 30;

/// The receive buffer (which Linux doubles) for a server on the same machine. The server sends each row's message by
/// itself. While the window is open that is a packet each, and while it is closed the messages are appended to what
/// waits, which costs half as much: so the window is small, and `follow.rs` reads so that it is closed most of the time.
/// Much smaller than a packet of the loopback interface (64 KiB) it would stall.
const NEARBY_WINDOW_BYTES: usize = 40_000;

/// What goes wrong on a connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum WireError {
    #[error("the connection failed")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Tls(String),
    #[error("the server sent what the protocol does not allow: {0}")]
    Protocol(&'static str),
    #[error("{0}")]
    Settings(String),
    /// One table's texts can't be read, and that of no other need be so.
    #[error("{0}")]
    NotUtf8(String),
    #[error("this way to log in is not supported: {0}")]
    Authentication(String),
    #[error("{0}")]
    Server(Box<ServerError>),
}

/// An error as the server reports it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ServerError {
    /// The five characters of SQLSTATE.
    pub(super) code: String,
    pub(super) message: String,
    pub(super) detail: String,
    pub(super) hint: String,
}

impl std::fmt::Display for ServerError {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{} ({})", self.message, self.code)?;
        for more in [&self.detail, &self.hint] {
            if !more.is_empty() {
                write!(out, "; {more}")?;
            }
        }
        Ok(())
    }
}

impl WireError {
    /// The five characters of SQLSTATE, if it came from the server.
    pub(super) fn code(&self) -> Option<&str> {
        match self {
            WireError::Server(error) => Some(&error.code),
            _ => None,
        }
    }

    /// What it means for a feed. `doing` completes "could not …".
    pub(super) fn into_feed(self, doing: &str) -> FeedError {
        use Remedy::{Repair, Retry, Stop};
        let (remedy, code) = match &self {
            WireError::Io(_) => (Retry, "connection"),
            WireError::Tls(_) => (Stop, "tls"),
            WireError::Protocol(_) => (Retry, "protocol"),
            WireError::Settings(_) => (Stop, "settings"),
            WireError::NotUtf8(_) => (Stop, "encoding"),
            WireError::Authentication(_) => (Stop, "authentication"),
            WireError::Server(error) => match error.code.as_str() {
                "28P01" | "28000" => (Stop, "authentication"),
                "3D000" => (Stop, "connection"),
                "42501" => (Stop, "privileges"),
                // The server can't write a text in our encoding.
                "22021" | "22P05" => (Stop, "encoding"),
                "08P01" if error.message.contains("startup parameter") => (Stop, "pooler"),
                // A slot that somebody else holds, often our own connection of before, which the server still believes in.
                "55006" => (Retry, "slot-in-use"),
                "58P01" => (Repair, "slot-lost"),
                "55000" if error.message.contains("slot") => (Repair, "slot-lost"),
                "42704" if error.message.contains("publication") => (Stop, "publication"),
                "42704" if error.message.contains("replication slot") => (Repair, "slot-lost"),
                // Not yet up, on its way down, out of connections.
                code if code.starts_with("57P") || code.starts_with("53") || code.starts_with("08") => {
                    (Retry, "connection")
                }
                _ => (Retry, "database"),
            },
        };
        let mut message = match &self {
            WireError::Io(error) => format!("could not {doing}: {error}"),
            other => format!("could not {doing}: {other}"),
        };
        if code == "pooler" {
            message.push_str(
                "; there is a pooler before the database, which takes no settings: let the url name the database itself",
            );
        }
        FeedError { remedy, code, message, source: Some(Box::new(self)) }
    }
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Stream {
    fn socket(&self) -> &TcpStream {
        match self {
            Stream::Plain(socket) => socket,
            Stream::Tls(stream) => &stream.sock,
        }
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Plain(socket) => socket.read(buffer),
            Stream::Tls(stream) => stream.read(buffer),
        }
    }

    fn write_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let written = match self {
                Stream::Plain(socket) => socket.write(bytes),
                Stream::Tls(stream) => stream.write(bytes),
            };
            match written {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => bytes = &bytes[count..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // A replication socket does not block by itself.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.wait_to_write()?,
                Err(error) => return Err(error),
            }
        }
        loop {
            let flushed = match self {
                Stream::Plain(_) => return Ok(()),
                Stream::Tls(stream) => stream.flush(),
            };
            match flushed {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.wait_to_write()?,
                other => return other,
            }
        }
    }

    fn wait_to_write(&self) -> io::Result<()> {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let mut fds = [PollFd::from_borrowed_fd(self.socket().as_fd(), PollFlags::OUT)];
        let patience = Timespec { tv_sec: 30, tv_nsec: 0 };
        match poll(&mut fds, Some(&patience)) {
            Ok(0) => Err(io::ErrorKind::TimedOut.into()),
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// Ends a connection from another thread: whoever waits in it gets an error at once.
#[derive(Debug)]
pub(super) struct Closer {
    socket: TcpStream,
    /// The connection, as long as it is there.
    connection: Weak<()>,
}

impl Closer {
    pub(super) fn close(&self) {
        // A connection that is already gone is as closed as it can be.
        let _ = self.socket.shutdown(Shutdown::Both);
    }

    /// Whether the connection is still there.
    pub(super) fn is_needed(&self) -> bool {
        self.connection.strong_count() > 0
    }
}

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    Sql,
    Replication,
}

/// One row of an answer: a text or null for each column.
pub(super) type Row = Vec<Option<String>>;

/// One connection.
pub(super) struct Connection {
    stream: Stream,
    /// What was received: `start..end` of it is not yet taken.
    input: Vec<u8>,
    start: usize,
    end: usize,
    output: BytesMut,
    server_version: String,
    server_encoding: String,
    /// What closers know it by.
    alive: Arc<()>,
}

/// One message of the server: its letter, and where its body is in the input.
pub(super) type Frame = (u8, Range<usize>);

impl Connection {
    /// Connects and logs in.
    pub(super) fn open(address: &Address, purpose: Purpose) -> Result<Connection, WireError> {
        let stream = dial(address)?;
        // The replication stream is read in large pieces; a larger buffer than the server's bursts gains nothing.
        let input = vec![0; if purpose == Purpose::Replication { 512 << 10 } else { 64 << 10 }];
        let mut connection = Connection {
            stream,
            input,
            start: 0,
            end: 0,
            output: BytesMut::new(),
            server_version: String::new(),
            server_encoding: String::new(),
            alive: Arc::default(),
        };
        connection.log_in(address, purpose)?;
        connection.settle()?;
        connection.stream.socket().set_read_timeout(None)?;
        Ok(connection)
    }

    /// The server's version: 15 of 15.3.
    pub(super) fn major_version(&self) -> u32 {
        let digits: String = self.server_version.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().unwrap_or(0)
    }

    /// The server's version as it says.
    pub(super) fn server_version(&self) -> &str {
        &self.server_version
    }

    /// Whether the database's texts are in the encoding in which we get them.
    pub(super) fn writes_utf8(&self) -> bool {
        self.server_encoding == "UTF8"
    }

    /// Ends this connection from elsewhere.
    pub(super) fn closer(&self) -> io::Result<Closer> {
        let socket = self.stream.socket().try_clone()?;
        Ok(Closer { socket, connection: Arc::downgrade(&self.alive) })
    }

    fn log_in(&mut self, address: &Address, purpose: Purpose) -> Result<(), WireError> {
        let mut parameters =
            vec![("user", address.user.as_str()), ("database", &address.database), ("application_name", "cdc")];
        parameters.extend(SETTINGS);
        if purpose == Purpose::Replication {
            parameters.push(("replication", "database"));
        }
        frontend::startup_message(parameters, &mut self.output)?;
        self.send()?;
        let password = address.password.as_bytes();
        let mut scram: Option<ScramSha256> = None;
        loop {
            let (tag, body) = self.receive()?;
            let body = &self.input[body];
            match tag {
                b'R' => {
                    let kind = body.first_chunk().map(|bytes| i32::from_be_bytes(*bytes));
                    let rest = body.get(4..).unwrap_or_default();
                    match kind.ok_or(WireError::Protocol("a short authentication request"))? {
                        0 => continue,
                        3 => frontend::password_message(password, &mut self.output)?,
                        5 => {
                            let salt = *rest.first_chunk().ok_or(WireError::Protocol("a short salt"))?;
                            let hash = md5_hash(address.user.as_bytes(), password, salt);
                            frontend::password_message(hash.as_bytes(), &mut self.output)?;
                        }
                        10 => {
                            let offered = String::from_utf8_lossy(rest);
                            if !offered.split('\0').any(|mechanism| mechanism == SCRAM_SHA_256) {
                                return Err(WireError::Authentication(offered.replace('\0', " ")));
                            }
                            let session = scram.insert(ScramSha256::new(password, ChannelBinding::unsupported()));
                            frontend::sasl_initial_response(SCRAM_SHA_256, session.message(), &mut self.output)?;
                        }
                        11 => {
                            let session = scram.as_mut().ok_or(WireError::Protocol("SCRAM out of order"))?;
                            session.update(rest)?;
                            frontend::sasl_response(session.message(), &mut self.output)?;
                        }
                        12 => {
                            let session = scram.as_mut().ok_or(WireError::Protocol("SCRAM out of order"))?;
                            session.finish(rest)?;
                            continue;
                        }
                        other => return Err(WireError::Authentication(format!("method {other}"))),
                    }
                    self.send()?;
                }
                b'S' => {
                    let mut texts = body.split(|&byte| byte == 0);
                    let kept = match texts.next() {
                        Some(b"server_version") => &mut self.server_version,
                        Some(b"server_encoding") => &mut self.server_encoding,
                        _ => continue,
                    };
                    *kept = String::from_utf8_lossy(texts.next().unwrap_or_default()).into_owned();
                }
                b'E' => return Err(server_error(body)),
                b'Z' => return Ok(()),
                _ => {}
            }
        }
    }

    /// Makes those settings that not every server knows, and sees to it that all are as they were asked for. Texts of a
    /// database that takes any bytes come as they are, so that one that is no UTF-8 is a matter of its row.
    fn settle(&mut self) -> Result<(), WireError> {
        let version = self.major_version();
        let mut wanted: Vec<(&str, &str)> = SETTINGS.to_vec();
        let mut sql = String::new();
        if self.server_encoding == ANY_BYTES {
            wanted.retain(|(name, _)| *name != "client_encoding");
            wanted.push(("client_encoding", ANY_BYTES));
            sql.push_str(&format!("SET client_encoding = '{ANY_BYTES}'; "));
        }
        for (since, name, value) in LATER_SETTINGS {
            if version >= since {
                wanted.push((name, value));
                sql.push_str(&format!("SET {name} = '{value}'; "));
            }
        }
        let names: Vec<String> = wanted.iter().map(|(name, _)| format!("current_setting('{name}')")).collect();
        sql.push_str(&format!("SELECT {}", names.join(", ")));
        let row = self.query(&sql)?.pop().unwrap_or_default();
        for ((name, value), found) in wanted.iter().zip(row) {
            let found = found.unwrap_or_default();
            // `ISO, MDY`
            if found.split(',').next() != Some(value) {
                return Err(WireError::Settings(format!(
                    "the setting {name} is {found}, and was to be {value}: there is a pooler before the database, which \
                     ignores settings; let the url name the database itself"
                )));
            }
        }
        Ok(())
    }

    /// Runs SQL and gives the rows of its last statement that has any.
    pub(super) fn query(&mut self, sql: &str) -> Result<Vec<Row>, WireError> {
        frontend::query(sql, &mut self.output)?;
        self.send()?;
        let mut rows = Vec::new();
        let mut failed = None;
        loop {
            let (tag, body) = self.receive()?;
            let body = &self.input[body];
            match tag {
                b'T' => rows.clear(),
                b'D' => rows.push(row(body)?),
                b'E' => failed = Some(server_error(body)),
                b'G' | b'H' | b'W' => return Err(WireError::Protocol("an unexpected COPY")),
                b'Z' => return failed.map_or(Ok(rows), Err),
                _ => {}
            }
        }
    }

    /// Begins a COPY … TO STDOUT, whose lines [`Connection::copied`] gives.
    pub(super) fn copy_out(&mut self, sql: &str) -> Result<(), WireError> {
        frontend::query(sql, &mut self.output)?;
        self.send()?;
        loop {
            let (tag, body) = self.receive()?;
            match tag {
                b'H' => return Ok(()),
                b'E' => {
                    let error = server_error(&self.input[body]);
                    self.until_ready()?;
                    return Err(error);
                }
                b'Z' => return Err(WireError::Protocol("no COPY")),
                _ => {}
            }
        }
    }

    /// The next line of the COPY, with its line feed; None at its end.
    pub(super) fn copied(&mut self) -> Result<Option<&[u8]>, WireError> {
        loop {
            let (tag, body) = self.receive()?;
            match tag {
                b'd' => return Ok(Some(&self.input[body])),
                b'E' => {
                    let error = server_error(&self.input[body]);
                    self.until_ready()?;
                    return Err(error);
                }
                b'Z' => return Ok(None),
                _ => {}
            }
        }
    }

    /// Begins the replication stream. From here on the connection no longer blocks.
    pub(super) fn start_replication(&mut self, sql: &str) -> Result<(), WireError> {
        frontend::query(sql, &mut self.output)?;
        self.send()?;
        loop {
            let (tag, body) = self.receive()?;
            match tag {
                b'W' => {
                    let socket = self.stream.socket();
                    if socket.peer_addr().is_ok_and(|peer| peer.ip().is_loopback()) {
                        rustix::net::sockopt::set_socket_recv_buffer_size(socket, NEARBY_WINDOW_BYTES)
                            .map_err(io::Error::from)?;
                    }
                    self.stream.socket().set_nonblocking(true)?;
                    return Ok(());
                }
                b'E' => {
                    let error = server_error(&self.input[body]);
                    self.until_ready()?;
                    return Err(error);
                }
                b'Z' => return Err(WireError::Protocol("no replication stream")),
                _ => {}
            }
        }
    }

    fn until_ready(&mut self) -> Result<(), WireError> {
        while self.receive()?.0 != b'Z' {}
        Ok(())
    }

    /// Sends a message of the replication stream (CopyData).
    pub(super) fn send_data(&mut self, data: &[u8]) -> Result<(), WireError> {
        self.output.extend_from_slice(b"d");
        let length = u32::try_from(data.len() + 4).map_err(|_| WireError::Protocol("too long a message to send"))?;
        self.output.extend_from_slice(&length.to_be_bytes());
        self.output.extend_from_slice(data);
        self.send()
    }

    /// Says good-bye. What goes wrong with that changes nothing.
    pub(super) fn terminate(&mut self, streaming: bool) {
        if streaming {
            frontend::copy_done(&mut self.output);
        }
        frontend::terminate(&mut self.output);
        let _ = self.send();
        let _ = self.stream.socket().shutdown(Shutdown::Write);
    }

    fn send(&mut self) -> Result<(), WireError> {
        let sent = self.stream.write_all(&self.output);
        self.output.clear();
        Ok(sent?)
    }

    /// The bytes of a frame's body.
    pub(super) fn bytes(&self, body: Range<usize>) -> &[u8] {
        &self.input[body]
    }

    /// The next message that has been received whole.
    pub(super) fn frame(&mut self) -> Result<Option<Frame>, WireError> {
        let waiting = &self.input[self.start..self.end];
        let Some(head) = waiting.first_chunk::<5>() else { return Ok(None) };
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
        if !(4..=MAX_FRAME_BYTES).contains(&length) {
            return Err(WireError::Protocol("a message of an impossible length"));
        }
        if waiting.len() < length + 1 {
            return Ok(None);
        }
        let body = self.start + 5..self.start + 1 + length;
        self.start = body.end;
        Ok(Some((head[0], body)))
    }

    /// Waits for the next message. Notices are passed over.
    fn receive(&mut self) -> Result<Frame, WireError> {
        loop {
            if let Some(frame) = self.frame()? {
                if frame.0 != b'N' {
                    return Ok(frame);
                }
                continue;
            }
            self.fill()?;
        }
    }

    /// Reads once. How many bytes there were, and whether they filled all the room. Voids the frames taken before.
    pub(super) fn fill(&mut self) -> io::Result<(usize, bool)> {
        self.make_room();
        loop {
            match self.stream.read(&mut self.input[self.end..]) {
                Ok(0) => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed the connection")),
                Ok(count) => {
                    self.end += count;
                    return Ok((count, self.end == self.input.len()));
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn make_room(&mut self) {
        if self.start > 0 {
            self.input.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        // A frame that begins and does not fit is known by its length.
        let needed = match self.input[..self.end].first_chunk::<5>() {
            Some(head) => u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize + 1,
            None => 0,
        };
        let usual = 512 << 10;
        if needed > self.input.len() {
            // Grows as the bytes come, so that a length alone allocates nothing.
            let grown = needed.min((self.end * 2).max(usual));
            if grown > self.input.len() {
                self.input.resize(grown, 0);
            }
        } else if self.input.len() > usual && self.end < usual / 2 {
            self.input.truncate(usual);
            self.input.shrink_to_fit();
        }
    }

    /// How many bytes wait in the socket.
    pub(super) fn waiting_bytes(&self) -> u64 {
        rustix::io::ioctl_fionread(self.stream.socket()).unwrap_or(0)
    }

    /// The socket, to wait on.
    pub(super) fn socket(&self) -> &TcpStream {
        self.stream.socket()
    }
}

fn dial(address: &Address) -> Result<Stream, WireError> {
    let mut failure = io::Error::new(io::ErrorKind::NotFound, format!("the host {} has no address", address.host));
    let mut connected = None;
    for place in (address.host.as_str(), address.port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&place, address.connect_timeout) {
            Ok(socket) => {
                connected = Some(socket);
                break;
            }
            Err(error) => failure = error,
        }
    }
    let mut socket = connected.ok_or(failure)?;
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(address.connect_timeout))?;
    // A server that vanished without a word is noticed after a minute, also where nobody waits for an answer.
    rustix::net::sockopt::set_socket_keepalive(&socket, true).map_err(io::Error::from)?;
    rustix::net::sockopt::set_tcp_keepidle(&socket, Duration::from_secs(30)).map_err(io::Error::from)?;
    rustix::net::sockopt::set_tcp_keepintvl(&socket, Duration::from_secs(10)).map_err(io::Error::from)?;
    rustix::net::sockopt::set_tcp_keepcnt(&socket, 3).map_err(io::Error::from)?;
    if address.ssl_mode == SslMode::Disable {
        return Ok(Stream::Plain(socket));
    }
    let mut request = BytesMut::new();
    frontend::ssl_request(&mut request);
    socket.write_all(&request)?;
    // One byte and no more: what follows belongs to TLS.
    let mut answer = [0];
    socket.read_exact(&mut answer)?;
    match (answer[0], address.ssl_mode) {
        (b'S', _) => {
            let name = ServerName::try_from(address.host.clone())
                .map_err(|_| WireError::Tls(format!("{} is no name for a certificate", address.host)))?;
            let session = ClientConnection::new(tls::config(address)?, name)
                .map_err(|error| WireError::Tls(error.to_string()))?;
            let mut stream = StreamOwned::new(session, socket);
            while stream.conn.is_handshaking() {
                stream.conn.complete_io(&mut stream.sock).map_err(|error| match error.kind() {
                    io::ErrorKind::InvalidData => WireError::Tls(format!("TLS with {} failed: {error}", address.host)),
                    _ => WireError::Io(error),
                })?;
            }
            Ok(Stream::Tls(Box::new(stream)))
        }
        (_, SslMode::Prefer) => Ok(Stream::Plain(socket)),
        _ => Err(WireError::Tls(format!("the server at {} does not offer TLS (ssl is off)", address.host))),
    }
}

fn row(body: &[u8]) -> Result<Row, WireError> {
    const SHORT: WireError = WireError::Protocol("a short row");
    let (count, mut rest) = body.split_first_chunk::<2>().ok_or(SHORT)?;
    let mut row = Row::with_capacity(u16::from_be_bytes(*count).into());
    for _ in 0..u16::from_be_bytes(*count) {
        let (length, after) = rest.split_first_chunk::<4>().ok_or(SHORT)?;
        rest = after;
        let Ok(length) = usize::try_from(i32::from_be_bytes(*length)) else {
            row.push(None);
            continue;
        };
        let (value, after) = rest.split_at_checked(length).ok_or(SHORT)?;
        rest = after;
        row.push(Some(String::from_utf8_lossy(value).into_owned()));
    }
    Ok(row)
}

fn server_error(body: &[u8]) -> WireError {
    let mut error = ServerError::default();
    for field in body.split(|&byte| byte == 0) {
        let Some((&kind, text)) = field.split_first() else { continue };
        let text = || String::from_utf8_lossy(text).into_owned();
        match kind {
            b'C' => error.code = text(),
            b'M' => error.message = text(),
            b'D' => error.detail = text(),
            b'H' => error.hint = text(),
            _ => {}
        }
    }
    WireError::Server(Box::new(error))
}

/// The error that a message of the replication stream carries.
pub(super) fn stream_error(body: &[u8]) -> WireError {
    server_error(body)
}

/// A text as an SQL literal.
pub(super) fn literal(text: &str) -> String {
    // With E'' so that a backslash means the same whatever standard_conforming_strings is.
    format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

/// A name as an SQL identifier.
pub(super) fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn names_and_texts_are_quoted() {
        assert_eq!(identifier("a\"b"), "\"a\"\"b\"");
        assert_eq!(literal("a'b\\c"), "E'a''b\\\\c'");
    }

    #[test]
    fn an_error_keeps_what_helps_a_person() {
        let error = server_error(b"SFATAL\0C28P01\0Mpassword authentication failed\0Htry again\0\0");
        assert_eq!(error.code(), Some("28P01"));
        let feed = error.into_feed("connect");
        assert_eq!((feed.remedy, feed.code), (Remedy::Stop, "authentication"));
        assert_eq!(feed.message, "could not connect: password authentication failed (28P01); try again");
    }

    #[test]
    fn a_pooler_that_takes_no_settings_is_refused_by_name() {
        let error =
            server_error(b"SFATAL\0C08P01\0Munsupported startup parameter: row_security\0\0").into_feed("connect");
        assert_eq!((error.remedy, error.code), (Remedy::Stop, "pooler"));
        assert!(error.message.contains("the database itself"), "{}", error.message);
    }

    #[test]
    fn a_row_that_ends_early_is_an_error() {
        assert_eq!(row(b"\0\x02\xff\xff\xff\xff\0\0\0\x01a").unwrap(), [None, Some("a".into())]);
        assert!(row(b"\0\x01\0\0\0\x05ab").is_err());
        assert!(row(b"\0").is_err());
    }
}
