//! Connections to receivers: TCP, and TLS by rustls with the certificates that the options name.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use cdc_access::{FileError, Reach};
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
    /// The name leads to an address that whoever defined the sink may not reach.
    #[error(
        "{host} leads to {address}, which a sink that was defined over the API may not reach: the option \
         allowed-addresses names such addresses, or the sink is defined in the configuration"
    )]
    Forbidden { host: String, address: IpAddr },
    /// The certificates to trust cannot be read.
    #[error("`caFile`: {0}")]
    CaFile(#[from] FileError),
    /// What is there is no PEM. It is not quoted, since it may be anything.
    #[error("`caFile` {file} is not PEM", file = .file.display())]
    NotPem { file: PathBuf },
    /// There are none.
    #[error("`caFile` {file} has no certificate in it", file = .file.display())]
    NoCertificate { file: PathBuf },
    /// TLS cannot be set up at all.
    #[error("TLS cannot be set up: {0}")]
    Setup(#[from] tokio_rustls::rustls::Error),
}

/// TLS with the certificates of a file, or with the public ones.
pub(crate) fn tls(ca_file: Option<&Path>, reach: &Reach) -> Result<Arc<ClientConfig>, ConnectError> {
    let mut roots = RootCertStore::empty();
    match ca_file {
        Some(file) => {
            for certificate in CertificateDer::pem_slice_iter(&reach.read_file(file)?) {
                roots.add(certificate.map_err(|_| ConnectError::NotPem { file: file.to_owned() })?)?;
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

/// Looks a name up: the addresses of it that may be reached, at least one.
pub(crate) async fn addresses(host: &str, port: u16, reach: &Reach) -> Result<Vec<SocketAddr>, ConnectError> {
    let unreachable = |source| ConnectError::Unreachable { host: host.to_owned(), port, source };
    let mut found: Vec<SocketAddr> = tokio::net::lookup_host((host, port)).await.map_err(unreachable)?.collect();
    let first = found.first().map(SocketAddr::ip);
    found.retain(|address| reach.admits(address.ip()));
    match (first, found.is_empty()) {
        (Some(address), true) => Err(ConnectError::Forbidden { host: host.to_owned(), address }),
        (None, _) => Err(unreachable(io::Error::new(io::ErrorKind::NotFound, "the name leads to no address"))),
        (Some(_), false) => Ok(found),
    }
}

/// Connects by TCP, to an address that was looked at: a name that answers differently the next time gains nothing.
pub(crate) async fn tcp(host: &str, port: u16, reach: &Reach) -> Result<TcpStream, ConnectError> {
    let unreachable = |source| ConnectError::Unreachable { host: host.to_owned(), port, source };
    let addresses = addresses(host, port, reach).await?;
    let stream = TcpStream::connect(addresses.as_slice()).await.map_err(unreachable)?;
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
    reach: &Reach,
) -> Result<Stream, ConnectError> {
    if !is_tls {
        return Ok(Box::pin(tcp(host, port, reach).await?));
    }
    let config = tls(ca_file, reach)?;
    let stream = tcp(host, port, reach).await?;
    Ok(Box::pin(secure(stream, host, port, config).await?))
}

/// Waits for an operation, but not longer than the option `timeoutMs` allows; none if that was not enough.
pub(crate) async fn within<T>(timeout_ms: u32, operation: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(Duration::from_millis(u64::from(timeout_ms)), operation).await.ok()
}
