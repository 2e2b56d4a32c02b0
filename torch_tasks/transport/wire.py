"""How queues, tags and messages are written: as kombu writes them, and what is added to that."""

from __future__ import annotations

import json
import uuid
from typing import Any

SEPARATOR = "\x06\x16"
"""Stands between a queue's name and the priority step in the name of a list; kombu's own."""
LOSSES = "torch-deliveries"
"""The first field of a message that was lost with its holder: how often."""
LOSSES_HEADER = "torch_deliveries"
"""Where a task finds that number."""


def list_of(queue: str, step: int) -> str:
    """The list that holds a queue's messages of one priority step."""
    return f"{queue}{SEPARATOR}{step}" if step else queue


def queue_of(list_name: str) -> str:
    """The queue whose messages are in this list."""
    return list_name.partition(SEPARATOR)[0]


def new_tag(list_name: str) -> str:
    """A tag that no delivery had before; it names the list that the message was taken from."""
    return f"{uuid.uuid4().hex}:{list_name}"


def parked_tag(list_name: str) -> str:
    """A tag under which a message waits for a time, to go to this list then."""
    return f"parked:{new_tag(list_name)}"


def list_of_tag(tag: str) -> str:
    """The list that a delivery goes to when nobody holds it any more."""
    return tag.removeprefix("parked:").partition(":")[2]


def message_id(message: str) -> str | None:
    """The id of the task in a message, if it is one."""
    try:
        return str(json.loads(message)["headers"]["id"])
    except (ValueError, KeyError, TypeError):
        return None


def losses(message: str) -> int:
    """How often a message was lost with its holder so far."""
    return int(json.loads(message).get(LOSSES, 0))


def delivered(message: str, tag: str) -> dict[str, Any]:
    """A message as its consumer gets it: under this tag, and marked if it was lost before.

    Raises :class:`ValueError` for what no producer of kombu's wrote.
    """
    payload = json.loads(message)
    try:
        properties = payload["properties"]
        properties["delivery_tag"] = tag
        if losses := payload.pop(LOSSES, 0):
            payload["headers"].update({LOSSES_HEADER: losses, "redelivered": True})
            properties["delivery_info"]["redelivered"] = True
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not a message: {error!r}") from None
    return dict(payload)
