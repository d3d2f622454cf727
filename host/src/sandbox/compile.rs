//! Compiling the engine component, once: native code is kept in a cache folder, under a name that holds the hashes of
//! the component and of the compiler's settings.
//!
//! The first start compiles in a child process where it can, because a compiler leaves tens of MiB of memory behind.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use sha2::{Digest, Sha256};
use wasmtime::component::Linker;
use wasmtime::{Config, Engine};

use super::bindings;
use super::imports::{InstanceState, add_store_to_linker};

/// The engine component that this binary was built with.
static BUILT_IN: &[u8] = include_bytes!(env!("CDC_ENGINE_COMPONENT"));

/// The bytes of the engine component that this binary was built with.
#[must_use]
pub fn built_in_component() -> &'static [u8] {
    BUILT_IN
}

/// Why the engine component cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file cannot be read.
    #[error("cannot read the engine component {path}: {source}")]
    Unreadable {
        /// The component's file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The bytes are not a component that can be compiled.
    #[error("the engine component ({name}) is not a WebAssembly component that can run here: {source:#}")]
    NotAComponent {
        /// Where it came from.
        name: String,
        /// Why.
        source: wasmtime::Error,
    },
    /// It is a component, but not an engine.
    #[error("the component ({name}) does not fit the world cdc:engine/engine@1.0.0: {source:#}")]
    NotAnEngine {
        /// Where it came from.
        name: String,
        /// What is missing or too much.
        source: wasmtime::Error,
    },
    /// The runtime itself cannot be set up on this machine.
    #[error("the WebAssembly runtime cannot be set up: {0:#}")]
    Runtime(wasmtime::Error),
}

/// Who compiles when the cache does not have it.
#[derive(Clone, Debug)]
pub enum CompileWith {
    /// This process.
    ThisProcess,
    /// `<program> compile-engine <component> <output>`, a child process; this process, should that fail.
    Child(PathBuf),
}

/// An engine component, compiled and linked: ready to be instantiated any number of times.
#[derive(Clone)]
pub struct Component {
    pub(super) engine: Engine,
    pub(super) instance: bindings::EnginePre<InstanceState>,
}

impl std::fmt::Debug for Component {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Component").finish_non_exhaustive()
    }
}

impl Component {
    /// Loads the engine component from a file, or the one that is built in, with native code from `cache` if it is
    /// there, and puts it there if it is not. A cache that cannot be written costs time, not the start.
    pub fn load(file: Option<&Path>, cache: Option<&Path>, with: &CompileWith) -> Result<Self, LoadError> {
        let (bytes, name) = match file {
            None => (BUILT_IN.to_vec(), "built in".to_owned()),
            Some(path) => {
                let unreadable = |source| LoadError::Unreadable { path: path.to_owned(), source };
                (fs::read(path).map_err(unreadable)?, path.display().to_string())
            }
        };
        let engine = runtime()?;
        let component = match cache {
            None => compiled(&engine, &bytes, &name)?,
            Some(cache) => cached(&engine, &bytes, &name, cache, with)?,
        };
        let not_an_engine = |source| LoadError::NotAnEngine { name: name.clone(), source };
        let mut linker = Linker::new(&engine);
        wasmtime_wasi::p2::add_to_linker_sync(&mut linker).map_err(LoadError::Runtime)?;
        add_store_to_linker(&mut linker).map_err(LoadError::Runtime)?;
        let instance = linker.instantiate_pre(&component).map_err(not_an_engine)?;
        let instance = bindings::EnginePre::new(instance).map_err(not_an_engine)?;
        Ok(Self { engine, instance })
    }
}

/// The engine is ours: no fuel and no epochs, which cost a fifth of its speed.
fn runtime() -> Result<Engine, LoadError> {
    let mut config = Config::new();
    config.wasm_component_model(true);
    config.memory_init_cow(true);
    // One linear memory of an instance; the rest of the address space is for growing without a move.
    config.memory_reservation(1 << 32);
    Engine::new(&config).map_err(LoadError::Runtime)
}

/// Compiles a component to native code, for the cache of another process.
pub fn precompile(component: &[u8]) -> Result<Vec<u8>, LoadError> {
    let not_a_component = |source| LoadError::NotAComponent { name: "given".to_owned(), source };
    runtime()?.precompile_component(component).map_err(not_a_component)
}

fn compiled(engine: &Engine, bytes: &[u8], name: &str) -> Result<wasmtime::component::Component, LoadError> {
    // `Component::new` would take text too; a service takes what `wasm-tools validate` would.
    wasmtime::component::Component::from_binary(engine, bytes)
        .map_err(|source| LoadError::NotAComponent { name: name.to_owned(), source })
}

fn cached(
    engine: &Engine,
    bytes: &[u8],
    name: &str,
    cache: &Path,
    with: &CompileWith,
) -> Result<wasmtime::component::Component, LoadError> {
    let path = cache.join(format!("engine-{}.cwasm", key(engine, bytes)));
    if let Some(component) = load_native(engine, &path) {
        return Ok(component);
    }
    let start = Instant::now();
    if let Err(error) = fs::create_dir_all(cache) {
        tracing::warn!(folder = %cache.display(), %error, "the compile cache cannot be created: compiling without it");
        return compiled(engine, bytes, name);
    }
    if let CompileWith::Child(program) = with {
        match compile_in_child(program, bytes, &path) {
            Ok(()) => {
                if let Some(component) = load_native(engine, &path) {
                    tracing::info!(engine = name, ms = start.elapsed().as_millis() as u64, "engine compiled");
                    return Ok(component);
                }
            }
            Err(error) => tracing::debug!(%error, "compiling in this process"),
        }
    }
    let native = engine
        .precompile_component(bytes)
        .map_err(|source| LoadError::NotAComponent { name: name.to_owned(), source })?;
    if let Err(error) = store_native(&native, &path) {
        tracing::warn!(file = %path.display(), %error, "the compile cache cannot be written: the next start compiles again");
        return compiled(engine, bytes, name);
    }
    tracing::info!(engine = name, ms = start.elapsed().as_millis() as u64, "engine compiled");
    match load_native(engine, &path) {
        Some(component) => Ok(component),
        None => compiled(engine, bytes, name),
    }
}

/// Hashes of the component and of everything that decides which native code fits.
fn key(engine: &Engine, bytes: &[u8]) -> String {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut compiler = DefaultHasher::new();
    engine.precompile_compatibility_hash().hash(&mut compiler);
    format!("{}-{:016x}", hex(&Sha256::digest(bytes)[..16]), compiler.finish())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The checksum's file beside the code's.
fn sum_path(path: &Path) -> PathBuf {
    path.with_extension("sha256")
}

/// Native code from the cache; none when it is missing, damaged or of another compiler.
fn load_native(engine: &Engine, path: &Path) -> Option<wasmtime::component::Component> {
    let native = fs::read(path).ok()?;
    let sum = fs::read_to_string(sum_path(path)).ok()?;
    if sum.trim() != hex(&Sha256::digest(&native)) {
        tracing::warn!(file = %path.display(), "the compile cache is damaged: compiling again");
        return None;
    }
    drop(native);
    // SAFETY: wasmtime trusts such a file as it trusts its own compiler. It is the one that this program wrote: its
    // checksum was just compared, and the folder belongs to the service as its log does.
    match unsafe { wasmtime::component::Component::deserialize_file(engine, path) } {
        Ok(component) => Some(component),
        Err(error) => {
            tracing::warn!(file = %path.display(), error = %format!("{error:#}"), "the compile cache does not fit: compiling again");
            None
        }
    }
}

/// Writes beside and renames, so that no other start finds half a file; the checksum goes last.
fn store_native(native: &[u8], path: &Path) -> io::Result<()> {
    let write = |path: &Path, bytes: &[u8]| {
        let beside = path.with_extension(format!("{}.tmp", std::process::id()));
        fs::write(&beside, bytes)?;
        fs::rename(&beside, path)
    };
    write(path, native)?;
    write(&sum_path(path), hex(&Sha256::digest(native)).as_bytes())
}

fn compile_in_child(program: &Path, bytes: &[u8], path: &Path) -> io::Result<()> {
    let component = path.with_extension(format!("{}.wasm", std::process::id()));
    let native = path.with_extension(format!("{}.native", std::process::id()));
    fs::write(&component, bytes)?;
    let status = Command::new(program)
        .arg("compile-engine")
        .arg(&component)
        .arg(&native)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    let stored = match status {
        Ok(status) if status.success() => fs::read(&native).and_then(|native| store_native(&native, path)),
        Ok(status) => Err(io::Error::other(format!("the compiling process ended with {status}"))),
        Err(error) => Err(error),
    };
    for leftover in [&component, &native] {
        // A leftover is harmless; it may never have been there.
        let _ = fs::remove_file(leftover);
    }
    stored
}
