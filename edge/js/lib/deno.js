// Serves the engine with Deno, its storage in memory: `deno run --allow-net --allow-read deno.js [port]`.
import { Cdc, init } from "./cdc.js";
import { MemoryStorage } from "./memory.js";

init(Deno.readFileSync(new URL("cdc.wasm", import.meta.url)));
const cdc = new Cdc(new MemoryStorage());
const port = Number(Deno.args[0] ?? 8002);
Deno.serve(
  { hostname: "127.0.0.1", port, onListen: (at) => console.log(`http://127.0.0.1:${at.port}`) },
  (request) => cdc.fetch(request),
);
