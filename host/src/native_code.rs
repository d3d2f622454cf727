//! Native code of components, compiled once: kept in a cache folder, under a name that holds the hashes of the component
//! and of the compiler's settings.
//!
//! Compiling is left to a child process where it can be, because a compiler leaves tens of MiB of memory behind, and
//! because a child can be given up.

use std::cell::Cell;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit};
use sha2::{Digest, Sha256};
use wasmtime::Engine;
use wasmtime::component::Component;

/// Who compiles when the cache does not have it.
#[derive(Clone, Debug)]
pub enum CompileWith {
    /// This process.
    ThisProcess,
    /// `<program> <command> <component> <output>`, a child process; this process, should that fail.
    Child(PathBuf),
}

/// A cache of native code.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NativeCode<'a> {
    /// Where it is kept; none to compile every time.
    pub(crate) folder: Option<&'a Path>,
    /// What file names begin with.
    pub(crate) prefix: &'a str,
    /// What the child is called with.
    pub(crate) command: &'a str,
    /// Who compiles.
    pub(crate) with: &'a CompileWith,
    /// How long a child may take to compile what somebody sent in. A child that is ended for it, or ends otherwise than
    /// it should, has failed for good: this process does not try what was too much for another. None for what the
    /// service brings itself.
    pub(crate) time_limit: Option<Duration>,
}

/// Somebody else could write what this service would run.
#[derive(Debug, thiserror::Error)]
#[error(
    "the folder of compiled code, {}, {why}: whoever can write there runs code as this service. Remove it, or let \
     --compile-cache name a folder that is the service's alone",
    folder.display()
)]
pub(crate) struct UnsafeFolder {
    folder: PathBuf,
    why: String,
}

/// Whether a folder, if it is there, belongs to this user and takes nobody else's files.
pub(crate) fn check_folder(folder: &Path) -> Result<(), UnsafeFolder> {
    let Ok(found) = fs::metadata(folder) else { return Ok(()) };
    is_ours(&found).map_err(|why| UnsafeFolder { folder: folder.to_owned(), why })
}

fn is_ours(found: &fs::Metadata) -> Result<(), String> {
    let (owner, user) = (found.uid(), rustix::process::geteuid().as_raw());
    if owner != user {
        return Err(format!("belongs to user {owner}, and the service is user {user}"));
    }
    match found.mode() & 0o022 {
        0 => Ok(()),
        _ => Err(format!("may be written by others (mode {:03o})", found.mode() & 0o777)),
    }
}

impl NativeCode<'_> {
    /// A component ready to be linked. A cache that cannot be written costs time, and nothing else.
    pub(crate) fn component(&self, engine: &Engine, bytes: &[u8]) -> wasmtime::Result<Component> {
        // `Component::new` would take text too; a service takes what `wasm-tools validate` would.
        let compiled = || Component::from_binary(engine, bytes);
        let Some(folder) = self.folder else { return compiled() };
        check_folder(folder)?;
        let path = folder.join(format!("{}-{}.cwasm", self.prefix, key(engine, bytes)));
        if let Some(component) = load(engine, &path) {
            return Ok(component);
        }
        let start = Instant::now();
        if let Err(error) = fs::DirBuilder::new().recursive(true).mode(0o700).create(folder) {
            tracing::warn!(folder = %folder.display(), %error, "the compile cache cannot be created: compiling without it");
            return compiled();
        }
        if let CompileWith::Child(program) = self.with {
            match compile_in_child(program, self.command, bytes, &path, self.time_limit) {
                Ok(()) => {
                    if let Some(component) = load(engine, &path) {
                        tracing::info!(what = self.prefix, ms = start.elapsed().as_millis() as u64, "compiled");
                        return Ok(component);
                    }
                }
                Err(error @ ChildError::Ended(_)) if self.time_limit.is_some() => return Err(error.into()),
                Err(error) => tracing::debug!(%error, "compiling in this process"),
            }
        }
        let native = engine.precompile_component(bytes)?;
        if let Err(error) = store(&native, &path) {
            tracing::warn!(file = %path.display(), %error, "the compile cache cannot be written: the next start compiles again");
            return compiled();
        }
        tracing::info!(what = self.prefix, ms = start.elapsed().as_millis() as u64, "compiled");
        match load(engine, &path) {
            Some(component) => Ok(component),
            None => compiled(),
        }
    }
}

/// Hashes of the component and of everything that decides which native code fits.
fn key(engine: &Engine, bytes: &[u8]) -> String {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut compiler = DefaultHasher::new();
    engine.precompile_compatibility_hash().hash(&mut compiler);
    format!("{}-{:016x}", hex(&Sha256::digest(bytes)[..16]), compiler.finish())
}

/// Bytes in hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The checksum's file beside the code's.
fn sum_path(path: &Path) -> PathBuf {
    path.with_extension("sha256")
}

/// Native code from the cache; none when it is missing, damaged or of another compiler.
fn load(engine: &Engine, path: &Path) -> Option<Component> {
    for file in [path, &sum_path(path)] {
        if let Err(why) = is_ours(&fs::metadata(file).ok()?) {
            tracing::warn!(file = %file.display(), "compiled code that {why}: compiling again");
            return None;
        }
    }
    let native = fs::read(path).ok()?;
    let sum = fs::read_to_string(sum_path(path)).ok()?;
    if sum.trim() != hex(&Sha256::digest(&native)) {
        tracing::warn!(file = %path.display(), "the compile cache is damaged: compiling again");
        return None;
    }
    drop(native);
    // SAFETY: wasmtime trusts such a file as it trusts its own compiler. It is the one that this program wrote: its
    // checksum was just compared, and the folder belongs to the service as its log does.
    match unsafe { Component::deserialize_file(engine, path) } {
        Ok(component) => Some(component),
        Err(error) => {
            tracing::warn!(file = %path.display(), error = %format!("{error:#}"), "the compile cache does not fit: compiling again");
            None
        }
    }
}

/// Writes beside and renames, so that no other start finds half a file; the checksum goes last.
fn store(native: &[u8], path: &Path) -> io::Result<()> {
    let write = |path: &Path, bytes: &[u8]| {
        let beside = path.with_extension(format!("{}.tmp", std::process::id()));
        // A file that is there keeps its owner and mode, so it must not be.
        let _ = fs::remove_file(&beside);
        fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?.write_all(bytes)?;
        fs::rename(&beside, path)
    };
    write(path, native)?;
    write(&sum_path(path), hex(&Sha256::digest(native)).as_bytes())
}

/// Why a child has not compiled.
#[derive(Debug, thiserror::Error)]
enum ChildError {
    /// It could not be asked, or says that the component is none: this process finds out why.
    #[error("the compiling process did nothing: {0}")]
    Refused(#[from] io::Error),
    /// It took too long or too much memory, or failed otherwise.
    #[error("compiling it ended with {0}; a smaller component, or one with smaller functions, may fit")]
    Ended(String),
}

fn compile_in_child(
    program: &Path,
    command: &str,
    bytes: &[u8],
    path: &Path,
    time_limit: Option<Duration>,
) -> Result<(), ChildError> {
    let component = path.with_extension(format!("{}.wasm", std::process::id()));
    let native = path.with_extension(format!("{}.native", std::process::id()));
    fs::write(&component, bytes)?;
    let child = Command::new(program)
        .arg(command)
        .arg(&component)
        .arg(&native)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let ended = child.and_then(|child| wait(child, time_limit));
    let stored = match ended {
        Ok(Some(status)) if status.success() => {
            fs::read(&native).and_then(|native| store(&native, path)).map_err(ChildError::from)
        }
        // What it ends with when it says why.
        Ok(Some(status)) if status.code() == Some(1) => Err(io::Error::other("it is no component").into()),
        Ok(Some(status)) => Err(ChildError::Ended(status.to_string())),
        Ok(None) => Err(ChildError::Ended(format!("its time limit, {} s", time_limit.unwrap_or_default().as_secs()))),
        Err(error) => Err(error.into()),
    };
    for leftover in [&component, &native] {
        // A leftover is harmless; it may never have been there.
        let _ = fs::remove_file(leftover);
    }
    stored
}

/// Waits for a child; none when it took too long and was ended.
fn wait(mut child: Child, time_limit: Option<Duration>) -> io::Result<Option<ExitStatus>> {
    const LOOK_EVERY: Duration = Duration::from_millis(5);
    let Some(time_limit) = time_limit else { return child.wait().map(Some) };
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if start.elapsed() >= time_limit {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Limits the memory that this process may ever have, in bytes of address space. A courtesy, as priorities are.
pub(crate) fn limit_memory(bytes: u64) {
    let limit = Rlimit { current: Some(bytes), maximum: Some(bytes) };
    let _ = rustix::process::setrlimit(Resource::As, limit);
}

thread_local! {
    static STEPPED_BACK: Cell<bool> = const { Cell::new(false) };
    static NICE: Cell<i32> = const { Cell::new(0) };
}

/// Lowers the priority of this thread, and of what it starts, to this one; it never raises it. A courtesy: where it is
/// not allowed, work is done all the same.
pub(crate) fn lower_priority(nice: i32) {
    if nice > NICE.get() {
        NICE.set(nice);
        let _ = rustix::process::setpriority_process(None, nice);
    }
}

/// Puts this thread behind all others, for good: only a privileged process could take it back.
pub(crate) fn step_back() {
    STEPPED_BACK.set(true);
    lower_priority(19);
}

/// Whether this thread was put behind all others.
pub(crate) fn has_stepped_back() -> bool {
    STEPPED_BACK.get()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may stop at a surprise")]

    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_folder_that_others_may_write_to_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("cache");
        check_folder(&folder).unwrap();
        fs::create_dir(&folder).unwrap();
        for (mode, is_fine) in [(0o700, true), (0o755, true), (0o775, false), (0o757, false), (0o777, false)] {
            fs::set_permissions(&folder, fs::Permissions::from_mode(mode)).unwrap();
            let checked = check_folder(&folder);
            assert_eq!(checked.is_ok(), is_fine, "{mode:o} {checked:?}");
        }
        let refused = check_folder(&folder).unwrap_err().to_string();
        assert!(refused.contains("mode 777") && refused.contains("--compile-cache"), "{refused}");
    }

    #[test]
    fn a_folder_of_somebody_else_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        // Only root can give something away; whoever else runs this has a folder of root's at hand.
        let given = std::os::unix::fs::chown(dir.path(), Some(12_345), None).is_ok();
        let folder = if given { dir.path() } else { Path::new("/usr") };
        let refused = check_folder(folder).unwrap_err().to_string();
        assert!(refused.contains("belongs to user"), "{refused}");
    }

    // `sh -- COMPONENT NATIVE` stands for a compiler: it does what the component says.
    #[test]
    fn a_child_that_says_what_is_wrong_is_asked_again_in_this_process() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.cwasm");
        let ended = compile_in_child(Path::new("/bin/sh"), "--", b"exit 1", &path, Some(Duration::from_secs(60)));
        assert!(matches!(ended, Err(ChildError::Refused(_))), "{ended:?}");
    }

    #[test]
    fn a_child_that_takes_too_long_is_ended_for_good() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.cwasm");
        let limit = Some(Duration::from_millis(20));
        let ended = compile_in_child(Path::new("/bin/sh"), "--", b"exec sleep 60", &path, limit);
        assert!(matches!(&ended, Err(ChildError::Ended(how)) if how.contains("time limit")), "{ended:?}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "nothing is left over");
    }

    #[test]
    fn a_child_that_is_killed_has_failed_for_good() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.cwasm");
        let ended = compile_in_child(Path::new("/bin/sh"), "--", b"kill -9 $$", &path, Some(Duration::from_secs(60)));
        assert!(matches!(&ended, Err(ChildError::Ended(how)) if how.contains("signal")), "{ended:?}");
    }
}
