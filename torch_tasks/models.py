"""The wire format: what tasks, results and agents look like to every process.

Everything here is validated where it enters and refused with a message a person understands.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Literal, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError, field_validator

from torch_tasks.errors import InvalidTask
from torch_tasks.fields import (
    AbsolutePath,
    AgentId,
    JsonObject,
    Role,
    Seconds,
    Skills,
    TaskId,
    Text,
    readable,
)
from torch_tasks.handoffs import Handoff, Handover
from torch_tasks.holds import Hold
from torch_tasks.lifetimes import Lifetime
from torch_tasks.limits import Limits
from torch_tasks.performance import Performance
from torch_tasks.permissions import Permissions


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


class AgentStatus(StrEnum):
    """Whether the fleet hears of an agent."""

    ACTIVE = "active"
    OFFLINE = "offline"


class FailureKind(StrEnum):
    """Why a task did not succeed."""

    EXIT_CODE = "exit_code"
    CHECK_FAILED = "check_failed"
    TIMEOUT = "timeout"
    DEADLINE = "deadline"
    AGENT_CRASHED = "agent_crashed"
    OUT_OF_MEMORY = "out_of_memory"
    AGENT_UNAVAILABLE = "agent_unavailable"
    WORKER_LOST = "worker_lost"
    REFUSED = "refused"
    CANCELLED = "cancelled"
    AGENT_FAILED = "agent_failed"
    """The agent itself said that it cannot do it, or its program told an error."""
    INDETERMINATE = "indeterminate"
    """Nobody can tell whether the agent got the prompt; trying again might do it twice."""
    OVERLOADED = "overloaded"
    """The provider of the agent's model refused for want of capacity."""
    LOOPING = "looping"
    """The agent went round in circles or made no progress."""
    INTERNAL = "internal"

    @property
    def worth_retrying(self) -> bool:
        """The task is not to blame: the same prompt may well succeed with the next try."""
        return self in {
            FailureKind.AGENT_CRASHED,
            FailureKind.OUT_OF_MEMORY,
            FailureKind.AGENT_UNAVAILABLE,
            FailureKind.OVERLOADED,
            FailureKind.LOOPING,
        }

    @property
    def up_to_agent(self) -> bool:
        """It tells something of how well the agent works."""
        return self in {
            FailureKind.EXIT_CODE,
            FailureKind.CHECK_FAILED,
            FailureKind.TIMEOUT,
            FailureKind.AGENT_CRASHED,
            FailureKind.OUT_OF_MEMORY,
            FailureKind.AGENT_FAILED,
            FailureKind.LOOPING,
        }


class Question(Model):
    """What an agent's program waits for a person to decide."""

    text: str
    choices: tuple[str, ...] = ()
    subject: str = ""
    """What the permission is asked for, as patterns match it: ``Bash(git push)``; empty for what is no permission."""
    several: bool = False
    """More than one of the choices may be taken."""


class Usage(Model):
    """What a task cost, as far as the agent's program tells."""

    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    cost_usd: float | None = None


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
    check_rounds: int | None = Field(None, ge=0, strict=True)
    """How often a failed check goes back to the agent before the task has failed."""
    permissions: Permissions | None = None
    fresh: bool | None = Field(None, strict=True)
    """A new program begins it, which knows nothing of earlier tasks; unset, as the agent's declaration says."""
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
    usage: Usage | None = None
    error: Failure | None = None

    @property
    def succeeded(self) -> bool:
        """The task was done, and there is evidence of it."""
        return self.status is TaskState.SUCCEEDED

    @property
    def counts(self) -> Literal["succeeded", "failed", ""]:
        """What the end tells of the agent."""
        if self.succeeded:
            return "succeeded"
        failed = self.status is not TaskState.CANCELLED and self.error and self.error.kind.up_to_agent
        return "failed" if failed else ""

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
    question: Question | None = None
    """What the agent waits for, while the task is ``waiting``."""
    handoff: Handoff | None = None
    handover: Handover | None = None
    """The last time that somebody handed the task over."""
    result: TaskResult | None = None
    unroutable: bool = False
    waits: str | None = None
    """Why nobody takes the task now, if somebody paused or stopped those who could."""


class AgentSpec(Limits):
    """An agent as its owner declares it."""

    id: AgentId
    role: Role
    skills: Skills = ()
    kind: AgentId = "shell"
    workdir: AbsolutePath | None = None
    fresh: bool = False  # each of its tasks is begun by a new program
    lifetime: Lifetime = Lifetime.PERMANENT
    parent: AgentId | None = None

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
    status: AgentStatus = AgentStatus.OFFLINE
    """Whether the fleet hears of it; follows from the heartbeat."""
    state: AgentState = AgentState.STARTING
    """What its program was last seen doing."""
    current_task: str | None = None
    workdir: str
    tmux_socket: str
    pane: str | None = None
    started_at: AwareDatetime
    last_heartbeat: AwareDatetime | None = None
    left: bool = False
    """Its worker said goodbye; the pane may well work on."""
    lifetime: Lifetime = Lifetime.PERMANENT
    parent: str | None = None
    """The agent that spawned it."""
    retiring: bool = False
    """It takes no new tasks and ends after the one it has."""
    performance_metrics: Performance = Performance()
    load: int = 0
    """How many tasks it holds or has waiting for it alone."""
    paused: Hold | None = None
    """It takes no new task, and only emergencies of its messages."""
    stopped: Hold | None = None
    """Its worker has seen that the machine is stopped: nothing runs."""

    @property
    def online(self) -> bool:
        """The fleet hears of it."""
        return self.status is AgentStatus.ACTIVE

    @property
    def free(self) -> bool:
        """It can begin with a task at once."""
        at_rest = self.online and self.state is AgentState.READY and not self.load
        return at_rest and not (self.paused or self.stopped or self.retiring)

    @property
    def holding(self) -> str:
        """Why it takes no task, be it paused, stopped, or logged out; empty if it does."""
        login = f"logged out: 'torch-tasks attach {self.agent_id}' and log in" if self.state is AgentState.LOGIN else ""
        return f"stopped {self.stopped}" if self.stopped else f"paused {self.paused}" if self.paused else login

    @property
    def incarnate(self) -> tuple[str, str, int]:
        """This very life of the agent: what owns a task."""
        return self.agent_id, self.node, self.incarnation

    @property
    def abilities(self) -> frozenset[str]:
        """What it may be asked for: its skills, and the kind of program it is."""
        return frozenset({*self.skills, self.kind})

    def serves(self, role: str | None, skills: Iterable[str]) -> bool:
        """Role and all required skills match."""
        return role in (None, self.role) and set(skills) <= self.abilities


def now() -> datetime:
    """This machine's time, for what only people read."""
    return datetime.now(UTC)
