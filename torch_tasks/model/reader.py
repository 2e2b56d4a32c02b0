"""The one reader of whatever lies on the broker: it looks at size and depth before anything is parsed.

Anybody who reaches the broker may write there, so nothing on it is taken to be what Torch wrote. What cannot be read
raises :class:`~torch_tasks.errors.Unreadable`, and nothing else.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn, TypeVar

from pydantic import BaseModel, ValidationError

from torch_tasks.errors import Unreadable
from torch_tasks.model.fields import readable

LIMIT_BYTES = 16 << 20
"""A longer text is not parsed, unless its reader says otherwise."""
DEPTH = 100
"""Lists and objects inside each other; Python's own parser ends somewhere beyond 300, with an error of its own."""

_BRACKETS_AND_STRINGS = re.compile(r'"(?:[^"\\]++|\\.)*+"|[\[{]|[\]}]', re.DOTALL)
_WRONG = (ValueError, TypeError, AttributeError, IndexError, OverflowError, RecursionError)
_Value = TypeVar("_Value", bound=BaseModel)


def read_json(text: str, *, limit: int = LIMIT_BYTES, depth: int = DEPTH) -> Any:
    """The value that a JSON text stands for."""
    check_text(text, limit=limit, depth=depth)
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"it is not JSON: {error}") from None
    if "\\ud" in text or "\\uD" in text:
        _check_surrogates(value)
    return value


def read_object(text: str, *, limit: int = LIMIT_BYTES, depth: int = DEPTH) -> dict[str, Any]:
    value = read_json(text, limit=limit, depth=depth)
    if not isinstance(value, dict):
        raise Unreadable(f"it is no JSON object, but {_kind_of(value)}")
    return value


def read_model(model: type[_Value], text: str, *, limit: int = LIMIT_BYTES) -> _Value:
    """A value of this model from its JSON text."""
    return as_model(model, read_object(text, limit=limit))


def as_model(model: type[_Value], fields: object, what: str = "") -> _Value:
    """A value of this model from fields that were read already; ``what`` people call it."""
    with unreadable_if_wrong():
        try:
            return model.model_validate(fields)
        except ValidationError as error:
            raise Unreadable(f"it is no {what or model.__name__}: {shortened(readable(error))}") from None


@contextmanager
def unreadable_if_wrong() -> Iterator[None]:
    """Turns what Python raises for values of the wrong type or form into :class:`Unreadable`."""
    try:
        yield
    except ValidationError as error:
        raise Unreadable(f"it is no {error.title}: {shortened(readable(error))}") from None
    except KeyError as error:
        raise Unreadable(f"it has no {error}") from None
    except _WRONG as error:
        raise Unreadable(f"it is of the wrong form: {shortened(str(error))}") from None


def number(value: object) -> int:
    """A whole number as the broker keeps it; 0 where there is none, whatever was written there."""
    try:
        return int(float(str(value)))
    except (ValueError, OverflowError):
        return 0


def check_text(text: str, *, limit: int = LIMIT_BYTES, depth: int = DEPTH) -> None:
    """Refuse a text that is longer than so many bytes, or whose brackets go deeper than that."""
    check_size(text, limit)
    if text.count("[") + text.count("{") > depth and _is_deeper(text, depth):
        raise Unreadable(f"lists and objects go deeper than {depth} in it")


def check_size(text: str, limit: int = LIMIT_BYTES) -> None:
    """Refuse a text that is longer than so many bytes."""
    size = len(text) if text.isascii() or len(text) > limit else len(text.encode(errors="replace"))
    if size > limit:
        raise Unreadable(f"it has {size:,} bytes, more than {limit:,}")


def depth_of(value: object) -> int:
    """How deep lists and objects go in a value."""
    depth, level = 0, [value]
    while level := [inner for one in level for inner in _inside(one)]:
        depth += 1
    return depth + isinstance(value, (dict, list, tuple))


def shortened(text: str, limit: int = 300) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _inside(value: object) -> list[Any]:
    """The lists and objects in a value."""
    members = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
    return [one for one in members if isinstance(one, (dict, list, tuple))]


def _is_deeper(text: str, depth: int) -> bool:
    level = 0
    for found in _BRACKETS_AND_STRINGS.finditer(text):
        level += {"[": 1, "{": 1, "]": -1, "}": -1}.get(found[0], 0)
        if level > depth:
            return True
    return False


def _check_surrogates(value: Any) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise Unreadable("it is not valid Unicode text") from None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number that JSON has")


def _kind_of(value: object) -> str:
    return "null" if value is None else f"a {type(value).__name__}"
