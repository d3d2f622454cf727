//! Bindings of what guests import beside WASI's own worlds, generated from `wit/` alone.

#![allow(missing_docs, unreachable_pub, clippy::all, clippy::unwrap_used)]

wasmtime::component::bindgen!({
    path: ["../wit/wasi/config.wit", "../wit/wasi/keyvalue.wit"],
    inline: "
        package cdc:host;
        world guest {
            import wasi:config/store@0.2.0-rc.1;
            import wasi:keyvalue/store@0.2.0-draft2;
            import wasi:keyvalue/batch@0.2.0-draft2;
            import wasi:keyvalue/atomics@0.2.0-draft2;
        }
    ",
    world: "cdc:host/guest",
    imports: { default: trappable },
    with: { "wasi:keyvalue/store.bucket": crate::guest::keyvalue::Bucket },
});
