# Runs the worker on this machine: `workerd serve worker.capnp`. The folder `objects` beside it must be there.
using Workerd = import "/workerd/workerd.capnp";

const config :Workerd.Config = (
  services = [
    (name = "main", worker = .worker),
    (name = "disk", disk = (path = "objects", writable = true)),
  ],
  sockets = [(name = "http", address = "127.0.0.1:8002", http = (), service = "main")],
);

const worker :Workerd.Worker = (
  modules = [
    (name = "worker.js", esModule = embed "worker.js"),
    (name = "cdc.js", esModule = embed "cdc.js"),
    (name = "cdc_edge_js.js", esModule = embed "cdc_edge_js.js"),
    (name = "durable-object.js", esModule = embed "durable-object.js"),
    (name = "cdc.wasm", wasm = embed "cdc.wasm"),
  ],
  compatibilityDate = "2026-01-01",
  durableObjectNamespaces = [(className = "CdcObject", uniqueKey = "cdc", enableSql = true)],
  durableObjectStorage = (localDisk = "disk"),
  bindings = [(name = "CDC", durableObjectNamespace = "CdcObject")],
);
