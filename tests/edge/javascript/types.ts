// What an application writes; it only has to compile, and what is wrong must not.
import { Cdc, CdcError, init, type Event, type Storage } from "cdc-edge/cdc.js";
import { DurableObjectStorage } from "cdc-edge/durable-object.js";
import { MemoryStorage } from "cdc-edge/memory.js";

declare const module: WebAssembly.Module;
init(module);

const storage: Storage = new MemoryStorage();
const cdc = new Cdc(storage, { maxEvents: 100 });
const event: Event = cdc.capture({ operation: "insert", table: "users", row: { id: 1, tags: ["a", null] } });
cdc.capture({ operation: "delete", table: "users", key: [1, "eu"] });
const next: number = cdc.query({ table: "users", after: event.metadata.sequenceNumber }).nextAfter;
const first = cdc.snapshot("users", { at: next }).data[0];
const name: unknown = first?.["name"];
const answer: Promise<Response> = cdc.fetch(new Request("http://localhost/stats"));
const done: Promise<number> = cdc.subscribe("mail", { operations: ["INSERT"] }).deliver(async (events) => {
  for (const { after } of events) void after;
});
try {
  cdc.row("users", 1);
} catch (error) {
  if (error instanceof CdcError) void (error.code satisfies string);
}
new DurableObjectStorage({ exec: () => [] });

// @ts-expect-error a row is needed
cdc.capture({ operation: "insert", table: "users" });
// @ts-expect-error there is no such operation
cdc.subscribe("mail", { operations: ["DROP"] });
// @ts-expect-error an event has no such member
void event.sequence;
void [name, answer, done];
