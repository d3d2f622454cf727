//! Where a database is and how to get in: a connection URL, taken apart.
//!
//! `postgres://user:password@host:port/database?sslmode=…&sslrootcert=…`, as libpq reads it, but for what is not named
//! here. Parts are percent-decoded. Other parameters are refused: one that is silently ignored could be about security.

use std::path::PathBuf;
use std::time::Duration;

use percent_encoding::percent_decode_str;

use crate::feed::{FeedError, Remedy};

/// How a connection is protected, as libpq's `sslmode` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SslMode {
    /// Never encrypted.
    Disable,
    /// Encrypted if the server can; nothing is verified.
    Prefer,
    /// Encrypted. The server's certificate is verified only if there is a CA file.
    Require,
    /// Encrypted, and the certificate is of a known CA.
    VerifyCa,
    /// The same, and it is for the host's name.
    VerifyFull,
}

/// A connection URL, taken apart.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) user: String,
    pub(crate) password: String,
    pub(crate) database: String,
    pub(crate) ssl_mode: SslMode,
    /// Certificates of the CAs to trust, PEM. Else the public ones.
    pub(crate) ca_file: Option<PathBuf>,
    pub(crate) connect_timeout: Duration,
}

// Without the password, which has no place in a log.
impl std::fmt::Debug for Address {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "postgres://{}@{}:{}/{}", self.user, self.host, self.port, self.database)
    }
}

impl Address {
    /// Takes a URL apart. Its text stays out of the message, because there may be a password in it.
    pub(crate) fn parse(url: &str) -> Result<Address, FeedError> {
        Address::read(url).map_err(|problem| FeedError {
            remedy: Remedy::Stop,
            code: "configuration",
            message: format!(
                "the connection URL cannot be used: {problem}; it looks like \
                 postgres://user:password@host:5432/database?sslmode=verify-full"
            ),
            source: None,
        })
    }

    fn read(url: &str) -> Result<Address, String> {
        let rest = url
            .strip_prefix("postgres://")
            .or_else(|| url.strip_prefix("postgresql://"))
            .ok_or("it does not start with postgres://")?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        // A password may contain an @ by mistake; a host cannot.
        let (login, place) = authority.rsplit_once('@').ok_or("it names no user")?;
        let (user, password) = login.split_once(':').unwrap_or((login, ""));
        let user = decoded(user)?;
        if user.is_empty() {
            return Err("it names no user".into());
        }
        let (host, port) = match place.strip_prefix('[') {
            Some(rest) => {
                let (host, after) = rest.split_once(']').ok_or("its host lacks a ]")?;
                (host, after.strip_prefix(':').unwrap_or(""))
            }
            None => place.split_once(':').unwrap_or((place, "")),
        };
        let port = if port.is_empty() { 5432 } else { port.parse().map_err(|_| "its port is no port")? };
        let database = match decoded(path)? {
            empty if empty.is_empty() => user.clone(),
            name => name,
        };
        let mut address = Address {
            host: if host.is_empty() { "localhost".into() } else { decoded(host)? },
            port,
            user,
            password: decoded(password)?,
            database,
            ssl_mode: SslMode::Prefer,
            ca_file: None,
            connect_timeout: Duration::from_secs(10),
        };
        for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
            let (name, value) = parameter.split_once('=').ok_or("a parameter lacks its value")?;
            let value = decoded(value)?;
            match name {
                "sslmode" => {
                    address.ssl_mode = match value.as_str() {
                        "disable" => SslMode::Disable,
                        "allow" | "prefer" => SslMode::Prefer,
                        "require" => SslMode::Require,
                        "verify-ca" => SslMode::VerifyCa,
                        "verify-full" => SslMode::VerifyFull,
                        _ => return Err("sslmode is disable, prefer, require, verify-ca or verify-full".into()),
                    }
                }
                "sslrootcert" => address.ca_file = Some(value.into()),
                "connect_timeout" => {
                    let seconds: u64 = value.parse().map_err(|_| "connect_timeout is a number of seconds")?;
                    address.connect_timeout = Duration::from_secs(seconds.clamp(1, 600));
                }
                // What follows a `?` may be the end of a password.
                _ if query.contains('@') => return Err("a `?` in a password is written %3F".into()),
                other => return Err(format!("the parameter `{other}` is not known here")),
            }
        }
        Ok(address)
    }
}

fn decoded(text: &str) -> Result<String, String> {
    let text = percent_decode_str(text).decode_utf8().map_err(|_| "a part of it is no UTF-8")?;
    if text.contains('\0') { Err("it contains a zero byte".into()) } else { Ok(text.into_owned()) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_url_is_taken_apart() {
        let address = Address::parse(
            "postgresql://cdc:p%40ss@w@[::1]:6000/my%20db?sslmode=verify-full&sslrootcert=/ca.pem&connect_timeout=3",
        );
        let address = address.unwrap();
        assert_eq!((address.host.as_str(), address.port), ("::1", 6000));
        assert_eq!((address.user.as_str(), address.password.as_str()), ("cdc", "p@ss@w"));
        assert_eq!(address.database, "my db");
        assert_eq!(address.ssl_mode, SslMode::VerifyFull);
        assert_eq!(address.ca_file, Some(PathBuf::from("/ca.pem")));
        assert_eq!(address.connect_timeout, Duration::from_secs(3));
    }

    #[test]
    fn what_is_left_out_has_a_default() {
        let address = Address::parse("postgres://app@db").unwrap();
        assert_eq!((address.host.as_str(), address.port), ("db", 5432));
        assert_eq!(address.database, "app");
        assert_eq!(address.ssl_mode, SslMode::Prefer);
    }

    #[test]
    fn a_refusal_never_shows_the_password() {
        for url in [
            "mysql://a:geheim@b/c",
            "postgres://geheim",
            "postgres://a:geheim@b:port/c",
            "postgres://a:geheim@b/c?sslmode=maybe",
            "postgres://a:geheim@b/c?target_session_attrs=any",
            "postgres://a:x?geheim=y@b/c",
        ] {
            let error = Address::parse(url).unwrap_err();
            assert_eq!(error.remedy, Remedy::Stop);
            assert!(!error.message.contains("geheim"), "{}", error.message);
        }
        let shown = format!("{:?}", Address::parse("postgres://a:geheim@b/c").unwrap());
        assert_eq!(shown, "postgres://a@b:5432/c");
    }
}
