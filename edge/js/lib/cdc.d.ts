/**
 * The cdc engine in a JavaScript runtime: Workers, Deno, Node.
 *
 * Rows that are given as objects go through `JSON.stringify`, and events come back through `JSON.parse`: numbers beyond
 * 2^53 lose digits there. Give rows as JSON text, and read through `fetch`, where every digit counts.
 */

/** Where the engine keeps everything. Synchronous; one engine owns it. */
export interface Storage {
  get(key: string): Uint8Array | undefined;
  /** Durable when the turn of the event loop in which it was called has been answered, or as the adapter says. */
  put(key: string, value: Uint8Array): void;
  /** What is not there is no error. */
  delete(key: string): void;
}

export type Json = null | boolean | number | string | Json[] | { [member: string]: Json };
export type Row = { [column: string]: Json };
/** The parts of a composite key in an array. */
export type Key = string | number | (string | number)[];
export type Operation = "INSERT" | "UPDATE" | "DELETE" | "TRUNCATE";

/** A captured change, as `GET /events` shows it. */
export interface Event {
  /** Unique, and the same whenever it is delivered. */
  id: string;
  operation: Operation;
  table: string;
  /** In ms since 1970. */
  timestamp: number;
  before?: Row;
  after?: Row;
  metadata: { sequenceNumber: number; source: string; schemaVersion: number };
}

/** `row` is an object, or JSON text of one, which is kept as it is. */
export type Change =
  | { operation: "insert"; table: string; row: Row | string }
  | { operation: "update" | "upsert"; table: string; key: Key; row: Row | string }
  | { operation: "delete"; table: string; key: Key };

/** Every condition given must hold; the members of `GET /events`. */
export interface Query {
  table?: string;
  operation?: Operation;
  key?: string;
  /** Events later than this, in ms since 1970. */
  since?: number;
  /** Events behind this sequence number. */
  after?: number;
  limit?: number;
  order?: "asc" | "desc";
}

export interface Page {
  events: Event[];
  count: number;
  /** To go on with as `after`. */
  nextAfter: number;
  oldestSequence: number;
}

export interface Snapshot {
  table: string;
  timestamp: number;
  data: Row[];
  schema: Json;
  /** Exactly the events behind this one are not in it. */
  sequenceNumber: number;
}

export interface Selection {
  /** Names, or patterns with `*`; none for all. */
  tables?: string[];
  /** None for all. */
  operations?: Operation[];
  /** In one batch; at least 1. Default: 256. */
  maxEvents?: number;
}

/**
 * A durable cursor over the log. At least once, in order; it begins with the oldest event that is kept. When the log has
 * dropped what comes next, `poll` and `deliver` throw a {@link CdcError} with the code `dropped`: nothing is left out
 * silently. To go on, take a `snapshot` and acknowledge its `sequenceNumber`.
 */
export interface Subscription {
  /** What was not acknowledged yet, oldest first. The same again until it is. */
  poll(): { events: Event[]; acknowledgeUpTo: number };
  /** All events up to this one are done. Below where the cursor is it changes nothing. */
  acknowledge(sequence: number): void;
  /**
   * Hands everything that is new to the handler, batch by batch, each acknowledged when the handler has returned. Answers
   * how many events there were. What the handler throws ends it, and comes out of it; the batch comes again.
   */
  deliver(handler: (events: Event[]) => void | Promise<void>): Promise<number>;
}

export interface Options {
  /** How many of the newest events the log keeps; at least 1. Default: 10,000. */
  maxEvents?: number;
  /** The time in ms since 1970. Default: `Date.now`. */
  now?: () => number;
}

/** What the engine refused: the problem document's `code`, which stays the same, `status` and text. */
export class CdcError extends Error {
  readonly code: string;
  readonly status: number;
  readonly problem: { type: string; title: string; status: number; detail: string; code: string; error: string };
}

/** Takes the compiled module (`cdc.wasm`), or its bytes where the runtime may compile them; once, before `new Cdc`. */
export function init(module: WebAssembly.Module | BufferSource): void;

/** The engine over one storage. */
export class Cdc {
  constructor(storage: Storage, options?: Options);
  /** Answers the REST routes of the service. Never rejects for what a client has sent. */
  fetch(request: Request): Promise<Response>;
  /** Captures a change; throws a {@link CdcError} that names why not. */
  capture(change: Change): Event;
  /** Events of the log. */
  query(selection?: Query): Page;
  /** One row. */
  row(table: string, key: Key): Row;
  /** A table's rows, now or as of an event. */
  snapshot(table: string, options?: { at?: number }): Snapshot;
  /** The subscription of this name, made if there is none. */
  subscribe(name: string, selection?: Selection): Subscription;
}
