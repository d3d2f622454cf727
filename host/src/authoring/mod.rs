//! For whoever writes a subscriber: looks at a component, runs it on events from a file, and gives out the contract.
//! Nothing here talks to a service.

mod check;
mod events;
mod run;
mod wit;

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::guest::{CallError, Misfit, NoRuntime};

pub use check::check;
pub use run::run;
pub use wit::wit;

/// What `cdc component` does.
#[derive(Subcommand, Clone, Debug, PartialEq, Eq)]
pub enum ComponentCommand {
    /// Tell whether a component can be a subscriber: its world, what it imports, what it needs of the limits
    Check(CheckSettings),
    /// Run a component on events from a file, one JSON object on each line as `cdc tail --json` writes them
    Test(TestSettings),
    /// Print the contract of subscribers in WIT, as one file for the tools of every language
    Wit,
}

/// What `cdc component check` runs with.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct CheckSettings {
    /// The component
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
}

/// What `cdc component test` runs with.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct TestSettings {
    /// The component
    #[arg(value_name = "FILE")]
    pub file: PathBuf,

    /// Events, one JSON object on each line; - for standard input
    #[arg(long, value_name = "FILE")]
    pub events: PathBuf,

    /// A setting for wasi:config, as name=value; may be repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = setting)]
    pub config: Vec<(String, String)>,

    /// An origin that it may send requests to, as https://host:port; may be repeated
    #[arg(long, value_name = "ORIGIN")]
    pub http: Vec<String>,

    /// Events in one call
    #[arg(long, value_name = "COUNT", default_value_t = 256)]
    pub batch: usize,
}

fn setting(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("name=value".to_owned()),
    }
}

/// Why a component could not be looked at or run.
#[derive(Debug, thiserror::Error)]
pub enum AuthoringError {
    /// A file cannot be read.
    #[error("cannot read {path}: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It cannot be a subscriber.
    #[error("{path}: {source}")]
    Misfit {
        /// The component.
        path: PathBuf,
        /// Why.
        source: Misfit,
    },
    /// It cannot be instantiated.
    #[error("{path} does not start: {source}")]
    NoStart {
        /// The component.
        path: PathBuf,
        /// Why.
        source: CallError,
    },
    /// A line is no event.
    #[error("{path}:{line}: {reason}")]
    NotAnEvent {
        /// The file of events.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// An origin is none.
    #[error("--http: an origin is written as https://host or http://host:port, without a path")]
    NotAnOrigin,
    /// The runtime cannot be set up.
    #[error(transparent)]
    Runtime(#[from] NoRuntime),
    /// Some events were not done.
    #[error("{0} events were not done")]
    NotDone(usize),
}
