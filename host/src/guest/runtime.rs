//! The WebAssembly runtime of guests: apart from the engine's, with interruption by epochs and instances from a pool.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use wasmtime::component::Linker;
use wasmtime::{Config, Engine, InstanceAllocationStrategy, PoolingAllocationConfig};
use wasmtime_wasi_http::WasiHttpView;

use super::bindings::wasi;
use super::instance::State;
use super::keyvalue::HasKeyValue;

/// How often guests that run are looked at.
pub(super) const TICK: Duration = Duration::from_millis(10);
/// Most that one linear memory may ever have, whatever a subscription allows.
pub const MEMORY_BYTES_MAX: usize = 4 << 30;
/// Most elements that one table may ever have, whatever a subscription allows.
pub const TABLE_ELEMENTS_MAX: usize = 1_000_000;
/// Room on the stack for the host's functions, beside the guest's own.
const HOST_STACK_BYTES: usize = 1 << 20;

/// How the runtime is set up.
#[derive(Clone, Copy, Debug)]
pub struct RuntimeOptions {
    /// Stack of a guest, in bytes.
    pub stack_bytes: usize,
    /// Instances that live at once.
    pub instances: u32,
}

impl Default for RuntimeOptions {
    fn default() -> Self {
        Self { stack_bytes: 512 << 10, instances: 256 }
    }
}

/// Runs guests. Clones share it.
#[derive(Clone)]
pub struct Runtime {
    pub(super) engine: Engine,
    pub(super) linker: Arc<Linker<State>>,
    pub(super) clock: Arc<Clock>,
    pub(super) tasks: tokio::runtime::Handle,
}

impl std::fmt::Debug for Runtime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Runtime").finish_non_exhaustive()
    }
}

/// Why there is no runtime.
#[derive(Debug, thiserror::Error)]
#[error("the WebAssembly runtime for subscribers cannot be set up: {0:#}")]
pub struct NoRuntime(wasmtime::Error);

impl Runtime {
    /// A runtime whose guests wait for their requests and timers on `tasks`.
    pub fn new(options: &RuntimeOptions, tasks: tokio::runtime::Handle) -> Result<Self, NoRuntime> {
        let mut config = config(options);
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool(options)));
        let engine = match Engine::new(&config) {
            Ok(engine) => engine,
            Err(error) => {
                // A pool reserves address space, which some systems limit: instances take longer to make without it.
                tracing::warn!(error = %format!("{error:#}"), "no pool for subscribers' instances: making each anew");
                config.allocation_strategy(InstanceAllocationStrategy::OnDemand);
                Engine::new(&config).map_err(NoRuntime)?
            }
        };
        let linker = Arc::new(link(&engine).map_err(NoRuntime)?);
        let clock = Clock::start(engine.clone()).map_err(|error| NoRuntime(error.into()))?;
        Ok(Self { engine, linker, clock, tasks })
    }
}

/// Everything that decides which native code fits: the child that compiles has to have the same.
fn config(options: &RuntimeOptions) -> Config {
    let mut config = Config::new();
    config.wasm_component_model(true);
    config.concurrency_support(false);
    config.epoch_interruption(true);
    config.memory_init_cow(true);
    config.memory_reservation(MEMORY_BYTES_MAX as u64);
    config.max_wasm_stack(options.stack_bytes);
    config.async_stack_size(options.stack_bytes + HOST_STACK_BYTES);
    config
}

/// An engine that only compiles.
pub(super) fn compiler() -> wasmtime::Result<Engine> {
    Engine::new(&config(&RuntimeOptions::default()))
}

fn pool(options: &RuntimeOptions) -> PoolingAllocationConfig {
    // Languages that bring their runtime make a component of dozens of core modules.
    const MODULES: u32 = 8;
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(options.instances)
        .total_core_instances(options.instances * MODULES)
        .total_memories(options.instances * 2)
        .total_tables(options.instances * MODULES)
        .total_stacks(options.instances)
        .max_core_instances_per_component(options.instances * MODULES)
        .max_memories_per_component(options.instances * 2)
        .max_tables_per_component(options.instances * MODULES)
        .max_component_instance_size(8 << 20)
        .max_core_instance_size(8 << 20)
        .max_tables_per_module(16)
        .max_memories_per_module(4)
        .table_elements(TABLE_ELEMENTS_MAX)
        .max_memory_size(MEMORY_BYTES_MAX);
    pool
}

fn link(engine: &Engine) -> wasmtime::Result<Linker<State>> {
    let mut linker = Linker::new(engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker)?;
    wasi::config::store::add_to_linker::<State, super::instance::HasState>(&mut linker, |state| state)?;
    wasi::keyvalue::store::add_to_linker::<State, HasKeyValue>(&mut linker, State::keyvalue)?;
    wasi::keyvalue::batch::add_to_linker::<State, HasKeyValue>(&mut linker, State::keyvalue)?;
    wasi::keyvalue::atomics::add_to_linker::<State, HasKeyValue>(&mut linker, State::keyvalue)?;
    Ok(linker)
}

// The trait has to be in scope for the linker's bounds to be met by name.
const _: fn(&mut State) -> wasmtime_wasi_http::WasiHttpCtxView<'_> = <State as WasiHttpView>::http;

/// Raises the epoch while a guest runs, and rests while none does.
pub(super) struct Clock {
    running: Mutex<u64>,
    started: Condvar,
}

impl Clock {
    fn start(engine: Engine) -> std::io::Result<Arc<Self>> {
        let clock = Arc::new(Self { running: Mutex::new(0), started: Condvar::new() });
        let weak = Arc::downgrade(&clock);
        std::thread::Builder::new().name("cdc-epoch".into()).spawn(move || {
            while let Some(clock) = weak.upgrade() {
                let running = clock.running.lock().unwrap_or_else(PoisonError::into_inner);
                if *running == 0 {
                    // Wakes now and then to see whether the runtime is still there.
                    drop(clock.started.wait_timeout(running, Duration::from_secs(1)));
                    continue;
                }
                drop(running);
                drop(clock);
                std::thread::sleep(TICK);
                engine.increment_epoch();
            }
        })?;
        Ok(clock)
    }

    pub(super) fn run(self: &Arc<Self>) -> Running {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        *running += 1;
        if *running == 1 {
            self.started.notify_one();
        }
        Running(self.clone())
    }
}

/// A guest runs until this is dropped.
pub(super) struct Running(Arc<Clock>);

impl Drop for Running {
    fn drop(&mut self) {
        *self.0.running.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
    }
}
