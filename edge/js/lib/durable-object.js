// A storage in a Durable Object's SQLite. What one turn writes becomes durable together, and the runtime holds answers back
// until it is.
export class DurableObjectStorage {
  #sql;
  constructor(sql) {
    this.#sql = sql;
    sql.exec("CREATE TABLE IF NOT EXISTS cdc (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID");
  }
  get(key) {
    for (const { value } of this.#sql.exec("SELECT value FROM cdc WHERE key = ?", key)) return new Uint8Array(value);
    return undefined;
  }
  put(key, value) {
    this.#sql.exec("INSERT OR REPLACE INTO cdc VALUES (?, ?)", key, value);
  }
  delete(key) {
    this.#sql.exec("DELETE FROM cdc WHERE key = ?", key);
  }
}
