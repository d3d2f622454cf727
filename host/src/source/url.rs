//! Addresses of databases, which may carry a password: it is in the text and in nothing that is shown.

use std::fmt::{self, Debug, Display};

/// What kind of database is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SourceKind {
    /// PostgreSQL, by logical replication.
    Postgres,
    /// MySQL, by its binlog.
    Mysql,
    /// MariaDB, by its binlog.
    Mariadb,
}

impl SourceKind {
    /// The word for it: the scheme of addresses, and the name of a source that has none of its own.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::Mysql => "mysql",
            Self::Mariadb => "mariadb",
        }
    }
}

/// The address of a database: `postgres://user:password@host:port/database`, or `mysql://…`, or `mariadb://…`.
#[derive(Clone, PartialEq, Eq)]
pub struct SourceUrl {
    text: String,
    kind: SourceKind,
}

impl SourceUrl {
    /// Takes an address by its scheme; the rest is the database's own to understand.
    pub fn parse(text: &str) -> Result<Self, String> {
        let kind = match text.split_once("://") {
            Some(("postgres" | "postgresql", rest)) if !rest.is_empty() => SourceKind::Postgres,
            Some(("mysql", rest)) if !rest.is_empty() => SourceKind::Mysql,
            Some(("mariadb", rest)) if !rest.is_empty() => SourceKind::Mariadb,
            _ => {
                return Err(
                    "an address like postgres://user:password@host:5432/database, mysql://… or mariadb://…".to_owned()
                );
            }
        };
        Ok(Self { text: text.to_owned(), kind })
    }

    /// What kind of database it is the address of.
    #[must_use]
    pub fn kind(&self) -> SourceKind {
        self.kind
    }

    /// The address as it was given, with its password: for the connection, and for nothing that is shown.
    #[must_use]
    pub fn secret_text(&self) -> &str {
        &self.text
    }
}

/// Without the password.
impl Display for SourceUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&without_password(&self.text))
    }
}

impl Debug for SourceUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SourceUrl({self})")
    }
}

/// What stands for a secret.
const STARS: &str = "***";
/// Parameters of addresses whose values are shown.
const PLAIN_PARAMETERS: [&str; 7] =
    ["connect_timeout", "ssl-ca", "ssl-mode", "ssl-name", "sslmode", "sslrootcert", "user"];

/// An address without `@`: what stands where a port should, and is none, is the password of a user without a host.
fn without_false_port(rest: &str) -> String {
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, tail) = rest.split_at(end);
    match authority.split_once(':') {
        Some((host, port)) if !host.starts_with('[') && !port.bytes().all(|byte| byte.is_ascii_digit()) => {
            format!("{host}:***")
        }
        _ => format!("{authority}{tail}"),
    }
}

/// A text in which an address' password is starred, wherever it ends: up to the last `@`, because a password may hold
/// one that nobody has encoded. So are parameters, but for those that hold no secret.
#[must_use]
pub fn without_password(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else {
        // An address with a slash too few is no less secret.
        return if text.contains([':', '@', '/']) { STARS.to_owned() } else { text.to_owned() };
    };
    let shown = match rest.rsplit_once('@') {
        Some((who, place)) => match who.split_once(':') {
            Some((user, _)) => format!("{user}:***@{place}"),
            None => format!("{who}@{place}"),
        },
        None => without_false_port(rest),
    };
    let shown = match shown.split_once('?') {
        Some((place, parameters)) => {
            let parameter = |parameter: &str| match parameter.split_once('=') {
                Some((name, _)) if !PLAIN_PARAMETERS.contains(&name) => format!("{name}=***"),
                _ => parameter.to_owned(),
            };
            format!("{place}?{}", parameters.split('&').map(parameter).collect::<Vec<_>>().join("&"))
        }
        None => shown,
    };
    format!("{scheme}://{shown}")
}

/// A text that is never shown.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Keeps a text to itself.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The text, for whoever needs it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(***)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scheme_tells_the_kind() {
        for (text, kind) in [
            ("postgres://h/d", SourceKind::Postgres),
            ("postgresql://h/d", SourceKind::Postgres),
            ("mysql://h", SourceKind::Mysql),
            ("mariadb://h", SourceKind::Mariadb),
        ] {
            assert_eq!(SourceUrl::parse(text).map(|url| url.kind()), Ok(kind), "{text}");
        }
        for text in ["", "postgres", "postgres://", "http://h", "Postgres://h"] {
            assert!(SourceUrl::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_password_is_never_shown() {
        for (text, shown) in [
            ("postgres://u:se@cret@h:1/d?sslmode=require", "postgres://u:***@h:1/d?sslmode=require"),
            ("postgres://u@h/d", "postgres://u@h/d"),
            ("postgres://h/d?user=u&password=secret", "postgres://h/d?user=u&password=***"),
            ("mysql://u:@h", "mysql://u:***@h"),
            ("postgres://h/d?passwort=secret", "postgres://h/d?passwort=***"),
            ("postgres://u:secret/d", "postgres://u:***"),
            ("postgres://[::1]:5432/d", "postgres://[::1]:5432/d"),
            ("postgres:/u:secret@h/d", "***"),
            ("u:secret@h/d", "***"),
            ("no address", "no address"),
        ] {
            assert_eq!(without_password(text), shown);
        }
        let url = SourceUrl::parse("postgres://u:secret@h/d").unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(format!("{url} {url:?}"), "postgres://u:***@h/d SourceUrl(postgres://u:***@h/d)");
        assert_eq!(url.secret_text(), "postgres://u:secret@h/d");
        assert!(!format!("{:?}", Secret::new("secret".to_owned())).contains("secret"));
    }
}
