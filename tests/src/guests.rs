//! The subscribers of `tests/guests`, built when a test first asks for one.
//!
//! What is built lies in `target/guests`, beside a stamp: the hash of everything that it was built from, WIT and tool
//! versions included. A guest whose stamp still holds is taken as it is; any other is built before it is answered, by
//! one process at a time. So a test never runs a stale guest, and a second run builds none.
//!
//! Rust needs the toolchain of the repository. The tools for JavaScript and Python lie in `target/guests-tools`, where
//! `tests/run` installs them.

use std::collections::HashMap;
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, OnceLock};
use std::{env, process};

use crate::harness::repository;

const TARGET: &str = "wasm32-wasip2";

/// A member of the workspace `tests/guests/rust`, by its name there, such as `event-sourcing`.
pub fn rust(name: &str) -> PathBuf {
    let workspace = guests().join("rust");
    let built = target().join("guests/rust");
    let component = built.join(format!("{name}.wasm"));
    assert!(workspace.join(name).is_dir(), "tests/guests/rust has no member `{name}`");
    // All members in one run of cargo: apart, they could ask for other features of shared dependencies and build those
    // again and again.
    let sources = [workspace.clone(), guests().join("wit"), repository().join("rust-toolchain.toml")];
    once(&built.with_extension("stamp"), &component, &sources, || build_workspace(&workspace, &built));
    component
}

/// A subscriber in JavaScript: `filter` or `handler`, which is its file, and its world.
pub fn javascript(name: &str) -> PathBuf {
    let folder = guests().join("javascript");
    let lock = folder.join("package-lock.json");
    let source = folder.join(format!("{name}.js"));
    script("javascript", name, &source, &lock, |tools, component| {
        let mut jco = Command::new(tools.join("node_modules/.bin/jco"));
        jco.current_dir(&folder).args(["componentize", &format!("{name}.js"), "--wit", "../wit", "--world-name", name]);
        jco.args(["--backend", "quickjs", "--backend-qjs-disable-async", "--out"]).arg(component);
        jco
    })
}

/// A subscriber in Python: `filter` or `handler`, which is its file, and its world.
pub fn python(name: &str) -> PathBuf {
    let folder = guests().join("python");
    let lock = folder.join("requirements.txt");
    let source = folder.join(format!("{name}.py"));
    script("python", name, &source, &lock, |tools, component| {
        let mut componentize = Command::new(tools.join("bin/componentize-py"));
        componentize.current_dir(&folder).args(["--wit-path", "../wit", "--world", name, "componentize", name]);
        componentize.arg("--output").arg(component);
        componentize
    })
}

/// A component of `tests/guests/wat`, which is written by hand, such as `table-bomb`.
pub fn wat(name: &str) -> PathBuf {
    let source = guests().join("wat").join(format!("{name}.wat"));
    let component = target().join("guests/wat").join(format!("{name}.wasm"));
    once(&component.with_extension("stamp"), &component, std::slice::from_ref(&source), || {
        let bytes = wat::parse_file(&source).unwrap_or_else(|error| panic!("{error}"));
        put(&component, |partial| fs::write(partial, bytes).expect("a component can be written"));
    });
    component
}

fn guests() -> PathBuf {
    repository().join("tests/guests")
}

/// The target folder of the repository, which `tests/run` knows too; not the one that cargo may have been told to use.
fn target() -> PathBuf {
    repository().join("target")
}

fn build_workspace(workspace: &Path, built: &Path) {
    let mut members: Vec<String> = fs::read_dir(workspace)
        .expect("the workspace can be listed")
        .map(|entry| entry.expect("the workspace can be listed").path())
        .filter(|folder| folder.join("Cargo.toml").is_file())
        .map(|folder| folder.file_name().expect("a member's folder has a name").to_string_lossy().into_owned())
        .collect();
    members.sort();
    let target_folder = target().join("guests/build");
    // Cargo goes by the time of a change, which a checkout can set back; contents have changed, so what it has goes.
    let mut clean = cargo(workspace, "clean", &target_folder);
    clean.args(members.iter().map(|member| format!("--package={member}")));
    succeed(&mut clean);
    succeed(cargo(workspace, "build", &target_folder).args(["--workspace", "--locked"]));
    for member in members {
        let made = target_folder.join(TARGET).join("release").join(format!("{}.wasm", member.replace('-', "_")));
        let component = built.join(format!("{member}.wasm"));
        put(&component, |partial| assert!(fs::copy(&made, partial).is_ok(), "{} cannot be copied", made.display()));
    }
}

fn cargo(workspace: &Path, command: &str, target_folder: &Path) -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(workspace).args([command, "--quiet", "--release", "--target", TARGET, "--target-dir"]);
    cargo.arg(target_folder);
    cdc_test_edge::without_outer_build(&mut cargo);
    cargo
}

/// Builds one source file with a tool of its language; `lock` pins the tool's version.
fn script(
    language: &str,
    name: &str,
    source: &Path,
    lock: &Path,
    command: impl FnOnce(&Path, &Path) -> Command,
) -> PathBuf {
    let component = target().join("guests").join(language).join(format!("{name}.wasm"));
    let sources = [source.to_owned(), lock.to_owned(), guests().join("wit")];
    once(&component.with_extension("stamp"), &component, &sources, || {
        let tools = target().join("guests-tools").join(language);
        let installed = tools.join(lock.file_name().expect("a lock file has a name"));
        assert!(
            fs::read(&installed).ok() == fs::read(lock).ok(),
            "the tools for subscribers in {language}, as {} has them, are not in {}: `tests/run` installs them",
            lock.display(),
            tools.display()
        );
        put(&component, |partial| succeed(&mut command(&tools, partial)));
    });
    component
}

/// Runs `build`, unless `stamp` says that `component` was built from the same sources; at most once per process, and in
/// one process at a time.
fn once(stamp: &Path, component: &Path, sources: &[PathBuf], build: impl FnOnce()) {
    static SEEN: Mutex<Option<HashMap<PathBuf, Arc<OnceLock<()>>>>> = Mutex::new(None);
    let seen = {
        // The lock only guards the map: guests with stamps of their own are built side by side.
        let mut seen = SEEN.lock().expect("nothing panics while it holds the lock");
        seen.get_or_insert_default().entry(stamp.to_owned()).or_default().clone()
    };
    seen.get_or_init(|| bring_up_to_date(stamp, component, sources, build));
}

fn bring_up_to_date(stamp: &Path, component: &Path, sources: &[PathBuf], build: impl FnOnce()) {
    fs::create_dir_all(stamp.parent().expect("a stamp lies in a folder")).expect("the target folder can be written");
    let lock = File::create(stamp.with_extension("lock")).expect("the target folder can be written");
    lock.lock().expect("a file can be locked");
    let wanted = fingerprint(sources);
    if component.exists() && fs::read_to_string(stamp).is_ok_and(|had| had == wanted) {
        return;
    }
    // A build that is cut short leaves no stamp behind.
    let _ = fs::remove_file(stamp);
    build();
    fs::write(stamp, wanted).expect("the target folder can be written");
}

/// The hash of these files, and of those in these folders, whatever times they carry.
fn fingerprint(sources: &[PathBuf]) -> String {
    let mut hasher = DefaultHasher::new();
    sources.iter().for_each(|source| add(source, &mut hasher));
    format!("{:016x}", hasher.finish())
}

fn add(path: &Path, hasher: &mut DefaultHasher) {
    if path.is_dir() {
        let listed = fs::read_dir(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let mut inner: Vec<PathBuf> = listed.map(|entry| entry.expect("a folder can be listed").path()).collect();
        inner.sort();
        inner.iter().filter(|path| !path.ends_with("target")).for_each(|path| add(path, hasher));
    } else {
        path.hash(hasher);
        fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).hash(hasher);
    }
}

/// Lets `write` write a file of another name, and then gives it its own: whoever opens it finds it whole.
fn put(path: &Path, write: impl FnOnce(&Path)) {
    fs::create_dir_all(path.parent().expect("a component lies in a folder")).expect("the target folder can be written");
    let partial = path.with_extension(format!("{}.wasm", process::id()));
    write(&partial);
    fs::rename(&partial, path).expect("a component can be renamed");
}

fn succeed(command: &mut Command) {
    let done = command.output().unwrap_or_else(|error| panic!("{command:?} cannot be run: {error}"));
    assert!(
        done.status.success(),
        "{command:?} failed:\n{}{}",
        String::from_utf8_lossy(&done.stdout),
        String::from_utf8_lossy(&done.stderr)
    );
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use tempfile::tempdir;
    use wasmparser::{Parser, Payload, Validator, WasmFeatures};

    use super::*;

    const FILTERING: &str = "cdc:subscriber/filtering@1.0.0";
    const HANDLING: &str = "cdc:subscriber/handling@1.0.0";

    /// What a component imports and exports, by name.
    #[derive(Default)]
    struct Border {
        imports: Vec<String>,
        exports: Vec<String>,
    }

    fn border(component: &Path) -> Border {
        let bytes = fs::read(component).unwrap();
        let features = WasmFeatures::default();
        Validator::new_with_features(features).validate_all(&bytes).unwrap_or_else(|error| {
            panic!("{} is not valid: {error}", component.display());
        });
        let mut border = Border::default();
        let mut depth = 0;
        for payload in Parser::new(0).parse_all(&bytes) {
            match payload.unwrap() {
                Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
                Payload::End(_) => depth -= 1,
                Payload::ComponentImportSection(section) if depth == 0 => {
                    border.imports.extend(section.into_iter().map(|import| import.unwrap().name.name.to_owned()));
                }
                Payload::ComponentExportSection(section) if depth == 0 => {
                    border.exports.extend(section.into_iter().map(|export| export.unwrap().name.name.to_owned()));
                }
                _ => {}
            }
        }
        border
    }

    /// Asserts that it exports these and imports nothing but WASI.
    fn assert_subscriber(component: &Path, exports: &[&str]) {
        let border = border(component);
        let exported: Vec<_> = border.exports.iter().filter(|name| name.starts_with("cdc:")).collect();
        assert_eq!(exported, exports, "{}", component.display());
        for import in border.imports {
            let known = import.starts_with("wasi:") || import == "cdc:event/types@1.0.0";
            assert!(known, "{} imports {import}", component.display());
        }
    }

    #[test]
    fn subscribers_in_rust_have_the_border_of_their_world() {
        for filter in ["filter", "noop-filter", "status-filter"] {
            assert_subscriber(&rust(filter), &[FILTERING]);
        }
        for handler in ["audit-log", "cache-invalidation", "event-sourcing", "noop", "search-index"] {
            assert_subscriber(&rust(handler), &[HANDLING]);
        }
        assert_subscriber(&rust("hostile"), &[FILTERING, HANDLING]);
    }

    #[test]
    fn the_service_s_own_subscriber_has_the_border_of_everybody_s() {
        let folder = tempdir().unwrap();
        let component = folder.path().join("replica.wasm");
        fs::write(&component, cdc_host::guest::replica_component()).unwrap();
        assert_subscriber(&component, &[HANDLING]);
    }

    #[test]
    fn subscribers_in_javascript_have_the_border_of_their_world() {
        assert_subscriber(&javascript("filter"), &[FILTERING]);
        assert_subscriber(&javascript("handler"), &[HANDLING]);
    }

    #[test]
    fn subscribers_in_python_have_the_border_of_their_world() {
        assert_subscriber(&python("filter"), &[FILTERING]);
        assert_subscriber(&python("handler"), &[HANDLING]);
    }

    #[test]
    fn components_that_break_a_rule_break_that_one_alone() {
        assert_subscriber(&wat("table-bomb"), &[FILTERING]);
        assert_subscriber(&wat("huge-table"), &[FILTERING]);
        assert_subscriber(&wat("no-export"), &[]);
        let unknown = border(&rust("unknown-import"));
        assert_eq!(unknown.exports, [HANDLING]);
        assert!(unknown.imports.iter().any(|import| import == "evil:host/do@1.0.0"), "{:?}", unknown.imports);
    }

    #[test]
    fn a_guest_is_built_again_when_a_source_changes_or_it_is_gone_and_else_not() {
        let folder = tempdir().unwrap();
        let [stamp, component, source] = ["guest.stamp", "guest.wasm", "source"].map(|name| folder.path().join(name));
        let builds = Cell::new(0);
        let build = || {
            bring_up_to_date(&stamp, &component, std::slice::from_ref(&source), || {
                builds.set(builds.get() + 1);
                put(&component, |partial| fs::write(partial, "built").unwrap());
            });
            builds.get()
        };
        fs::write(&source, "one").unwrap();
        assert_eq!([build(), build()], [1, 1]);
        let changed = fs::metadata(&source).unwrap().modified().unwrap();
        fs::write(&source, "two").unwrap();
        // A checkout that sets the time back hides nothing.
        File::options().append(true).open(&source).unwrap().set_modified(changed).unwrap();
        assert_eq!([build(), build()], [2, 2]);
        fs::remove_file(&component).unwrap();
        assert_eq!([build(), build()], [3, 3]);
    }
}
