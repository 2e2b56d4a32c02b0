"""Requests with an idempotency key: done once, however often they are asked for within a day."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from typing import Any, TypeVar

from pydantic import BaseModel

from torch_tasks import keys
from torch_tasks.caller import caller
from torch_tasks.errors import KeyTaken, StillBeingDone, TorchError
from torch_tasks.fleet import fleet
from torch_tasks.model.reader import read_object
from torch_tasks.operations.operation import Asked, Operation, Reply

Part = TypeVar("Part", bound=BaseModel)

KEPT_SECONDS = 86_400
"""How long a key is known."""
_BEGUN = "begun"


def once(operation: Operation[Asked, Reply], asked: Asked, key: str) -> Reply:
    """Carry it out, or return what it returned when it was asked for with this key.

    Raises :class:`StillBeingDone` while another process does it, or if that one died before it could say how it ended;
    :class:`KeyTaken` if the key belongs to another request. What was refused may be asked for again.
    """
    client, name = fleet().client, keys.request(caller().name, operation.name, key)
    asked_for = _fingerprint(asked)
    begun = json.dumps({"asked": asked_for, "state": _BEGUN})
    if not client.set(name, begun, nx=True, ex=KEPT_SECONDS):
        return _known(operation, read_object(str(client.get(name) or "{}")), asked_for, key)
    try:
        reply = operation.reply_to(asked)
    except TorchError as error:
        if not getattr(error, "may_have_run", False):
            client.delete(name)
        raise
    value = operation.reply.dump_python(reply, mode="json")
    client.set(name, json.dumps({"asked": asked_for, "state": "done", "reply": value}), ex=KEPT_SECONDS)
    return reply


def takes_ids(asked: Asked) -> bool:
    """Whether what is asked for has ids, of its own or of each of its parts: the same id twice is done once."""
    return "id" in type(asked).model_fields or bool(_parts(asked))


def with_ids(operation: Operation[Asked, Any], asked: Asked, key: str) -> Asked:
    """The request with ids that follow from the key, where the caller has chosen none."""
    made = hashlib.sha256("\0".join((caller().name, operation.name, key)).encode()).hexdigest()[:32]
    parts: dict[str, Any] = {
        name: tuple(_with_id(one, f"{made}-{number}") for number, one in enumerate(several, 1))
        for name, several in _parts(asked).items()
    }
    return _with_id(asked.model_copy(update=parts), made)


def _parts(asked: BaseModel) -> dict[str, tuple[BaseModel, ...]]:
    """The fields that list what has an id."""
    lists = {name: several for name, several in asked if isinstance(several, tuple) and several}
    return {name: several for name, several in lists.items() if all("id" in _fields_of(one) for one in several)}


def _fields_of(value: Any) -> Collection[str]:
    return type(value).model_fields if isinstance(value, BaseModel) else ()


def _with_id(value: Part, made: str) -> Part:
    if "id" not in type(value).model_fields or "id" in value.model_fields_set:
        return value
    return value.model_copy(update={"id": made})


def _known(operation: Operation[Any, Reply], known: dict[str, Any], asked_for: str, key: str) -> Reply:
    if known.get("asked") not in (asked_for, None):
        raise KeyTaken(f"{operation.name}: the key {key!r} belongs to another request; give this one another key")
    if "reply" not in known:
        raise StillBeingDone(
            f"{operation.name} with the key {key!r} is being done, or its process died meanwhile: look whether it was "
            "done before you ask for it with another key"
        )
    return operation.reply.validate_python(known["reply"])


def _fingerprint(asked: Any) -> str:
    return hashlib.sha256(asked.model_dump_json().encode()).hexdigest()
