//! Builds the components that the service embeds, so that a plain `cargo build` on a fresh clone is all it takes.
//!
//! They are built by a cargo of its own, in a target folder of its own (`<target>/engine`): the outer cargo holds the
//! lock of its folder while this runs. `CDC_ENGINE_COMPONENT` and `CDC_REPLICA_COMPONENT` name their files.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

const TARGET: &str = "wasm32-wasip2";

fn main() {
    let root = PathBuf::from(variable("CARGO_MANIFEST_DIR")).join("..");
    for input in [
        "engine/src",
        "engine/Cargo.toml",
        "replica/src",
        "replica/Cargo.toml",
        "wit",
        "Cargo.toml",
        "Cargo.lock",
        "rust-toolchain.toml",
    ] {
        println!("cargo::rerun-if-changed={}", root.join(input).display());
    }
    let out = PathBuf::from(variable("OUT_DIR"));
    let target_folder = target_folder(&out);
    for (package, features, file, variable) in [
        ("cdc-engine", &["--features=component"][..], "cdc_engine.wasm", "CDC_ENGINE_COMPONENT"),
        ("cdc-replica", &[], "cdc_replica.wasm", "CDC_REPLICA_COMPONENT"),
    ] {
        build(&root, package, features, &target_folder);
        let built = target_folder.join(TARGET).join("component").join(file);
        // Copied, so that a build never embeds a file that a later one is writing.
        let component = out.join(file);
        if let Err(error) = fs::copy(&built, &component) {
            fail(&format!("cannot copy {}: {error}", built.display()));
        }
        println!("cargo::rustc-env={variable}={}", component.display());
    }
}

fn build(root: &Path, package: &str, features: &[&str], target_folder: &Path) {
    let mut cargo = Command::new(variable("CARGO"));
    cargo
        .current_dir(root)
        .args(["rustc", "--lib", "--crate-type=cdylib", "--profile=component", "--locked"])
        .arg(format!("--package={package}"))
        .args(features)
        .arg(format!("--target={TARGET}"))
        .arg("--target-dir")
        .arg(target_folder);
    // What the outer build wants of the host's code (flags, a wrapper such as clippy's, another folder) is not meant
    // for the components, and would make them others.
    for (name, _) in env::vars_os() {
        let Some(name) = name.to_str() else { continue };
        let of_outer_build = ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER"]
            .contains(&name)
            || ["CARGO_TARGET", "CARGO_BUILD", "CARGO_PROFILE", "CARGO_FEATURE", "CARGO_CFG", "CARGO_PKG"]
                .iter()
                .any(|prefix| name.starts_with(prefix));
        if of_outer_build {
            cargo.env_remove(name);
        }
    }
    match cargo.status() {
        Ok(status) if status.success() => {}
        Ok(_) => fail(&format!(
            "the component {package} could not be built (its messages are above); is the {TARGET} target there? \
             `./run build` installs what is missing"
        )),
        Err(error) => fail(&format!("cargo could not be started: {error}")),
    }
}

/// `<target>/engine`, found from `<target>/[<triple>/]<profile>/build/<package>/out`.
fn target_folder(out: &Path) -> PathBuf {
    let marked = out.ancestors().find(|folder| folder.join("CACHEDIR.TAG").exists());
    marked.unwrap_or(out).join("engine")
}

fn variable(name: &str) -> String {
    env::var(name).unwrap_or_else(|_| fail(&format!("{name} is not set: this is cargo's to do")))
}

fn fail(message: &str) -> ! {
    println!("cargo::error={message}");
    std::process::exit(1);
}
