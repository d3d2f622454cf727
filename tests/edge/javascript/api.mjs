// The typed API as an application uses it: `node api.mjs <folder of the package>`.
import assert from "node:assert/strict";
import { webcrypto } from "node:crypto";
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

globalThis.crypto ??= webcrypto;
const folder = pathToFileURL(process.argv[2] + "/");
// The engine's memory, which the package does not show.
const { Instance } = WebAssembly;
let memory;
WebAssembly.Instance = class extends Instance {
  constructor(...given) {
    super(...given);
    memory = this.exports.memory;
  }
};
const { Cdc, CdcError, init } = await import(new URL("cdc.js", folder));
const { MemoryStorage } = await import(new URL("memory.js", folder));
assert.throws(() => new Cdc(new MemoryStorage()), /init/);
init(readFileSync(new URL("cdc.wasm", folder)));

const storage = new MemoryStorage();
let now = 1_700_000_000_000;
const cdc = new Cdc(storage, { now: () => now++ });

// capture
const inserted = cdc.capture({ operation: "insert", table: "users", row: { id: 1, name: "Ada" } });
assert.equal(inserted.metadata.sequenceNumber, 1);
assert.deepEqual(inserted.after, { id: 1, name: "Ada" });
cdc.capture({ operation: "update", table: "users", key: 1, row: { name: "Grace" } });
cdc.capture({ operation: "upsert", table: "users", key: "ä/2", row: { id: "ä/2" } });
cdc.capture({ operation: "insert", table: "other", row: '{"id":1,"n":1.10,"big":12345678901234567890}' });
const deleted = cdc.capture({ operation: "delete", table: "users", key: 1 });
assert.deepEqual(deleted.before, { id: 1, name: "Grace" });
const refused = (change, code, status) =>
  assert.throws(
    () => cdc.capture(change),
    (error) => error instanceof CdcError && error.code === code && error.status === status,
  );
refused({ operation: "insert", table: "other", row: { id: 1 } }, "row-exists", 409);
refused({ operation: "delete", table: "users", key: 7 }, "unknown-row", 404);
assert.throws(() => cdc.capture({ operation: "drop", table: "users" }), TypeError);
// One event is answered, so several rows are refused, before any is captured.
for (const row of [[{ id: 2 }], ' [{"id":2}]']) {
  assert.throws(() => cdc.capture({ operation: "insert", table: "other", row }), TypeError);
}

// query, row, snapshot
const page = cdc.query({ table: "users", after: 1 });
assert.deepEqual(page.events.map((event) => event.operation), ["UPDATE", "INSERT", "DELETE"]);
assert.equal(page.nextAfter, 5);
assert.deepEqual(cdc.row("users", "ä/2"), { id: "ä/2" });
assert.deepEqual(cdc.snapshot("users").data, [{ id: "ä/2" }]);
assert.deepEqual(cdc.snapshot("users", { at: 2 }).data, [{ id: 1, name: "Grace" }]);
assert.equal(cdc.snapshot("users").sequenceNumber, 5);

// What was given as text keeps its digits.
const answer = await cdc.fetch(new Request("http://localhost/data/other/1"));
assert.equal(await answer.text(), '{"id":1,"n":1.10,"big":12345678901234567890}');

// subscribe
const subscription = cdc.subscribe("mail", { tables: ["user*"], operations: ["INSERT", "DELETE"], maxEvents: 2 });
const seen = [];
await assert.rejects(subscription.deliver(() => { throw new Error("down"); }), /down/);
assert.equal(await subscription.deliver((events) => { seen.push(...events.map((event) => event.metadata.sequenceNumber)); }), 3);
assert.deepEqual(seen, [1, 3, 5]);
assert.equal(await subscription.deliver(() => assert.fail("nothing is new")), 0);
assert.throws(() => cdc.subscribe("mail").acknowledge(99), (error) => error.code === "invalid-subscription");
assert.throws(() => cdc.subscribe("mail", { operations: ["DROP"] }).poll(), CdcError);
for (const sequence of [NaN, undefined, -1, 1.5, "3", Infinity]) {
  assert.throws(() => subscription.acknowledge(sequence), RangeError);
}
for (const maxEvents of [NaN, null, 0, -1, Infinity]) {
  assert.throws(() => cdc.subscribe("mail", { maxEvents }), RangeError);
  assert.throws(() => new Cdc(new MemoryStorage(), { maxEvents }), RangeError);
}

// A subscription that the log has left behind is told, and goes on from a snapshot.
const short = new Cdc(new MemoryStorage(), { maxEvents: 10 });
const insert = (id) => short.capture({ operation: "insert", table: "users", row: { id } });
insert(0);
const late = short.subscribe("late");
late.acknowledge(1);
for (let id = 1; id < 30; id++) insert(id);
assert.throws(() => late.poll(), (error) => error instanceof CdcError && error.code === "dropped" && error.status === 410);
late.acknowledge(short.snapshot("users").sequenceNumber);
insert(30);
assert.deepEqual(late.poll().events.map((event) => event.after.id), [30]);

// Another engine over the same storage goes on where this one was, cursors included.
const other = new Cdc(storage);
assert.equal(other.capture({ operation: "insert", table: "users", row: { id: 9 } }).metadata.sequenceNumber, 6);
assert.deepEqual(other.subscribe("mail", { tables: ["users"] }).poll().events.map((event) => event.after.id), [9]);
// And so does the first one, which had kept things in memory.
assert.equal(cdc.capture({ operation: "delete", table: "users", key: 9 }).metadata.sequenceNumber, 7);

// However long it runs, it keeps little of what it has read and answered. No finalizer can run in between to help.
const busy = new Cdc(new MemoryStorage());
const text = "x".repeat(1_000_000);
for (let id = 0; id < 5; id++) busy.capture({ operation: "insert", table: "large", row: { id, text } });
for (let turn = 0; turn < 40; turn++) {
  assert.equal(busy.snapshot("large").data.length, 5);
  assert.equal(busy.subscribe("mail", { maxEvents: 5 }).poll().events.length, 5);
  assert.equal((await busy.fetch(new Request("http://localhost/snapshot/large"))).status, 200);
}
for (let number = 0; number < 1_000; number++) {
  busy.capture({ operation: "upsert", table: "small", key: number % 10, row: { id: number % 10, number } });
}
const bytes = memory.buffer.byteLength;
assert.ok(bytes < 64e6, `the engine has taken ${bytes} bytes`);
