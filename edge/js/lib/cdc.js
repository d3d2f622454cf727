// The engine with its typed API and its REST routes. Types and their documentation: cdc.d.ts.
import { Engine, initSync } from "./cdc_edge_js.js";

let isReady = false;

/** Takes the compiled module, once per isolate. */
export function init(module) {
  if (!isReady) initSync({ module });
  isReady = true;
}

export class CdcError extends Error {
  constructor(problem) {
    super(problem.detail ?? problem.title);
    this.name = "CdcError";
    this.code = problem.code;
    this.status = problem.status;
    this.problem = problem;
  }
}

const path = (...parts) => parts.map((part) => "/" + encodeURIComponent(String(part))).join("");
const JSON_BODY = ["content-type", "application/json"];

export class Cdc {
  #engine;
  #now;

  constructor(storage, { maxEvents = 10_000, now = Date.now } = {}) {
    if (!isReady) throw new Error("call init(module) before the first `new Cdc`");
    this.#engine = new Engine(storage, maxEvents);
    this.#now = now;
  }

  async fetch(request) {
    const url = new URL(request.url);
    const head = [request.method, url.pathname + url.search, [...request.headers].flat()];
    let limit;
    try {
      limit = this.#engine.bodyLimit(...head);
    } catch (refused) {
      // An answer of the engine's; anything else is a defect.
      if (refused instanceof Error) throw refused;
      return response(refused, request.method);
    }
    let body;
    try {
      body = limit === 0 ? new Uint8Array() : await read(request.body, limit);
    } catch (error) {
      return response(this.#engine.brokenBody(...head, String(error?.message ?? error)), request.method);
    }
    if (body === undefined) return response(this.#engine.tooLarge(...head), request.method);
    // From here on nothing is awaited: the request is decided and committed in one turn.
    return response(this.#engine.answer(...head, body, this.#now()), request.method);
  }

  capture(change) {
    const { operation, table, key, row } = change;
    const keys = key === undefined ? [] : [key].flat();
    switch (operation) {
      case "insert":
        return this.#ask("POST", path("data", table), row).event;
      case "update":
        return this.#ask("PUT", path("data", table, ...keys), row).event;
      case "upsert":
        return this.#ask("PUT", path("data", table, ...keys) + "?upsert=true", row).event;
      case "delete":
        return this.#ask("DELETE", path("data", table, ...keys)).event;
      default:
        throw new TypeError(`${operation} is no operation: insert, update, upsert or delete`);
    }
  }

  query(selection = {}) {
    const parameters = new URLSearchParams();
    for (const [name, value] of Object.entries(selection)) {
      if (value !== undefined) parameters.set(name, String(value));
    }
    return this.#ask("GET", `/events?${parameters}`);
  }

  row(table, key) {
    return this.#ask("GET", path("data", table, ...[key].flat()));
  }

  snapshot(table, { at } = {}) {
    return this.#ask("GET", path("snapshot", table) + (at === undefined ? "" : `?at=${at}`));
  }

  subscribe(name, selection = {}) {
    return new Subscription(this.#engine, name, selection);
  }

  /** Asks a route, and throws its problem. */
  #ask(method, target, row) {
    const headers = row === undefined ? [] : JSON_BODY;
    const body = row === undefined ? "" : typeof row === "string" ? row : JSON.stringify(row);
    const answer = this.#engine.answer(method, target, headers, new TextEncoder().encode(body), this.#now());
    const document = JSON.parse(new TextDecoder().decode(answer.body));
    if (answer.status >= 400) throw new CdcError(document);
    return document;
  }
}

class Subscription {
  #engine;
  #name;
  #selection;

  constructor(engine, name, { tables = [], operations = [], maxEvents = 256 }) {
    this.#engine = engine;
    this.#name = name;
    this.#selection = [tables, operations, maxEvents];
  }

  poll() {
    const delivery = thrown(() => this.#engine.poll(this.#name, ...this.#selection));
    return { events: JSON.parse(delivery.events), acknowledgeUpTo: delivery.acknowledgeUpTo };
  }

  acknowledge(sequence) {
    thrown(() => this.#engine.acknowledge(this.#name, sequence));
  }

  async deliver(handler) {
    let delivered = 0;
    for (let before; ; ) {
      const { events, acknowledgeUpTo } = this.poll();
      if (events.length === 0 && acknowledgeUpTo === before) return delivered;
      if (events.length > 0) await handler(events);
      // Only now: what the handler fails on comes again.
      this.acknowledge(acknowledgeUpTo);
      delivered += events.length;
      before = acknowledgeUpTo;
    }
  }
}

function thrown(call) {
  try {
    return call();
  } catch (error) {
    throw typeof error === "string" ? new CdcError(JSON.parse(error)) : error;
  }
}

function response(answer, method) {
  const headers = new Headers();
  const pairs = answer.headers;
  for (let at = 0; at < pairs.length; at += 2) headers.append(pairs[at], pairs[at + 1]);
  const isBare = method === "HEAD" || answer.status === 204;
  return new Response(isBare ? null : answer.body, { status: answer.status, headers });
}

/** The whole body, or undefined when it is longer than that. */
async function read(stream, limit) {
  if (!stream) return new Uint8Array();
  const pieces = [];
  let length = 0;
  for await (const piece of stream) {
    length += piece.byteLength;
    if (length > limit) return undefined;
    pieces.push(piece);
  }
  const body = new Uint8Array(length);
  let at = 0;
  for (const piece of pieces) {
    body.set(piece, at);
    at += piece.byteLength;
  }
  return body;
}
