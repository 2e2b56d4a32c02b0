"""Reads the TOML files of the configuration; what is wrong in one is named by file, line and key, with near names."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from torch_tasks.errors import InvalidSettings
from torch_tasks.model.fields import faults
from torch_tasks.model.near import did_you_mean

Location = tuple[str | int, ...]
_Model = TypeVar("_Model", bound=BaseModel)
_BARE = r"""(?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*')"""
_DOTTED = rf"{_BARE}(?:\s*\.\s*{_BARE})*"
_HEADER = re.compile(rf"\s*(\[\[?)\s*({_DOTTED})\s*\]")
_KEY = re.compile(rf"\s*({_DOTTED})\s*=")
_LONG_STRING = re.compile("\"\"\"|'''")


def read_toml(file: Path) -> dict[str, Any]:
    """The file's values; :class:`InvalidSettings` if it cannot be read."""
    try:
        return tomllib.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise InvalidSettings(f"cannot read {file}: {error}") from None


def read_config(file: Path | None, model: type[_Model]) -> _Model:
    """The whole file as this model, or the model's defaults if there is no file."""
    if file is None:
        return model()
    values = read_toml(file)
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise InvalidSettings(f"cannot use {'; '.join(faults_in(file, error, model))}") from None


def faults_in(file: Path, error: ValidationError, model: type[BaseModel]) -> list[str]:
    """What is wrong in the file, each fault with its line and key."""
    text = file.read_text()
    return [f"{place(file, text, loc)}{words}{hint(model, loc, words)}" for loc, words in faults(error)]


def place(file: Path, text: str, loc: Location) -> str:
    """Where the value is, as the beginning of a message about it."""
    line = line_of(text, loc)
    return f"{file}{f', line {line}' if line else ''}: {'.'.join(map(str, loc))}: "


def hint(model: type[BaseModel], loc: Location, words: str) -> str:
    """The names near one that does not exist, as the end of the message about it."""
    if "is not a field that exists" not in words:
        return ""
    at = _model_at(model, loc[:-1])
    meant = did_you_mean(str(loc[-1]), at.model_fields if at else ())
    return f"; {meant}" if meant else ""


def line_of(text: str, loc: Location) -> int | None:
    """The line of the value at this location in a TOML text, or of the innermost table around it that has one."""
    lines = _lines_of_keys(text)
    return next((lines[loc[:length]] for length in range(len(loc), 0, -1) if loc[:length] in lines), None)


def _lines_of_keys(text: str) -> dict[Location, int]:
    """The line of each table and key; what stands inside an inline table or list counts as its key's."""
    lines: dict[Location, int] = {}
    counts: dict[Location, int] = {}
    table: Location = ()
    inside_string = False
    for number, line in enumerate(text.splitlines(), 1):
        if not inside_string:
            if header := _HEADER.match(line):
                table = _table(header[1] == "[[", _parts(header[2]), counts)
                lines.setdefault(table, number)
            elif key := _KEY.match(line):
                parts = _parts(key[1])
                for length in range(1, len(parts) + 1):
                    lines.setdefault((*table, *parts[:length]), number)
        inside_string ^= len(_LONG_STRING.findall(line)) % 2 == 1
    return lines


def _table(is_array: bool, parts: Sequence[str], counts: dict[Location, int]) -> Location:
    """The location of a table whose header has these parts; ``counts`` has the last index of each array so far."""
    location: Location = ()
    for position, part in enumerate(parts):
        location = (*location, part)
        if is_array and position == len(parts) - 1:
            counts[location] = counts.get(location, -1) + 1
        if location in counts:
            location = (*location, counts[location])
    return location


def _parts(dotted: str) -> list[str]:
    return [part.strip("\"'") for part in re.findall(_BARE, dotted)]


def _model_at(model: type[BaseModel], loc: Location) -> type[BaseModel] | None:
    """The model of the table at this location; indices and the keys of mappings lead to the same model."""
    at: type[BaseModel] | None = model
    for part in loc:
        if at and isinstance(part, str) and part in at.model_fields:
            at = _model_in(at.model_fields[part].annotation)
    return at


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The model that a field holds: itself, or in a list, a mapping or an optional value."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((model for part in get_args(annotation) if (model := _model_in(part))), None)
