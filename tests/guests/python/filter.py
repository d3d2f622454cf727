"""A filter: lets events pass whose row, after the change, has a certain value in a certain column.

Settings: `column` (default `status`) and `value` (default `active`).
"""

import json

from wit_world import exports
from wit_world.imports.wasi_config_store import get


class Filtering(exports.Filtering):
    def accept(self, events):
        """Exactly one answer for each event, in their order."""
        column = get("column") or "status"
        value = get("value") or "active"
        return [holds(event, column, value) for event in events]


def holds(event, column, value):
    # `after` is the row as JSON text; deletes have none.
    return event.after is not None and str(json.loads(event.after).get(column)) == value
