//! Loading the engine component: compiled once, linked with its store.

use std::path::Path;

use wasmtime::component::Linker;
use wasmtime::{Config, Engine};

use super::bindings;
use super::imports::{InstanceState, add_store_to_linker};
use crate::native_code::{CompileWith, NativeCode, check_folder};

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
    /// It cannot be read.
    #[error("the engine component cannot be used: {0}")]
    File(#[from] cdc_access::FileError),
    /// Somebody else could write what would be run.
    #[error("{0}")]
    UnsafeFolder(String),
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

/// The service calls itself with this to compile the engine in a process of its own.
pub const COMPILE_ENGINE: &str = "compile-engine";

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

/// No engine is larger.
const MAX_ENGINE_BYTES: u64 = 256 << 20;

impl Component {
    /// Loads the engine component from a file, or the one that is built in, with native code from `cache` if it is
    /// there, and puts it there if it is not. A cache that cannot be written costs time, not the start.
    pub fn load(file: Option<&Path>, cache: Option<&Path>, with: &CompileWith) -> Result<Self, LoadError> {
        let (bytes, name) = match file {
            None => (BUILT_IN.to_vec(), "built in".to_owned()),
            Some(path) => (cdc_access::read_file_up_to(path, MAX_ENGINE_BYTES)?, path.display().to_string()),
        };
        if let Some(cache) = cache {
            check_folder(cache).map_err(|error| LoadError::UnsafeFolder(error.to_string()))?;
        }
        let engine = runtime()?;
        let not_a_component = |source| LoadError::NotAComponent { name: name.clone(), source };
        let cache = NativeCode { folder: cache, prefix: "engine", command: COMPILE_ENGINE, with, time_limit: None };
        let component = cache.component(&engine, &bytes).map_err(not_a_component)?;
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
