"""What a reply shows: the secrets in its texts are replaced, and nothing else changes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields, is_dataclass, replace
from datetime import datetime
from enum import Enum
from typing import Any, TypeVar

from pydantic import BaseModel

from torch_tasks.redaction import redacted

Shown = TypeVar("Shown")
_PLAIN = (Enum, datetime, int, float)
"""What holds no text of anybody's."""


def shown(value: Shown) -> Shown:
    """The value with :func:`torch_tasks.redaction.redacted` texts; the same value if it holds no secret."""
    return _shown(value)  # type: ignore[no-any-return]


def _shown(value: Any) -> Any:
    if value is None or isinstance(value, _PLAIN):
        return value
    if isinstance(value, str):
        return redacted(value)
    if isinstance(value, BaseModel):
        changed = _changed(vars(value).items())
        return value.model_copy(update=changed) if changed else value
    if isinstance(value, dict):
        changed = _changed(value.items())
        return {**value, **changed} if changed else value
    if isinstance(value, list | tuple | set | frozenset):
        members = [_shown(one) for one in value]
        if all(new is old for new, old in zip(members, value, strict=True)):
            return value
        return type(value)(*members) if hasattr(value, "_fields") else type(value)(members)
    if is_dataclass(value) and not isinstance(value, type):
        changed = _changed((field.name, getattr(value, field.name)) for field in fields(value) if field.init)
        return replace(value, **changed) if changed else value
    return value


def _changed(named: Iterable[tuple[Any, Any]]) -> dict[Any, Any]:
    return {name: new for name, old in named if (new := _shown(old)) is not old}
