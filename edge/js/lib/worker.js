// A whole worker: one Durable Object keeps everything, so writers from everywhere are in one order.
import module from "./cdc.wasm";
import { Cdc, init } from "./cdc.js";
import { DurableObjectStorage } from "./durable-object.js";

init(module);

export class CdcObject {
  #cdc;
  constructor(ctx) {
    this.#cdc = new Cdc(new DurableObjectStorage(ctx.storage.sql));
  }
  fetch(request) {
    return this.#cdc.fetch(request);
  }
}

export default {
  fetch(request, env) {
    return env.CDC.get(env.CDC.idFromName("cdc")).fetch(request);
  },
};
