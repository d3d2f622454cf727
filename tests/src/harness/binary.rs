//! Where the binary under test is. It is built once per test process, so that a suite never runs against a stale one.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The repository's folder.
pub fn repository() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().expect("the repository's folder exists")
    })
}

/// The `cdc` binary of the profile that this program was built with, or the one that `CDC_BINARY` names.
///
/// Under cargo it is brought up to date first; outside of cargo it is taken as it is.
pub fn cdc() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        if let Some(named) = env::var_os("CDC_BINARY") {
            return PathBuf::from(named);
        }
        if let Some(cargo) = env::var_os("CARGO") {
            build(Path::new(&cargo));
        }
        let path = profile_folder().join(format!("cdc{}", env::consts::EXE_SUFFIX));
        assert!(path.exists(), "{} is not built; run this under cargo", path.display());
        path
    })
}

/// A binary of this crate, such as `bare-hyper`, from the same profile.
pub fn companion(name: &str) -> PathBuf {
    let path = profile_folder().join(format!("{name}{}", env::consts::EXE_SUFFIX));
    assert!(path.exists(), "{} is not built; run this under cargo", path.display());
    path
}

/// Where the services of all tests keep the compiled engine.
pub(crate) fn compiled() -> PathBuf {
    profile_folder().join("cdc-tests-compiled")
}

/// `target/release` for `target/release/deps/suite-…` and for `target/release/cdc-bench`.
fn profile_folder() -> PathBuf {
    let program = env::current_exe().expect("this program has a path");
    let folder = program.parent().expect("a program lies in a folder");
    if folder.ends_with("deps") { folder.parent().expect("deps lies in a folder").into() } else { folder.into() }
}

fn build(cargo: &Path) {
    let folder = profile_folder();
    let profile = match folder.file_name().and_then(|name| name.to_str()).expect("a profile's folder has a name") {
        "debug" => "dev",
        named => named,
    };
    // The whole workspace is selected, so that features unify as in the run that built this program; with `-p` cargo
    // could find other features for shared dependencies and compile wasmtime a second time.
    let mut build = Command::new(cargo);
    // What cargo tells a test about its package is none of another build's: build scripts that look at it would run
    // again, and all that depends on them would be compiled again, here and in the next build.
    for (name, _) in env::vars_os() {
        let is_of_this_package = |name: &str| ["CARGO_PKG_", "CARGO_MANIFEST_"].iter().any(|of| name.starts_with(of));
        if name.to_str().is_some_and(is_of_this_package) {
            build.env_remove(name);
        }
    }
    let done = build
        .args(["build", "--quiet", "--workspace", "--bin", "cdc", "--profile", profile, "--target-dir"])
        .arg(folder.parent().expect("a profile's folder lies in a target folder"))
        .current_dir(repository())
        .output()
        .expect("cargo can be run");
    assert!(done.status.success(), "cdc does not build:\n{}", String::from_utf8_lossy(&done.stderr));
}
