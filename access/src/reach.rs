//! Who may name what: the one table.
//!
//! | | files | addresses | answers of receivers |
//! | --- | --- | --- | --- |
//! | the configuration | all | all | quoted |
//! | callers, if only this machine's users can call | below `files-folder` | all but those of metadata services | quoted |
//! | callers, if other machines can call | below `files-folder` | public ones | not quoted |
//!
//! `allowed-addresses` adds to what callers may name.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::file::{FileError, MAX_FILE_BYTES, read_file_up_to};
use crate::{Network, is_metadata, is_public};

/// What may be named.
#[derive(Clone, Debug)]
pub struct Reach(Who);

#[derive(Clone, Debug)]
enum Who {
    Operator,
    Caller(Arc<Caller>),
}

#[derive(Debug)]
struct Caller {
    is_local: bool,
    folder: Option<PathBuf>,
    addresses: Vec<Network>,
}

impl Reach {
    /// Everything: for what the configuration says.
    #[must_use]
    pub fn of_operator() -> Self {
        Self(Who::Operator)
    }

    /// For what callers of the API say. `is_local` means that only users of this machine can call.
    #[must_use]
    pub fn of_callers(is_local: bool, folder: Option<PathBuf>, addresses: Vec<Network>) -> Self {
        Self(Who::Caller(Arc::new(Caller { is_local, folder, addresses })))
    }

    /// Reads a certificate or credentials.
    pub fn read_file(&self, path: &Path) -> Result<Vec<u8>, FileError> {
        read_file_up_to(&self.file(path)?, MAX_FILE_BYTES)
    }

    /// The file that a name means, if it may be named: of callers without any link in it, so that none leads out of the
    /// folder.
    pub fn file(&self, path: &Path) -> Result<PathBuf, FileError> {
        let Who::Caller(caller) = &self.0 else { return Ok(path.to_owned()) };
        let folder = caller.folder.as_ref().ok_or(FileError::NoFolder)?;
        let outside = || FileError::Outside { path: path.to_owned(), folder: folder.clone() };
        // Whether there is something elsewhere is not told either.
        let root = folder.canonicalize().map_err(|_| outside())?;
        let file = root.join(path).canonicalize().map_err(|_| outside())?;
        if file.starts_with(&root) { Ok(file) } else { Err(outside()) }
    }

    /// Whether an address may be connected to.
    #[must_use]
    pub fn admits(&self, address: IpAddr) -> bool {
        let Who::Caller(caller) = &self.0 else { return true };
        let is_open = !is_metadata(address) && (caller.is_local || is_public(address));
        is_open || caller.addresses.iter().any(|network| network.holds(address))
    }

    /// Whether callers on other machines may have named it: then it matters where a library connects by itself, and
    /// what an answer shows.
    #[must_use]
    pub fn is_of_strangers(&self) -> bool {
        matches!(&self.0, Who::Caller(caller) if !caller.is_local)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn callers_name_files_of_one_folder_and_no_link_leads_out() {
        let outer = tempfile::tempdir().unwrap();
        let folder = outer.path().join("files");
        fs::create_dir_all(folder.join("..data")).unwrap();
        fs::write(outer.path().join("secret"), "hunter2").unwrap();
        fs::write(folder.join("..data/ca.pem"), "pem").unwrap();
        // As volumes of Kubernetes are laid out.
        symlink("..data/ca.pem", folder.join("ca.pem")).unwrap();
        symlink(outer.path().join("secret"), folder.join("out.pem")).unwrap();
        symlink(outer.path(), folder.join("up")).unwrap();
        let reach = Reach::of_callers(true, Some(folder.clone()), vec![]);
        assert_eq!(reach.read_file(Path::new("ca.pem")).unwrap(), b"pem");
        assert_eq!(reach.read_file(&folder.join("ca.pem")).unwrap(), b"pem");
        for path in ["../secret", "out.pem", "up/secret", "none", "/etc/passwd", "/nowhere"] {
            let error = reach.read_file(Path::new(path)).unwrap_err();
            assert!(matches!(error, FileError::Outside { .. }), "{path}: {error}");
            assert!(error.to_string().contains("files-folder"), "{error}");
        }
        assert!(matches!(reach.read_file(Path::new("..data")), Err(FileError::NotRegular { .. })));
        let nowhere = Reach::of_callers(true, None, vec![]);
        assert!(matches!(nowhere.read_file(&folder.join("ca.pem")), Err(FileError::NoFolder)));
        assert_eq!(Reach::of_operator().read_file(&folder.join("up/secret")).unwrap(), b"hunter2");
    }

    #[test]
    fn each_may_reach_what_the_table_says() {
        let named = || vec!["10.0.0.0/24".parse().unwrap(), "169.254.7.7".parse().unwrap()];
        let reaches = [
            Reach::of_operator(),
            Reach::of_callers(true, None, vec![]),
            Reach::of_callers(false, None, vec![]),
            Reach::of_callers(false, None, named()),
        ];
        #[rustfmt::skip]
        let table = [
            // address,              operator, local, strangers, strangers with addresses
            ("1.1.1.1",              [true, true, true, true]),
            ("127.0.0.1",            [true, true, false, false]),
            ("::1",                  [true, true, false, false]),
            ("10.0.0.5",             [true, true, false, true]),
            ("10.0.1.5",             [true, true, false, false]),
            ("192.168.1.1",          [true, true, false, false]),
            ("169.254.169.254",      [true, false, false, false]),
            ("169.254.7.7",          [true, false, false, true]),
            ("fe80::1",              [true, false, false, false]),
            ("fd00:ec2::254",        [true, false, false, false]),
            ("::ffff:169.254.169.254", [true, false, false, false]),
            ("64:ff9b::a9fe:a9fe",   [true, false, false, false]),
            ("168.63.129.16",        [true, false, false, false]),
            ("100.100.100.200",      [true, false, false, false]),
        ];
        for (address, expected) in table {
            let address: IpAddr = address.parse().unwrap();
            assert_eq!([0, 1, 2, 3].map(|who| reaches[who].admits(address)), expected, "{address}");
        }
    }
}
