//! What a source is to follow, and how.

use std::path::{Path, PathBuf};
use std::time::Duration;

use cdc_access::FileError;
use cdc_rest::SourceName;
use cdc_sources::AuditPace;

use super::audit::AuditSchedule;
use super::url::{Secret, SourceKind, SourceUrl};

/// A source as the configuration has it: checked as far as that goes without the database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceSpec {
    /// Its name: the one of its events' `source`.
    pub name: SourceName,
    /// Where the database is.
    pub url: SourceUrl,
    /// The password, when it does not stand in the address.
    pub password: Option<Password>,
    /// Which tables and columns are captured, and what of them is hidden.
    pub selection: TableSelection,
    /// Whether the rows that are there when a table is first seen are read.
    pub snapshot: bool,
    /// The certificates that the server's has to come from, PEM; what the address says, if none. Unless the address says
    /// how strictly to look, the certificate has to be for the host's name.
    pub tls_ca_file: Option<PathBuf>,
    /// The time between signs of life in the database's log, so that an idle one does not hold log back.
    pub heartbeat: Option<Duration>,
    /// How much log the database may keep because of this source.
    pub max_retained_bytes: Option<u64>,
    /// What happens above that.
    pub on_max_retained: OnMaxRetained,
    /// The slot's name (PostgreSQL).
    pub slot: Option<String>,
    /// The publication's name (PostgreSQL).
    pub publication: Option<String>,
    /// Whether slot and publication are made when they are missing (PostgreSQL).
    pub makes_slot: bool,
    /// Whether tables without a key are passed over instead of stopping the source (PostgreSQL).
    pub skips_tables_without_key: bool,
    /// How many tables, or parts of large ones, are read at once (PostgreSQL).
    pub read_parallelism: u32,
    /// The number under which the source registers as a replica (MySQL, MariaDB).
    pub server_id: Option<u32>,
    /// When its tables are compared with the database's without being asked.
    pub audit: AuditSchedule,
    /// Whether rows that differ then are mended.
    pub audit_mends: bool,
    /// How many rows a second an audit reads at most.
    pub audit_rows_per_second: u32,
}

/// A password that does not stand in the address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Password {
    /// It is known.
    Text(Secret),
    /// It stands in this file, alone, and is read at every connection: it may change.
    File(PathBuf),
}

/// Which tables and columns are captured, by patterns in which `*` stands for any characters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TableSelection {
    /// `namespace.relation`; all that are not the server's own, if none.
    pub tables: Vec<String>,
    /// The same, of tables that are left out.
    pub exclude: Vec<String>,
    /// The same, of tables whose rows get ids of their own if they have no key, and are only ever inserted.
    pub append_only: Vec<String>,
    /// `namespace.relation.column`, of columns that are left out.
    pub exclude_columns: Vec<String>,
    /// Of columns of which a hash is kept.
    pub hash: Vec<String>,
    /// Of columns whose values are replaced by a fixed text.
    pub redact: Vec<String>,
    /// What goes into every hash first.
    pub salt: Option<Secret>,
    /// The name under which a table is captured, with `{database}`, `{namespace}` and `{relation}` filled in.
    pub table_name: Option<String>,
}

/// What happens when the database keeps more log for a source than it may.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnMaxRetained {
    /// It is said, and nothing else: the database keeps on keeping.
    #[default]
    Warn,
    /// The source stops. The slot stays, so nothing is lost, and nothing is freed either.
    Stop,
    /// The slot is dropped, which saves the database and ends the source: a repair is the way back.
    DropSlot,
}

impl Password {
    /// The password as it is now.
    pub fn read(&self) -> Result<Secret, (&Path, std::io::Error)> {
        match self {
            Self::Text(secret) => Ok(secret.clone()),
            Self::File(file) => {
                let unreadable = |error: FileError| (file.as_path(), std::io::Error::other(error));
                let text = cdc_access::read_file(file).map_err(unreadable)?;
                let text =
                    String::from_utf8(text).map_err(|_| unreadable(FileError::NotText { path: file.clone() }))?;
                // Editors end a file with a line's end.
                Ok(Secret::new(text.trim_end_matches(['\r', '\n']).to_owned()))
            }
        }
    }
}

impl SourceSpec {
    /// A source with defaults, as a lone address asks for it.
    #[must_use]
    pub fn new(name: SourceName, url: SourceUrl) -> Self {
        Self {
            name,
            url,
            password: None,
            selection: TableSelection::default(),
            snapshot: true,
            tls_ca_file: None,
            heartbeat: None,
            max_retained_bytes: None,
            on_max_retained: OnMaxRetained::Warn,
            slot: None,
            publication: None,
            makes_slot: true,
            skips_tables_without_key: false,
            read_parallelism: 4,
            server_id: None,
            audit: AuditSchedule::Off,
            audit_mends: false,
            audit_rows_per_second: AuditPace::default().rows_per_second,
        }
    }

    /// The address with everything that a connection needs, its password too: for nothing that is shown. Fails with the
    /// file that cannot be read.
    pub fn connection_url(&self) -> Result<Secret, (&Path, std::io::Error)> {
        let mut url = self.url.secret_text().to_owned();
        if let Some(password) = &self.password {
            let password = password.read()?;
            url = with_password(&url, password.reveal());
        }
        if let Some(file) = &self.tls_ca_file {
            let (ca, mode, strict) = match self.kind() {
                SourceKind::Postgres => ("sslrootcert", "sslmode", "verify-full"),
                SourceKind::Mysql | SourceKind::Mariadb => ("ssl-ca", "ssl-mode", "verify-identity"),
            };
            let mut add = |name: &str, value: &str| {
                url.push(if url.contains('?') { '&' } else { '?' });
                url.push_str(&format!("{name}={}", encoded(value)));
            };
            add(ca, &file.to_string_lossy());
            if !self.url.secret_text().contains(&format!("{mode}=")) {
                add(mode, strict);
            }
        }
        Ok(Secret::new(url))
    }

    /// The name of slot and publication, unless they are named: the source's own, in the letters that a slot's may have.
    #[must_use]
    pub fn slot_name(&self) -> String {
        let letter = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' };
        // 63 bytes are the most that a name may have, which is less than a source's may.
        let name: String = "cdc_".chars().chain(self.name.as_str().chars().map(letter)).take(63).collect();
        self.slot.clone().unwrap_or(name)
    }

    /// What kind of database it follows.
    #[must_use]
    pub fn kind(&self) -> SourceKind {
        self.url.kind()
    }
}

/// The address with this password, in place of one that it may have.
fn with_password(url: &str, password: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, tail) = rest.split_at(end);
    let Some((login, place)) = authority.rsplit_once('@') else { return url.to_owned() };
    let user = login.split_once(':').map_or(login, |(user, _)| user);
    format!("{scheme}://{user}:{}@{place}{tail}", encoded(password))
}

/// Percent-encoded, but for letters and digits.
fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(name: &str, url: &str) -> SourceSpec {
        let name = SourceName::parse(name).unwrap_or_else(|problem| panic!("{problem}"));
        SourceSpec::new(name, SourceUrl::parse(url).unwrap_or_else(|error| panic!("{error}")))
    }

    #[test]
    fn a_connection_has_the_password_and_the_certificates_that_stand_apart() {
        let url = |spec: &SourceSpec| spec.connection_url().unwrap_or_else(|(_, error)| panic!("{error}"));
        let mut shop = spec("shop", "postgres://cdc:old@h:1/d");
        assert_eq!(url(&shop).reveal(), "postgres://cdc:old@h:1/d");
        shop.password = Some(Password::Text(Secret::new("p@ss/word".to_owned())));
        shop.tls_ca_file = Some("/ca.pem".into());
        assert_eq!(url(&shop).reveal(), "postgres://cdc:p%40ss%2Fword@h:1/d?sslrootcert=%2Fca.pem&sslmode=verify-full");
        let mut mail = spec("mail", "mariadb://cdc@h?ssl-mode=verify-ca");
        mail.tls_ca_file = Some("ca.pem".into());
        assert_eq!(url(&mail).reveal(), "mariadb://cdc@h?ssl-mode=verify-ca&ssl-ca=ca.pem");
    }

    #[test]
    fn a_password_that_stands_in_a_file_is_read_each_time() {
        let folder = tempfile::tempdir().unwrap_or_else(|error| panic!("{error}"));
        let file = folder.path().join("password");
        let shop = SourceSpec { password: Some(Password::File(file.clone())), ..spec("shop", "postgres://cdc@h/d") };
        assert!(shop.connection_url().is_err_and(|(named, _)| named == file));
        for password in ["one", "two\n"] {
            std::fs::write(&file, password).unwrap_or_else(|error| panic!("{error}"));
            let url = shop.connection_url().unwrap_or_else(|(_, error)| panic!("{error}"));
            assert_eq!(url.reveal(), format!("postgres://cdc:{}@h/d", password.trim_end()));
        }
    }

    #[test]
    fn slots_are_named_after_their_source() {
        assert_eq!(spec("Shop-1.eu", "postgres://u@h").slot_name(), "cdc_shop_1_eu");
        assert_eq!(spec(&"x".repeat(64), "postgres://u@h").slot_name().len(), 63);
        let named = SourceSpec { slot: Some("s".to_owned()), ..spec("shop", "postgres://u@h") };
        assert_eq!(named.slot_name(), "s");
    }
}
