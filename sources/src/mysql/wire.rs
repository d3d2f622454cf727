//! A connection to the server for its log alone: packets over a socket, with or without TLS, and the way in.
//!
//! Source: MySQL's documentation of its source, "Client/Server Protocol" (connection phase, `COM_REGISTER_SLAVE`,
//! `COM_BINLOG_DUMP`, `COM_BINLOG_DUMP_GTID`). It is apart from the connections for queries because their library reads
//! logs by itself, and unpacks a compressed transaction with whatever size it claims, passes over one that can't be
//! unpacked, and asks only for identifiers without tags.
//!
//! Passwords are proven as `mysql_native_password` and `caching_sha2_password` want it, as on the other connections.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use mysql_async::consts::CapabilityFlags;
use mysql_async::{Error, IoError, ServerError};
use mysql_common::crypto::encrypt;
use mysql_common::io::ParseBuf;
use mysql_common::packets::{AuthPlugin, AuthSwitchRequest, HandshakePacket, HandshakeResponse, SslRequest};
use mysql_common::proto::MySerialize;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::address::{Address, SslMode};
use crate::tls::{Trust, client_config};

/// How long the server may take to let us in, and to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

/// The longest packet that servers send: an event of 1 GiB, and some around it.
const PACKET_MAX: usize = (1 << 30) + (1 << 20);

/// A packet of this length is followed by the rest of it.
const FRAME_MAX: usize = 0xff_ffff;

const READ_BYTES: usize = 64 << 10;

/// `utf8mb4_general_ci`, which every server has.
const COLLATION: u8 = 45;

/// A connection, logged in.
pub(super) struct Wire {
    socket: Socket,
    buffer: BytesMut,
    /// The part of a long packet that has come.
    long: BytesMut,
    /// The number that the next packet must have.
    sequence: u8,
}

/// Why there is no packet.
#[derive(Debug)]
pub(super) enum PacketError {
    Broken(Error),
    /// Longer than anything that a server sends.
    TooLong,
}

enum Socket {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Wire {
    pub(super) async fn open(address: &Address) -> Result<Wire, Error> {
        timeout(ANSWER_TIMEOUT, Wire::enter(address)).await.unwrap_or_else(|_| Err(late()))
    }

    async fn enter(address: &Address) -> Result<Wire, Error> {
        let socket = TcpStream::connect((address.host.as_str(), address.port)).await.map_err(broken)?;
        socket.set_nodelay(true).map_err(broken)?;
        rustix::net::sockopt::set_socket_keepalive(&socket, true).map_err(|error| broken(error.into()))?;
        let mut wire =
            Wire { socket: Socket::Plain(socket), buffer: BytesMut::new(), long: BytesMut::new(), sequence: 0 };
        let packet = wire.answer().await?;
        let hello: HandshakePacket<'_> = ParseBuf(&packet).parse(()).map_err(broken)?;
        let mut capabilities = CapabilityFlags::CLIENT_PROTOCOL_41
            | CapabilityFlags::CLIENT_SECURE_CONNECTION
            | CapabilityFlags::CLIENT_LONG_PASSWORD
            | CapabilityFlags::CLIENT_PLUGIN_AUTH;
        let can_tls = hello.capabilities().contains(CapabilityFlags::CLIENT_SSL);
        let tls = match address.ssl_mode {
            SslMode::Disabled => false,
            SslMode::Preferred => can_tls,
            _ if can_tls => true,
            _ => return Err(mysql_async::DriverError::NoClientSslFlagFromServer.into()),
        };
        if tls {
            capabilities |= CapabilityFlags::CLIENT_SSL;
            wire.send(&SslRequest::new(capabilities, u32::MAX, COLLATION)).await?;
            wire = wire.encrypted(address).await?;
        }
        let mut nonce = [hello.scramble_1_ref(), hello.scramble_2_ref().unwrap_or_default()].concat();
        nonce.resize(20, 0);
        let plugin = match hello.auth_plugin() {
            Some(AuthPlugin::CachingSha2Password) => AuthPlugin::CachingSha2Password,
            _ => AuthPlugin::MysqlNativePassword,
        };
        let proof = plugin.gen_data(Some(&address.password), &nonce);
        let user = Some(address.user.as_bytes());
        let response = HandshakeResponse::new(
            proof.as_deref(),
            (8, 0, 0),
            user,
            None::<&[u8]>,
            Some(plugin),
            capabilities,
            None,
            u32::MAX,
        );
        wire.send(&response).await?;
        wire.authenticate(address, nonce).await?;
        Ok(wire)
    }

    async fn encrypted(self, address: &Address) -> Result<Wire, Error> {
        let trust = if address.ssl_mode == SslMode::VerifyIdentity { Trust::Name } else { Trust::Anybody };
        let invalid = |problem: String| broken(io::Error::new(io::ErrorKind::InvalidData, problem));
        let config = client_config(trust, address.ca_file.as_deref()).map_err(invalid)?;
        let name = address.certificate_name.as_ref().unwrap_or(&address.host);
        let name = ServerName::try_from(name.clone()).map_err(|error| invalid(error.to_string()))?;
        let Socket::Plain(socket) = self.socket else { return Ok(self) };
        let socket = TlsConnector::from(config).connect(name, socket).await.map_err(broken)?;
        Ok(Wire { socket: Socket::Tls(Box::new(socket)), ..self })
    }

    /// Goes on until the server lets us in.
    async fn authenticate(&mut self, address: &Address, mut nonce: Vec<u8>) -> Result<(), Error> {
        loop {
            let packet = self.answer().await?;
            match (packet.first(), packet.get(1)) {
                (Some(0), _) => return Ok(()),
                // Another way in, and what to mix the password with.
                (Some(0xfe), Some(_)) => {
                    let other: AuthSwitchRequest<'_> = ParseBuf(&packet).parse(()).map_err(broken)?;
                    let plugin = other.auth_plugin();
                    nonce = other.plugin_data().to_vec();
                    if !matches!(plugin, AuthPlugin::CachingSha2Password | AuthPlugin::MysqlNativePassword) {
                        let name = String::from_utf8_lossy(plugin.as_bytes()).into_owned();
                        return Err(mysql_async::DriverError::UnknownAuthPlugin { name }.into());
                    }
                    let proof = plugin.gen_data(Some(&address.password), &nonce);
                    self.write(proof.as_deref().unwrap_or_default()).await?;
                }
                // The server knows the proof, and says that it is all right in the next packet.
                (Some(1), Some(3)) => {}
                // The server does not, and wants the password itself: as it is where nobody else can read it.
                (Some(1), Some(4)) => {
                    let mut password = address.password.clone().into_bytes();
                    password.push(0);
                    if !matches!(self.socket, Socket::Tls(_)) {
                        self.write(&[2]).await?;
                        let key = self.answer().await?;
                        for (byte, mask) in password.iter_mut().zip(nonce.iter().cycle()) {
                            *byte ^= mask;
                        }
                        password = encrypt(&password, key.get(1..).unwrap_or_default());
                    }
                    self.write(&password).await?;
                }
                _ => return Err(unexpected(&packet)),
            }
        }
    }

    /// Runs a statement that answers nothing.
    pub(super) async fn run(&mut self, sql: &str) -> Result<(), Error> {
        self.command(&[&[3], sql.as_bytes()].concat()).await?;
        self.done().await
    }

    /// Sends a command, whose answer comes next.
    pub(super) async fn command(&mut self, command: &[u8]) -> Result<(), Error> {
        self.sequence = 0;
        self.write(command).await
    }

    /// Waits until a command is done.
    pub(super) async fn done(&mut self) -> Result<(), Error> {
        let packet = timeout(ANSWER_TIMEOUT, self.answer()).await.unwrap_or_else(|_| Err(late()))?;
        if packet.first() == Some(&0) { Ok(()) } else { Err(unexpected(&packet)) }
    }

    /// The next packet. An error of the server's is one here.
    async fn answer(&mut self) -> Result<Bytes, Error> {
        let ended = || broken(io::ErrorKind::UnexpectedEof.into());
        let packet = match self.packet().await {
            Ok(packet) => packet.ok_or_else(ended)?,
            Err(PacketError::Broken(error)) => return Err(error),
            Err(PacketError::TooLong) => return Err(unexpected(&[])),
        };
        refused(&packet)?;
        Ok(packet)
    }

    async fn send(&mut self, packet: &impl MySerialize) -> Result<(), Error> {
        let mut bytes = Vec::new();
        packet.serialize(&mut bytes);
        self.write(&bytes).await
    }

    async fn write(&mut self, packet: &[u8]) -> Result<(), Error> {
        let mut out = Vec::with_capacity(packet.len() + 4);
        let mut frames = packet.chunks(FRAME_MAX).peekable();
        loop {
            let frame = frames.next().unwrap_or_default();
            out.extend(&(frame.len() as u32).to_le_bytes()[..3]);
            out.push(self.sequence);
            self.sequence = self.sequence.wrapping_add(1);
            out.extend(frame);
            // One that is full is not the last, even if nothing comes after it.
            if frame.len() < FRAME_MAX {
                break;
            }
        }
        self.socket.write_all(&out).await.map_err(broken)?;
        self.socket.flush().await.map_err(broken)
    }

    /// The next packet as it is; None if the server has closed the connection. May be dropped while it waits; nothing is
    /// lost then.
    pub(super) async fn packet(&mut self) -> Result<Option<Bytes>, PacketError> {
        loop {
            if let Some(packet) = self.buffered()? {
                return Ok(Some(packet));
            }
            self.buffer.reserve(READ_BYTES);
            let read = self.socket.read_buf(&mut self.buffer).await;
            if read.map_err(|error| PacketError::Broken(broken(error)))? == 0 {
                let whole = self.buffer.is_empty() && self.long.is_empty();
                let cut = broken(io::ErrorKind::UnexpectedEof.into());
                return if whole { Ok(None) } else { Err(PacketError::Broken(cut)) };
            }
        }
    }

    /// A packet that has come already.
    fn buffered(&mut self) -> Result<Option<Bytes>, PacketError> {
        while let Some(head) = self.buffer.first_chunk::<4>() {
            let length = usize::from(head[0]) | usize::from(head[1]) << 8 | usize::from(head[2]) << 16;
            if self.long.len() + length > PACKET_MAX {
                return Err(PacketError::TooLong);
            }
            if self.buffer.len() < 4 + length {
                return Ok(None);
            }
            self.sequence = head[3].wrapping_add(1);
            self.buffer.advance(4);
            let frame = self.buffer.split_to(length);
            if length == FRAME_MAX {
                self.long.unsplit(frame);
            } else if self.long.is_empty() {
                return Ok(Some(frame.freeze()));
            } else {
                self.long.unsplit(frame);
                return Ok(Some(self.long.split().freeze()));
            }
        }
        Ok(None)
    }
}

/// An error that the server sent, if the packet is one: a code, perhaps `#` and a state of five characters, the message.
pub(super) fn refused(packet: &[u8]) -> Result<(), Error> {
    let [0xff, low, high, rest @ ..] = packet else { return Ok(()) };
    let (state, message) = match rest {
        [b'#', rest @ ..] if rest.len() >= 5 => rest.split_at(5),
        rest => (&b"HY000"[..], rest),
    };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let code = u16::from_le_bytes([*low, *high]);
    Err(Error::Server(ServerError { code, state: text(state), message: text(message) }))
}

fn broken(error: io::Error) -> Error {
    Error::Io(IoError::Io(error))
}

fn late() -> Error {
    broken(io::Error::new(io::ErrorKind::TimedOut, "the server does not answer"))
}

fn unexpected(packet: &[u8]) -> Error {
    mysql_async::DriverError::UnexpectedPacket { payload: packet[..packet.len().min(64)].to_vec() }.into()
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Socket::Plain(socket) => Pin::new(socket).poll_read(context, buffer),
            Socket::Tls(socket) => Pin::new(socket).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Socket::Plain(socket) => Pin::new(socket).poll_write(context, bytes),
            Socket::Tls(socket) => Pin::new(socket).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Socket::Plain(socket) => Pin::new(socket).poll_flush(context),
            Socket::Tls(socket) => Pin::new(socket).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Socket::Plain(socket) => Pin::new(socket).poll_shutdown(context),
            Socket::Tls(socket) => Pin::new(socket).poll_shutdown(context),
        }
    }
}
