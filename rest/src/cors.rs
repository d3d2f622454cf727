//! Cross-origin requests: which pages may use the API from a browser.

/// Which origins may, and the headers that say so. Names of headers are in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cors(Origins);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Origins {
    None,
    Any,
    /// In lower case, as browsers send them.
    Listed(Vec<String>),
}

/// A configured origin that could never match.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an origin: write scheme://host or scheme://host:port without a path, or `*` alone for every one")]
pub struct InvalidOrigin(String);

type Header<'a> = (&'static str, &'a str);

impl Cors {
    /// No page may: no headers.
    pub const NONE: Self = Self(Origins::None);

    /// Every page may.
    pub const ANY: Self = Self(Origins::Any);

    /// Takes what was configured: origins, or `*` alone; nothing for none.
    pub fn parse<T: AsRef<str>>(origins: &[T]) -> Result<Self, InvalidOrigin> {
        let origins: Vec<&str> = origins.iter().map(AsRef::as_ref).collect();
        match origins.as_slice() {
            [] => Ok(Self::NONE),
            ["*"] => Ok(Self::ANY),
            listed => {
                let listed = listed.iter().map(|origin| match is_origin(origin) {
                    true => Ok(origin.to_ascii_lowercase()),
                    false => Err(InvalidOrigin((*origin).to_owned())),
                });
                Ok(Self(Origins::Listed(listed.collect::<Result<_, _>>()?)))
            }
        }
    }

    /// The headers that every answer carries, problems too.
    pub fn headers<'a>(&self, origin: Option<&'a str>) -> impl Iterator<Item = Header<'a>> + use<'a> {
        let allowed = self.allowed(origin);
        let varies = matches!(self.0, Origins::Listed(_));
        [
            allowed.map(|allowed| ("access-control-allow-origin", allowed)),
            allowed.map(|_| ("access-control-expose-headers", "Allow, Retry-After")),
            // Also when this origin may not: a cache must not hand that answer to one that may.
            varies.then_some(("vary", "Origin")),
        ]
        .into_iter()
        .flatten()
    }

    /// The headers of the answer to `OPTIONS` (status 204), beside `allow`.
    pub fn preflight_headers<'a>(&self, origin: Option<&'a str>) -> impl Iterator<Item = Header<'a>> + use<'a> {
        let allowed = self.allowed(origin);
        let more = [
            ("access-control-allow-methods", "GET, POST, PUT, DELETE, OPTIONS"),
            ("access-control-allow-headers", "Content-Type, Authorization, Last-Event-ID"),
            ("access-control-max-age", "600"),
        ];
        self.headers(origin).chain(more.into_iter().filter(move |_| allowed.is_some()))
    }

    /// Whether a page of this origin may open a WebSocket to this host. Browsers ask nobody before they open one, so
    /// this is all that keeps other sites from reading along: the service's own pages may, and those that CORS lets in.
    pub fn admits(&self, origin: &str, host: Option<&str>) -> bool {
        let is_own = || {
            let (_, authority) = origin.split_once("://")?;
            Some(authority.eq_ignore_ascii_case(host?))
        };
        self.allowed(Some(origin)).is_some() || is_own() == Some(true)
    }

    /// The value of `access-control-allow-origin`.
    fn allowed<'a>(&self, origin: Option<&'a str>) -> Option<&'a str> {
        match &self.0 {
            Origins::None => None,
            Origins::Any => Some("*"),
            Origins::Listed(listed) => {
                origin.filter(|origin| listed.iter().any(|listed| listed.eq_ignore_ascii_case(origin)))
            }
        }
    }
}

fn is_origin(origin: &str) -> bool {
    let Some((scheme, host)) = origin.split_once("://") else { return false };
    let scheme_is_one = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b));
    scheme_is_one && !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._:[]".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(origins: &[&str]) -> Cors {
        Cors::parse(origins).unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn a_star_lets_every_page_in() {
        for origin in [None, Some("null"), Some("https://a.example")] {
            let headers: Vec<_> = parse(&["*"]).headers(origin).collect();
            let expected =
                [("access-control-allow-origin", "*"), ("access-control-expose-headers", "Allow, Retry-After")];
            assert_eq!(headers, expected);
        }
        assert_eq!(Cors::ANY.preflight_headers(Some("https://a.example")).count(), 5);
    }

    #[test]
    fn a_list_lets_in_what_it_names() {
        let cors = parse(&["https://a.example", "HTTP://localhost:3000"]);
        for origin in ["https://a.example", "http://localhost:3000"] {
            assert!(cors.headers(Some(origin)).any(|header| header == ("access-control-allow-origin", origin)));
            assert!(cors.headers(Some(origin)).any(|header| header == ("vary", "Origin")));
            assert!(cors.preflight_headers(Some(origin)).any(|(name, _)| name == "access-control-allow-methods"));
        }
    }

    #[test]
    fn others_get_nothing_but_a_note_for_caches() {
        let cors = parse(&["https://a.example"]);
        for origin in
            [None, Some("https://b.example"), Some("https://a.example.b"), Some("https://a.example:444"), Some("null")]
        {
            assert_eq!(cors.headers(origin).collect::<Vec<_>>(), [("vary", "Origin")]);
            assert_eq!(cors.preflight_headers(origin).collect::<Vec<_>>(), [("vary", "Origin")]);
        }
    }

    #[test]
    fn a_socket_is_for_our_own_pages_and_for_those_that_are_let_in() {
        let (none, listed) = (parse(&[]), parse(&["https://a.example"]));
        assert!(none.admits("http://localhost:8002", Some("LOCALHOST:8002")));
        assert!(listed.admits("https://A.example", Some("localhost:8002")));
        assert!(Cors::ANY.admits("null", None));
        for (origin, host) in [
            ("http://localhost:8003", Some("localhost:8002")),
            ("https://b.example", Some("localhost:8002")),
            ("https://a.example.b", Some("localhost:8002")),
            ("null", Some("null")),
            ("", Some("")),
            ("https://b.example", None),
        ] {
            assert!(!none.admits(origin, host) && !listed.admits(origin, host), "{origin}");
        }
    }

    #[test]
    fn without_configuration_there_are_no_headers() {
        assert_eq!(parse(&[]).preflight_headers(Some("https://a.example")).count(), 0);
    }

    #[test]
    fn what_could_never_match_is_refused() {
        for origin in
            ["", "a.example", "https://", "https://a.example/", "https://a b", "https://*.example", "://a", "null"]
        {
            assert_eq!(Cors::parse(&[origin]), Err(InvalidOrigin(origin.into())));
        }
        assert!(Cors::parse(&["*", "https://a.example"]).is_err());
    }
}
