//! What the configuration file declares beside options: components by file, subscriptions, and sources.
//!
//! ```toml
//! [components.active-users]
//! file = "active-users.wasm"
//!
//! [subscriptions.mail]
//! tables = ["users"]
//! where = "after.status == 'active'"
//! subscriber = { component = "active-users" }
//! ```
//! A subscription's members are those of `PUT /subscriptions/:id`, and mean the same.

use std::path::{Path, PathBuf};

use cdc_rest::{ComponentName, SourceName, SubscriptionId, SubscriptionSpec};
use serde::Deserialize;

use super::error::ConfigError;
use super::resolve::Environment;
use super::sources;
use crate::source::SourceSpec;

/// The tables of the file that are no options.
pub(super) const TABLES: [&str; 3] = ["components", "subscriptions", "sources"];

/// What the configuration file declares.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Declared {
    /// Components by name, each in a file: made current at the start when its bytes are not.
    pub components: Vec<(ComponentName, PathBuf)>,
    /// Subscriptions by id.
    pub subscriptions: Vec<(SubscriptionId, SubscriptionSpec)>,
    /// Databases to follow.
    pub sources: Vec<SourceSpec>,
}

/// A source of the file, not read any further: its secrets may stand in variables that only the service has.
#[derive(Debug)]
pub(super) struct SourceTable {
    name: SourceName,
    value: toml::Value,
    path: PathBuf,
}

impl SourceTable {
    pub(super) fn read(self, environment: &Environment) -> Result<SourceSpec, ConfigError> {
        let folder = self.path.parent().unwrap_or(Path::new(""));
        let key = format!("sources.{}", self.name);
        sources::read(self.name, &self.value, folder, environment).map_err(|reason| ConfigError::Declaration {
            key,
            path: self.path.clone(),
            reason,
        })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ComponentTable {
    file: PathBuf,
}

/// Reads what the file declares. Files are named as seen from the folder of the configuration file.
pub(super) fn read(text: &str, path: &Path) -> Result<(Declared, Vec<SourceTable>), ConfigError> {
    let table: toml::Table = toml::from_str(text).map_err(|error| ConfigError::Syntax {
        path: path.to_owned(),
        line: error.span().map_or(1, |span| text[..span.start.min(text.len())].matches('\n').count() + 1),
        reason: error.message().to_owned(),
    })?;
    let mut declared = Declared::default();
    let mut sources = Vec::new();
    for name in TABLES {
        let Some(found) = table.get(name) else { continue };
        let wrong = |key: String, reason: String| ConfigError::Declaration { key, path: path.to_owned(), reason };
        let toml::Value::Table(entries) = found else {
            return Err(wrong(name.to_owned(), format!("it has to be a table, as in [{name}.some-name]")));
        };
        for (key, value) in entries {
            let full = format!("{name}.{key}");
            if name == "components" {
                let component =
                    ComponentName::parse(key).map_err(|problem| wrong(full.clone(), problem.detail().to_owned()))?;
                let table = ComponentTable::deserialize(value.clone())
                    .map_err(|error| wrong(full, cdc_sinks::without_value(error.message())))?;
                let folder = path.parent().unwrap_or(Path::new(""));
                declared.components.push((component, folder.join(table.file)));
            } else if name == "sources" {
                let name = SourceName::parse(key).map_err(|problem| wrong(full, problem.detail().to_owned()))?;
                sources.push(SourceTable { name, value: value.clone(), path: path.to_owned() });
            } else {
                let id =
                    SubscriptionId::parse(key).map_err(|problem| wrong(full.clone(), problem.detail().to_owned()))?;
                let spec = SubscriptionSpec::deserialize(value.clone())
                    .map_err(|error| wrong(full, cdc_sinks::without_value(error.message())))?;
                declared.subscriptions.push((id, spec));
            }
        }
    }
    Ok((declared, sources))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Declared, String> {
        let read = || {
            let (mut declared, sources) = super::read(text, Path::new("conf/cdc.toml"))?;
            for table in sources {
                declared.sources.push(table.read(&Environment::default())?);
            }
            Ok::<_, ConfigError>(declared)
        };
        read().map_err(|error| error.to_string())
    }

    #[test]
    fn components_and_subscriptions_are_read_beside_options() {
        let declared = read(
            "listen = \"[::]:1\"\n[components.c]\nfile = \"c.wasm\"\n[subscriptions.s]\ntables = [\"users\"]\n\
             subscriber = { component = \"c\" }\n[subscriptions.s.batch]\nmaxEvents = 7\n",
        );
        let declared = declared.expect("valid");
        assert_eq!(declared.components[0].1, Path::new("conf/c.wasm"));
        let (id, spec) = &declared.subscriptions[0];
        assert_eq!((id.as_str(), spec.batch.max_events), ("s", 7));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_key() {
        for (text, expected) in [
            ("[subscriptions.s]\ntables = []\n", "subscriptions.s"),
            ("[subscriptions.s]\nsubscriber = { builtin = \"console\" }\nlanez = 2\n", "lanez"),
            ("[subscriptions]\ns = 1\n", "subscriptions.s"),
            ("subscriptions = 1\n", "[subscriptions.some-name]"),
            ("[components.c]\nfiel = \"c.wasm\"\n", "fiel"),
            ("[sources.s]\nurl = \"oracle://h\"\n", "sources.s (conf/cdc.toml): url: allowed: "),
            ("[sources.s]\nurl = \"mysql://h\"\nslot = \"x\"\n", "sources.s (conf/cdc.toml): slot: "),
            ("[sources.\"a b\"]\nurl = \"mysql://h\"\n", "sources.a b"),
            ("[components.\"a/b\"]\nfile = \"c.wasm\"\n", "a/b"),
        ] {
            let message = read(text).expect_err(text);
            assert!(message.contains(expected) && message.contains("conf/cdc.toml"), "{text}: {message}");
        }
    }
}
