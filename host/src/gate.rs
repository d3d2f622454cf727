//! The gate: what every request must have before its route is looked at, so that no page of another site uses a service
//! that its visitor can reach.
//!
//! A browser sends requests wherever a page tells it to, with whatever access its machine has. It withholds only the
//! answers, and asks first (a preflight, which `cors-origin` answers) only for what no HTML form could send. So:
//!
//! 1. **Host.** A page whose name is pointed at our address ("DNS rebinding") is of the same origin to its browser, and
//!    all that gives it away is the name in `Host` or `:authority`. Known are loopback, the address that is listened on,
//!    and `allowed-hosts`. An address cannot be pointed elsewhere: if all addresses are listened on, each is known.
//! 2. **Origin.** Where a browser names one, it must be ours or in `cors-origin`, for whatever may change state and for
//!    WebSockets, which browsers open without asking. Where none is named, `Sec-Fetch-Site` and `Referer` must not tell
//!    of another site.
//! 3. **Media type.** What changes state has none that a form can send. None at all is fine, as `curl -X POST` sends it:
//!    a page's request without one has an `Origin`.
//!
//! This is the native service's: at the edge, whatever stands before the worker knows its names and logins.

use std::net::IpAddr;

use cdc_rest::{Cors, Problem};
use http::header::{CONTENT_TYPE, HOST, HeaderMap, HeaderName, ORIGIN, REFERER, UPGRADE};
use http::request::Parts;
use http::uri::Authority;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// What is known of the service's own names.
#[derive(Clone, Debug)]
pub struct Gate {
    listen: IpAddr,
    allowed_hosts: Vec<String>,
    cors: Cors,
}

impl Gate {
    /// A gate for a service that listens there. Allowed hosts are names or addresses, with a port or without.
    #[must_use]
    pub fn new(listen: IpAddr, allowed_hosts: Vec<String>, cors: Cors) -> Self {
        Self { listen: listen.to_canonical(), allowed_hosts, cors }
    }

    /// Whether a request may come in.
    pub fn admit(&self, head: &Parts) -> Result<(), Problem> {
        let host = self.host(head)?;
        let changes_state = !matches!(head.method.as_str(), "GET" | "HEAD" | "OPTIONS");
        if changes_state || is_upgrade(&head.headers) {
            self.admit_origin(&head.headers, host.as_deref())?;
        }
        if changes_state {
            for value in head.headers.get_all(CONTENT_TYPE) {
                cdc_rest::refuse_form(value.to_str().unwrap_or("?"))?;
            }
        }
        Ok(())
    }

    /// The host that a request is for: all that it names must be known. HTTP/1.0 may name none; browsers always do.
    fn host(&self, head: &Parts) -> Result<Option<String>, Problem> {
        let mut named = Vec::new();
        named.extend(head.uri.authority().map(Authority::as_str));
        for value in head.headers.get_all(HOST) {
            named.push(value.to_str().map_err(|_| Problem::unknown_host("?"))?);
        }
        match named.iter().find(|host| !self.knows(host)) {
            Some(unknown) => Err(Problem::unknown_host(unknown)),
            // The header, if there are both, is what a page's origin is compared with: one of them is as good.
            None => Ok(named.last().map(|host| (*host).to_owned())),
        }
    }

    fn knows(&self, host: &str) -> bool {
        let Ok(authority) = host.parse::<Authority>() else { return false };
        if host.contains('@') {
            return false;
        }
        let name = authority.host().trim_end_matches('.').to_ascii_lowercase();
        let address = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().ok();
        let is_own = match address.map(|address| address.to_canonical()) {
            Some(address) => address.is_loopback() || address == self.listen || self.listen.is_unspecified(),
            None => name == "localhost",
        };
        let port = authority.port_u16();
        is_own
            || self.allowed_hosts.iter().any(|allowed| {
                let Ok(allowed) = allowed.parse::<Authority>() else { return false };
                allowed.host().eq_ignore_ascii_case(&name) && allowed.port_u16().is_none_or(|known| Some(known) == port)
            })
    }

    fn admit_origin(&self, headers: &HeaderMap, host: Option<&str>) -> Result<(), Problem> {
        let foreign = |value: &http::HeaderValue| {
            let origin = value.to_str().unwrap_or("?");
            (!self.cors.admits(origin, host)).then(|| Problem::foreign_origin(origin))
        };
        let mut origins = headers.get_all(ORIGIN).iter().peekable();
        if origins.peek().is_some() {
            return origins.find_map(foreign).map_or(Ok(()), Err);
        }
        let site = headers.get(SEC_FETCH_SITE).map(|site| site.to_str().unwrap_or("?"));
        if let Some(site) = site.filter(|site| !matches!(*site, "same-origin" | "none")) {
            return Err(Problem::foreign_origin(site));
        }
        // An old browser, which names no origin.
        let referrer = headers.get(REFERER).map(|value| value.to_str().unwrap_or("?"));
        match referrer.map(origin_of).filter(|origin| !self.cors.admits(origin, host)) {
            Some(origin) => Err(Problem::foreign_origin(origin)),
            None => Ok(()),
        }
    }
}

fn is_upgrade(headers: &HeaderMap) -> bool {
    headers.contains_key(UPGRADE)
}

/// The scheme and authority of an address.
fn origin_of(address: &str) -> &str {
    let start = address.find("://").map_or(0, |at| at + 3);
    let end = address[start..].find(['/', '?', '#']).map_or(address.len(), |at| start + at);
    &address[..end]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use http::{Method, Request};

    use super::*;

    type Headers<'a> = &'a [(&'a str, &'a str)];

    fn gate(listen: &str, allowed: &[&str], cors: &[&str]) -> Gate {
        let allowed = allowed.iter().map(|host| (*host).to_owned()).collect();
        Gate::new(listen.parse().unwrap(), allowed, Cors::parse(cors).unwrap())
    }

    /// What the gate says to a request: 200 when it is let in.
    fn status(gate: &Gate, method: &str, headers: Headers<'_>) -> u16 {
        let mut request = Request::builder().method(Method::from_bytes(method.as_bytes()).unwrap()).uri("/x");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (head, ()) = request.body(()).unwrap().into_parts();
        gate.admit(&head).map_or_else(|problem| problem.status(), |()| 200)
    }

    #[test]
    fn a_host_must_be_known() {
        let local = gate("127.0.0.1", &[], &[]);
        let named = gate("127.0.0.1", &["cdc.example", "edge.example:8443", "10.0.0.9"], &[]);
        let own = gate("10.0.0.5", &[], &[]);
        let every = gate("0.0.0.0", &[], &[]);
        let six = gate("::", &[], &[]);
        #[rustfmt::skip]
        let table = [
            // host, on loopback, with allowed hosts, on an address, on every address
            ("localhost:8002",         [true, true, true, true]),
            ("LOCALHOST",              [true, true, true, true]),
            ("localhost.:1",           [true, true, true, true]),
            ("127.0.0.1:8002",         [true, true, true, true]),
            ("127.8.9.1",              [true, true, true, true]),
            ("[::1]:8002",             [true, true, true, true]),
            ("[::ffff:127.0.0.1]",     [true, true, true, true]),
            ("10.0.0.5:8002",          [false, false, true, true]),
            ("10.0.0.9:8002",          [false, true, false, true]),
            ("[fd00::1]:80",           [false, false, false, true]),
            ("cdc.example",            [false, true, false, false]),
            ("CDC.example.:8002",      [false, true, false, false]),
            ("edge.example:8443",      [false, true, false, false]),
            ("edge.example:8444",      [false, false, false, false]),
            ("edge.example",           [false, false, false, false]),
            ("evil.example",           [false, false, false, false]),
            ("evil.example:8002",      [false, false, false, false]),
            ("cdc.example.evil",       [false, false, false, false]),
            ("xcdc.example",           [false, false, false, false]),
            ("localhost.evil",         [false, false, false, false]),
            ("127.0.0.1.evil.example", [false, false, false, false]),
            ("0x7f.1",                 [false, false, false, false]),
            ("localhost@evil",         [false, false, false, false]),
            ("a localhost",            [false, false, false, false]),
            ("",                       [false, false, false, false]),
        ];
        for (host, expected) in table {
            let found = [&local, &named, &own, &every].map(|gate| status(gate, "GET", &[("host", host)]) == 200);
            assert_eq!(found, expected, "{host}");
            assert_eq!(status(&six, "GET", &[("host", host)]) == 200, expected[3], "{host}");
        }
        assert_eq!(status(&local, "GET", &[]), 200, "HTTP/1.0 names none");
        assert_eq!(status(&local, "GET", &[("host", "evil.example")]), 421);
        assert_eq!(status(&local, "GET", &[("host", "localhost"), ("host", "evil.example")]), 421);
    }

    #[test]
    fn every_host_that_a_request_names_must_be_known() {
        let gate = gate("127.0.0.1", &[], &[]);
        for (uri, host, expected) in [
            ("http://localhost:1/x", None, 200),
            ("http://evil.example/x", None, 421),
            ("http://evil.example/x", Some("localhost"), 421),
            ("http://localhost/x", Some("evil.example"), 421),
            ("http://localhost/x", Some("localhost"), 200),
        ] {
            let mut request = Request::get(uri);
            request = host.into_iter().fold(request, |request, host| request.header("host", host));
            let (head, ()) = request.body(()).unwrap().into_parts();
            assert_eq!(gate.admit(&head).map_or_else(|problem| problem.status(), |()| 200), expected, "{uri} {host:?}");
        }
    }

    #[test]
    fn what_changes_state_comes_from_no_other_site() {
        let closed = gate("127.0.0.1", &[], &[]);
        let listed = gate("127.0.0.1", &[], &["https://a.example"]);
        let open = gate("127.0.0.1", &[], &["*"]);
        #[rustfmt::skip]
        let table: [(Headers<'_>, [u16; 3]); 14] = [
            // what curl, scripts and our own commands send
            (&[],                                                          [200, 200, 200]),
            // our own page
            (&[("origin", "http://localhost:8002")],                       [200, 200, 200]),
            (&[("sec-fetch-site", "same-origin")],                         [200, 200, 200]),
            (&[("referer", "http://localhost:8002/console")],              [200, 200, 200]),
            // a page that the configuration names
            (&[("origin", "https://a.example"), ("sec-fetch-site", "cross-site")], [403, 200, 200]),
            (&[("referer", "https://a.example/page?x")],                   [403, 200, 200]),
            // other pages
            (&[("origin", "https://evil.example")],                        [403, 403, 200]),
            (&[("origin", "http://localhost:9999")],                       [403, 403, 200]),
            (&[("origin", "null")],                                        [403, 403, 200]),
            (&[("origin", "http://localhost:8002"), ("origin", "https://evil.example")], [403, 403, 200]),
            (&[("sec-fetch-site", "cross-site")],                          [403, 403, 403]),
            (&[("sec-fetch-site", "same-site")],                           [403, 403, 403]),
            (&[("referer", "https://evil.example/http://localhost:8002")], [403, 403, 200]),
            (&[("referer", "https://a.example.evil/")],                    [403, 403, 200]),
        ];
        for (headers, expected) in table {
            let headers: Vec<_> = headers.iter().copied().chain([("host", "localhost:8002")]).collect();
            for method in ["POST", "PUT", "PATCH", "DELETE", "BREW"] {
                let found = [&closed, &listed, &open].map(|gate| status(gate, method, &headers));
                assert_eq!(found, expected, "{method} {headers:?}");
            }
            for method in ["GET", "HEAD", "OPTIONS"] {
                assert_eq!(status(&closed, method, &headers), 200, "{method} {headers:?}");
            }
            let socket: Vec<_> = headers.iter().copied().chain([("upgrade", "websocket")]).collect();
            let found = [&closed, &listed, &open].map(|gate| status(gate, "GET", &socket));
            assert_eq!(found, expected, "a WebSocket, {headers:?}");
        }
    }

    #[test]
    fn what_changes_state_has_no_media_type_of_forms() {
        let gate = gate("127.0.0.1", &[], &["*"]);
        for (media_type, expected) in [
            ("application/json", 200),
            ("application/json; charset=utf-8", 200),
            ("application/x-ndjson", 200),
            ("application/wasm", 200),
            ("application/octet-stream", 200),
            ("application/x-www-form-urlencoded", 415),
            ("Application/X-WWW-Form-Urlencoded; charset=utf-8", 415),
            ("multipart/form-data; boundary=x", 415),
            ("text/plain", 415),
            (" text/plain;application/json", 415),
            ("text/plain, application/json", 415),
            ("TEXT/PLAIN ; charset=x", 415),
            ("", 200),
        ] {
            for method in ["POST", "PUT", "PATCH", "DELETE"] {
                assert_eq!(status(&gate, method, &[("content-type", media_type)]), expected, "{method} {media_type:?}");
            }
            assert_eq!(status(&gate, "GET", &[("content-type", media_type)]), 200, "{media_type:?}");
        }
        let twice = [("content-type", "application/json"), ("content-type", "text/plain")];
        assert_eq!(status(&gate, "POST", &twice), 415);
    }
}
