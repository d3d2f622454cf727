//! A subscriber component, compiled: what it is, what it wants, and whether it fits.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use wasmtime::component::types::{ComponentExtern, ComponentItem};
use wasmtime::component::{Component, ComponentExportIndex, ComponentNamedList, InstancePre, Lift, Lower};

use super::contract::{Accepted, Events, Handled};
use super::instance::State;
use super::runtime::Runtime;
use crate::native_code::{CompileWith, NativeCode};

/// The service calls itself with this to compile a subscriber's component in a process of its own.
pub const COMPILE_GUEST: &str = "compile-component";
/// The component that keeps the replica, as this binary was built with it.
static REPLICA: &[u8] = include_bytes!(env!("CDC_REPLICA_COMPONENT"));

/// The bytes of the component that keeps the replica.
#[must_use]
pub fn replica_component() -> &'static [u8] {
    REPLICA
}

/// How long compiling one component may take. The largest ones, with the runtime of a language in them, take a minute
/// when the machine is busy.
const COMPILE_LIMIT: Duration = Duration::from_secs(300);
/// The address space that the process which compiles may have, in bytes.
const COMPILE_BYTES: u64 = 8 << 30;

const FILTERING: &str = "cdc:subscriber/filtering@1.";
const HANDLING: &str = "cdc:subscriber/handling@1.";

/// Which world of `cdc:subscriber` a component fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum World {
    /// It decides which events go on.
    Filter,
    /// It does something with events.
    Handler,
    /// It does both.
    Subscriber,
}

impl World {
    /// The world's name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Filter => "filter",
            Self::Handler => "handler",
            Self::Subscriber => "subscriber",
        }
    }

    /// Whether it decides which events go on.
    #[must_use]
    pub fn filters(self) -> bool {
        matches!(self, Self::Filter | Self::Subscriber)
    }

    /// Whether it does something with events.
    #[must_use]
    pub fn handles(self) -> bool {
        matches!(self, Self::Handler | Self::Subscriber)
    }
}

/// Why a component cannot be a subscriber.
#[derive(Debug, thiserror::Error)]
pub enum Misfit {
    /// The bytes are no component that can be compiled.
    #[error("this is not a WebAssembly component that can run here: {0:#}{hint}", hint = hint(.0))]
    NotAComponent(wasmtime::Error),
    /// It wants something that no subscriber gets.
    #[error(
        "it imports {import}, which no subscriber gets; a component may import WASI 0.2, wasi:config/store@0.2.0-rc.1, \
         wasi:keyvalue/store@0.2.0-draft2 (and batch, atomics) and wasi:http/outgoing-handler@0.2, and nothing else"
    )]
    Import {
        /// The import's name.
        import: String,
    },
    /// It offers nothing that a subscriber has.
    #[error(
        "it fits none of the worlds filter, handler and subscriber of cdc:subscriber@1.0.0: it exports {exports}, and \
         neither cdc:subscriber/filtering@1.0.0 nor cdc:subscriber/handling@1.0.0"
    )]
    World {
        /// What it exports, as a list for a person.
        exports: String,
    },
    /// An interface has the right name, and another shape.
    #[error("it does not fit the interface that it names: {0:#}")]
    Shape(wasmtime::Error),
}

fn hint(error: &wasmtime::Error) -> &'static str {
    if format!("{error:#}").contains("core module") || format!("{error:#}").contains("attempted to parse a wasm module")
    {
        "; it is a core module: build for wasm32-wasip2, or turn it into a component with wasm-tools component new"
    } else {
        ""
    }
}

/// A component that fits, compiled and linked: ready to be instantiated any number of times. Clones share it.
#[derive(Clone)]
pub struct Guest(pub(super) Arc<Compiled>);

pub(super) struct Compiled {
    pub(super) runtime: Runtime,
    pub(super) instance: InstancePre<State>,
    pub(super) accept: Option<ComponentExportIndex>,
    pub(super) handle: Option<ComponentExportIndex>,
    world: World,
    imports: Vec<String>,
    exports: Vec<String>,
}

impl std::fmt::Debug for Guest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Guest").field("world", &self.0.world).finish_non_exhaustive()
    }
}

impl Guest {
    /// Which world it fits.
    #[must_use]
    pub fn world(&self) -> World {
        self.0.world
    }

    /// What it imports, by name.
    #[must_use]
    pub fn imports(&self) -> &[String] {
        &self.0.imports
    }

    /// What it exports, by name.
    #[must_use]
    pub fn exports(&self) -> &[String] {
        &self.0.exports
    }

    /// Compiles a component, or takes its native code from the cache, and links it, if it fits. May take a minute for a
    /// component that brings the runtime of its language.
    pub fn load(runtime: &Runtime, bytes: &[u8], cache: Option<&Path>, with: &CompileWith) -> Result<Self, Misfit> {
        let cache = NativeCode {
            folder: cache,
            prefix: "component",
            command: COMPILE_GUEST,
            with,
            time_limit: Some(COMPILE_LIMIT),
        };
        let component = cache.component(&runtime.engine, bytes).map_err(Misfit::NotAComponent)?;
        Self::link(runtime, &component)
    }

    /// Links a compiled component, if it fits.
    fn link(runtime: &Runtime, component: &Component) -> Result<Self, Misfit> {
        let shape = component.component_type();
        let imports: Vec<String> = shape.imports(&runtime.engine).map(|(name, _)| name.to_owned()).collect();
        let exports: Vec<String> = shape.exports(&runtime.engine).map(|(name, _)| name.to_owned()).collect();
        // Types alone are imported too, where an export uses them: they want nothing.
        let wants = |item: &ComponentExtern<'_>| match &item.ty {
            ComponentItem::ComponentInstance(instance) => instance
                .exports(&runtime.engine)
                .any(|(_, inner)| !matches!(inner.ty, ComponentItem::Type(_) | ComponentItem::Resource(_))),
            ComponentItem::Type(_) => false,
            _ => true,
        };
        for (name, item) in shape.imports(&runtime.engine) {
            if wants(&item) && !is_granted(name) {
                return Err(Misfit::Import { import: name.to_owned() });
            }
        }
        let accept = function::<Events<'_>, Accepted>(runtime, component, &exports, FILTERING, "accept")?;
        let handle = function::<Events<'_>, Handled>(runtime, component, &exports, HANDLING, "handle")?;
        let world = match (accept.is_some(), handle.is_some()) {
            (true, true) => World::Subscriber,
            (true, false) => World::Filter,
            (false, true) => World::Handler,
            (false, false) => {
                let exports = if exports.is_empty() { "nothing".to_owned() } else { exports.join(", ") };
                return Err(Misfit::World { exports });
            }
        };
        let instance = runtime.linker.instantiate_pre(component).map_err(Misfit::Shape)?;
        Ok(Self(Arc::new(Compiled { runtime: runtime.clone(), instance, accept, handle, world, imports, exports })))
    }
}

/// A function of an exported interface, if it is exported at all: of the shape that the contract says, or a misfit.
fn function<Params, Return>(
    runtime: &Runtime,
    component: &Component,
    exports: &[String],
    interface: &str,
    function: &str,
) -> Result<Option<ComponentExportIndex>, Misfit>
where
    Params: ComponentNamedList + Lower,
    Return: ComponentNamedList + Lift,
{
    let Some(name) = exports.iter().find(|export| export.starts_with(interface)) else { return Ok(None) };
    let missing = || Misfit::Shape(wasmtime::format_err!("{name} has no function {function}"));
    let shape = component.component_type();
    let instance_type = shape.instance_type();
    match shape.get_export(&runtime.engine, name).map(|export| export.ty) {
        Some(ComponentItem::ComponentInstance(instance)) => match instance.get_export(&runtime.engine, function) {
            Some(ComponentExtern { ty: ComponentItem::ComponentFunc(found), .. }) => {
                let checked = found.typecheck::<Params, Return>(&instance_type);
                checked.map_err(|error| Misfit::Shape(error.context(format!("{function} of {name}"))))?;
            }
            _ => return Err(missing()),
        },
        _ => return Err(missing()),
    }
    let interface = component.get_export_index(None, name).ok_or_else(missing)?;
    component.get_export_index(Some(&interface), function).ok_or_else(missing).map(Some)
}

/// Compiles a component to native code, for the cache of another process.
pub fn precompile(component: &[u8]) -> Result<Vec<u8>, Misfit> {
    // Whoever captures goes first: a compiler takes every core it finds.
    crate::native_code::lower_priority(10);
    crate::native_code::limit_memory(COMPILE_BYTES);
    let compiler = super::runtime::compiler().map_err(Misfit::NotAComponent)?;
    compiler.precompile_component(component).map_err(Misfit::NotAComponent)
}

/// Whether an import is among what is linked. The linker has the last word; this names what is not before it is asked.
fn is_granted(import: &str) -> bool {
    const PACKAGES: &[&str] =
        &["wasi:cli/", "wasi:clocks/", "wasi:filesystem/", "wasi:io/", "wasi:random/", "wasi:sockets/"];
    let Some((name, version)) = import.split_once('@') else { return false };
    let is_released = version.starts_with("0.2.") && !version.contains('-');
    match name {
        "wasi:config/store" => version == "0.2.0-rc.1",
        "wasi:keyvalue/store" | "wasi:keyvalue/batch" | "wasi:keyvalue/atomics" => version == "0.2.0-draft2",
        "wasi:http/types" | "wasi:http/outgoing-handler" => is_released,
        name => is_released && PACKAGES.iter().any(|package| name.starts_with(package)),
    }
}
