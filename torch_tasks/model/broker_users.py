"""Who connects to a broker, under which name, and what each may do there."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path, PurePath
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from torch_tasks.keys import (
    BROKER_MOVED,
    FLEET_FORMAT,
    FLEET_KEYS,
    JOIN_REQUESTS,
    PREFIX,
    key_answer,
    message,
    task_record,
)
from torch_tasks.redaction import protect

Family = Literal["valkey", "dragonfly"]
"""How a broker writes the rules of a user; Redis writes them as Valkey does."""


class BrokerRole(StrEnum):
    """What a process is to the broker. Each role of each node has a user of its own there."""

    NODE = "node"
    BEAT = "beat"
    SERVER = "server"
    PROGRAM = "program"
    VIEWER = "viewer"


CONNECTS_AS = {
    ("torch-tasks", "supervise"): BrokerRole.NODE,
    ("torch-tasks", "node"): BrokerRole.NODE,
    ("torch-tasks", "worker"): BrokerRole.NODE,
    ("torch-tasks", "serve"): BrokerRole.SERVER,
    ("celery", "worker"): BrokerRole.NODE,
    ("celery", "beat"): BrokerRole.BEAT,
    ("celery", "flower"): BrokerRole.VIEWER,
}
"""As what each lasting process connects; whatever else a person or a program runs is a program."""


def role_of(argv: Sequence[str]) -> BrokerRole:
    """As what the process with these arguments connects."""
    program, rest = PurePath(argv[0] if argv else ""), argv[1:]
    if "celery" in program.parts[-2:]:  # celery, or celery/__main__.py
        found = [CONNECTS_AS["celery", word] for word in rest if ("celery", word) in CONNECTS_AS]
        return found[0] if found else BrokerRole.PROGRAM
    if not rest or not {"torch-tasks", "torch_tasks"}.intersection(program.parts[-3:]):
        return BrokerRole.PROGRAM
    if rest[0] == "node" and rest[1:] and not rest[1].startswith("-"):  # one of its commands, as `node list`
        return BrokerRole.PROGRAM
    return CONNECTS_AS.get(("torch-tasks", rest[0]), BrokerRole.PROGRAM)


DEFAULT_USER = "default"
"""As whom a server takes who names no user."""
ADMIN = "torch-admin"
"""The user with which Torch makes the others on a broker of its own."""
BEGINNING = "torch-"
"""So begin the names of all users that Torch makes, and of no other."""


def user_name(role: BrokerRole, name: str) -> str:
    """The user of this role on the node of this name, or of the program or viewer of this name elsewhere."""
    return f"{BEGINNING}{role}-{name}"


JOINING = f"{BEGINNING}join-"
"""So begin the names of the users with whom machines come that have a token and no more."""


class BrokerLogin(BaseModel):
    """A user of a broker, and the password, which no text of it shows."""

    model_config = ConfigDict(frozen=True)

    user: str
    password: str = Field(repr=False)

    def model_post_init(self, _: object) -> None:
        if self.password:
            protect(self.password, what="the broker's password")

    def __str__(self) -> str:
        return self.user


class BrokerLogins(BaseModel):
    """The users of one machine on one broker."""

    model_config = ConfigDict(frozen=True)

    place: str
    """Which broker it is."""
    made_at: datetime = Field(default_factory=lambda: datetime.now(UTC))
    logins: dict[BrokerRole, BrokerLogin]

    @classmethod
    def new(cls, place: str, node: str) -> Self:
        """A user for each role of this node, with new passwords."""
        made = {role: BrokerLogin(user=user_name(role, node), password=new_password()) for role in BrokerRole}
        return cls(place=place, logins=made)

    @classmethod
    def one_for_all(cls, place: str, login: BrokerLogin) -> Self:
        """One login that was given, for every role."""
        return cls(place=place, logins=dict.fromkeys(BrokerRole, login))

    @property
    def are_made(self) -> bool:
        """Whether Torch has made these users: each role has its own."""
        return all(login.user.startswith(BEGINNING) for login in self.logins.values())

    def renewed(self) -> Self:
        """The same users with new passwords."""
        new = {role: login.model_copy(update={"password": new_password()}) for role, login in self.logins.items()}
        return self.model_copy(update={"made_at": datetime.now(UTC), "logins": new})


def new_password() -> str:
    return secrets.token_hex(24)


def read_logins(file: Path) -> BrokerLogins | None:
    """The users that a file holds; None if there is none."""
    try:
        return BrokerLogins.model_validate_json(file.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None


_KEYS = tuple(
    f"~{pattern}"
    for pattern in (
        *(f"{PREFIX}*", "torch.*", "celery*", "unacked*"),
        *("_kombu.binding*", "*.celery.pidbox*", "*.reply.celery.pidbox*"),
    )
)
"""Torch's keys, Torch's and Celery's queues, and what kombu keeps about queues."""
_CHANNELS = (f"{PREFIX}*", message("*"), task_record("*"), "celery*")
"""Torch's channels; a pattern that is subscribed to must stand here word for word."""
_CELERYS_CHANNELS = ("celeryev/*", "celery.pidbox", "reply.celery.pidbox")
"""Celery's events and its remote control, as kombu names them in each database."""

_VIEWERS_KEYS = (
    *(f"%R~{pattern}" for pattern in (f"{PREFIX}*", "torch.*", "celery*", "unacked*", "_kombu.binding*")),
    # What it writes: where events and the answers to its questions are to go.
    *("~_kombu.binding.celeryev", "~_kombu.binding_permanent.celeryev", "~_kombu.binding_deadlines"),
    *("~_kombu.binding.reply.celery.pidbox", "~_kombu.binding_permanent.reply.celery.pidbox"),
    *("~celeryev.*", "~*.reply.celery.pidbox*", "~unacked_mutex"),
)

_COMMANDS: dict[Family, tuple[str, ...]] = {
    "valkey": ("-script", "+script|load", "+script|exists", "-function"),
    # DragonflyDB gives or takes a command with all its parts: scripts must be loaded, so they may be dropped, too.
    "dragonfly": ("-client",),
}
"""Beside the categories; both families count to these what drops all data, configures, shuts down, and makes users."""


def rules(role: BrokerRole, family: Family, database: int = 0) -> list[str]:
    """What a user of this role may do, as a broker of this family takes it: every other key is out of its reach."""
    celerys = [f"/{database}.{channel}" for channel in _CELERYS_CHANNELS]
    looks = role is BrokerRole.VIEWER
    return [
        *("resetkeys", *(_VIEWERS_KEYS if looks else _KEYS)),
        *("resetchannels", *(f"&{channel}" for channel in (*celerys, *(() if looks else _CHANNELS)))),
        *("-@all", "+@all", "-@admin", "-@dangerous", "+info", *_COMMANDS[family]),
        *("-move", "-copy", "+select" if database else "-select"),
    ]


def joiners_rules(family: Family, database: int = 0) -> list[str]:
    """What a machine may do that shows its token: ask to join, and read the answer."""
    return [
        *("resetkeys", f"%R~{FLEET_FORMAT}", f"%R~{FLEET_KEYS}", f"%R~{BROKER_MOVED}", f"~{JOIN_REQUESTS}"),
        *(f"~{key_answer('*')}", "resetchannels"),
        *("-@all", "+auth", "+hello", "+ping", "+multi", "+exec"),
        *(["+client|setinfo"] if family == "valkey" else []),
        *("+getrange", "+hset", "+expire", "+hdel", "+del", *(["+select"] if database else [])),
    ]
