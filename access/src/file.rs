//! Files that are named by somebody: certificates, credentials, passwords, components.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

/// No certificate, password or credentials are longer.
pub const MAX_FILE_BYTES: u64 = 1 << 20;

/// Why a file is not read.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It is not there, or not ours to read.
    #[error("cannot read {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is a folder, a device, a FIFO or a socket.
    #[error("{} is no regular file", path.display())]
    NotRegular {
        /// The file.
        path: PathBuf,
    },
    /// It is longer than any file of its kind.
    #[error("{} has more than {limit} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The bound.
        limit: u64,
    },
    /// It is no text.
    #[error("{} is not UTF-8", path.display())]
    NotText {
        /// The file.
        path: PathBuf,
    },
    /// It is not among the files that callers of the API may name.
    #[error("{} is no file below {}, which the option files-folder names", path.display(), folder.display())]
    Outside {
        /// The file.
        path: PathBuf,
        /// Where files may be.
        folder: PathBuf,
    },
    /// Callers of the API may name none.
    #[error("no file may be named over the API: the option files-folder says in which folder there are some")]
    NoFolder,
}

/// Reads a file that may be a secret or a certificate.
pub fn read_file(path: &Path) -> Result<Vec<u8>, FileError> {
    read_file_up_to(path, MAX_FILE_BYTES)
}

/// Reads a regular file of at most so many bytes. Links are followed: volumes of Kubernetes are full of them.
pub fn read_file_up_to(path: &Path, limit: u64) -> Result<Vec<u8>, FileError> {
    let unreadable = |source| FileError::Unreadable { path: path.to_owned(), source };
    let not_regular = || FileError::NotRegular { path: path.to_owned() };
    // Before it is opened, because to open some devices is to use them; and again after, when it can't change any more.
    if !std::fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err(not_regular());
    }
    let file = open(path).map_err(unreadable)?;
    let found = file.metadata().map_err(unreadable)?;
    if !found.is_file() {
        return Err(not_regular());
    }
    let too_large = || FileError::TooLarge { path: path.to_owned(), limit };
    if found.len() > limit {
        return Err(too_large());
    }
    let mut bytes = Vec::with_capacity(usize::try_from(found.len()).unwrap_or(0));
    // Its length is no promise: it may grow, and files of /proc have none.
    file.take(limit + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > limit { Err(too_large()) } else { Ok(bytes) }
}

/// Opens without waiting for the other end of a FIFO, and without getting a terminal.
fn open(path: &Path) -> io::Result<File> {
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let flags = i32::try_from(flags.bits()).map_err(io::Error::other)?;
    OpenOptions::new().read(true).custom_flags(flags).open(path)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::process::Command;

    use super::*;

    #[test]
    fn a_regular_file_is_read_up_to_its_bound_also_through_a_link() {
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("file"), folder.path().join("link"));
        std::fs::write(&file, b"0123456789").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        assert_eq!(read_file(&link).unwrap(), b"0123456789");
        assert_eq!(read_file_up_to(&file, 10).unwrap().len(), 10);
        assert!(matches!(read_file_up_to(&file, 9), Err(FileError::TooLarge { limit: 9, .. })));
        assert!(matches!(read_file(&folder.path().join("none")), Err(FileError::Unreadable { .. })));
    }

    #[test]
    fn what_never_ends_or_never_begins_is_no_regular_file() {
        let folder = tempfile::tempdir().unwrap();
        let fifo = folder.path().join("fifo");
        assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
        let link = folder.path().join("link");
        std::os::unix::fs::symlink("/dev/zero", &link).unwrap();
        for path in [fifo.as_path(), Path::new("/dev/zero"), Path::new("/dev/tty"), folder.path(), &link] {
            assert!(matches!(read_file(path), Err(FileError::NotRegular { .. })), "{path:?}");
        }
    }

    #[test]
    fn a_file_that_hides_its_length_is_bounded_too() {
        let error = read_file_up_to(Path::new("/proc/self/status"), 100).unwrap_err();
        assert!(matches!(error, FileError::TooLarge { limit: 100, .. }), "{error}");
    }
}
