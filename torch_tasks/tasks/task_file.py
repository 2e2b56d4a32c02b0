"""Many tasks in one file: one prompt a line in ``.txt``, a list with every field of a task in ``.yaml``.

Whatever is wrong is named with its file and line, and then there is no task at all.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from torch_tasks.errors import InvalidTask
from torch_tasks.model.durations import parse_duration
from torch_tasks.model.task import TaskSpec

_LISTS = ("skills", "after")
"""The fields that take one word in the place of a list."""


class Entry(NamedTuple):
    """What one line, or one item of the list, asks for."""

    line: int
    fields: Mapping[str, Any]


def read_tasks(path: Path, defaults: Mapping[str, Any]) -> list[TaskSpec]:
    """The tasks of a file, in its order; a task has these fields where the file does not say otherwise."""
    reader = {".txt": _lines, ".yaml": _items, ".yml": _items}.get(path.suffix.lower())
    if reader is None:
        raise InvalidTask(f"{path}: a file of tasks is named ….txt (one prompt a line), ….yaml or ….yml (a list)")
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidTask(f"{path} cannot be read as text: {error}") from None
    specs: list[TaskSpec] = []
    faults: list[str] = []
    lines: dict[str, int] = {}
    for line, fields in reader(path, text):
        try:
            spec = TaskSpec.build(**{**defaults, **_converted(fields)})
            if spec.id in lines:
                raise InvalidTask(f"id: {spec.id} is that of line {lines[spec.id]}, too")
        except (InvalidTask, TypeError) as error:
            faults.append(f"{path}:{line}: {str(error).removeprefix('this task cannot be accepted: ')}")
        else:
            lines[spec.id] = line
            specs.append(spec)
    if faults:
        raise InvalidTask("\n".join([*faults, "nothing was enqueued"]))
    if not specs:
        raise InvalidTask(f"{path} holds no task")
    return specs


def in_order(specs: Sequence[TaskSpec]) -> list[TaskSpec]:
    """These tasks, each behind those of them that it is to begin after; :class:`InvalidTask` names a circle."""
    known: dict[str, TaskSpec] = {}
    for spec in specs:
        if known.setdefault(spec.id, spec) != spec:
            raise InvalidTask(f"two of these tasks have the id {spec.id}; nothing was enqueued")
    done: dict[str, TaskSpec] = {}
    for spec in specs:
        way = {spec.id: spec}  # from a task to one that it waits for, and so on
        while way:
            last = next(reversed(way.values()))
            left = next((one for one in last.after if one in known and one not in done), None)
            if last.id in done or left is None:
                done[last.id] = way.pop(last.id)
            elif left in way:
                circle = list(way)[list(way).index(left) :]
                raise InvalidTask(
                    f"these tasks wait for each other: {' after '.join([*circle, left])}; nothing was enqueued"
                )
            else:
                way[left] = known[left]
    return list(done.values())


def _lines(path: Path, text: str) -> Iterator[Entry]:
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip() and not line.lstrip().startswith("#"):
            yield Entry(number, {"prompt": line.strip()})


def _items(path: Path, text: str) -> Iterator[Entry]:
    loader = yaml.SafeLoader(text)
    try:
        root = loader.get_single_node()
        if not isinstance(root, yaml.SequenceNode):
            raise InvalidTask(f"{path}:1: a file of tasks is a list: each task begins with '- prompt: …'")
        items = [(node, loader.construct_object(node, deep=True)) for node in root.value]
    except (yaml.YAMLError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        why = getattr(error, "problem", None) or error
        raise InvalidTask(f"{path}:{mark.line + 1 if mark else 1}: {why}; nothing was enqueued") from None
    finally:
        loader.dispose()
    for node, item in items:
        yield Entry(node.start_mark.line + 1, _fields(path, node, item))


def _fields(path: Path, node: yaml.Node, item: Any) -> Mapping[str, Any]:
    if isinstance(item, str):
        return {"prompt": item}
    if not isinstance(item, dict):
        raise InvalidTask(f"{path}:{node.start_mark.line + 1}: {item!r} is no task; write '- prompt: …'")
    seen: set[str] = set()
    for key, _ in node.value:
        if key.value in seen:
            raise InvalidTask(f"{path}:{key.start_mark.line + 1}: {key.value}: is there twice; nothing was enqueued")
        seen.add(key.value)
    return {str(name): value for name, value in item.items()}


def _converted(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields as a task has them: lengths of time in seconds, one word as a list, ``kind`` as a skill."""
    given = {name: value for name, value in fields.items() if value is not None}
    for name in _LISTS:
        if isinstance(given.get(name), str):
            given[name] = [given[name]]
    if isinstance(kind := given.pop("kind", None), str):
        given["skills"] = [*given.get("skills", ()), kind]
    with suppress(KeyError, TypeError):
        timeout = given["timeout"]
        seconds = parse_duration(timeout, bare=1) if isinstance(timeout, str) else float(timeout)
        given["timeout"] = timeout if seconds is None else seconds
    return given
