// A handler: keeps the present balance of every account in the key-value store.
import { open } from "wasi:keyvalue/store@0.2.0-draft2";

export const handling = {
  handle(events) {
    const bucket = open("default");
    events.forEach(({ operation, table, key, after }, index) => {
      // A truncate is about no single row.
      if (operation === "truncate") return;
      const account = `${table}/${key}`;
      if (after == null) return bucket.delete(account);
      const { balance } = JSON.parse(after);
      if (typeof balance !== "number") {
        // The events before `index` are done. This one goes to the dead letters; with "retry" it would come again.
        throw { remedy: "reject", index, message: `the balance of ${account} is not a number` };
      }
      // Values are bytes; a number's text is ASCII.
      bucket.set(account, Uint8Array.from(String(balance), (digit) => digit.charCodeAt(0)));
    });
  },
};
