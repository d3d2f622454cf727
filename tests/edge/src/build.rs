//! Builds the component as the README says, once per test process; and what every build inside of a build needs.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

pub(crate) fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// Keeps from a command what the outer build wants of its own code (flags, a wrapper such as clippy's, another folder): it
/// is not meant for what is built in there. As in the host's build script.
pub fn without_outer_build(command: &mut Command) -> &mut Command {
    for (name, _) in env::vars_os() {
        let Some(name) = name.to_str() else { continue };
        let of_outer_build = ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER"]
            .contains(&name)
            || [
                "CARGO_TARGET",
                "CARGO_BUILD",
                "CARGO_PROFILE",
                "CARGO_FEATURE",
                "CARGO_CFG",
                "CARGO_PKG",
                "CARGO_MANIFEST",
            ]
            .iter()
            .any(|prefix| name.starts_with(prefix));
        if of_outer_build {
            command.env_remove(name);
        }
    }
    command
}

/// The component's file.
pub fn component() -> &'static Path {
    static FILE: OnceLock<PathBuf> = OnceLock::new();
    FILE.get_or_init(|| {
        let root = repository();
        let program = env::current_exe().unwrap();
        let marked = program.ancestors().find(|folder| folder.join("CACHEDIR.TAG").exists());
        // The folder in which the host's build script builds components: a cargo of its own, as there.
        let target = marked.map_or_else(|| root.join("target"), Path::to_owned).join("engine");
        let done = without_outer_build(&mut Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into())))
            .current_dir(&root)
            .args(["rustc", "--quiet", "--lib", "--crate-type=cdylib", "--profile=component", "--locked"])
            .args(["--package=cdc-edge", "--features=component", "--target=wasm32-wasip2", "--target-dir"])
            .arg(&target)
            .output()
            .expect("cargo can be run");
        assert!(done.status.success(), "the component does not build:\n{}", String::from_utf8_lossy(&done.stderr));
        target.join("wasm32-wasip2/component/cdc_edge.wasm")
    })
}
