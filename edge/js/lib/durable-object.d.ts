import type { Storage } from "./cdc.js";

/** What is needed of a Durable Object's `ctx.storage.sql`. */
export interface Sql {
  exec(query: string, ...bindings: unknown[]): Iterable<Record<string, unknown>>;
}

/** A storage in a Durable Object's SQLite, in a table `cdc` of its own. */
export class DurableObjectStorage implements Storage {
  constructor(sql: Sql);
  get(key: string): Uint8Array | undefined;
  put(key: string, value: Uint8Array): void;
  delete(key: string): void;
}
