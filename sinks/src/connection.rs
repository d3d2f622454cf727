//! Connections to receivers: TCP, and TLS by rustls with the certificates that the options name.

use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// A connection of either kind.
pub(crate) trait Transport: AsyncRead + AsyncWrite + Send {}

impl<T: AsyncRead + AsyncWrite + Send> Transport for T {}

/// A connection of either kind.
pub(crate) type Stream = Pin<Box<dyn Transport>>;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    /// The name leads nowhere, nobody listens there, or the network is down.
    #[error("no connection to {host}:{port}: {source}")]
    Unreachable { host: String, port: u16, source: io::Error },
    /// Its certificate is not trusted, or it does not speak TLS.
    #[error("no TLS connection to {host}:{port}: {source}")]
    Tls { host: String, port: u16, source: io::Error },
    /// The certificates to trust cannot be read.
    #[error("`caFile` {file} cannot be read: {source}", file = .file.display())]
    CaFile { file: PathBuf, source: tokio_rustls::rustls::pki_types::pem::Error },
    /// There are none.
    #[error("`caFile` {file} has no certificate in it", file = .file.display())]
    NoCertificate { file: PathBuf },
    /// TLS cannot be set up at all.
    #[error("TLS cannot be set up: {0}")]
    Setup(#[from] tokio_rustls::rustls::Error),
}

/// TLS with the certificates of a file, or with the public ones.
pub(crate) fn tls(ca_file: Option<&Path>) -> Result<Arc<ClientConfig>, ConnectError> {
    let mut roots = RootCertStore::empty();
    match ca_file {
        Some(file) => {
            let unreadable = |source| ConnectError::CaFile { file: file.to_owned(), source };
            for certificate in CertificateDer::pem_file_iter(file).map_err(unreadable)? {
                roots.add(certificate.map_err(unreadable)?)?;
            }
            if roots.is_empty() {
                return Err(ConnectError::NoCertificate { file: file.to_owned() });
            }
        }
        None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
    }
    // Named, because a process may hold more than one provider.
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// Connects by TCP.
pub(crate) async fn tcp(host: &str, port: u16) -> Result<TcpStream, ConnectError> {
    let unreachable = |source| ConnectError::Unreachable { host: host.to_owned(), port, source };
    let stream = TcpStream::connect((host, port)).await.map_err(unreachable)?;
    stream.set_nodelay(true).map_err(unreachable)?;
    Ok(stream)
}

/// Wraps a connection into TLS.
pub(crate) async fn secure<S>(
    stream: S,
    host: &str,
    port: u16,
    config: Arc<ClientConfig>,
) -> Result<tokio_rustls::client::TlsStream<S>, ConnectError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let failed = |source| ConnectError::Tls { host: host.to_owned(), port, source };
    let name = ServerName::try_from(host.to_owned())
        .map_err(|error| failed(io::Error::new(io::ErrorKind::InvalidInput, error)))?;
    TlsConnector::from(config).connect(name, stream).await.map_err(failed)
}

/// Connects, with TLS if it is asked for.
pub(crate) async fn connect(
    host: &str,
    port: u16,
    is_tls: bool,
    ca_file: Option<&Path>,
) -> Result<Stream, ConnectError> {
    if !is_tls {
        return Ok(Box::pin(tcp(host, port).await?));
    }
    let config = tls(ca_file)?;
    let stream = tcp(host, port).await?;
    Ok(Box::pin(secure(stream, host, port, config).await?))
}

/// Waits for an operation, but not longer than the option `timeoutMs` allows; none if that was not enough.
pub(crate) async fn within<T>(timeout_ms: u32, operation: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(Duration::from_millis(u64::from(timeout_ms)), operation).await.ok()
}
