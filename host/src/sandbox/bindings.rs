//! Bindings generated from `wit/` alone.

#![allow(missing_docs, unreachable_pub, clippy::all, clippy::unwrap_used)]

wasmtime::component::bindgen!({
    path: ["../wit/event", "../wit/engine"],
    world: "cdc:engine/engine",
    imports: { default: trappable },
    with: { "cdc:engine/store.view": crate::sandbox::imports::StoreView },
});
