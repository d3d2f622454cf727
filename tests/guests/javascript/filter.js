// A filter: lets events pass whose row, after the change, has a certain value in a certain column.
// Settings: `column` (default `status`) and `value` (default `active`).
import { get } from "wasi:config/store@0.2.0-rc.1";

export const filtering = {
  // Exactly one answer for each event, in their order.
  accept(events) {
    const column = get("column") ?? "status";
    const value = get("value") ?? "active";
    // `after` is the row as JSON text; deletes have none: null or undefined, as the engine likes.
    return events.map(({ after }) => after != null && String(JSON.parse(after)[column]) === value);
  },
};
