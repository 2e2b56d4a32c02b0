"""Who is asking: a person, a program, an agent, or a node.

A door that knows its caller says so with :func:`acting_as`. Elsewhere it is the agent in whose pane the process runs,
as its environment says, else the program or person to whom the keys were issued that TORCH_KEYS_DIR names, else a
person.
"""

from __future__ import annotations

import json
import os
from binascii import a2b_base64
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from pathlib import Path

from torch_tasks.config_files import glance
from torch_tasks.state_folder import JOURNAL, MESSAGE_SPAN, StateFolder

OPERATOR = "operator"
"""The name of every person in messages and records; no agent can have this id."""
BEARER = "token-"
"""How the name of every bearer of a server's token begins; no agent can have such an id."""
PERSON = "person-"
"""How the name of every person who logged in at a server begins; no agent can have such an id."""
_AGENT, _TASK, _INCARNATION, _STATE = "TORCH_AGENT_ID", "TORCH_TASK_ID", "TORCH_INCARNATION", "TORCH_STATE_DIR"
_KEYS = "TORCH_KEYS_DIR"
DESK_VARIABLE = "TORCH_DESK"
"""In an agent's pane: the socket of the agent's desk."""


class CallerKind(StrEnum):
    PERSON = "person"
    PROGRAM = "program"
    AGENT = "agent"
    NODE = "node"


@dataclass(frozen=True)
class Caller:
    """One who asks for an operation."""

    agent: str | None = None
    """The agent's id, if it is an agent."""
    incarnation: int | None = None
    folder: Path | None = None
    """The agent's folder on this machine."""
    other: CallerKind = CallerKind.PERSON
    """What it is if it is no agent."""
    role: str | None = None
    """What its rights follow from: the role of a token, or of an agent where the door knows it."""
    own_name: str | None = None
    """The name of a program or node."""
    pid: int = field(default_factory=os.getpid)
    """The process that asks, on this machine."""

    @property
    def kind(self) -> CallerKind:
        return CallerKind.AGENT if self.agent else self.other

    @property
    def name(self) -> str:
        """The caller's name in messages and records."""
        return self.agent or self.own_name or OPERATOR

    @property
    def task(self) -> str | None:
        """The task that the agent works on, as this machine knows it."""
        if self is not _acting.get() and (task := os.environ.get(_TASK)):
            return task
        known = self._current.get("task_id")  # a coding agent's program outlives its first task
        return str(known) if known else None

    @property
    def span(self) -> str | None:
        """Under which span the agent does what it does now, as a ``traceparent``: its task's, else its message's."""
        if self.folder is None:
            return None
        if current := self._current:
            return str(current.get("span") or "") or None
        with suppress(OSError, ValueError):
            return (self.folder / MESSAGE_SPAN).read_text()
        return None

    @property
    def _current(self) -> dict[str, object]:
        """What the agent's journal says of the task in its pane; empty if there is none."""
        if self.folder is None:
            return {}
        try:
            return dict(json.loads((self.folder / JOURNAL).read_bytes()).get("current") or {})
        except (OSError, ValueError, TypeError, AttributeError):
            return {}


_acting: ContextVar[Caller | None] = ContextVar("_acting", default=None)


def caller() -> Caller:
    return _acting.get() or _of_environment()


@contextmanager
def acting_as(who: Caller) -> Iterator[None]:
    """What is done inside is done for this caller, whatever the environment says."""
    before = _acting.set(who)
    try:
        yield
    finally:
        _acting.reset(before)


def _of_environment() -> Caller:
    agent, state = os.environ.get(_AGENT) or None, os.environ.get(_STATE)
    if agent is None:
        return own_keys(os.environ.get(_KEYS)) or Caller()
    incarnation = os.environ.get(_INCARNATION, "")
    return Caller(
        agent,
        int(incarnation) if incarnation.isdecimal() else None,
        StateFolder(Path(state)).agent(agent) if state else None,
    )


@lru_cache(maxsize=8)
def own_keys(_: str | None) -> Caller | None:
    """The owner of the folder of keys that ``torch-tasks keys issue`` made; None for the keys of a machine.

    What the certificate says is taken as it stands: who gets what is signed with the key verifies it.
    """
    named = glance("keys_dir")
    folder = Path(named).expanduser() if named else None
    if folder is None or (folder / "root.key").exists():
        return None
    found = list(folder.glob("*-*.json"))
    if len(found) != 1:
        return None
    try:
        payload = json.loads(found[0].read_bytes())["certificate"].partition(".")[0]
        says = json.loads(a2b_base64(payload.replace("-", "+").replace("_", "/") + "=="))
        kind, name, role = CallerKind(says["kind"]), str(says["name"]), says.get("role")
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None  # who signs with it says what is wrong
    if kind not in (CallerKind.PROGRAM, CallerKind.PERSON) or role is None:
        return None
    return Caller(other=kind, role=str(role), own_name=name)


def own_desk() -> Path | None:
    """The desk of the agent in whose pane this process runs; None elsewhere."""
    path = os.environ.get(DESK_VARIABLE)
    return Path(path) if path else None


def leave_pane() -> None:
    """Make this process, and those that it starts, act as a person although they run in an agent's pane."""
    for name in (_AGENT, _TASK, _INCARNATION, DESK_VARIABLE):
        os.environ.pop(name, None)
