//! Reads the configuration file into plain entries, each with the line it stands on.
//!
//! Nothing is interpreted here: a value is handed on as the text a flag would have carried, so that one parser per
//! option decides for all of its sources.

use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use super::declared::{self, Declared, SourceTable};
use super::error::ConfigError;
use super::resolve::Origin;

/// One key of the file with its values as text.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// The table around the key; `None` at the top level.
    pub(super) table: Option<String>,
    pub(super) key: String,
    /// More than one only where the file has a list.
    pub(super) values: Vec<String>,
    pub(super) line: usize,
}

impl Entry {
    /// The key as the file names it, with its table.
    pub(super) fn name(&self) -> String {
        match &self.table {
            Some(table) => format!("{table}.{}", self.key),
            None => self.key.clone(),
        }
    }
}

/// The file's entries and where it is, for messages.
#[derive(Debug, Default)]
pub(super) struct ConfigFile {
    pub(super) path: Option<PathBuf>,
    pub(super) entries: Vec<Entry>,
    pub(super) declared: Declared,
    pub(super) sources: Vec<SourceTable>,
    pub(super) text: String,
}

/// Reads the file that was named, or `cdc.toml` of the working folder when there is one.
pub(super) fn read(named: Option<(&Path, Origin)>, working_folder: &Path) -> Result<ConfigFile, ConfigError> {
    let (path, origin) = match named {
        Some((path, origin)) => (path.to_owned(), Some(origin)),
        None => (PathBuf::from(super::DEFAULT_FILE), None),
    };
    match std::fs::read_to_string(working_folder.join(&path)) {
        Ok(text) => {
            let entries = entries(&text, &path)?;
            let (declared, sources) = declared::read(&text, &working_folder.join(&path))?;
            Ok(ConfigFile { entries, declared, sources, text, path: Some(path) })
        }
        Err(error) if origin.is_none() && error.kind() == std::io::ErrorKind::NotFound => Ok(ConfigFile::default()),
        Err(source) => Err(ConfigError::Unreadable { path, origin, source }),
    }
}

fn entries(text: &str, path: &Path) -> Result<Vec<Entry>, ConfigError> {
    let at = |span: Range<usize>| text[..span.start.min(text.len())].matches('\n').count() + 1;
    let top = DeTable::parse(text).map_err(|error| ConfigError::Syntax {
        path: path.to_owned(),
        line: at(error.span().unwrap_or_default()),
        reason: error.message().to_owned(),
    })?;
    let mut found = Vec::new();
    let mut add = |table: Option<&str>, key: &str, value: &DeValue<'_>, line: usize| {
        let mut entry = Entry { table: table.map(str::to_owned), key: key.to_owned(), values: Vec::new(), line };
        match texts(value) {
            Ok(values) => entry.values = values,
            Err(found) => {
                let origin = Origin::File { path: path.to_owned(), line };
                return Err(ConfigError::WrongType { key: entry.name(), origin, found });
            }
        }
        found.push(entry);
        Ok(())
    };
    for (key, value) in top.get_ref() {
        if declared::TABLES.contains(&key.get_ref().as_ref()) {
            continue;
        }
        match value.get_ref() {
            DeValue::Table(table) => {
                for (inner, value) in table {
                    add(Some(key.get_ref()), inner.get_ref(), value.get_ref(), at(inner.span()))?;
                }
            }
            value => add(None, key.get_ref(), value, at(key.span()))?,
        }
    }
    found.sort_by_key(|entry| entry.line);
    Ok(found)
}

/// The texts of a value, or the name of its type when no option is written so.
fn texts(value: &DeValue<'_>) -> Result<Vec<String>, &'static str> {
    match value {
        DeValue::Array(items) => items.iter().map(|item| text(item.get_ref())).collect(),
        value => Ok(vec![text(value)?]),
    }
}

fn text(value: &DeValue<'_>) -> Result<String, &'static str> {
    match value {
        DeValue::String(text) => Ok(text.to_string()),
        DeValue::Boolean(value) => Ok(value.to_string()),
        DeValue::Integer(number) => match u64::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => Ok(number.to_string()),
            // Negative or huge: the option's own parser says what is allowed.
            Err(_) => Ok(number.as_str().to_owned()),
        },
        other => Err(other.type_str()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Vec<Entry>, String> {
        entries(text, Path::new("cdc.toml")).map_err(|error| error.to_string())
    }

    #[test]
    fn keys_tables_and_lists_become_entries_with_lines() {
        let text =
            "# head\nlisten = \"[::]:1\"\ncors-origin = [\"a\", \"b\"]\n\n[limits]\nmax-page = 1_000\nx = 0x10\n";
        let found = parse(text).expect("valid");
        let shown: Vec<_> = found.iter().map(|entry| (entry.name(), entry.values.join("+"), entry.line)).collect();
        let expected =
            [("listen", "[::]:1", 2), ("cors-origin", "a+b", 3), ("limits.max-page", "1000", 6), ("limits.x", "16", 7)];
        let expected: Vec<_> = expected.map(|(name, value, line)| (name.to_owned(), value.to_owned(), line)).into();
        assert_eq!(shown, expected);
    }

    #[test]
    fn text_that_is_not_toml_is_named_with_its_line() {
        let message = parse("listen = \"a\"\nreaders 2\n").expect_err("no TOML");
        assert!(message.starts_with("cdc.toml:2: "), "{message}");
        parse("a = 1\na = 2\n").expect_err("a key twice");
    }

    #[test]
    fn values_that_no_option_takes_name_their_type() {
        let message = parse("\n[limits]\nmax-page = 1.5\n").expect_err("a float");
        assert_eq!(
            message,
            "limits.max-page is a float (cdc.toml:3); allowed: a string, a whole number, true or false, or a list"
        );
        parse("a = [[1]]").expect_err("a nested list");
        assert_eq!(parse("a = true").expect("a boolean")[0].values, ["true"]);
        parse("[a.b]\nc = 1").expect_err("a nested table");
    }
}
