//! Where Debian puts the programs, and everybody else.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{env, fs};

/// The program `name` in the folders of `PATH`, or in those for administrators, which an ordinary user's path lacks.
pub(crate) fn find(name: &str) -> PathBuf {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin", "/usr/local/sbin", "/usr/local/bin"].map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
        .unwrap_or_else(|| panic!("{name} is not installed; `tests/run` installs what the tests need"))
}

/// The folders with the programs of every PostgreSQL server that is there, by major version: what Debian installed, else
/// what `tests/run` took from npm (the server's own programs only, without clients).
pub(crate) fn postgres_folders() -> BTreeMap<u32, PathBuf> {
    let mut folders = BTreeMap::new();
    let from_npm = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/servers/postgres/node_modules");
    for (parent, prefix, programs) in
        [(from_npm.as_path(), "postgres-", "native/bin"), (Path::new("/usr/lib/postgresql"), "", "bin")]
    {
        for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let major = name.to_str().and_then(|name| name.strip_prefix(prefix)?.parse().ok());
            let folder = entry.path().join(programs);
            if let Some(major) = major
                && folder.join("postgres").is_file()
            {
                folders.insert(major, folder);
            }
        }
    }
    folders
}

/// The folder of the newest PostgreSQL server with its clients, as Debian lays them out, or of the one in `PATH`.
pub(crate) fn postgres_folder() -> PathBuf {
    let with_clients = postgres_folders().into_values().rfind(|folder| folder.join("psql").is_file());
    with_clients.unwrap_or_else(|| find("postgres").parent().map(Path::to_path_buf).expect("a program is in a folder"))
}
