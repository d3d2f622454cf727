//! What can be wrong with a configuration, said so that it can be mended without reading code: the key, where the
//! value came from, the value, and what is allowed.

use std::path::PathBuf;
use std::process::ExitCode;

use super::resolve::Origin;

/// A configuration that cannot be used, or a request for help or the version.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The command line cannot be understood, or asks for `--help` or `--version`.
    #[error("{0}")]
    Usage(#[source] Box<clap::Error>),

    /// A value is outside of what its option allows.
    #[error("invalid value {value:?} for {key} ({origin}); allowed: {allowed}")]
    Invalid {
        /// The option's key.
        key: String,
        /// Where the value came from.
        origin: Origin,
        /// The value as given.
        value: String,
        /// What the option allows.
        allowed: String,
    },

    /// A value in the file has a type that no option takes.
    #[error("{key} is a {found} ({origin}); allowed: a string, a whole number, true or false, or a list")]
    WrongType {
        /// The option's key.
        key: String,
        /// Where the value came from.
        origin: Origin,
        /// The type that was found.
        found: &'static str,
    },

    /// The file has a list where the option takes one value.
    #[error("{key} is a list ({origin}); allowed: one value")]
    List {
        /// The option's key.
        key: String,
        /// Where the value came from.
        origin: Origin,
    },

    /// The file has a key that no option has.
    #[error("unknown key {key} ({origin}); {hint}")]
    UnknownKey {
        /// The key with its table.
        key: String,
        /// Where it stands.
        origin: Origin,
        /// What was probably meant, or what there is.
        hint: String,
    },

    /// A component, a subscription or a source in the file is none.
    #[error("{key} ({}): {reason}", path.display())]
    Declaration {
        /// The table.
        key: String,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },

    /// The command line asks for a source that would be called like one of the file.
    #[error("the file has a source {name} already, which is what --source would call its own; give it a table instead")]
    SourceTwice {
        /// The name.
        name: cdc_rest::SourceName,
    },

    /// The file is not TOML.
    #[error("{}:{line}: not valid TOML: {reason}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What the TOML parser says.
        reason: String,
    },

    /// The file cannot be read.
    #[error("cannot read configuration file {}{}: {source}", path.display(), named_by(origin))]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Who named it; `None` for the default file.
        origin: Option<Origin>,
        /// Why.
        source: std::io::Error,
    },
}

impl ConfigError {
    /// Tells the user on the stream that fits, and answers with the exit code that fits: 0 after help, else 2.
    pub fn report(&self) -> ExitCode {
        match self {
            Self::Usage(error) => {
                // Nobody is left to tell when the terminal is gone.
                let _ = error.print();
                if error.use_stderr() { ExitCode::from(2) } else { ExitCode::SUCCESS }
            }
            error => {
                use std::io::Write;
                let _ = writeln!(std::io::stderr(), "error: {error}");
                ExitCode::from(2)
            }
        }
    }
}

fn named_by(origin: &Option<Origin>) -> String {
    origin.as_ref().map(|origin| format!(" ({origin})")).unwrap_or_default()
}
