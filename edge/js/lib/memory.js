// A storage in memory: gone with the process.
export class MemoryStorage {
  #values = new Map();
  get(key) {
    return this.#values.get(key);
  }
  put(key, value) {
    this.#values.set(key, value.slice());
  }
  delete(key) {
    this.#values.delete(key);
  }
}
