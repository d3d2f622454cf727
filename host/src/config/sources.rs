//! Sources in the configuration: `[sources.NAME]` tables of the file, and addresses on the command line.
//!
//! ```toml
//! [sources.shop]
//! url = "postgres://cdc:${SHOP_PASSWORD}@db.example:5432/shop"
//! tables = ["public.*"]
//! exclude-columns = ["public.users.password"]
//! mask.hash = ["public.users.email"]
//! max-retained-bytes = "10GiB"
//! ```
//! `${NAME}` in an address, a password or a salt is the environment variable of that name, so that secrets need not
//! stand in the file.

use std::path::Path;

use cdc_rest::SourceName;

use super::resolve::Environment;
use super::value::{GIB, KIB, TIB, bytes_in, count_in, milliseconds_in};
use crate::source::{
    AuditSchedule, OnMaxRetained, Password, Secret, SourceKind, SourceSpec, SourceUrl, TableSelection,
};

/// How much log a database keeps for a source before it is warned about, unless the file says otherwise.
const DEFAULT_MAX_RETAINED_BYTES: u64 = 10 * GIB;

/// What a `[sources.NAME]` table may hold.
const KEYS: [&str; 23] = [
    "append-only",
    "audit",
    "audit-mend",
    "audit-rows-per-second",
    "create-slot",
    "exclude",
    "exclude-columns",
    "heartbeat-ms",
    "mask",
    "max-retained-bytes",
    "on-max-retained",
    "password",
    "password-file",
    "publication",
    "read-parallelism",
    "server-id",
    "skip-tables-without-key",
    "slot",
    "snapshot",
    "table-name",
    "tables",
    "tls-ca-file",
    "url",
];
/// What its `mask` may hold.
const MASK_KEYS: [&str; 3] = ["hash", "redact", "salt"];

/// Reads one table. Files are named as seen from `folder`. An error names the key within the table.
pub(super) fn read(
    name: SourceName,
    value: &toml::Value,
    folder: &Path,
    environment: &Environment,
) -> Result<SourceSpec, String> {
    let table = Table::of(value, "")?;
    table.refuse_others(&KEYS)?;
    let secret = |key: &str, text: String| filled_in(&text, environment).map_err(|why| format!("{key}: {why}"));
    let file = |key: &str| Ok::<_, String>(table.text(key)?.map(|file| folder.join(file)));

    let url = table.text("url")?.ok_or("url: it is missing; it is the database's address")?;
    let url = SourceUrl::parse(&secret("url", url)?).map_err(|allowed| format!("url: allowed: {allowed}"))?;
    let kind = url.kind();
    let mut spec = SourceSpec::new(name, url);
    spec.password = match (table.text("password")?, file("password-file")?) {
        (Some(_), Some(_)) => return Err("password-file: there is a password too; one of them is enough".to_owned()),
        (Some(text), None) => Some(Password::Text(Secret::new(secret("password", text)?))),
        (None, Some(file)) => {
            let password = Password::File(file);
            // It is read again at every connection; that it cannot be read at all is better said now.
            password
                .read()
                .map_err(|(file, error)| format!("password-file: cannot read {}: {error}", file.display()))?;
            Some(password)
        }
        (None, None) => None,
    };
    let mask = match table.get("mask") {
        Some(value) => Table::of(value, "mask.")?,
        None => Table { entries: None, prefix: "mask." },
    };
    mask.refuse_others(&MASK_KEYS)?;
    spec.selection = TableSelection {
        tables: table.patterns("tables", 1)?,
        exclude: table.patterns("exclude", 1)?,
        append_only: table.patterns("append-only", 1)?,
        exclude_columns: table.patterns("exclude-columns", 2)?,
        hash: mask.patterns("hash", 2)?,
        redact: mask.patterns("redact", 2)?,
        salt: mask.text("salt")?.map(|salt| secret("mask.salt", salt)).transpose()?.map(Secret::new),
        table_name: table.text("table-name")?,
    };
    spec.snapshot = table.boolean("snapshot")?.unwrap_or(true);
    spec.tls_ca_file = file("tls-ca-file")?;
    spec.heartbeat = table.parsed("heartbeat-ms", milliseconds_in(100..=3_600_000))?;
    let max_retained = table.parsed("max-retained-bytes", super::value::or_unlimited(bytes_in(KIB..=1_024 * TIB)))?;
    spec.max_retained_bytes = max_retained.unwrap_or(Some(DEFAULT_MAX_RETAINED_BYTES));
    spec.on_max_retained = table.parsed("on-max-retained", on_max_retained)?.unwrap_or_default();
    spec.slot = table.text("slot")?;
    spec.publication = table.text("publication")?;
    spec.makes_slot = table.boolean("create-slot")?.unwrap_or(true);
    spec.skips_tables_without_key = table.boolean("skip-tables-without-key")?.unwrap_or(false);
    if let Some(lanes) = table.parsed("read-parallelism", count_in::<u32>(1..=16))? {
        spec.read_parallelism = lanes;
    }
    spec.server_id = table.parsed("server-id", count_in::<u32>(1..=u64::from(u32::MAX)))?;
    spec.audit = table.parsed("audit", audit_schedule)?.unwrap_or_default();
    spec.audit_mends = table.boolean("audit-mend")?.unwrap_or(false);
    if let Some(rate) = table.parsed("audit-rows-per-second", count_in::<u32>(1..=10_000_000))? {
        spec.audit_rows_per_second = rate;
    }
    let foreign: &[&str] = match kind {
        SourceKind::Postgres => &["server-id"],
        SourceKind::Mysql | SourceKind::Mariadb => {
            &["slot", "publication", "create-slot", "skip-tables-without-key", "read-parallelism"]
        }
    };
    if let Some(key) = foreign.iter().find(|key| table.get(key).is_some()) {
        return Err(format!("{key}: there is no such thing in {}", kind.as_str()));
    }
    if kind != SourceKind::Postgres && spec.on_max_retained == OnMaxRetained::DropSlot {
        return Err(format!("on-max-retained: {} has no slot to drop; allowed: warn or stop", kind.as_str()));
    }
    Ok(spec)
}

/// The sources that addresses on the command line ask for, each named after its kind, and numbered from the second on.
pub(super) fn of_urls(urls: &[SourceUrl]) -> Vec<SourceSpec> {
    let mut specs: Vec<SourceSpec> = Vec::new();
    for url in urls {
        let earlier = specs.iter().filter(|spec| spec.kind() == url.kind()).count();
        let name = match earlier {
            0 => url.kind().as_str().to_owned(),
            earlier => format!("{}-{}", url.kind().as_str(), earlier + 1),
        };
        // The word of a kind, with or without a number, is a name.
        let Ok(name) = SourceName::parse(&name) else { continue };
        let mut spec = SourceSpec::new(name, url.clone());
        spec.max_retained_bytes = Some(DEFAULT_MAX_RETAINED_BYTES);
        specs.push(spec);
    }
    specs
}

fn on_max_retained(text: &str) -> Result<OnMaxRetained, String> {
    match text {
        "warn" => Ok(OnMaxRetained::Warn),
        "stop" => Ok(OnMaxRetained::Stop),
        "drop-slot" => Ok(OnMaxRetained::DropSlot),
        _ => Err("warn, stop or drop-slot".to_owned()),
    }
}

fn audit_schedule(text: &str) -> Result<AuditSchedule, String> {
    match text {
        "off" => Ok(AuditSchedule::Off),
        "hourly" => Ok(AuditSchedule::Hourly),
        "daily" => Ok(AuditSchedule::Daily),
        "weekly" => Ok(AuditSchedule::Weekly),
        _ => Err("off, hourly, daily or weekly".to_owned()),
    }
}

/// A text in which `${NAME}` is replaced by that environment variable. Nothing of what is filled in is looked through
/// again, and a `$` that no `{` follows stays.
fn filled_in(text: &str, environment: &Environment) -> Result<String, String> {
    let mut filled = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        filled.push_str(before);
        let (name, after) = after.split_once('}').ok_or("`${` has no `}`")?;
        let value = environment.any(name).ok_or_else(|| format!("the environment variable {name} is not set"))?;
        filled.push_str(value.to_str().ok_or_else(|| format!("the environment variable {name} is not UTF-8"))?);
        rest = after;
    }
    filled.push_str(rest);
    Ok(filled)
}

/// A table of the file whose values are taken one by one, so that an error can name the key.
struct Table<'a> {
    entries: Option<&'a toml::Table>,
    prefix: &'static str,
}

impl<'a> Table<'a> {
    fn of(value: &'a toml::Value, prefix: &'static str) -> Result<Self, String> {
        let entries = value.as_table().ok_or_else(|| format!("{}it has to be a table", prefix.replace('.', ": ")))?;
        Ok(Self { entries: Some(entries), prefix })
    }

    fn get(&self, key: &str) -> Option<&'a toml::Value> {
        self.entries?.get(key)
    }

    fn refuse_others(&self, known: &[&str]) -> Result<(), String> {
        let mut keys = self.entries.into_iter().flat_map(toml::Table::keys);
        match keys.find(|key| !known.contains(&key.as_str())) {
            Some(key) => {
                let allowed = known.join(", ");
                Err(format!("{}{key}: there is no such option; allowed here: {allowed}", self.prefix))
            }
            None => Ok(()),
        }
    }

    fn wrong<T>(&self, key: &str, allowed: impl std::fmt::Display) -> Result<T, String> {
        Err(format!("{}{key}: allowed: {allowed}", self.prefix))
    }

    fn text(&self, key: &str) -> Result<Option<String>, String> {
        match self.get(key) {
            None => Ok(None),
            Some(toml::Value::String(text)) if !text.is_empty() => Ok(Some(text.clone())),
            Some(_) => self.wrong(key, "a text that is not empty"),
        }
    }

    fn boolean(&self, key: &str) -> Result<Option<bool>, String> {
        match self.get(key) {
            None => Ok(None),
            Some(toml::Value::Boolean(value)) => Ok(Some(*value)),
            Some(_) => self.wrong(key, "true or false"),
        }
    }

    /// A text or a whole number, as the parser of the option's kind takes it.
    fn parsed<T>(&self, key: &str, parse: impl Fn(&str) -> Result<T, String>) -> Result<Option<T>, String> {
        let text = match self.get(key) {
            None => return Ok(None),
            Some(toml::Value::String(text)) => text.clone(),
            Some(toml::Value::Integer(number)) => number.to_string(),
            Some(other) => other.to_string(),
        };
        parse(&text).map(Some).or_else(|allowed| self.wrong(key, allowed))
    }

    /// A list of patterns, each of which has at least so many dots.
    fn patterns(&self, key: &str, dots: usize) -> Result<Vec<String>, String> {
        let form = if dots == 1 { "namespace.table" } else { "namespace.table.column" };
        let allowed = format!("a list of patterns like {form}, in which * stands for any characters");
        let items = match self.get(key) {
            None => return Ok(Vec::new()),
            Some(toml::Value::Array(items)) => items,
            Some(_) => return self.wrong(key, allowed),
        };
        let pattern = |item: &toml::Value| match item {
            // A star may stand for dots too.
            toml::Value::String(text) if text.contains('*') || text.matches('.').count() >= dots => Ok(text.clone()),
            _ => self.wrong(key, format!("{allowed}, not {item}")),
        };
        items.iter().map(pattern).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn read(text: &str) -> Result<SourceSpec, String> {
        let variables = [("SHOP_PASSWORD", "hunter2${x"), ("CDC_SALT", "pepper")];
        let name = SourceName::parse("shop").expect("a name");
        let value = toml::from_str::<toml::Value>(text).expect("TOML");
        super::read(name, &value, Path::new("conf"), &Environment::from_iter(variables))
    }

    #[test]
    fn every_option_of_a_source_is_read() {
        let spec = read(
            "url = 'postgres://cdc:${SHOP_PASSWORD}@db:5432/shop'\ntables = ['public.*']\nexclude = ['public.tmp_*']\n\
             append-only = ['public.audit_*']\n\
             exclude-columns = ['public.users.password']\nmask.hash = ['public.users.email']\n\
             mask.redact = ['*.note']\nmask.salt = '${CDC_SALT}'\ntable-name = '{relation}'\nslot = 's'\n\
             publication = 'p'\nsnapshot = false\nheartbeat-ms = 500\nmax-retained-bytes = '1GiB'\n\
             on-max-retained = 'drop-slot'\ntls-ca-file = 'ca.pem'\naudit = 'weekly'\naudit-mend = true\n\
             audit-rows-per-second = 500\nread-parallelism = 8\n",
        );
        let spec = spec.expect("valid");
        assert_eq!(spec.url.secret_text(), "postgres://cdc:hunter2${x@db:5432/shop");
        assert_eq!(spec.selection.tables, ["public.*"]);
        assert_eq!(spec.selection.append_only, ["public.audit_*"]);
        assert_eq!(spec.selection.hash, ["public.users.email"]);
        assert_eq!(spec.selection.redact, ["*.note"]);
        assert_eq!(spec.selection.salt.as_ref().map(Secret::reveal), Some("pepper"));
        assert_eq!((spec.slot.as_deref(), spec.publication.as_deref()), (Some("s"), Some("p")));
        assert_eq!((spec.snapshot, spec.heartbeat), (false, Some(Duration::from_millis(500))));
        assert_eq!((spec.max_retained_bytes, spec.on_max_retained), (Some(GIB), OnMaxRetained::DropSlot));
        assert_eq!(spec.tls_ca_file.as_deref(), Some(Path::new("conf/ca.pem")));
        assert_eq!((spec.audit, spec.audit_mends, spec.audit_rows_per_second), (AuditSchedule::Weekly, true, 500));
        assert_eq!((spec.read_parallelism, read("url = 'postgres://h'").expect("valid").read_parallelism), (8, 4));
        assert!(!format!("{spec:?}").contains("hunter2"), "{spec:?}");
    }

    #[test]
    fn a_budget_of_retained_log_is_there_unless_it_is_lifted() {
        let budget = |text: &str| read(text).expect("valid").max_retained_bytes;
        assert_eq!(budget("url = 'mysql://h/d'"), Some(DEFAULT_MAX_RETAINED_BYTES));
        assert_eq!(budget("url = 'mysql://h/d'\nmax-retained-bytes = 'unlimited'"), None);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_key_and_no_secret() {
        for (text, expected) in [
            ("tables = []", "url: it is missing"),
            ("url = 'http://x:secret@y'", "url: allowed: an address like"),
            ("url = 'postgres://${NOBODY}@h'", "url: the environment variable NOBODY is not set"),
            ("url = 'postgres://${NOBODY'", "url: `${` has no `}`"),
            ("url = 'postgres://h'\nslto = 's'", "slto: there is no such option; allowed here: append-only, audit, "),
            ("url = 'postgres://h'\nmask.hsah = []", "mask.hsah: there is no such option"),
            ("url = 'postgres://h'\nmask = 1", "mask: it has to be a table"),
            ("url = 'postgres://h'\ntables = 'public.*'", "tables: allowed: a list of patterns"),
            ("url = 'postgres://h'\ntables = ['users']", "tables: allowed: a list of patterns"),
            ("url = 'postgres://h'\nmask.hash = ['users.email']", "mask.hash: allowed: a list of patterns"),
            ("url = 'postgres://h'\nheartbeat-ms = 1", "heartbeat-ms: allowed: a whole number of milliseconds"),
            ("url = 'postgres://h'\non-max-retained = 'drop'", "on-max-retained: allowed: warn, stop or drop-slot"),
            ("url = 'postgres://h'\nmax-retained-bytes = -1", "max-retained-bytes: allowed: unlimited, or a size"),
            ("url = 'postgres://h'\nsnapshot = 'yes'", "snapshot: allowed: true or false"),
            ("url = 'postgres://h'\naudit = 'yearly'", "audit: allowed: off, hourly, daily or weekly"),
            ("url = 'postgres://h'\nserver-id = 1", "server-id: there is no such thing in postgres"),
            ("url = 'postgres://h'\nread-parallelism = 0", "read-parallelism: allowed: a whole number from 1 to 16"),
            ("url = 'postgres://h'\nread-parallelism = 17", "read-parallelism: allowed: a whole number from 1 to 16"),
            ("url = 'mariadb://h'\nread-parallelism = 2", "read-parallelism: there is no such thing in mariadb"),
            ("url = 'mariadb://h'\nslot = 's'", "slot: there is no such thing in mariadb"),
            ("url = 'mysql://h'\non-max-retained = 'drop-slot'", "on-max-retained: mysql has no slot"),
            ("url = 'mysql://h'\npassword = 'a'\npassword-file = 'b'", "password-file: there is a password too"),
            ("url = 'mysql://h'\npassword-file = 'b'", "password-file: cannot read conf/b"),
        ] {
            let message = read(text).expect_err(text);
            assert!(message.starts_with(expected), "{text}: {message}");
            assert!(!message.contains("secret"), "{message}");
        }
    }

    #[test]
    fn addresses_on_the_command_line_are_named_after_their_kind() {
        let urls = ["postgres://a", "mysql://b", "postgres://c", "mariadb://d"];
        let urls: Vec<_> = urls.iter().map(|url| SourceUrl::parse(url).expect("an address")).collect();
        let names: Vec<_> = of_urls(&urls).into_iter().map(|spec| spec.name.into_string()).collect();
        assert_eq!(names, ["postgres", "mysql", "postgres-2", "mariadb"]);
    }
}
