//! Where Debian puts the programs, and everybody else.

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

/// The folder of the newest PostgreSQL server, as Debian lays them out, or of the one in `PATH`.
pub(crate) fn postgres_folder() -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let newest = versions
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse::<u32>().ok()?, entry.path().join("bin"))))
        .filter(|(_, folder)| folder.join("postgres").is_file())
        .max();
    match newest {
        Some((_, folder)) => folder,
        None => find("postgres").parent().map(Path::to_path_buf).expect("a program is in a folder"),
    }
}
