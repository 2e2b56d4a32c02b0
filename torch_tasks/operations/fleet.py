"""The operations on the fleet as a whole."""

from __future__ import annotations

import math
from datetime import timedelta

from pydantic import AwareDatetime, Field

from torch_tasks.broker.memory import Memory, memory_of
from torch_tasks.fleet import fleet
from torch_tasks.model.budget import BudgetLine
from torch_tasks.model.fields import Model, now
from torch_tasks.model.hold import STOP, Hold
from torch_tasks.model.report import FleetReport, report_of
from torch_tasks.monitoring.feed import EventPage, feed
from torch_tasks.monitoring.flow import FlowEvent, FlowKind
from torch_tasks.monitoring.health import SystemHealth, system_health
from torch_tasks.monitoring.summary import FleetSummary, summarize
from torch_tasks.operations.operation import WAIT_SECONDS, Access, News, Nothing, Request, WaitSeconds, operation
from torch_tasks.orchestration import holds
from torch_tasks.orchestration.attention import Need, needs
from torch_tasks.orchestration.holds import HoldReport
from torch_tasks.orchestration.notifying import note_seen, seen
from torch_tasks.security.rights import EVERYBODY, Right, Subject
from torch_tasks.store.messages import role_named
from torch_tasks.store.rollups import KEPT_DAYS

_NIGHT_SECONDS = 12 * 3600.0


class StopOrder(Request):
    """The whole fleet, or one machine."""

    here: bool = Field(False, description="Only the machine that carries this out; needs no broker.")
    reason: str = Field("", description="The reason, shown wherever a task or a message waits.")


@operation("fleet.stop", Right.HOLD, access=Access.WRITE, needs_broker=False)
def stop(asked: StopOrder) -> HoldReport:
    """Stop all agents, with the broker or without: running tasks are interrupted and go back to their queues."""
    return holds.stop(asked.reason, here=asked.here)


@operation("fleet.start", Right.HOLD, access=Access.WRITE, needs_broker=False)
def start(asked: StopOrder) -> HoldReport:
    """Lift the stop of the same extent; the report says if this machine is stopped all the same."""
    return holds.start(asked.reason, here=asked.here)


class HeldScope(Model):
    """What takes no work, by whose order, and why."""

    scope: str
    """`stop`: the fleet; `all`: every agent; or `role NAME`, `agent NAME`."""
    role: str = ""
    agent: str = ""
    by: str
    reason: str = ""
    at: AwareDatetime
    interrupt: bool = False


@operation("fleet.holds", Right.LOOK)
def held(asked: Nothing) -> list[HeldScope]:
    """What is paused and stopped now, by whom, and why."""
    latest = fleet().holds.latest()
    stopped = latest.in_force(STOP)
    return [_held_scope(*one) for one in (*([(STOP, stopped)] if stopped else []), *latest.pauses())]


def _held_scope(scope: str, hold: Hold) -> HeldScope:
    kind, _, name = scope.partition(" ")
    about = {kind: name} if kind in ("role", "agent") else {}
    return HeldScope(scope=scope, by=hold.by.name, reason=hold.reason, at=hold.at, interrupt=hold.interrupt, **about)


@operation("fleet.health", Right.LOOK, needs_broker=False)
def health(asked: Nothing) -> SystemHealth:
    """The health of the system, with the reasons if it is degraded or down."""
    return system_health(fleet())


class Since(Request):
    seconds: float = Field(_NIGHT_SECONDS, gt=0, description="How far back, in seconds.")


@operation("fleet.summary", Right.LOOK)
def summary(asked: Since) -> FleetSummary:
    """What waits for a person, then what became of each task: result, check, changes, branch, time, tokens."""
    return summarize(fleet(), now() - timedelta(seconds=asked.seconds))


@operation("fleet.report", Right.LOOK)
def report(asked: Since) -> FleetReport:
    """How the fleet did, by whole days of UTC: uptime, tasks, delivery, recoveries, use and cost, capacity, trends."""
    until = now().date()
    days = min(math.ceil(asked.seconds / 86_400), KEPT_DAYS)
    since = until - timedelta(days=days - 1)
    return report_of(fleet().rollups.since(since - timedelta(days=days)), since, until)


@operation("fleet.needs", Right.LOOK)
def needs_now(asked: Nothing) -> list[Need]:
    """What waits for a person now: questions, logins, dead tasks, agents that do not stay alive."""
    known = seen(fleet())
    return [need.model_copy(update={"is_seen": True}) if need.id in known else need for need in needs(fleet())]


class SeenNeed(Request):
    need: str = Field(min_length=1, max_length=1000, description="The id of what waits for a person.")


@operation("fleet.seen", Right.ANSWER, access=Access.WRITE)
def see(asked: SeenNeed) -> None:
    """Note that a person has seen what waits: no further channel tells of it. It waits as before."""
    note_seen(fleet(), asked.need)


@operation("fleet.memory", Right.LOOK)
def memory(asked: Nothing) -> Memory:
    """How much of its memory the broker uses."""
    return memory_of(fleet().client)


class AwaitEvents(Request):
    after: str | None = Field(None, description="The place of the last reply; none: begin now, and return at once.")
    kinds: tuple[FlowKind, ...] = Field((), description="Only events about these.")
    agents: tuple[str, ...] = Field((), description="Only events from or about these agents.")
    role: str | None = Field(None, description="Only events about agents of this role.")
    seconds: WaitSeconds = WAIT_SECONDS

    @property
    def with_messages(self) -> bool:
        return not self.kinds or FlowKind.MESSAGES in self.kinds

    def wants(self, event: FlowEvent) -> bool:
        if event.kind is FlowKind.BROKER:
            return True
        return (
            (not self.kinds or event.kind in self.kinds)
            and (self.role is None or event.role == role_named(self.role))
            and (not self.agents or event.agent in self.agents or event.sender in self.agents)
        )


@operation(
    "fleet.events",
    Right.LOOK,
    also=lambda asked: Right.READ if asked.with_messages else None,
    about=lambda asked: Subject(party=EVERYBODY if asked.with_messages else None),
    needs_broker=False,
    news=News(
        concerns=lambda asked: asked.wants,
        came=lambda asked, page: asked.after is None or bool(page.events or page.missed),
    ),
)
def events(asked: AwaitEvents) -> EventPage:
    """Wait for the next events about messages, tasks and agents; reading them takes nothing from their receivers."""
    return feed().now() if asked.after is None else feed().after(asked.after, asked.seconds, asked.wants)


class OfAccount(Request):
    account: str | None = Field(None, description="Only this account.")


@operation("budget.list", Right.LOOK)
def budgets(asked: OfAccount) -> list[BudgetLine]:
    """How much of each account is used, its limits, and when each count starts over."""
    budgets = fleet().budgets
    return budgets.lines([asked.account] if asked.account else budgets.accounts())
