"""An agent: its declaration, its entry in the registry, how well it works and how it ends."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError, computed_field

from torch_tasks.errors import InvalidTask
from torch_tasks.model.certificate import ReleaseState
from torch_tasks.model.fields import AbsolutePath, AgentId, HostedId, KeptText, Role, Skills, readable
from torch_tasks.model.hold import Hold
from torch_tasks.model.limits import Limits
from torch_tasks.model.options import Option
from torch_tasks.model.sandbox import Network, SandboxMode


class Lifetime(StrEnum):
    PERMANENT = "permanent"
    TEMPORARY = "temporary"
    """Until it was idle for a while."""


class RetireMode(StrEnum):
    """What happens to the task that a retiring agent works on."""

    FINISH = "finish"
    """The agent finishes it first, however long that takes."""
    HAND_OVER = "hand over"
    """Another agent continues it."""
    NOW = "now"
    """It goes back to its queue at once."""


class RetireOrder(BaseModel):
    """The order to end an agent; it lies in the agent's folder until that has happened."""

    model_config = ConfigDict(frozen=True)

    mode: RetireMode = RetireMode.FINISH
    by: str
    note: str = ""


class RetirementReport(BaseModel):
    """What the fleet keeps of an agent that has ended."""

    model_config = ConfigDict(frozen=True)

    agent_id: str
    node: str
    incarnation: int
    by: str
    note: str = ""
    at: AwareDatetime
    file: str = ""
    """The file on its node with its last screen and its summary, if it retired."""
    forgotten: bool = False
    """It was gone, and a caller had the fleet forget it."""
    tasks: tuple[str, ...] = ()
    """The tasks that it left: given back, or failed if they asked for this agent."""
    messages: tuple[str, ...] = ()
    """The messages that waited for it and are dead now."""

    @property
    def words(self) -> str:
        """What became of it: ``agent qa-1 has retired``."""
        return f"agent {self.agent_id} {'was forgotten' if self.forgotten else 'has retired'}"


FORMAT = '{"succeeded":%d,"failed":%d,"seconds":%.3f,"last_ended":%d}'
"""A :class:`Performance` on the broker, the moment in milliseconds; scripts read the first two numbers."""


class Performance(BaseModel):
    """How an agent's tasks ended, without those whose end was not up to the agent."""

    PRIOR: ClassVar = (4, 5)
    """The successes and ends that every agent starts with, so that a new one is neither best nor worst."""

    model_config = ConfigDict(frozen=True)

    succeeded: int = 0
    failed: int = 0
    seconds: float = 0.0
    """How long it worked on them."""
    last_ended: AwareDatetime | None = None

    @property
    def ended(self) -> int:
        return self.succeeded + self.failed

    @computed_field  # type: ignore[prop-decorator]
    @property
    def success_rate(self) -> float:
        succeeded, ended = self.PRIOR
        return round((self.succeeded + succeeded) / (self.ended + ended), 4)

    @property
    def stored(self) -> str:
        """The text that the broker keeps, see :data:`FORMAT`."""
        moment = self.last_ended.timestamp() * 1000 if self.last_ended else 0
        return FORMAT % (self.succeeded, self.failed, self.seconds, moment)

    def after(self, end: Literal["succeeded", "failed"], record: Mapping[str, str]) -> Self:
        """With one more task, which began and ended at the times in its record."""
        started, ended = (int(record.get(moment, 0)) for moment in ("started_at", "finished_at"))
        began = started and started >= int(record.get("assigned_at", 0))
        return self.model_copy(
            update={
                end: getattr(self, end) + 1,
                "seconds": self.seconds + ((ended - started) / 1000 if began else 0.0),
                "last_ended": datetime.fromtimestamp(ended / 1000, UTC),
            }
        )


class AgentState(StrEnum):
    """What an agent's program is doing, as far as its worker can see."""

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
    """Whether a heartbeat of an agent or node arrived lately."""

    ACTIVE = "active"
    OFFLINE = "offline"


class AgentProfile(BaseModel):
    """What an agent is and can do, as tasks ask for it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    role: Role = Field(description="The agent's role.")
    skills: Annotated[Skills, Option("--skill")] = Field((), description="A skill it has; repeat for more.")
    kind: AgentId = Field("shell", description="The kind of its program.")

    @property
    def abilities(self) -> frozenset[str]:
        """What a task may require as skills: those of the agent, and the kind of its program."""
        return frozenset({*self.skills, self.kind})

    def serves(self, role: str | None, skills: Iterable[str]) -> bool:
        return role in (None, self.role) and set(skills) <= self.abilities


class AgentFields(Limits, AgentProfile):
    """How to start an agent, in torch.toml, a spawn request, or a pool.

    The options of the commands and the keywords of the Python methods follow from these fields.
    """

    workdir: Annotated[AbsolutePath | None, Option(metavar="FOLDER")] = Field(
        None, description="The folder it starts in, on its machine (default: the one its worker is started in)."
    )
    fresh: bool = Field(False, description="Each of its tasks is begun by a new program.")

    @property
    def agent_fields(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in AgentFields.model_fields}


class SingleAgentFields(AgentFields):
    """How to start one single agent."""

    lifetime: Annotated[Lifetime, Option("--temporary", meaning=Lifetime.TEMPORARY)] = Field(
        Lifetime.PERMANENT, description="It retires when it has had nothing to do for a while."
    )
    parent: Annotated[AgentId | None, Option(metavar="AGENT")] = Field(
        None, description="The agent it belongs to (default, in a pane: the pane's agent)."
    )

    @property
    def agent_fields(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in SingleAgentFields.model_fields}


class AgentSpec(SingleAgentFields):
    id: HostedId = Field(description="Host the agent of this id (an agent worker).")
    sandbox: Annotated[SandboxMode | None, Option(metavar="auto|always|never", type=str)] = Field(
        None, description="Whether its program runs in a box (unset: as its kind's file and `TORCH_SANDBOX` say)."
    )
    network: Annotated[Network | None, Option(metavar="all|none|HOST,…", type=str)] = Field(
        None, description="What its program reaches from its box (unset: as its kind's file says)."
    )

    def short(self) -> str:
        """The form that :meth:`parse` reads; it holds no workdir."""
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

    @classmethod
    def parse_all(cls, texts: Iterable[str]) -> tuple[Self, ...]:
        """Several short forms, each of another agent."""
        agents = tuple(map(cls.parse, texts))
        try:
            each_id_once(agents)
        except ValueError as error:
            raise InvalidTask(str(error)) from None
        return agents


def each_id_once(agents: tuple[AgentSpec, ...]) -> tuple[AgentSpec, ...]:
    """Refuse two agents of one id: only one of them could be."""
    for agent in agents:
        same = [other.short() for other in agents if other.id == agent.id]
        if len(same) > 1:
            raise ValueError(f"two agents have the id {agent.id!r}: {' and '.join(same)}; give each an id of its own")
    return agents


class AgentInfo(AgentProfile):
    agent_id: AgentId
    node: str
    pid: int
    host: str
    incarnation: int
    status: AgentStatus = AgentStatus.OFFLINE
    state: AgentState = AgentState.STARTING
    """What its program was last seen doing."""
    asks: KeptText = ""
    """What its program asks of a person before it takes a task or goes on with one, other than the task's question."""
    current_task: str | None = None
    release: str | None = None
    """The release of the program that runs in its pane."""
    release_state: ReleaseState | None = None
    """What was known of that release when the program was started."""
    workdir: str
    tmux_socket: str
    sandbox: str = ""
    """Whether its program runs in a box, and if not, why."""
    pane: str | None = None
    started_at: AwareDatetime
    last_heartbeat: AwareDatetime | None = None
    left: bool = False
    """Its worker was stopped by order; the pane may continue."""
    lifetime: Lifetime = Lifetime.PERMANENT
    parent: str | None = None
    retiring: bool = False
    """It takes no new tasks and ends after the one it has."""
    performance_metrics: Performance = Performance()
    load: int = 0
    """How many tasks it holds, or wait for it alone."""
    paused: Hold | None = None
    """It takes no new task, and no message but emergencies."""
    stopped: Hold | None = None
    """Its worker knows that the machine is stopped."""
    taken_over: str = ""
    """Who types into its terminal from elsewhere: it begins no task, and its messages wait."""
    desk_refused: Mapping[str, int] = {}
    """How often its desk refused something since its worker started, by the name of the error."""

    @property
    def online(self) -> bool:
        return self.status is AgentStatus.ACTIVE

    @property
    def free(self) -> bool:
        at_rest = self.online and self.state is AgentState.READY and not self.load
        return at_rest and not (self.paused or self.stopped or self.retiring or self.taken_over)

    @property
    def is_held_up(self) -> bool:
        """Whether its program waits for a person, other than for a login or for the answer to its task's question."""
        return bool(self.asks) and self.state is not AgentState.LOGIN

    @property
    def hold_reason(self) -> str:
        """Why it takes no task until a person acts: paused, stopped, logged out, held up; else empty."""
        if self.stopped or self.paused:
            return f"stopped {self.stopped}" if self.stopped else f"paused {self.paused}"
        if self.taken_over:
            return f"taken over by {self.taken_over}, who types into its terminal"
        if self.state is AgentState.LOGIN:
            return f"logged out: 'torch-tasks attach {self.agent_id}' and log in"
        return f"held up: {self.asks} ('torch-tasks attach {self.agent_id}')" if self.is_held_up else ""

    @property
    def as_owner(self) -> tuple[str, str, int]:
        """This agent in this incarnation, as a task's record names its owner."""
        return self.agent_id, self.node, self.incarnation


What = Literal["came", "left", "state", "task", "abilities"]


class AgentChange(NamedTuple):
    """What is new of an agent."""

    agent_id: str
    what: What
    """``came``: a new incarnation, or the first heartbeat after a silence."""
    info: AgentInfo
    before: AgentInfo | None


class SeenAgents:
    """The last look at each agent; the next look shows what is new."""

    def __init__(self, agents: Iterable[AgentInfo]) -> None:
        self._seen = {info.agent_id: info for info in agents}

    def look(self, agents: Iterable[AgentInfo]) -> Iterator[AgentChange]:
        """What is new of these agents."""
        for info in agents:
            before = self._seen.get(info.agent_id)
            self._seen[info.agent_id] = info
            yield from (AgentChange(info.agent_id, what, info, before) for what in _differences(before, info))


def _differences(before: AgentInfo | None, info: AgentInfo) -> Iterator[What]:
    if before is None or not before.online:
        if info.online:
            yield "came"
        return
    if not info.online:
        yield "left"
        return
    if info.incarnation != before.incarnation:
        yield "came"
    if (info.role, info.abilities) != (before.role, before.abilities):
        yield "abilities"
    if info.state is not before.state:
        yield "state"
    if info.current_task != before.current_task:
        yield "task"
