// Reads HTTP requests, a line of JSON each ({"headers":{…},"body":"…"}), with the CloudEvents SDK, which validates them
// against the JSON schema of CloudEvents 1.0 that it carries. Writes a line of JSON for each: the events that were in it.
import { createInterface } from "node:readline";
import { HTTP } from "cloudevents";

for await (const line of createInterface({ input: process.stdin })) {
  const { headers, body } = JSON.parse(line);
  if (!HTTP.isEvent({ headers, body })) throw new Error(`no event: ${line}`);
  const read = HTTP.toEvent({ headers, body });
  const events = Array.isArray(read) ? read : [read];
  // It throws, with all that is wrong.
  for (const event of events) event.validate();
  console.log(JSON.stringify(events.map((event) => event.toJSON())));
}
