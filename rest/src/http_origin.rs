//! Origins that a component may send HTTP requests to.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The longest host name, as DNS has it.
const MAX_HOST_BYTES: usize = 253;
const MAX_LABEL_BYTES: usize = 63;

/// An exact origin: `http://` or `https://`, a host, and a port. Two that mean the same are equal: the host is in lower
/// case, an address in its shortest form, and the port of the scheme is not written.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HttpOrigin {
    scheme: HttpScheme,
    host: OriginHost,
    port: u16,
}

/// How requests travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HttpScheme {
    /// In the clear; port 80 unless said otherwise.
    Http,
    /// Over TLS; port 443 unless said otherwise.
    Https,
}

/// Whom requests go to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum OriginHost {
    /// A name to be looked up, in lower case.
    Name(String),
    /// An address that was written out.
    Address(IpAddr),
}

/// Why a text is not an origin; reads on after it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is not an origin: {0}; write scheme://host or scheme://host:port")]
pub struct NotAnOrigin(&'static str);

impl HttpScheme {
    /// `http` or `https`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// The port that goes without saying.
    pub fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

impl HttpOrigin {
    /// Takes an origin as it is configured. Nothing but an origin: a path, a query, a user or a wildcard would suggest
    /// that it narrows or widens the grant, which it cannot.
    pub fn parse(text: &str) -> Result<Self, NotAnOrigin> {
        let (scheme, rest) = text.split_once("://").ok_or(NotAnOrigin("it has no scheme"))?;
        let scheme = if scheme.eq_ignore_ascii_case("http") {
            HttpScheme::Http
        } else if scheme.eq_ignore_ascii_case("https") {
            HttpScheme::Https
        } else {
            return Err(NotAnOrigin("its scheme is neither http nor https"));
        };
        if rest.contains(['/', '?', '#', '\\']) {
            return Err(NotAnOrigin("it has a path, a query or a fragment, even if only a `/`"));
        }
        if rest.contains('@') {
            return Err(NotAnOrigin("it has a user"));
        }
        if rest.contains('*') {
            return Err(NotAnOrigin("it has a `*`, and every host must be named"));
        }
        let (host, port) = match rest.strip_prefix('[') {
            Some(bracketed) => {
                let (address, rest) = bracketed.split_once(']').ok_or(NotAnOrigin("its `[` is not closed"))?;
                let address: Ipv6Addr =
                    address.parse().map_err(|_| NotAnOrigin("what is in brackets is not an IPv6 address"))?;
                let port = match rest {
                    "" => None,
                    rest => Some(rest.strip_prefix(':').ok_or(NotAnOrigin("something follows its `]`"))?),
                };
                (OriginHost::Address(address.into()), port)
            }
            None => {
                let (host, port) = rest.split_once(':').map_or((rest, None), |(host, port)| (host, Some(port)));
                if port.is_some_and(|port| port.contains(':')) {
                    return Err(NotAnOrigin("it has several `:`, and an IPv6 address stands in brackets"));
                }
                (host_of(host)?, port)
            }
        };
        Ok(Self { scheme, host, port: port.map_or(Ok(scheme.default_port()), port_of)? })
    }

    /// The scheme.
    pub fn scheme(&self) -> HttpScheme {
        self.scheme
    }

    /// The host.
    pub fn host(&self) -> &OriginHost {
        &self.host
    }

    /// The port, also where it goes without saying.
    pub fn port(&self) -> u16 {
        self.port
    }
}

fn port_of(port: &str) -> Result<u16, NotAnOrigin> {
    // `u16::from_str` would take a sign.
    let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    let port = port.parse().ok().filter(|port| digits && *port > 0);
    port.ok_or(NotAnOrigin("its port is not a number from 1 to 65535"))
}

fn host_of(host: &str) -> Result<OriginHost, NotAnOrigin> {
    if host.is_empty() {
        return Err(NotAnOrigin("it has no host"));
    }
    if !host.is_ascii() {
        return Err(NotAnOrigin("its host is not ASCII: write an international name in Punycode"));
    }
    if host.len() > MAX_HOST_BYTES {
        return Err(NotAnOrigin("its host is longer than 253 bytes"));
    }
    if let Ok(address) = host.parse::<Ipv4Addr>() {
        return Ok(OriginHost::Address(address.into()));
    }
    let fine = |label: &str| {
        (1..=MAX_LABEL_BYTES).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if !host.split('.').all(fine) {
        return Err(NotAnOrigin("its host is not a name"));
    }
    // `0177.0.0.1`, `0x7f.1` and `2130706433` are loopback to some resolvers: an address has one notation here.
    let last = host.rsplit('.').next().unwrap_or_default();
    let hexadecimal = last.get(..2).is_some_and(|start| start.eq_ignore_ascii_case("0x"));
    if hexadecimal || last.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(NotAnOrigin("its host looks like an IPv4 address, but is not four decimal numbers"));
    }
    Ok(OriginHost::Name(host.to_ascii_lowercase()))
}

impl fmt::Display for OriginHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Address(IpAddr::V4(address)) => address.fmt(f),
            Self::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
        }
    }
}

/// The origin in its one notation.
impl fmt::Display for HttpOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme.as_str(), self.host)?;
        if self.port == self.scheme.default_port() { Ok(()) } else { write!(f, ":{}", self.port) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_has_one_notation() {
        for (written, meant) in [
            ("https://search.example:9200", "https://search.example:9200"),
            ("HTTPS://Search.EXAMPLE:443", "https://search.example"),
            ("http://x:80", "http://x"),
            ("http://x:443", "http://x:443"),
            ("http://x:0080", "http://x"),
            ("http://my_service-2", "http://my_service-2"),
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
            ("http://[0:0::1]:8080", "http://[::1]:8080"),
            ("https://[2001:DB8::1]", "https://[2001:db8::1]"),
            ("http://1.2.3.4.example", "http://1.2.3.4.example"),
        ] {
            let origin = HttpOrigin::parse(written).unwrap_or_else(|error| panic!("{written} {error}"));
            assert_eq!(origin.to_string(), meant);
            assert_eq!(HttpOrigin::parse(meant), Ok(origin));
        }
    }

    #[test]
    fn the_parts_can_be_asked_for() {
        let origin = HttpOrigin::parse("https://[::1]").unwrap_or_else(|error| panic!("{error}"));
        assert_eq!((origin.scheme(), origin.port()), (HttpScheme::Https, 443));
        assert_eq!(origin.host(), &OriginHost::Address(Ipv6Addr::LOCALHOST.into()));
    }

    #[test]
    fn what_is_more_or_less_than_an_origin_is_refused() {
        for text in [
            "",
            "search.example",
            "search.example:9200",
            "ftp://x",
            "https://",
            "https://x/",
            "https://x/path",
            "https://x?q",
            "https://x#f",
            "https://x\\y",
            "https://user@x",
            "https://user:secret@x",
            "https://*",
            "https://*.example.com",
            "https://x:",
            "https://x:0",
            "https://x:65536",
            "https://x:+80",
            "https://x:80:90",
            "https://::1",
            "https://[::1",
            "https://[::1]80",
            "https://[127.0.0.1]",
            "https://[fe80::1%25eth0]",
            "https://.x",
            "https://x.",
            "https://a..b",
            "https://-a",
            "https://a b",
            "https:// a",
            "https://bücher.example",
            "http://0177.0.0.1",
            "http://2130706433",
            "http://127.1",
            "http://0x7f.1",
            "http://0x7f000001",
            "http://256.0.0.1",
            "null",
        ] {
            assert!(HttpOrigin::parse(text).is_err(), "{text}");
        }
        assert!(HttpOrigin::parse(&format!("http://{}", ["a"; 128].join("."))).is_err());
        assert!(HttpOrigin::parse(&format!("http://{}", "a".repeat(64))).is_err());
    }
}
