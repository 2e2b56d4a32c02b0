"""What people type into forms, as the values that operations take."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from typing import Any

from torch_tasks.errors import Unreadable
from torch_tasks.model.durations import parse_duration
from torch_tasks.model.reader import read_object
from torch_tasks.operations.operation import Operation


def typed(operation: Operation[Any, Any], name: str, text: str) -> Any:
    """The value of a field; what is none of its kind stays a text, and the operation says what is wrong with it."""
    kind = _kinds(operation).get(name)
    return _READERS[kind](text) if kind else text


def _number(text: str) -> float | str:
    seconds = parse_duration(text, bare=1)
    return text if seconds is None else seconds


def _whole(text: str) -> int | str:
    return int(text) if re.fullmatch(r"\s*-?\d{1,18}\s*", text, re.ASCII) else text


def _truth(text: str) -> bool | str:
    return {"true": True, "on": True, "false": False}.get(text, text)


def _object(text: str) -> dict[str, Any] | str:
    try:
        return read_object(text)
    except Unreadable:
        return text


_READERS: dict[str, Callable[[str], Any]] = {
    "integer": _whole,
    "number": _number,
    "boolean": _truth,
    "object": _object,
}


@cache
def _kinds(operation: Operation[Any, Any]) -> dict[str, str]:
    """What each field is that takes no text."""
    kinds: dict[str, str] = {}
    for name, schema in operation.request.model_json_schema().get("properties", {}).items():
        forms = {form.get("type") for form in (schema, *schema.get("anyOf", ()))}
        if "string" not in forms:
            kinds.update((name, kind) for kind in _READERS if kind in forms)
    return kinds
