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

/** What counts in the engine is a whole number; `NaN` would become 0 there, which is a count too. */
function count(name, value, least) {
  if (Number.isSafeInteger(value) && value >= least) return value;
  throw new RangeError(`${name} must be a whole number from ${least} on, not ${value}`);
}

const path = (...parts) => parts.map((part) => "/" + encodeURIComponent(String(part))).join("");
const JSON_BODY = ["content-type", "application/json"];

export class Cdc {
  #engine;
  #now;

  constructor(storage, { maxEvents = 10_000, now = Date.now } = {}) {
    if (!isReady) throw new Error("call init(module) before the first `new Cdc`");
    this.#engine = new Engine(storage, count("maxEvents", maxEvents, 1));
    this.#now = now;
  }

  async fetch(request) {
    const head = [request.method, target(request.url), [...request.headers].flat()];
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
    if (Array.isArray(row) || (typeof row === "string" && /^\s*\[/.test(row))) {
      throw new TypeError("capture takes one row; send several to POST /data/:table through fetch");
    }
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
    const answer = taken(this.#engine.answer(method, target, headers, new TextEncoder().encode(body), this.#now()));
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
    // The engine counts them in 32 bits.
    this.#selection = [tables, operations, Math.min(count("maxEvents", maxEvents, 1), 0xffff_ffff)];
  }

  poll() {
    const delivery = thrown(() => this.#engine.poll(this.#name, ...this.#selection));
    const { events, acknowledgeUpTo } = delivery;
    delivery.free();
    return { events: JSON.parse(events), acknowledgeUpTo };
  }

  acknowledge(sequence) {
    count("sequence", sequence, 0);
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

/** An answer out of the engine's memory, which is given back at once: the garbage collector does not see how much it is. */
function taken(answer) {
  const { status, headers } = answer;
  const body = answer.takeBody();
  answer.free();
  return { status, headers, body };
}

function response(answer, method) {
  const { status, headers: pairs, body } = taken(answer);
  const headers = new Headers();
  for (let at = 0; at < pairs.length; at += 2) headers.append(pairs[at], pairs[at + 1]);
  const isBare = method === "HEAD" || status === 204;
  return new Response(isBare ? null : body, { status, headers });
}

/**
 * Path and query of a URL, as they stand there. `URL` would take `..` and `%2e%2e`, which may be keys, out of a path that a
 * server hands over as it came.
 */
function target(url) {
  return url.replace(/^[a-z][a-z0-9+.-]*:\/\/[^/?#]*/i, "").replace(/#.*$/s, "") || "/";
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
