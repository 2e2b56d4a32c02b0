"""The wire format: what tasks, results and agents look like to every process.

Everything here is validated where it enters and refused with a message a person understands.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    StringConstraints,
    ValidationError,
    field_validator,
)

from torch_tasks.errors import InvalidTask
from torch_tasks.keys import RESERVED_WORDS

_NAME = r"[a-z0-9][a-z0-9_-]*"


def _word(value: object) -> object:
    """A name as people type it: case does not matter, an inner space is worth its own message."""
    if not isinstance(value, str):
        return value
    value = value.strip().lower()
    if " " in value:
        raise ValueError(f"{value!r} holds a space; use one word, such as {value.replace(' ', '-')!r}")
    return value


def _not_reserved(name: str) -> str:
    if name in RESERVED_WORDS:
        raise ValueError(f"{name!r} is a word that queue names use; choose another name")
    return name


def _distinct(skills: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(set(skills)))


def _text(value: str) -> str:
    """Text that a file, a command line and the wire can hold."""
    if "\0" in value:
        raise ValueError("holds a NUL character; remove it")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError("is not valid Unicode text") from None
    return value


def _absolute(value: str) -> str:
    try:
        return str(Path(value).expanduser().absolute())
    except RuntimeError as error:  # ~somebody who is not there
        raise ValueError(str(error)) from None


def _json(value: dict[str, JsonValue]) -> dict[str, JsonValue]:
    json.dumps(value, allow_nan=False)
    return value


Text = Annotated[str, AfterValidator(_text)]
JsonObject = Annotated[dict[str, JsonValue], AfterValidator(_json)]
AgentId = Annotated[str, BeforeValidator(_word), StringConstraints(pattern=rf"^{_NAME}$", max_length=48)]
Role = Annotated[AgentId, AfterValidator(_not_reserved)]
Skill = Annotated[
    str,
    BeforeValidator(_word),
    StringConstraints(pattern=r"^[a-z0-9][a-z0-9_.#-]*$", max_length=48),
    AfterValidator(_not_reserved),
]
Skills = Annotated[tuple[Skill, ...], AfterValidator(_distinct)]
TaskId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=128)]
AbsolutePath = Annotated[Text, AfterValidator(_absolute)]
Seconds = Annotated[float, Field(gt=0, le=366 * 86400, allow_inf_nan=False, strict=True)]


class Model(BaseModel):
    """A value that does not change and knows all of its fields."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Priority(StrEnum):
    """How soon a task is taken, compared with others that the same agent could take."""

    URGENT = "urgent"
    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"

    @property
    def step(self) -> int:
        """The transport's priority step; 0 is taken first."""
        return PRIORITY_STEPS[list(Priority).index(self)]


PRIORITY_STEPS = (0, 3, 6, 9)


class TaskState(StrEnum):
    """Where a task is between being accepted and its end."""

    QUEUED = "queued"
    ASSIGNED = "assigned"
    RUNNING = "running"
    WAITING = "waiting"
    PARKED = "parked"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    DEAD = "dead"

    @property
    def ended(self) -> bool:
        """Nothing happens to the task any more, unless a person replays it."""
        return self in ENDED

    @property
    def sources(self) -> frozenset[TaskState]:
        """The states from which this one may follow."""
        return frozenset(state for state, successors in TRANSITIONS.items() if self in successors)


ENDED = frozenset({TaskState.SUCCEEDED, TaskState.FAILED, TaskState.CANCELLED, TaskState.DEAD})
BEFORE = frozenset({TaskState.QUEUED, TaskState.PARKED})
"""The states in which no agent has begun."""
HELD = frozenset({TaskState.ASSIGNED, TaskState.RUNNING, TaskState.WAITING})
"""The states in which an agent owns the task."""

TRANSITIONS: dict[TaskState, frozenset[TaskState]] = {
    TaskState.QUEUED: frozenset(
        {TaskState.ASSIGNED, TaskState.PARKED, TaskState.FAILED, TaskState.CANCELLED, TaskState.DEAD}
    ),
    TaskState.ASSIGNED: frozenset({TaskState.RUNNING, TaskState.WAITING, TaskState.PARKED, TaskState.QUEUED}) | ENDED,
    # A worker that died while it put the task into the pane has its successor say the same once more.
    TaskState.RUNNING: frozenset({TaskState.RUNNING, TaskState.WAITING, TaskState.PARKED, TaskState.QUEUED}) | ENDED,
    TaskState.WAITING: frozenset({TaskState.WAITING, TaskState.RUNNING, TaskState.PARKED, TaskState.QUEUED}) | ENDED,
    TaskState.PARKED: frozenset(
        {TaskState.QUEUED, TaskState.ASSIGNED, TaskState.FAILED, TaskState.CANCELLED, TaskState.DEAD}
    ),
    TaskState.SUCCEEDED: frozenset(),
    TaskState.FAILED: frozenset(),
    TaskState.CANCELLED: frozenset(),
    TaskState.DEAD: frozenset({TaskState.QUEUED}),
}


class AgentState(StrEnum):
    """What an agent's program is doing, as far as can be told."""

    STARTING = "starting"
    READY = "ready"
    WORKING = "working"
    WAITING = "waiting"
    LIMITED = "limited"
    COMPACTING = "compacting"
    ERROR = "error"
    LOGIN = "login"
    EXITED = "exited"
    UNKNOWN = "unknown"


class FailureKind(StrEnum):
    """Why a task did not succeed."""

    EXIT_CODE = "exit_code"
    CHECK_FAILED = "check_failed"
    TIMEOUT = "timeout"
    DEADLINE = "deadline"
    AGENT_CRASHED = "agent_crashed"
    AGENT_UNAVAILABLE = "agent_unavailable"
    WORKER_LOST = "worker_lost"
    REFUSED = "refused"
    CANCELLED = "cancelled"
    INTERNAL = "internal"

    @property
    def worth_retrying(self) -> bool:
        """The task is not to blame: the same prompt may well succeed with the next try."""
        return self in {FailureKind.AGENT_CRASHED, FailureKind.AGENT_UNAVAILABLE}


class TaskSpec(Model):
    """What is asked of an agent."""

    id: TaskId = Field(default_factory=lambda: uuid.uuid4().hex)
    prompt: Text
    role: Role | None = None
    skills: Skills = ()
    agent: AgentId | None = None
    priority: Priority = Priority.NORMAL
    workdir: AbsolutePath | None = None
    timeout: Seconds | None = None
    deadline: AwareDatetime | None = None
    check: Text | None = Field(None, min_length=1)
    max_retries: int | None = Field(None, ge=0, strict=True)
    context: JsonObject = {}
    metadata: JsonObject = {}

    @field_validator("prompt")
    @classmethod
    def _something_to_do(cls, prompt: str) -> str:
        if not prompt.strip():
            raise ValueError("is empty; say what the agent shall do")
        return prompt

    @classmethod
    def build(cls, **fields: Any) -> Self:
        """A spec from what somebody typed, or :class:`InvalidTask` in words."""
        try:
            return cls.model_validate(fields)
        except ValidationError as error:
            raise InvalidTask(f"this task cannot be accepted: {readable(error)}") from None

    def within(self, prompt_limit: int) -> Self:
        """This spec, or :class:`InvalidTask` if its prompt has more bytes than this."""
        size = len(self.prompt.encode())
        if size > prompt_limit:
            raise InvalidTask(
                f"this task cannot be accepted: prompt has {size:,} bytes, the limit is {prompt_limit:,} "
                "(TORCH_PROMPT_LIMIT_BYTES); put the bulk into a file and name it in the prompt"
            )
        return self

    def wire(self) -> dict[str, Any]:
        """The spec as plain JSON values, without what is only default."""
        return self.model_dump(mode="json", exclude_defaults=True) | {"id": self.id}

    @property
    def title(self) -> str:
        """The task in one short line."""
        line = "".join(char if char.isprintable() else " " for char in self.prompt.strip().splitlines()[0])
        return line if len(line) <= 60 else line[:59] + "…"


class Evidence(Model):
    """One thing that shows what became of a task."""

    kind: str
    detail: str
    passed: bool


class Failure(Model):
    """Why a task did not succeed, in a word for programs and a sentence for people."""

    kind: FailureKind
    message: str


class TaskResult(Model):
    """How a task ended."""

    task_id: TaskId
    status: TaskState
    answer: str = ""
    answer_bytes: int = 0
    answer_file: str | None = None
    exit_code: int | None = None
    evidence: tuple[Evidence, ...] = ()
    agent: str | None = None
    node: str | None = None
    attempts: int = 0
    started_at: AwareDatetime | None = None
    finished_at: AwareDatetime | None = None
    error: Failure | None = None

    @property
    def succeeded(self) -> bool:
        """The task was done, and there is evidence of it."""
        return self.status is TaskState.SUCCEEDED

    def raise_for_status(self) -> Self:
        """This result if it is a success, else :class:`TaskFailed`."""
        from torch_tasks.errors import TaskFailed

        if not self.succeeded:
            raise TaskFailed(self.summary)
        return self

    @property
    def summary(self) -> str:
        """The end in one line."""
        where = f" on {self.agent}" if self.agent else ""
        return f"task {self.task_id} {self.status}{where}" + (f": {self.error.message}" if self.error else "")


class Handoff(Model):
    """What the next agent should know of a task that another one could not finish."""

    agent: str
    node: str
    noted_at: AwareDatetime
    screen: str = ""
    """What the pane showed last."""
    branch: str | None = None
    diff: str | None = None
    """What had changed in the workdir, if it is a git tree."""


class HistoryEntry(Model):
    """One thing that happened to a task."""

    at: AwareDatetime
    state: TaskState
    agent: str | None = None
    node: str | None = None
    incarnation: int | None = None
    note: str | None = None


class TaskRecord(Model):
    """What the fleet knows of one task."""

    spec: TaskSpec
    state: TaskState
    queue: str
    agent: str | None = None
    node: str | None = None
    incarnation: int = 0
    attempts: int = 0
    revision: int = 0
    """Grows with every change: of two accounts of one task, the one with the larger revision is the later."""
    deliveries: int = 0
    """How often the task came to an agent again because its worker was lost."""
    tries_before: int = 0
    """Attempts made before the task was last replayed: they do not count against its retries."""
    created_at: AwareDatetime
    assigned_at: AwareDatetime | None = None
    started_at: AwareDatetime | None = None
    finished_at: AwareDatetime | None = None
    cancel_requested: bool = False
    note: str | None = None
    handoff: Handoff | None = None
    result: TaskResult | None = None
    unroutable: bool = False


class AgentSpec(Model):
    """An agent as its owner declares it."""

    id: AgentId
    role: Role
    skills: Skills = ()
    kind: AgentId = "shell"
    workdir: AbsolutePath | None = None

    def short(self) -> str:
        """The form that :meth:`parse` reads; a workdir has no place in it."""
        return ":".join((self.id, self.role, ",".join(self.skills), self.kind))

    @classmethod
    def parse(cls, text: str) -> Self:
        """The short form of the command line: ``id:role[:skill,skill…[:kind]]``."""
        names = ("id", "role", "skills", "kind")
        parts = text.split(":")
        if not 2 <= len(parts) <= len(names):
            raise InvalidTask(f"agent {text!r} is not of the form id:role[:skill,skill[:kind]]")
        fields: dict[str, Any] = dict(zip(names, parts, strict=False))
        fields["skills"] = [skill for skill in fields.get("skills", "").split(",") if skill]
        try:
            return cls.model_validate({name: value for name, value in fields.items() if value})
        except ValidationError as error:
            raise InvalidTask(f"agent {text!r} cannot be used: {readable(error)}") from None


class AgentInfo(Model):
    """An agent as the registry knows it."""

    agent_id: AgentId
    role: Role
    skills: Skills = ()
    kind: str
    node: str
    pid: int
    host: str
    incarnation: int
    status: AgentState = AgentState.STARTING
    current_task: str | None = None
    workdir: str
    tmux_socket: str
    pane: str | None = None
    started_at: AwareDatetime
    last_heartbeat: AwareDatetime | None = None
    left: bool = False
    """Its worker said goodbye; the pane may well work on."""
    online: bool = False

    @property
    def incarnate(self) -> tuple[str, str, int]:
        """This very life of the agent: what owns a task."""
        return self.agent_id, self.node, self.incarnation

    def serves(self, role: str | None, skills: Iterable[str]) -> bool:
        """Role and all required skills match."""
        return role in (None, self.role) and set(skills) <= set(self.skills)


def now() -> datetime:
    """This machine's time, for what only people read."""
    return datetime.now(UTC)


_MESSAGES = {
    "extra_forbidden": "is not a field that exists",
    "missing": "is missing",
    "too_short": "is empty",
    "string_pattern_mismatch": (
        "{input!r} must begin with a letter or digit and hold only letters, digits, '-' and '_' "
        "(skills and the ids of tasks also '.')"
    ),
}


def readable(error: ValidationError, prefix: str = "") -> str:
    """A validation error in the words of the person who made it."""
    said = []
    for item in error.errors(include_url=False):
        place = ".".join(str(part) for part in item["loc"])
        place = prefix + place.upper() if prefix else place
        message = _MESSAGES.get(item["type"], item["msg"]).format(input=item["input"])
        said.append(f"{place}: {message.removeprefix('Value error, ')}")
    return "; ".join(said)
