// Serves the engine with node:http, its storage in memory: `node node.js [port]`.
import { webcrypto } from "node:crypto";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { Readable } from "node:stream";
import { Cdc, init } from "./cdc.js";
import { MemoryStorage } from "./memory.js";

// Node 18 has it, but not as a global.
globalThis.crypto ??= webcrypto;
init(readFileSync(new URL("cdc.wasm", import.meta.url)));
const cdc = new Cdc(new MemoryStorage());

const server = createServer((message, answer) => {
  serve(message, answer).catch((error) => {
    // The client is gone, or there is a defect: neither may end the server.
    console.error("cdc: a request was not answered:", error);
    answer.destroy();
  });
});

async function serve(message, answer) {
  const hasBody = message.headers["content-length"] !== undefined || message.headers["transfer-encoding"] !== undefined;
  const headers = new Headers();
  for (let at = 0; at < message.rawHeaders.length; at += 2) {
    headers.append(message.rawHeaders[at], message.rawHeaders[at + 1]);
  }
  // Not a Request: it knows fewer methods, and no body with GET, which are for the engine to refuse, and it changes paths.
  const response = await cdc.fetch({
    method: message.method,
    url: message.url.startsWith("/") ? "http://localhost" + message.url : message.url,
    headers,
    body: hasBody ? Readable.toWeb(message) : null,
  });
  const body = Buffer.from(await response.arrayBuffer());
  response.headers.forEach((value, name) => answer.setHeader(name, value));
  if (message.method !== "HEAD") answer.setHeader("content-length", body.byteLength);
  answer.writeHead(response.status);
  answer.end(body);
}

server.listen(Number(process.argv[2] ?? 8002), "127.0.0.1", () => {
  console.log(`http://127.0.0.1:${server.address().port}`);
});
