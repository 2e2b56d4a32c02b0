"""What anybody who reaches the broker may write there, and Torch would not."""

from __future__ import annotations

import base64
import gzip
import json
from typing import Any

from torch_tasks.transport.envelope import LOSSES


def body(value: Any) -> str:
    return base64.b64encode(json.dumps(value).encode()).decode()


def task_message(**changes: Any) -> dict[str, Any]:
    """What Celery writes for a task; a change names a field as ``headers__id``."""
    whole: dict[str, Any] = {
        "body": body([[{"id": "t1", "prompt": "echo"}], {}, {"callbacks": None, "chain": None}]),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {"lang": "py", "task": "torch.run", "id": "t1", "retries": 0, "timelimit": [None, None]},
        "properties": {
            "correlation_id": "t1",
            "delivery_mode": 2,
            "delivery_info": {"exchange": "", "routing_key": "torch.any.any"},
            "priority": 6,
            "body_encoding": "base64",
            "delivery_tag": "before",
        },
    }
    for path, value in changes.items():
        *parents, last = path.split("__")
        place = whole
        for name in parents:
            place = place[name]
        if value is ...:
            del place[last]
        else:
            place[last] = value
    return whole


BOMB = base64.b64encode(gzip.compress(b"[" + b"0," * 5_000_000 + b"0]")).decode()
WRONG: dict[str, Any] = {
    "compressed": task_message(headers__compression="application/x-gzip", body=BOMB),
    "a codec that unpacks": task_message(**{"content-encoding": "zlib_codec", "content-type": "application/data"}),
    "pickled": task_message(**{"content-type": "application/x-python-serialize"}),
    "a list": [],
    "a number": 42,
    "null": None,
    "no properties": task_message(properties=...),
    "properties of the wrong type": task_message(properties=[]),
    "no place": task_message(properties__delivery_info=None),
    "a priority of the wrong type": task_message(properties__priority="high"),
    "a priority beyond all": task_message(properties__priority=1 << 70),
    "no headers": task_message(headers=None),
    "a task without a name": task_message(headers__task=[]),
    "a task without an id": task_message(headers__id=None),
    "an id of the wrong type": task_message(headers__id={"$ne": 1}),
    "an endless id": task_message(headers__id="x" * 100_000),
    "retries of the wrong type": task_message(headers__retries="many"),
    "time limits of the wrong type": task_message(headers__timelimit="forever"),
    "one time limit": task_message(headers__timelimit=[1]),
    "stamps of the wrong type": task_message(headers__stamps=[1]),
    "an eta of the wrong type": task_message(headers__eta={"a": 1}),
    "no body": task_message(body=...),
    "a body of the wrong type": task_message(body={"a": 1}),
    "a body that is not base64": task_message(body="%%%"),
    "a body that is not UTF-8": task_message(body=base64.b64encode(b"\xff\xfe").decode()),
    "a body that is not JSON": task_message(body=base64.b64encode(b"nope").decode()),
    "a deep body": task_message(body=base64.b64encode(b"[" * 200_000).decode()),
    "a body without arguments": task_message(body=body({"args": []})),
    "arguments of the wrong type": task_message(body=body(["spec", {}, {}])),
    "keywords of the wrong type": task_message(body=body([[], [], {}])),
    "callbacks of the wrong type": task_message(body=body([[], {}, {"callbacks": 5}])),
    "a chain of the wrong type": task_message(body=body([[], {}, {"chain": [1]}])),
    "a type that kombu does not know": task_message(body=body([[{"__type__": "os", "__value__": 1}], {}, {}])),
    "a date that is none": task_message(body=body([[{"__type__": "datetime", "__value__": []}], {}, {}])),
    "losses of the wrong type": task_message(**{LOSSES: "many"}),
    "an encoding of the body that does not exist": task_message(properties__body_encoding="rot13"),
    "a clock of the wrong type": task_message(headers={"clock": "noon"}),
}
"""Messages of the wrong form, by what is wrong with them."""
NO_JSON = {
    "not JSON": "not json",
    "nothing": "",
    "200 kB of brackets": "[" * 200_000,
    "200 kB of objects": '{"a":' * 200_000,
    "one quote": '"',
    "NULs": "\0" * 1000,
}
