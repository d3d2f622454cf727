//! Getting in: addresses as libpq reads them, and TLS by rustls.

use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use cdc_access::Reach;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::tls::{ChannelBinding, NoTls, TlsConnect, TlsStream};
use tokio_postgres::{Client, Config};
use tokio_rustls::rustls::ClientConfig;

use super::failure::PostgresFailure;
use crate::connection::{self, ConnectError};

/// An address, taken apart.
pub(super) struct Address {
    pub(super) config: Config,
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) ca_file: Option<PathBuf>,
}

impl Address {
    /// Takes an address apart. The error reads on after the member's name, and does not quote it.
    pub(super) fn parse(url: &str) -> Result<Self, &'static str> {
        const FORM: &str = "must be postgres://user[:password]@host[:port]/database";
        if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
            return Err("must begin with postgres://");
        }
        let (address, query) = url.split_once('?').unwrap_or((url, ""));
        let mut ssl_mode = SslMode::Disable;
        let is_unsaid = !query.contains("sslmode=");
        let mut ca_file = None;
        let mut rest = Vec::new();
        for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
            match parameter.split_once('=').unwrap_or((parameter, "")) {
                ("sslmode", "disable") => ssl_mode = SslMode::Disable,
                // All of these verify, `require` too: what is encrypted for anybody is encrypted for nobody.
                ("sslmode", "require" | "verify-ca" | "verify-full") => ssl_mode = SslMode::Require,
                ("sslmode", _) => {
                    return Err("has an `sslmode` other than disable, require, verify-ca and verify-full");
                }
                ("sslrootcert", file) => {
                    let file = percent_encoding::percent_decode_str(file).decode_utf8().map_err(|_| FORM)?;
                    ca_file = Some(PathBuf::from(file.as_ref()));
                }
                _ => rest.push(parameter),
            }
        }
        let mut config: Config = format!("{address}?{}", rest.join("&")).parse().map_err(|_| FORM)?;
        if is_unsaid && ca_file.is_some() {
            ssl_mode = SslMode::Require;
        }
        config.ssl_mode(ssl_mode);
        let [Host::Tcp(host)] = config.get_hosts() else { return Err("must name one host") };
        let host = host.clone();
        if config.get_user().is_none() {
            return Err("names no user");
        }
        let port = config.get_ports().first().copied().unwrap_or(5432);
        Ok(Self { config, host, port, ca_file })
    }

    /// Logs in. The task drives the connection until the client is dropped.
    pub(super) async fn log_in(
        &self,
        ca_file: Option<&Path>,
        reach: &Reach,
    ) -> Result<(Client, JoinHandle<()>), PostgresFailure> {
        let stream = connection::tcp(&self.host, self.port, reach).await?;
        if self.config.get_ssl_mode() == SslMode::Disable && ca_file.is_none() {
            let (client, connection) = self.config.connect_raw(stream, NoTls).await?;
            return Ok((client, tokio::spawn(async move { drop(connection.await) })));
        }
        let tls = connection::tls(ca_file.or(self.ca_file.as_deref()), reach)?;
        let mut config = self.config.clone();
        config.ssl_mode(SslMode::Require);
        let secure = Secure { config: tls, host: self.host.clone(), port: self.port };
        let (client, connection) = config.connect_raw(stream, secure).await?;
        Ok((client, tokio::spawn(async move { drop(connection.await) })))
    }
}

/// How `tokio-postgres` gets its TLS.
struct Secure {
    config: Arc<ClientConfig>,
    host: String,
    port: u16,
}

impl TlsConnect<TcpStream> for Secure {
    type Stream = Secured;
    type Error = ConnectError;
    type Future = Pin<Box<dyn Future<Output = Result<Secured, ConnectError>> + Send>>;

    fn connect(self, stream: TcpStream) -> Self::Future {
        Box::pin(async move { connection::secure(stream, &self.host, self.port, self.config).await.map(Secured) })
    }
}

/// A TLS connection. Channel binding is not offered: the certificate is verified by its name.
struct Secured(tokio_rustls::client::TlsStream<TcpStream>);

impl TlsStream for Secured {
    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::none()
    }
}

impl AsyncRead for Secured {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Secured {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
