//! Where a database is and how to get in: a connection URL, taken apart.

use std::path::PathBuf;

use percent_encoding::percent_decode_str;

/// How a connection is protected, as the client's `--ssl-mode` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SslMode {
    /// Never encrypted.
    Disabled,
    /// Encrypted if the server can; nothing is verified.
    Preferred,
    /// Encrypted; nothing is verified.
    Required,
    /// Encrypted, and the certificate is of a known CA and for the host's name.
    VerifyIdentity,
}

/// A connection URL, taken apart.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) user: String,
    pub(super) password: String,
    pub(super) ssl_mode: SslMode,
    /// Certificates of the CAs to trust, PEM. Else the public ones.
    pub(super) ca_file: Option<PathBuf>,
    /// The name that the certificate must be for, if it is not the host's.
    pub(super) certificate_name: Option<String>,
}

// Without the password, which has no place in a log.
impl std::fmt::Debug for Address {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "mysql://{}@{}:{}", self.user, self.host, self.port)
    }
}

impl Address {
    /// Takes a URL apart. The message tells what is wrong without repeating it, because there may be a password in it.
    pub(super) fn parse(url: &str) -> Result<Address, String> {
        let rest = url.strip_prefix("mysql://").or_else(|| url.strip_prefix("mariadb://"));
        let rest = rest.ok_or("it does not begin with mysql:// or mariadb://")?;
        let (rest, parameters) = rest.split_once('?').unwrap_or((rest, ""));
        let authority = rest.split('/').next().unwrap_or_default();
        let (account, host) = authority.rsplit_once('@').ok_or("there is no user in it")?;
        let (user, password) = account.split_once(':').unwrap_or((account, ""));
        let (host, port) = match host.strip_prefix('[').and_then(|host| host.split_once(']')) {
            Some((host, port)) => (host, port.strip_prefix(':')),
            None => host.split_once(':').map_or((host, None), |(host, port)| (host, Some(port))),
        };
        let port = port.map_or(Ok(3306), |port| port.parse().map_err(|_| "its port is not a number"))?;
        let decode = |text: &str| {
            let decoded = percent_decode_str(text).decode_utf8();
            decoded.map(|text| text.into_owned()).map_err(|_| "a part of it is not UTF-8")
        };
        let mut address = Address {
            host: decode(host)?,
            port,
            user: decode(user)?,
            password: decode(password)?,
            ssl_mode: SslMode::Preferred,
            ca_file: None,
            certificate_name: None,
        };
        if address.host.is_empty() || address.user.is_empty() {
            return Err("there is no host or no user in it".into());
        }
        for parameter in parameters.split('&').filter(|parameter| !parameter.is_empty()) {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            let value = decode(value)?;
            match name {
                "ssl-mode" => {
                    address.ssl_mode = match value.to_ascii_lowercase().replace('_', "-").as_str() {
                        "disabled" => SslMode::Disabled,
                        "preferred" => SslMode::Preferred,
                        "required" => SslMode::Required,
                        // The library can't leave out just the name; and a name is known.
                        "verify-ca" => {
                            return Err("its ssl-mode verify-ca is not supported; use verify-identity, and name the \
                                certificate's own name by ssl-name if it is not the host's"
                                .into());
                        }
                        "verify-identity" => SslMode::VerifyIdentity,
                        _ => {
                            let known = "disabled, preferred, required and verify-identity";
                            return Err(format!("its ssl-mode is not known; there are {known}"));
                        }
                    };
                }
                "ssl-ca" => address.ca_file = Some(PathBuf::from(value)),
                "ssl-name" => address.certificate_name = Some(value),
                // What follows a `?` may be the end of a password.
                _ if parameters.contains('@') => return Err("a `?` in a password is written %3F".into()),
                // One that is silently ignored could be about security.
                other => {
                    return Err(format!("the parameter {other} is not known; there are ssl-mode, ssl-ca and ssl-name"));
                }
            }
        }
        Ok(address)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_url_is_taken_apart() {
        let address = Address::parse(
            "mysql://u%40x:p%3aq@[::1]:3307/shop?ssl-mode=VERIFY_IDENTITY&ssl-ca=/a%20b.pem&ssl-name=db",
        )
        .unwrap();
        assert_eq!((address.user.as_str(), address.password.as_str()), ("u@x", "p:q"));
        assert_eq!((address.host.as_str(), address.port), ("::1", 3307));
        assert_eq!((address.ssl_mode, address.ca_file.clone()), (SslMode::VerifyIdentity, Some("/a b.pem".into())));
        assert!(!format!("{address:?}").contains("p:q"));
        assert_eq!(Address::parse("mariadb://u@h").unwrap().port, 3306);
    }

    #[test]
    fn what_is_wrong_is_told_without_the_password() {
        for url in [
            "postgres://u:secret@h",
            "mysql://h:1",
            "mysql://u:secret@h:x",
            "mysql://u:secret@h?sslmode=x",
            "mysql://u@h:x?secret=y@h",
            "mysql://u:secret@h?ssl-mode=verify-ca",
        ] {
            let problem = Address::parse(url).unwrap_err();
            assert!(!problem.contains("secret"), "{problem}");
        }
    }
}
