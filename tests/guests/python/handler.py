"""A handler: keeps the present balance of every account in the key-value store."""

import json

from componentize_py_types import Err
from wit_world import exports
from wit_world.exports.handling import Failure, Remedy
from wit_world.imports.types import Operation
from wit_world.imports.wasi_keyvalue_store import open


class Handling(exports.Handling):
    def handle(self, events):
        bucket = open("default")
        for index, event in enumerate(events):
            # A truncate is about no single row.
            if event.operation == Operation.TRUNCATE:
                continue
            account = f"{event.table}/{event.key}"
            if event.after is None:
                bucket.delete(account)
                continue
            balance = json.loads(event.after).get("balance")
            if not isinstance(balance, (int, float)):
                # The events before `index` are done. This one goes to the dead letters; with RETRY it would come again.
                raise Err(Failure(Remedy.REJECT, index, f"the balance of {account} is not a number"))
            bucket.set(account, str(balance).encode())
