"""The operations on agents."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from torch_tasks.caller import caller
from torch_tasks.fleet import fleet
from torch_tasks.model.agent import AgentInfo, RetirementReport, RetireMode
from torch_tasks.model.drawn_screen import DrawnScreen
from torch_tasks.model.fields import Model, TaskId
from torch_tasks.model.limits import Resources
from torch_tasks.model.spawn import SpawnOutcome, SpawnRequest, SpawnTicket, SpawnWish
from torch_tasks.monitoring import agent_past, screens
from torch_tasks.monitoring.agent_past import AgentStep
from torch_tasks.monitoring.screens import ScreenView, StateEvidence, next_screen
from torch_tasks.operations.operation import WAIT_SECONDS, Access, Nothing, Request, WaitSeconds, operation
from torch_tasks.orchestration import gone, holds, staffing
from torch_tasks.orchestration.holds import HoldReport
from torch_tasks.security.rights import Right, Subject
from torch_tasks.store.git_reports import GitReport, GitReports

Key = Annotated[
    str,
    StringConstraints(
        pattern=r"^(Enter|Escape|Tab|BTab|BSpace|DC|Up|Down|Left|Right|Home|End|PageUp|PageDown|Space|C-[a-z])$"
    ),
]
"""A key by its name in tmux: ``Enter``, ``Escape``, ``BTab`` (Shift-Tab), ``DC`` (Delete), ``C-c``."""


class OfAgent(Request):
    """A request about one agent."""

    agent_id: str = Field(description="The agent's id.")


def _of_agent(asked: OfAgent) -> Subject:
    return Subject(agent=asked.agent_id)


class ListAgents(Request):
    role: str | None = Field(None, description="Only of this role.")
    skills: tuple[str, ...] = Field((), description="Only with all of these skills; a kind counts as one.")
    online: bool | None = Field(None, description="Only those that are online, or that are not.")
    gone: bool | None = Field(None, description="Only those that do not come back by themselves, or that may.")


@operation("agent.list", Right.LOOK)
def list_agents(asked: ListAgents) -> list[AgentInfo]:
    """The agents, by id: what they can do, where they are, and what they are doing."""
    of = fleet()
    agents = of.registry.agents()
    lost = gone.gone_agents(of, agents, of.nodes.nodes()) if asked.gone is not None else set()
    return [
        info
        for info in agents
        if info.serves(asked.role, asked.skills)
        and asked.online in (None, info.online)
        and asked.gone in (None, info.agent_id in lost)
    ]


@operation("agent.get", Right.LOOK, about=_of_agent)
def get(asked: OfAgent) -> AgentInfo:
    """One agent: what it can do, where it is, and what it is doing."""
    return fleet().registry.get_agent(asked.agent_id)


class LookBack(OfAgent):
    limit: int = Field(20, ge=1, le=100, description="How many.")


@operation("agent.lately", Right.LOOK, about=_of_agent)
def lately(asked: LookBack) -> list[AgentStep]:
    """What an agent did lately and what became of its program, the latest first, as far as it is still known."""
    return agent_past.lately(fleet(), asked.agent_id, asked.limit)


class FindAgents(Request):
    role: str | None = Field(None, description="Only of this role.")
    skills: tuple[str, ...] = Field((), description="The skills that they must have; a kind counts as one.")
    match: Literal["all", "any"] = Field("all", description="Whether they must have all of the skills, or one.")
    wished: tuple[str, ...] = Field((), description="Skills that are preferred, not required.")
    limit: int | None = Field(None, ge=1, description="How many at most.")


@operation("agent.find", Right.LOOK)
def find(asked: FindAgents) -> list[AgentInfo]:
    """The agents that can take such a task, the best first: free ones, then by success, then by load."""
    return fleet().registry.find_available_agents(
        asked.role, asked.skills, asked.match, wished=asked.wished, limit=asked.limit
    )


class AwaitChanges(Request):
    after: str | None = Field(None, description="The place of the last reply; none: begin, with all agents.")
    seconds: WaitSeconds = WAIT_SECONDS


class AgentChanges(Model):
    agents: list[AgentInfo]
    """Those of which something is new."""
    place: str
    """What comes after this is asked for with it."""


@operation("agent.changes", Right.LOOK)
def changes(asked: AwaitChanges) -> AgentChanges:
    """Wait until something is new of an agent: it came or left, has another state, task or other skills."""
    registry = fleet().registry
    if asked.after is None:
        place = registry.place()
        return AgentChanges(agents=registry.agents(), place=place)
    agents, place = registry.changed_since(asked.after, asked.seconds)
    return AgentChanges(agents=agents, place=place)


@operation("agent.skills", Right.LOOK)
def skills(asked: Nothing) -> list[str]:
    """Every skill that an agent has, online or not."""
    return fleet().registry.skills()


class Look(OfAgent):
    mark: str = Field("", description="The mark of the screen that is known: wait for another one.")
    seconds: WaitSeconds = WAIT_SECONDS


@operation("agent.screen", Right.WATCH, about=_of_agent)
def screen(asked: Look) -> ScreenView | None:
    """What an agent's terminal shows, once it is not what it showed before; nothing if it stays the same."""
    return next_screen(asked.agent_id, asked.mark, asked.seconds)


class LookAbove(OfAgent):
    lines: int = Field(200, ge=1, le=2000, description="How many rows at most.")
    skipped: int = Field(0, ge=0, le=1_000_000, description="Leave out so many rows right above the screen.")


@operation("agent.scrollback", Right.WATCH, about=_of_agent)
def scrollback(asked: LookAbove) -> DrawnScreen:
    """What has left an agent's terminal at its top: rows as runs of text with colours, the oldest first."""
    return screens.scrollback(asked.agent_id, asked.lines, asked.skipped)


@operation("agent.explain", Right.WATCH, about=_of_agent)
def explain(asked: OfAgent) -> list[StateEvidence]:
    """What an agent's program is doing, and which source says so, the decisive one first."""
    return screens.explain(asked.agent_id)


@operation("agent.take_over", Right.TYPE, access=Access.WRITE, about=_of_agent, idempotent=True)
def take_over(asked: OfAgent) -> None:
    """Take an agent's terminal over: Torch leaves it alone until it is given back, or its person has left."""
    screens.at_terminal(asked.agent_id, "take")


@operation("agent.give_back", Right.TYPE, access=Access.WRITE, about=_of_agent, idempotent=True)
def give_back(asked: OfAgent) -> None:
    """Give an agent's terminal back to Torch."""
    screens.at_terminal(asked.agent_id, "give back")


@operation("agent.taken_over", Right.TYPE, about=_of_agent)
def taken_over(asked: OfAgent) -> str | None:
    """Who has taken an agent's terminal over; to the one who has, it stays for another while."""
    return screens.at_terminal(asked.agent_id, "stay")


class TypeInto(OfAgent):
    text: str = Field("", max_length=2000, pattern=r"^[^\x00-\x1f\x7f-\x9f]*$", description="Characters, typed first.")
    keys: tuple[Key, ...] = Field((), max_length=100, description="Keys, pressed after the text.")


@operation("agent.type", Right.TYPE, access=Access.WRITE, about=_of_agent)
def type_into(asked: TypeInto) -> None:
    """Type into an agent's terminal that was taken over."""
    screens.at_terminal(asked.agent_id, "type", asked.text, asked.keys)


class PasteInto(OfAgent):
    text: str = Field(min_length=1, max_length=100_000, description="The text, without control characters.")


@operation("agent.paste", Right.TYPE, access=Access.WRITE, about=_of_agent)
def paste_into(asked: PasteInto) -> None:
    """Give the program in an agent's terminal that was taken over a text as one paste."""
    screens.at_terminal(asked.agent_id, "paste", asked.text)


@operation("agent.resources", Right.LOOK, about=_of_agent)
def resources(asked: OfAgent) -> Resources | None:
    """How much of its machine an agent's terminal uses; nothing if its worker does not answer."""
    return holds.resources_of(fleet().registry.get_agent(asked.agent_id))


class Trees(Request):
    agents: tuple[str, ...] = Field((), description="Only the trees of these agents.")


@operation("agent.trees", Right.LOOK)
def trees(asked: Trees) -> list[GitReport]:
    """What the nodes found when they last looked at the git trees of their agents."""
    return [one for one in GitReports(fleet().client).all() if not asked.agents or one.agent in asked.agents]


class Spawn(SpawnWish, Request):
    """An agent, and where it is started."""


@operation("agent.spawn", Right.SPAWN, access=Access.WRITE, about=lambda asked: Subject(party=asked.parent))
def spawn(asked: Spawn) -> SpawnTicket:
    """Start an agent where there is room; returns at once."""
    fields = {name: getattr(asked, name) for name in SpawnWish.model_fields}
    return staffing.spawn(SpawnRequest.build(**fields | {"parent": asked.parent or caller().agent}))


class AwaitSpawn(Request):
    id: TaskId = Field(description="The id of the request.")
    seconds: WaitSeconds = WAIT_SECONDS


@operation("agent.spawned", Right.LOOK)
def spawned(asked: AwaitSpawn) -> SpawnOutcome | None:
    """Wait until an agent that was asked for is ready or has failed; nothing if neither is so yet."""
    return staffing.outcome_of_spawn(asked.id, asked.seconds)


class Retire(OfAgent):
    leave: RetireMode = Field(
        RetireMode.FINISH, description="What becomes of its task: it finishes it, hands it over, or is interrupted now."
    )
    note: str = Field("", description="Why, and what a successor should know.")


@operation("agent.retire", Right.RETIRE, access=Access.WRITE, about=_of_agent)
def retire(asked: Retire) -> None:
    """End an agent: it takes no new tasks, then its pane is closed and the fleet forgets it; returns at once."""
    staffing.retire(asked.agent_id, asked.leave, asked.note)


class AwaitRetirement(OfAgent):
    seconds: WaitSeconds = WAIT_SECONDS


@operation("agent.retired", Right.LOOK, about=_of_agent)
def retired(asked: AwaitRetirement) -> RetirementReport | None:
    """Wait until an agent that was ordered to end has ended; nothing if it has not yet."""
    return staffing.await_retirement(asked.agent_id, asked.seconds)


@operation("agent.forget", Right.RETIRE, access=Access.WRITE, about=_of_agent)
def forget(asked: OfAgent) -> RetirementReport:
    """Remove an agent that does not come back, as with its machine; its tasks go to others."""
    return gone.forget(asked.agent_id)


@operation("agent.release", Right.RETIRE, access=Access.WRITE, about=_of_agent)
def release(asked: OfAgent) -> None:
    """Have an agent started again that is in quarantine, or that is declared but was retired."""
    staffing.release(asked.agent_id)


class HoldScope(Request):
    """One agent, all of a role, or all."""

    agent: str | None = Field(None, description="This agent alone.")
    role: str | None = Field(None, description="All agents of this role, also those started later.")
    everybody: bool = Field(False, description="All agents, also those started later.")
    reason: str = Field("", description="The reason, shown wherever a task or a message waits.")


class Pause(HoldScope):
    interrupt: bool = Field(False, description="Interrupt their tasks and put them back into their queues.")


def _held(asked: HoldScope) -> Subject:
    return Subject(agent=asked.agent)


@operation("agent.pause", Right.HOLD, access=Access.WRITE, about=_held)
def pause(asked: Pause) -> HoldReport:
    """Keep an agent, a role or all agents from taking new tasks; messages but emergencies wait."""
    return holds.pause(
        asked.agent, role=asked.role, everybody=asked.everybody, reason=asked.reason, interrupt=asked.interrupt
    )


@operation("agent.resume", Right.HOLD, access=Access.WRITE, about=_held)
def resume(asked: HoldScope) -> HoldReport:
    """Lift a pause of exactly this scope."""
    return holds.resume(asked.agent, role=asked.role, everybody=asked.everybody, reason=asked.reason)
