//! Initialised data folders, made once per user and machine: making one takes a second (PostgreSQL) to several (MariaDB),
//! unpacking it some tens of milliseconds.
//!
//! A template is one archive, so that it is there whole or not at all, whatever cleans the temp folder up. It is made under
//! a lock and renamed to its place, so that processes that start together make one between them and a killed one leaves
//! none half done.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, io};

use rustix::process::getuid;

/// Where all processes of this user keep templates and port reservations.
pub(crate) fn shared_folder() -> PathBuf {
    let folder = env::temp_dir().join(format!("cdc-test-servers-{}", getuid().as_raw()));
    fs::create_dir_all(&folder).expect("the temp folder is writable");
    folder
}

/// Unpacks the template `name` into the existing folder `into`, owners included. If there is none yet, `make` makes what
/// belongs in it in a folder that is given to `owner` (user and group) first.
pub(crate) fn unpack(name: &str, into: &Path, owner: Option<(u32, u32)>, make: impl FnOnce(&Path)) {
    let archive = shared_folder().join(format!("{name}.tar"));
    if !archive.exists() {
        let lock = File::create(archive.with_extension("lock")).expect("the temp folder is writable");
        lock.lock().expect("a file can be locked");
        if !archive.exists() {
            pack(&archive, owner, make);
        }
    }
    run(Command::new("tar").arg("-C").arg(into).arg("-xpf").arg(archive));
}

fn pack(archive: &Path, owner: Option<(u32, u32)>, make: impl FnOnce(&Path)) {
    // Not in the shared folder, which only its owner may enter.
    let folder = tempfile::Builder::new().prefix("cdc-template-").tempdir().expect("the temp folder is writable");
    give_to(folder.path(), owner).expect("root may give its folders away");
    make(folder.path());
    let partial = archive.with_extension("partial");
    run(Command::new("tar").arg("-C").arg(folder.path()).arg("-cf").arg(&partial).arg("."));
    fs::rename(&partial, archive).expect("a file can be renamed within its folder");
}

pub(crate) fn give_to(folder: &Path, owner: Option<(u32, u32)>) -> io::Result<()> {
    match owner {
        Some((user, group)) => std::os::unix::fs::chown(folder, Some(user), Some(group)),
        None => Ok(()),
    }
}

/// Runs a command to its end; returns what it wrote. Panics with its complaints if it fails.
pub(crate) fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{complaints}", output.status);
    String::from_utf8_lossy(&output.stdout).into_owned()
}
