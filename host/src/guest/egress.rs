//! HTTP requests of guests: to the origins that were granted, and to nobody's own addresses that were not named.
//!
//! The check stands where connections are made, on the very address that is connected to: a name that answers one
//! address to a check and another to the connection gains nothing. Redirects are not followed here; a guest that
//! follows one asks again, and is checked again.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use cdc_access::{Reach, is_public};
use http::Uri;
use http::uri::Scheme;
use http_body_util::{BodyExt, Full};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody, WasiHttpHooks};

/// A request's body up to this size is sent at once and with its length.
const GATHERED_BYTES: usize = 64 << 10;
/// Connections that are kept for the next request, of each origin.
const IDLE_CONNECTIONS: usize = 4;
/// How long they are kept.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// Where requests may go.
#[derive(Clone, Debug)]
pub struct HttpGrant {
    origins: BTreeSet<(bool, String, u16)>,
    addresses: BTreeSet<IpAddr>,
    names_loopback: bool,
    reach: Reach,
}

impl Default for HttpGrant {
    fn default() -> Self {
        let (origins, addresses) = Default::default();
        Self { origins, addresses, names_loopback: false, reach: Reach::of_operator() }
    }
}

impl HttpGrant {
    /// Origins as `scheme://host` or `scheme://host:port`; none for what is no such origin.
    ///
    /// An origin whose host is an address names that address; `localhost` names the loopback addresses. Addresses that
    /// are not public have to be named in one of these ways, also when a name leads to them.
    #[must_use]
    pub fn parse<'a>(origins: impl IntoIterator<Item = &'a str>) -> Option<Self> {
        let mut grant = Self::default();
        for origin in origins {
            let uri: Uri = origin.parse().ok()?;
            let target = Target::of(&uri)?;
            if let Some(address) = target.address() {
                grant.addresses.insert(address);
            }
            grant.names_loopback |= is_localhost(&target.host);
            grant.origins.insert((target.is_tls, target.host, target.port));
        }
        Some(grant)
    }

    /// The same, but for addresses that whoever made the grant may not name.
    #[must_use]
    pub fn within(self, reach: Reach) -> Self {
        Self { reach, ..self }
    }

    fn allows(&self, target: &Target) -> bool {
        self.origins.contains(&(target.is_tls, target.host.clone(), target.port))
    }

    fn allows_address(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        let is_named = self.addresses.contains(&address) || self.names_loopback && address.is_loopback();
        (is_public(address) || is_named) && self.reach.admits(address)
    }
}

fn is_localhost(host: &str) -> bool {
    // RFC 6761, section 6.3.
    host == "localhost" || host.ends_with(".localhost")
}

/// Scheme, host and port of a URI.
struct Target {
    is_tls: bool,
    host: String,
    port: u16,
}

impl Target {
    fn of(uri: &Uri) -> Option<Self> {
        let is_tls = match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTPS => true,
            Some(scheme) if *scheme == Scheme::HTTP => false,
            _ => return None,
        };
        let authority = uri.authority()?;
        if authority.as_str().contains('@') {
            return None;
        }
        let host = authority.host().trim_end_matches('.').to_ascii_lowercase();
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = authority.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        (!host.is_empty()).then_some(Self { is_tls, host, port })
    }

    fn address(&self) -> Option<IpAddr> {
        self.host.parse::<IpAddr>().ok().map(|address| address.to_canonical())
    }
}

/// Why a connection is not made.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("the name {host} cannot be resolved: {source}")]
    Name { host: String, source: io::Error },
    #[error(
        "{host} leads to {address}, which is not public and not named in the subscription's grants, or may not be named over the API (allowed-addresses)"
    )]
    Address { host: String, address: IpAddr },
    #[error("no connection to {host}: {source}")]
    Connect { host: String, source: io::Error },
    #[error("no secure connection to {host}: {source}")]
    Tls { host: String, source: io::Error },
    #[error("not an address of http or https")]
    Uri,
}

/// Makes the connections that the grant allows.
#[derive(Clone)]
struct Connector {
    grant: Arc<HttpGrant>,
}

impl tower_service::Service<Uri> for Connector {
    type Response = Link;
    type Error = Refused;
    type Future = Pin<Box<dyn Future<Output = Result<Link, Refused>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Refused>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let grant = self.grant.clone();
        Box::pin(async move { connect(&grant, &uri).await })
    }
}

async fn connect(grant: &HttpGrant, uri: &Uri) -> Result<Link, Refused> {
    let target = Target::of(uri).ok_or(Refused::Uri)?;
    let Target { is_tls, host, port } = &target;
    let found: Vec<SocketAddr> = match target.address() {
        Some(address) => vec![SocketAddr::new(address, *port)],
        None => {
            let found = tokio::net::lookup_host((host.as_str(), *port)).await;
            found.map_err(|source| Refused::Name { host: host.clone(), source })?.collect()
        }
    };
    let allowed = || found.iter().filter(|address| grant.allows_address(address.ip()));
    if allowed().next().is_none()
        && let Some(address) = found.first()
    {
        return Err(Refused::Address { host: host.clone(), address: address.ip() });
    }
    let mut failed = io::Error::new(io::ErrorKind::NotFound, "the name leads to no address");
    let mut stream = None;
    for address in allowed() {
        match TcpStream::connect(address).await {
            Ok(connected) => {
                stream = Some(connected);
                break;
            }
            Err(error) => failed = error,
        }
    }
    let stream = stream.ok_or_else(|| Refused::Connect { host: host.clone(), source: failed })?;
    // Batches are written whole: waiting for more to send would only add to them.
    let _ = stream.set_nodelay(true);
    if !is_tls {
        return Ok(Link::Plain(TokioIo::new(stream)));
    }
    let failed = |source| Refused::Tls { host: host.clone(), source };
    let name = ServerName::try_from(host.clone()).map_err(|error| failed(io::Error::other(error)))?;
    let stream = TlsConnector::from(tls()).connect(name, stream).await.map_err(failed)?;
    Ok(Link::Tls(Box::new(TokioIo::new(stream))))
}

fn tls() -> Arc<ClientConfig> {
    static CONFIG: OnceLock<Arc<ClientConfig>> = OnceLock::new();
    let config = CONFIG.get_or_init(|| {
        let roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.into() };
        Arc::new(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth())
    });
    config.clone()
}

/// A connection, plain or secure.
enum Link {
    Plain(TokioIo<TcpStream>),
    Tls(Box<TokioIo<TlsStream<TcpStream>>>),
}

impl Connection for Link {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl Read for Link {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl Write for Link {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

/// The requests of one instance. The last refusal is kept: a guest mostly sees a code only.
pub(super) struct Egress {
    grant: Arc<HttpGrant>,
    client: OnceLock<Client<Connector, WasiBody>>,
    in_flight: Arc<Semaphore>,
    timeout: Duration,
}

impl Egress {
    pub(super) fn new(grant: Arc<HttpGrant>, in_flight: usize, timeout: Duration) -> Self {
        Self { grant, client: OnceLock::new(), in_flight: Arc::new(Semaphore::new(in_flight)), timeout }
    }

    fn client(&self) -> Client<Connector, WasiBody> {
        let make = || {
            Client::builder(TokioExecutor::new())
                .pool_timer(TokioTimer::new())
                .pool_idle_timeout(IDLE_TIMEOUT)
                .pool_max_idle_per_host(IDLE_CONNECTIONS)
                .build(Connector { grant: self.grant.clone() })
        };
        self.client.get_or_init(make).clone()
    }
}

type Sent = Result<(http::Response<WasiBody>, Box<dyn Future<Output = Result<(), Error>> + Send>), Error>;

impl WasiHttpHooks for Egress {
    fn send_request(
        &mut self,
        request: http::Request<WasiBody>,
        options: Option<RequestOptions>,
        _processed: Box<dyn Future<Output = Result<(), Error>> + Send>,
    ) -> Box<dyn Future<Output = Sent> + Send> {
        let is_allowed = Target::of(request.uri()).is_some_and(|target| self.grant.allows(&target));
        let permit = self.in_flight.clone().try_acquire_owned();
        let client = self.client();
        let first_byte = options.and_then(|options| options.first_byte_timeout);
        let timeout = first_byte.unwrap_or(self.timeout).min(self.timeout);
        Box::new(async move {
            // First what the guest has to say, so that it is not cut off in the middle by an answer that comes early.
            let (head, body) = request.into_parts();
            let body =
                tokio::time::timeout(timeout, gather(body)).await.map_err(|_| Error::ConnectionWriteTimeout)??;
            let request = http::Request::from_parts(head, body);
            if !is_allowed {
                let to = request.uri().authority().map_or("nowhere", |authority| authority.as_str());
                tracing::debug!(to, "a request was refused: its origin is not granted");
                return Err(Error::HttpRequestDenied);
            }
            let permit = permit.map_err(|_| Error::ConnectionLimitReached)?;
            let answer = tokio::time::timeout(timeout, client.request(request));
            let answer = answer.await.map_err(|_| Error::HttpResponseTimeout)?.map_err(|error| code(&error))?;
            let answer = answer.map(|body| Counted { body, _permit: permit }.map_err(Error::Hyper).boxed_unsync());
            let done: Box<dyn Future<Output = Result<(), Error>> + Send> = Box::new(std::future::ready(Ok(())));
            Ok((answer, done))
        })
    }
}

/// Waits for a body, which then goes out with its length. One that is long, or has trailers, is sent as it comes after
/// its beginning.
async fn gather(mut body: WasiBody) -> Result<WasiBody, Error> {
    let mut gathered = bytes::BytesMut::new();
    while gathered.len() < GATHERED_BYTES {
        let Some(frame) = body.frame().await else {
            return Ok(Full::new(gathered.freeze()).map_err(|never| match never {}).boxed_unsync());
        };
        match frame?.into_data() {
            Ok(data) => gathered.extend_from_slice(&data),
            // Trailers end a body; nobody would look at them.
            Err(_trailers) => {
                return Ok(Full::new(gathered.freeze()).map_err(|never| match never {}).boxed_unsync());
            }
        }
    }
    Ok(Resumed { beginning: Some(gathered.freeze()), rest: body }.boxed_unsync())
}

/// A body whose beginning was read already.
struct Resumed {
    beginning: Option<bytes::Bytes>,
    rest: WasiBody,
}

impl http_body::Body for Resumed {
    type Data = bytes::Bytes;
    type Error = Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<bytes::Bytes>, Error>>> {
        let this = self.get_mut();
        match this.beginning.take() {
            Some(beginning) => Poll::Ready(Some(Ok(http_body::Frame::data(beginning)))),
            None => Pin::new(&mut this.rest).poll_frame(cx),
        }
    }
}

/// What a guest is told of a request that failed.
fn code(error: &(dyn std::error::Error + 'static)) -> Error {
    let mut next = Some(error);
    while let Some(error) = next {
        match error.downcast_ref::<Refused>() {
            Some(Refused::Name { .. }) => return Error::DnsError { rcode: Some(error.to_string()), info_code: None },
            Some(Refused::Address { .. }) => return Error::DestinationIpProhibited,
            Some(Refused::Connect { source, .. }) if source.kind() == io::ErrorKind::ConnectionRefused => {
                return Error::ConnectionRefused;
            }
            Some(Refused::Connect { source, .. }) => {
                return Error::Connect(io::Error::new(source.kind(), source.to_string()));
            }
            Some(Refused::Tls { source, .. }) => return Error::Tls(io::Error::new(source.kind(), source.to_string())),
            Some(Refused::Uri) => return Error::HttpRequestUriInvalid,
            None => {}
        }
        next = error.source();
    }
    Error::InternalError(Some(error.to_string()))
}

/// A body that counts as a request under way until it is read or dropped.
struct Counted {
    body: hyper::body::Incoming,
    _permit: OwnedSemaphorePermit,
}

impl http_body::Body for Counted {
    type Data = bytes::Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<bytes::Bytes>, hyper::Error>>> {
        Pin::new(&mut self.get_mut().body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn grant(origins: &[&str]) -> HttpGrant {
        HttpGrant::parse(origins.iter().copied()).unwrap()
    }

    fn allows(grant: &HttpGrant, uri: &str) -> bool {
        Target::of(&uri.parse().unwrap()).is_some_and(|target| grant.allows(&target))
    }

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        let grant = grant(&["https://API.example.com", "http://search.example:9200"]);
        for uri in ["https://api.example.com/x", "https://api.example.com:443/", "http://search.example:9200/_bulk"] {
            assert!(allows(&grant, uri), "{uri}");
        }
        for uri in [
            "http://api.example.com/",
            "https://api.example.com:8443/",
            "https://example.com/",
            "https://api.example.com.evil.example/",
            "http://search.example/",
            "https://search.example@evil.example:9200/",
        ] {
            assert!(!allows(&grant, uri), "{uri}");
        }
    }

    #[test]
    fn an_address_that_is_not_public_has_to_be_named() {
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let public = grant(&["https://api.example.com"]);
        assert!(public.allows_address(address("93.184.216.34")));
        for own in ["127.0.0.1", "10.0.0.5", "169.254.169.254", "::1", "::ffff:127.0.0.1"] {
            assert!(!public.allows_address(address(own)), "{own}");
        }
        let named = grant(&["http://10.0.0.5:9200", "http://[::1]:80"]);
        assert!(named.allows_address(address("10.0.0.5")) && named.allows_address(address("::ffff:10.0.0.5")));
        assert!(named.allows_address(address("::1")) && !named.allows_address(address("127.0.0.1")));
        let localhost = grant(&["http://localhost:9200"]);
        assert!(localhost.allows_address(address("127.0.0.1")) && localhost.allows_address(address("::1")));
        assert!(!localhost.allows_address(address("10.0.0.5")));
    }

    #[test]
    fn what_is_no_origin_is_no_grant() {
        for origin in ["ftp://a.example", "a.example", "https://user@a.example", "/x", ""] {
            assert!(HttpGrant::parse([origin]).is_none(), "{origin}");
        }
    }
}
