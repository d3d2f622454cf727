//! Layers the sources of an option: flag over environment variable over configuration file over default.
//!
//! The option's clap definition is its only definition. Values of the environment and the file are turned into the
//! flags they stand for and go through the same parser, one by one, so that a wrong value is named with its own
//! origin even where a stronger source overrides it.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt::{self, Display};
use std::path::PathBuf;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Args, Command};

use super::error::ConfigError;
use super::file::{ConfigFile, Entry};

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A flag of the command line, with its dashes.
    Flag(String),
    /// An environment variable.
    Variable(String),
    /// A line of the configuration file.
    File {
        /// The file as it was named.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// Nobody set it.
    Default,
}

impl Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(flag) => write!(f, "flag {flag}"),
            Self::Variable(name) => write!(f, "environment variable {name}"),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Default => f.write_str("default"),
        }
    }
}

/// The environment's variables, taken once so that tests need not touch the process.
#[derive(Clone, Default)]
pub struct Environment(BTreeMap<String, OsString>);

impl Environment {
    /// Takes the variables of this process.
    pub fn of_process() -> Self {
        Self::from_iter(std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value))))
    }

    /// A variable that need not be one of ours.
    pub(super) fn any(&self, name: &str) -> Option<&OsStr> {
        self.0.get(name).map(OsString::as_os_str)
    }

    /// An empty variable counts as not set: that is how compose files and unit files switch one off.
    pub(super) fn get(&self, name: &str) -> Option<&OsStr> {
        self.any(name)
    }

    /// The names of those that begin as ours do.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str).filter(|name| name.starts_with("CDC_"))
    }
}

impl<N: Into<String>, V: Into<OsString>> FromIterator<(N, V)> for Environment {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(variables: I) -> Self {
        let named = variables.into_iter().map(|(name, value)| (name.into(), value.into()));
        Self(named.filter(|(_, value)| !value.is_empty()).collect())
    }
}

/// Names only: values may be secrets.
impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.keys()).finish()
    }
}

/// An option that can be set outside of the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Key {
    /// The flag without dashes, which is the key in the file.
    pub(super) long: String,
    /// The file's table; `None` at the top level.
    pub(super) table: Option<&'static str>,
    pub(super) variable: String,
    /// Whether the option takes a list.
    pub(super) list: bool,
}

impl Key {
    /// The options of `A`, found in `table` of the file and in variables that begin with `prefix`.
    pub(super) fn of<A: Args>(table: Option<&'static str>, prefix: &str) -> Vec<Self> {
        let command = A::augment_args(Command::new("keys"));
        let takes_value = |arg: &&Arg| !matches!(arg.get_action(), ArgAction::SetTrue);
        let key = |long: &str, list| Self {
            long: long.to_owned(),
            table,
            variable: format!("{prefix}{}", long.replace('-', "_").to_ascii_uppercase()),
            list,
        };
        let named = command.get_arguments().filter(takes_value);
        named.filter_map(|arg| Some(key(arg.get_long()?, matches!(arg.get_action(), ArgAction::Append)))).collect()
    }

    /// The key as the file names it, with its table.
    pub(super) fn name(&self) -> String {
        match self.table {
            Some(table) => format!("{table}.{}", self.long),
            None => self.long.clone(),
        }
    }

    fn is(&self, entry: &Entry) -> bool {
        self.table == entry.table.as_deref() && self.long == entry.key
    }
}

/// Settings with the origin and the text of each of their options, in the order of their definition.
pub(super) struct Resolved<A> {
    pub(super) settings: A,
    pub(super) values: Vec<ResolvedValue>,
}

/// One option as it was settled.
pub(super) struct ResolvedValue {
    pub(super) key: Key,
    pub(super) origin: Origin,
    /// Empty where nobody set it and there is no default.
    pub(super) texts: Vec<OsString>,
}

/// Settles every option of `A`. `flags` are the matches of the command line; `keys` are the options that may come
/// from elsewhere too.
pub(super) fn resolve<A: Args>(
    flags: &ArgMatches,
    environment: &Environment,
    file: &ConfigFile,
    keys: &[Key],
) -> Result<Resolved<A>, ConfigError> {
    let mut command = A::augment_args(Command::new("cdc").no_binary_name(true));
    let mut arguments = Vec::new();
    let mut settled = Vec::new();
    for arg in command.clone().get_arguments() {
        let Some(long) = arg.get_long() else { continue };
        if matches!(arg.get_action(), ArgAction::SetTrue) {
            arguments.extend(flags.get_flag(arg.get_id().as_str()).then(|| OsString::from(format!("--{long}"))));
            continue;
        }
        let mut layers: Vec<(Origin, Vec<OsString>)> = Vec::new();
        let id = arg.get_id().as_str();
        if flags.value_source(id) == Some(ValueSource::CommandLine) {
            let values = flags.get_raw(id).into_iter().flatten().map(OsStr::to_owned).collect();
            layers.push((Origin::Flag(format!("--{long}")), values));
        }
        let key = keys.iter().find(|key| key.long == long);
        layers.extend(key.and_then(|key| in_environment(environment, key)));
        if let Some(key) = key {
            layers.extend(in_file(file, key)?);
        }
        for (origin, values) in &layers {
            let name = key.map_or_else(|| long.to_owned(), Key::name);
            command
                .try_get_matches_from_mut(as_flags(long, values))
                .map_err(|error| ConfigError::from_value(error, name, origin.clone()))?;
        }
        let winner = layers.into_iter().next();
        let (origin, texts) = winner.unwrap_or_else(|| (Origin::Default, defaults(arg)));
        if origin != Origin::Default {
            arguments.extend(as_flags(long, &texts));
        }
        settled.extend(key.map(|key| ResolvedValue { key: key.clone(), origin, texts }));
    }
    let matches = command.try_get_matches_from(arguments).map_err(ConfigError::from)?;
    let settings = A::from_arg_matches(&matches).map_err(ConfigError::from)?;
    Ok(Resolved { settings, values: settled })
}

fn in_environment(environment: &Environment, key: &Key) -> Option<(Origin, Vec<OsString>)> {
    let value = environment.get(&key.variable)?;
    Some((Origin::Variable(key.variable.clone()), vec![value.to_owned()]))
}

fn in_file(file: &ConfigFile, key: &Key) -> Result<Option<(Origin, Vec<OsString>)>, ConfigError> {
    let Some((path, entry)) = file.path.as_ref().zip(file.entries.iter().find(|entry| key.is(entry))) else {
        return Ok(None);
    };
    let origin = Origin::File { path: path.clone(), line: entry.line };
    if !key.list && entry.values.len() != 1 {
        return Err(ConfigError::List { key: key.name(), origin });
    }
    // An empty list sets nothing: it is what no value looks like in the file.
    let values: Vec<_> = entry.values.iter().map(OsString::from).collect();
    Ok((!values.is_empty()).then_some((origin, values)))
}

/// Refuses keys of the file that no option has: a misspelt limit must not silently be no limit.
pub(super) fn refuse_unknown_keys(file: &ConfigFile, keys: &[Key]) -> Result<(), ConfigError> {
    let unknown = file.entries.iter().find(|entry| !keys.iter().any(|key| key.is(entry)));
    match file.path.as_ref().zip(unknown) {
        None => Ok(()),
        Some((path, entry)) => {
            let origin = Origin::File { path: path.clone(), line: entry.line };
            Err(ConfigError::UnknownKey { key: entry.name(), origin, hint: hint(entry, keys) })
        }
    }
}

/// Variables that look like options and are none; a warning each, since others may use the prefix too.
/// Those that the file fills in somewhere are known.
pub(super) fn unknown_variables(environment: &Environment, keys: &[Key], file_text: &str) -> Vec<String> {
    let own = [super::CONFIG_VARIABLE, super::SOURCE_VARIABLE];
    let filled_in = |name: &str| file_text.contains(&format!("${{{name}}}"));
    let known = |name: &str| own.contains(&name) || filled_in(name) || keys.iter().any(|key| key.variable == name);
    let warn = |name: &str| {
        let meant = closest(name, keys.iter().map(|key| key.variable.clone()));
        let meant = meant.map(|meant| format!("; did you mean {meant}?")).unwrap_or_default();
        format!("environment variable {name} is not an option and has no effect{meant}")
    };
    environment.names().filter(|name| !known(name)).map(warn).collect()
}

fn hint(entry: &Entry, keys: &[Key]) -> String {
    let underscored = entry.key.replace('_', "-");
    if let Some(key) = keys.iter().find(|key| key.long == underscored) {
        return format!("did you mean {}?", placed(key));
    }
    if let Some(name) = closest(&entry.name(), keys.iter().map(Key::name)) {
        return format!("did you mean {name}?");
    }
    let known = |key: &&Key| key.table == entry.table.as_deref();
    let mut there: Vec<_> = keys.iter().filter(known).map(|key| key.long.as_str()).collect();
    if there.is_empty() {
        let mut tables: Vec<_> = keys.iter().filter_map(|key| key.table).collect();
        tables.dedup();
        return format!("tables are: {}", tables.join(", "));
    }
    there.sort_unstable();
    format!("allowed here: {}", there.join(", "))
}

fn placed(key: &Key) -> String {
    match key.table {
        Some(table) => format!("{} in the table [{table}]", key.long),
        None => format!("{} at the top level, before the first table", key.long),
    }
}

/// The candidate that a slip of the finger away from `text` gives, if one is close enough.
fn closest(text: &str, candidates: impl Iterator<Item = String>) -> Option<String> {
    let near = candidates.map(|candidate| (distance(text, &candidate), candidate));
    near.filter(|(steps, candidate)| *steps <= candidate.len() / 4).min().map(|(_, candidate)| candidate)
}

/// The edits between two words (Levenshtein).
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in right.iter().enumerate() {
            let replaced = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[right.len()]
}

fn as_flags(long: &str, values: &[OsString]) -> Vec<OsString> {
    let flag = |value: &OsString| {
        let mut flag = OsString::from(format!("--{long}="));
        flag.push(value);
        flag
    };
    values.iter().map(flag).collect()
}

fn defaults(arg: &Arg) -> Vec<OsString> {
    arg.get_default_values().iter().map(|value| value.to_os_string()).collect()
}

impl ConfigError {
    /// What clap says about the value of one option, with the place the value came from.
    fn from_value(error: clap::Error, key: String, origin: Origin) -> Self {
        let value = match error.get(ContextKind::InvalidValue) {
            Some(ContextValue::String(value)) => crate::source::without_password(value),
            _ => String::new(),
        };
        let allowed = match (std::error::Error::source(&error), error.kind()) {
            (Some(reason), _) => reason.to_string(),
            (None, ErrorKind::InvalidUtf8) => "UTF-8 text".to_owned(),
            (None, _) => "a value that is not empty".to_owned(),
        };
        Self::Invalid { key, origin, value, allowed }
    }
}

/// What clap says of the command line without the password of an address in it.
fn without_secrets(mut error: clap::Error) -> clap::Error {
    for kind in [ContextKind::InvalidArg, ContextKind::InvalidValue, ContextKind::InvalidSubcommand] {
        if let Some(ContextValue::String(text)) = error.get(kind)
            && text.contains(['@', '/'])
        {
            let shown = crate::source::without_password(text);
            // It quotes it, too.
            error.remove(ContextKind::Suggested);
            error.insert(kind, ContextValue::String(shown));
        }
    }
    error
}

impl From<clap::Error> for ConfigError {
    /// A wrong value is said in the words used for every source; clap says the rest itself.
    fn from(error: clap::Error) -> Self {
        if let (ErrorKind::ValueValidation, Some(ContextValue::String(argument))) =
            (error.kind(), error.get(ContextKind::InvalidArg))
        {
            let flag = argument.split(' ').next().unwrap_or_default().to_owned();
            return Self::from_value(error, flag.trim_start_matches('-').to_owned(), Origin::Flag(flag));
        }
        Self::Usage(Box::new(without_secrets(error)))
    }
}
