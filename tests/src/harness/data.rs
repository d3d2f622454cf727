//! A service's data folder, and commands that end.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;

use tempfile::TempDir;

use super::cdc;

/// A data folder that lives as long as anybody holds it, over restarts of the service on it.
#[derive(Clone)]
pub struct Data {
    path: PathBuf,
    _keeper: Arc<TempDir>,
}

impl Data {
    pub fn new() -> Data {
        let keeper = TempDir::new().expect("a temporary folder can be made");
        Data { path: keeper.path().join("data"), _keeper: Arc::new(keeper) }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A place beside the data folder, for what the test itself keeps; goes with it.
    pub fn beside(&self, name: &str) -> PathBuf {
        self.path.with_file_name(name)
    }

    /// The log's segment files, oldest first.
    pub fn segments(&self) -> Vec<PathBuf> {
        let mut files: Vec<PathBuf> = fs::read_dir(self.path.join("log"))
            .expect("the log's folder can be read")
            .map(|entry| entry.expect("the log's folder can be read").path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "seg"))
            .collect();
        files.sort();
        files
    }

    /// `cdc verify` on this folder.
    pub fn verify(&self) -> Output {
        Output::of(Command::new(cdc()).args(["verify", "--data"]).arg(&self.path))
    }
}

impl Default for Data {
    fn default() -> Self {
        Data::new()
    }
}

/// What a command that ran to its end left.
#[derive(Debug)]
pub struct Output {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Output {
    /// Runs a command without the `CDC_…` variables of whoever runs the tests.
    pub fn of(command: &mut Command) -> Output {
        without_settings(command);
        let output = command.stdin(Stdio::null()).output().expect("the command can be run");
        Output {
            status: output.status,
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    pub fn expect_success(self) -> Output {
        assert!(self.status.success(), "{}\n{}\n{}", self.status, self.stdout, self.stderr);
        self
    }
}

/// The settings of whoever runs the tests must not reach the service under test.
pub(super) fn without_settings(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("CDC_") {
            command.env_remove(name);
        }
    }
}
