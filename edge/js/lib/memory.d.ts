import type { Storage } from "./cdc.js";

/** A storage in memory: gone with the process. */
export class MemoryStorage implements Storage {
  get(key: string): Uint8Array | undefined;
  put(key: string, value: Uint8Array): void;
  delete(key: string): void;
}
