"""Frozen dataclasses from JSON, and back: nothing unknown is taken, nothing is written that is at its default."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, fields
from typing import Any, TypeVar

Made = TypeVar("Made")


class BadScenario(Exception):
    """The scenario's file cannot be used; the text says why."""


def read_by(of: Callable[[Any], Any]) -> dict[str, Any]:
    """The metadata of a field whose value this makes from its JSON."""
    return {"of": of}


def build(cls: type[Made], data: dict[str, Any]) -> Made:
    """The dataclass with these values."""
    known = {item.name: item for item in fields(cls)}  # type: ignore[arg-type]
    if unknown := data.keys() - known:
        raise BadScenario(f"{cls.__name__} has no {', '.join(sorted(unknown))}; it has {', '.join(known)}")
    made = {}
    for name, value in data.items():
        of = known[name].metadata.get("of")
        made[name] = of(value) if of else tuple(value) if isinstance(value, list) else value
    return cls(**made)


def plain(value: Any) -> Any:
    """What :func:`build` takes. A class variable ``do`` names a step's kind."""
    if isinstance(value, tuple):
        return [plain(item) for item in value]
    if not hasattr(value, "__dataclass_fields__"):
        return value
    made: dict[str, Any] = {"do": value.do} if hasattr(value, "do") else {}
    for item in fields(value):
        own = getattr(value, item.name)
        usual = item.default if item.default_factory is MISSING else item.default_factory()
        if own != usual:
            made[item.name] = plain(own)
    return made
