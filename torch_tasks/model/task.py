"""A task as it travels and is kept: what is asked, where it stands, how it ended."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import AwareDatetime, Field, ValidationError, model_validator

from torch_tasks.errors import InvalidTask, TaskFailed
from torch_tasks.model.asker import Asker
from torch_tasks.model.fields import (
    AbsolutePath,
    AgentId,
    JsonObject,
    KeptText,
    Model,
    Role,
    Seconds,
    Skills,
    TaskId,
    TaskIds,
    Text,
    Title,
    not_blank,
    readable,
    title_of,
)
from torch_tasks.model.handover import Handoff, Handover
from torch_tasks.model.options import Option
from torch_tasks.model.reader import depth_of
from torch_tasks.model.usage import Usage

SPEC_DEPTH = 40
"""How deep lists and objects may go in a task: less than in a message, which may hold a task in a chain in a chord."""


class Permissions(StrEnum):
    """What happens when an agent asks for permission."""

    ASK = "ask"
    """The task waits until a person answers."""
    ALLOW = "allow"
    DENY = "deny"


class Priority(StrEnum):
    """How soon an agent takes a task, compared with others that it could take."""

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

    PENDING = "pending"
    """It waits for other tasks to succeed; no agent can take it."""
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
        """Whether the task is over, unless a person replays it."""
        return self in ENDED

    @property
    def sources(self) -> frozenset[TaskState]:
        """The states from which this one may follow."""
        return frozenset(state for state, successors in TRANSITIONS.items() if self in successors)


ENDED = frozenset({TaskState.SUCCEEDED, TaskState.FAILED, TaskState.CANCELLED, TaskState.DEAD})
NOT_BEGUN = frozenset({TaskState.PENDING, TaskState.QUEUED, TaskState.PARKED})
"""The states in which no agent has begun."""
HELD = frozenset({TaskState.ASSIGNED, TaskState.RUNNING, TaskState.WAITING})
"""The states in which an agent owns the task."""
TRANSITIONS: dict[TaskState, frozenset[TaskState]] = {
    TaskState.PENDING: frozenset({TaskState.QUEUED, TaskState.FAILED, TaskState.CANCELLED}),
    TaskState.QUEUED: frozenset(
        {TaskState.ASSIGNED, TaskState.PARKED, TaskState.FAILED, TaskState.CANCELLED, TaskState.DEAD}
    ),
    TaskState.ASSIGNED: frozenset({TaskState.RUNNING, TaskState.WAITING, TaskState.PARKED, TaskState.QUEUED}) | ENDED,
    # If a worker died while it put the task into the pane, the next one enters the same state again.
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


class FailureKind(StrEnum):
    EXIT_CODE = "exit_code"
    CHECK_FAILED = "check_failed"
    TIMEOUT = "timeout"
    DEADLINE = "deadline"
    DEPENDENCY = "dependency"
    """A task that it was to begin after has not succeeded."""
    AGENT_CRASHED = "agent_crashed"
    OUT_OF_MEMORY = "out_of_memory"
    AGENT_UNAVAILABLE = "agent_unavailable"
    WORKER_LOST = "worker_lost"
    REFUSED = "refused"
    CANCELLED = "cancelled"
    HELD_AGENTS = "held_agents"
    """It had its own agent stopped or interrupted, and would do so again."""
    AGENT_FAILED = "agent_failed"
    """The agent reported that it cannot do the task, or its program showed an error."""
    INDETERMINATE = "indeterminate"
    """Nothing shows whether the agent got the prompt; another try might do the task twice."""
    OVERLOADED = "overloaded"
    """The provider of the agent's model had no capacity."""
    LOOPING = "looping"
    """The agent repeated itself or made no progress."""
    INTERNAL = "internal"

    @property
    def worth_retrying(self) -> bool:
        """Whether the same prompt may well succeed with the next try."""
        return self in {
            FailureKind.AGENT_CRASHED,
            FailureKind.OUT_OF_MEMORY,
            FailureKind.AGENT_UNAVAILABLE,
            FailureKind.OVERLOADED,
            FailureKind.LOOPING,
        }

    @property
    def up_to_agent(self) -> bool:
        """Whether the failure counts against the agent."""
        return self in {
            FailureKind.EXIT_CODE,
            FailureKind.CHECK_FAILED,
            FailureKind.TIMEOUT,
            FailureKind.AGENT_CRASHED,
            FailureKind.OUT_OF_MEMORY,
            FailureKind.AGENT_FAILED,
            FailureKind.LOOPING,
        }


LASTING = " [also for later]"


class Question(Model):
    """What an agent's program waits for a person to decide."""

    text: str
    choices: tuple[str, ...] = ()
    subject: str = ""
    """What permission is asked for, as patterns match it: ``Bash(git push)``; empty if none is."""
    several: bool = False
    """Whether more than one of the choices may be taken."""
    lasting: tuple[int, ...] = ()
    """The numbers of the choices that change something for later; no policy takes them."""

    @property
    def numbered(self) -> tuple[str, ...]:
        """The choices as a person sees them."""
        marks = (LASTING if number in self.lasting else "" for number in range(1, len(self.choices) + 1))
        return tuple(f"{n} {choice}{mark}" for n, (choice, mark) in enumerate(zip(self.choices, marks, strict=True), 1))

    @property
    def in_words(self) -> str:
        """The question with its choices, in a line."""
        return f"{self.text} ({' | '.join(self.numbered)})" if self.choices else self.text


class TaskSpec(Model):
    id: TaskId = Field(
        default_factory=lambda: uuid.uuid4().hex, description="The task's id; the same id twice is one task."
    )
    prompt: Annotated[Text, not_blank("say what the agent shall do")]
    title: Title = Field(
        default_factory=lambda given: title_of(given.get("prompt", " ")),
        description="What it is called in lists, reports and branches (default: the prompt's first line).",
    )
    role: Role | None = Field(None, description="Only an agent of this role.")
    skills: Annotated[Skills, Option("--skill")] = Field(
        (), description="Only an agent with this skill; repeat for more, all are required."
    )
    agent: AgentId | None = Field(None, description="Only this agent.")
    priority: Priority = Field(Priority.NORMAL, description="How soon it is taken, compared with others.")
    workdir: Annotated[AbsolutePath | None, Option(metavar="FOLDER")] = Field(
        None, description="The folder to work in, on the node that takes the task."
    )
    timeout: Seconds | None = Field(None, description="After so long the agent is interrupted: seconds, or as 30m, 2h.")
    deadline: AwareDatetime | None = None
    check: Text | None = Field(
        None, min_length=1, description="A command that decides afterwards: exit code 0 is success."
    )
    check_rounds: int | None = Field(
        None, ge=0, strict=True, description="How often a failed check goes back to the agent."
    )
    permissions: Permissions | None = Field(
        None, description="What becomes of what a coding agent asks permission for."
    )
    fresh: bool | None = Field(
        None,
        strict=True,
        description="Begin it in a new program, or in the one that is there (default: as the agent's declaration "
        "says).",
    )
    max_retries: int | None = Field(
        None, ge=0, strict=True, description="How often to try again when the agent crashed."
    )
    after: Annotated[TaskIds, Option(metavar="TASK")] = Field(
        (), description="Begin when this task has succeeded; repeat for more. It fails if one of them does not succeed."
    )
    context: JsonObject = Field(default_factory=dict)
    metadata: JsonObject = Field(default_factory=dict)

    @model_validator(mode="after")
    def _waits_not_for_itself(self) -> Self:
        if self.id in self.after:
            raise ValueError(f"after: task {self.id} would wait for itself")
        return self

    @classmethod
    def build(cls, **fields: Any) -> Self:
        """A spec of these fields, or :class:`InvalidTask` that says what is wrong with them."""
        try:
            return cls.model_validate(fields)
        except ValidationError as error:
            raise InvalidTask(f"this task cannot be accepted: {readable(error)}") from None

    @staticmethod
    def of(asked: Any, more: Mapping[str, Any]) -> TaskSpec:
        """The spec that is asked for as one, by its fields or by its prompt alone, with ``more`` fields."""
        if isinstance(asked, TaskSpec):
            return TaskSpec.build(**{**dict(asked), **more}) if more else asked
        if isinstance(asked, str):
            return TaskSpec.build(**{"prompt": asked, **more})
        if isinstance(asked, Mapping):
            return TaskSpec.build(**{**asked, **more})
        raise InvalidTask(
            f"this task cannot be accepted: {asked!r} is no task; give its prompt as text, a TaskSpec, or its fields"
        )

    def within(self, prompt_limit: int, task_limit: int) -> Self:
        """This spec, or :class:`InvalidTask` if its prompt or all of it has more bytes than this, or goes too deep."""
        size = len(self.prompt.encode())
        if size > prompt_limit:
            raise InvalidTask(
                f"this task cannot be accepted: prompt has {size:,} bytes, the limit is {prompt_limit:,} "
                "(TORCH_PROMPT_LIMIT_BYTES); put the bulk into a file and name it in the prompt"
            )
        wire = self.wire()
        whole = len(json.dumps(wire))
        if whole > task_limit:
            raise InvalidTask(
                f"this task cannot be accepted: with its context and metadata it has {whole:,} bytes, the limit is "
                f"{task_limit:,} (TORCH_TASK_LIMIT_BYTES); put the bulk into files and name them in the prompt"
            )
        if depth_of(wire) > SPEC_DEPTH:
            raise InvalidTask(
                f"this task cannot be accepted: lists and objects go deeper than {SPEC_DEPTH} in its context or "
                "metadata; put the bulk into a file and name it in the prompt"
            )
        return self

    def wire(self) -> dict[str, Any]:
        """The spec as plain JSON values, without the defaults."""
        made_title = {"title"} if self.title == title_of(self.prompt) else set()
        return self.model_dump(mode="json", exclude_defaults=True, exclude=made_title) | {"id": self.id}


class Evidence(Model):
    kind: str
    detail: KeptText
    passed: bool


class Failure(Model):
    """Why a task did not succeed: a kind for programs and a sentence for people."""

    kind: FailureKind
    message: KeptText


class DiffStat(Model):
    """How much a task has changed in its git tree, committed or not."""

    files: int = 0
    added: int = 0
    """Lines."""
    removed: int = 0

    def __str__(self) -> str:
        return f"{self.files} file{'' if self.files == 1 else 's'} +{self.added} -{self.removed}"


class TaskResult(Model):
    task_id: TaskId
    status: TaskState
    answer: KeptText = ""
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
    branch: str | None = None
    """What was checked out in the task's git tree at its end."""
    changes: DiffStat | None = None
    """Known if a coding agent worked in a git tree, or any agent under a git policy."""
    error: Failure | None = None

    @classmethod
    def cancelled(cls, task_id: str, message: str) -> Self:
        """The result of a task that was cancelled before an agent began it."""
        failure = Failure(kind=FailureKind.CANCELLED, message=message)
        return cls(task_id=task_id, status=TaskState.CANCELLED, error=failure)

    @property
    def succeeded(self) -> bool:
        """Whether the task was done, with evidence of it."""
        return self.status is TaskState.SUCCEEDED

    @property
    def counts(self) -> Literal["succeeded", "failed", ""]:
        """Whether the end counts for the agent or against it; empty if it was not up to the agent."""
        if self.succeeded:
            return "succeeded"
        failed = self.status is not TaskState.CANCELLED and self.error and self.error.kind.up_to_agent
        return "failed" if failed else ""

    def raise_for_status(self) -> Self:
        """This result if it is a success, else :class:`TaskFailed`."""
        if not self.succeeded:
            raise TaskFailed(self.summary)
        return self

    @property
    def summary(self) -> str:
        where = f" on {self.agent}" if self.agent else ""
        return f"task {self.task_id} {self.status}{where}" + (f": {self.error.message}" if self.error else "")


class TaskRecord(Model):
    spec: TaskSpec
    state: TaskState
    queue: str
    agent: str | None = None
    node: str | None = None
    incarnation: int = 0
    attempts: int = 0
    revision: int = 0
    """Grows with every change: of two copies of a record, the one with the larger revision is the later."""
    deliveries: int = 0
    """How often the task was delivered again because its worker was lost."""
    tries_before: int = 0
    """Attempts made before the task was last replayed: they do not count against its retries."""
    created_at: AwareDatetime
    enqueued_by: Asker | None = None
    trace: KeptText | None = None
    """Of which trace it is a part, and under which of its spans, as a W3C ``traceparent``."""
    assigned_at: AwareDatetime | None = None
    started_at: AwareDatetime | None = None
    finished_at: AwareDatetime | None = None
    cancel_requested: bool = False
    note: KeptText | None = None
    question: Question | None = None
    """What the agent waits for, while the task is ``waiting``."""
    handoff: Handoff | None = None
    handover: Handover | None = None
    """How the task was last handed over."""
    result: TaskResult | None = None
    forged: str | None = None
    """Why nobody may believe that it ended like this: no node of the fleet says so."""
    unroutable: bool = False
    waits: str | None = None
    """Why no agent takes the task now or goes on with it: none is there, or all that are able are held up."""


class TaskStep(StrEnum):
    """What happened to a task at a moment, where its state does not say it."""

    STAGED = "staged"
    """Its prompt is in the input line of the agent's program."""
    SUBMITTED = "submitted"
    ACCEPTED = "accepted"
    """The agent's program works on it."""
    CHECKING = "checking"
    """The program is done with it, and its check runs."""
    SENT_BACK = "sent_back"
    """The check failed, and the program was told."""
    ADOPTED = "adopted"
    """The agent's next worker goes on with it."""
    TAKEN_OVER = "taken_over"
    """Another agent took it, because the one that had it is dead."""
    HANDED_OVER = "handed_over"
    """It is to be given to another agent."""
    RETRIED = "retried"
    """A try has failed, and there is another one."""


class Fact(NamedTuple):
    """Something new about a task, for its history."""

    words: str
    """Empty if the step says it all."""
    step: TaskStep | None = None


class HistoryEntry(Model):
    at: AwareDatetime
    state: TaskState
    step: TaskStep | None = None
    agent: str | None = None
    node: str | None = None
    incarnation: int | None = None
    note: KeptText | None = None
