"""What a person is told when something was done that a form asked for, and where they go to see what becomes of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote, urlsplit

from torch_tasks.checkins.book import AcceptedCheckin
from torch_tasks.orchestration.holds import HoldReport
from torch_tasks.visible_text import one_line

_LONGEST = 300


def said_of(operation: str, asked: Any, reply: Any) -> str:
    """What came of it, in a sentence."""
    words = _WORDS.get(operation)
    return one_line(words(asked, reply), _LONGEST) if words else f"{operation}: done"


def place_of(operation: str, asked: Any, reply: Any, at: str) -> str | None:
    """The page that shows what becomes of it; None: the one that its person is at, whose address is ``at``."""
    if operation in _GONE:
        page, others = _GONE[operation]
        return others if urlsplit(at).path == page(asked) else None
    place = _PLACES.get(operation)
    return place(reply) if place else None


def _held(asked: Any, report: HoldReport) -> str:
    done = "goes on" if report.hold.lifted else "is held"
    silent = f"; no word yet from {', '.join(report.silent)}, which will heed it all the same" if report.silent else ""
    unreached = f"; the broker is away, so only this machine knows: {report.unreached}" if report.unreached else ""
    still = f"; this machine stays stopped {report.still}" if report.still else ""
    return f"{_SCOPES.get(report.scope, report.scope)} {done}{silent}{unreached}{still}"


def _warned(accepted: AcceptedCheckin) -> str:
    return f"; {'; '.join(accepted.warnings)}" if accepted.warnings else ""


_SCOPES = {"all": "every agent", "stop": "the fleet"}

_WORDS: Mapping[str, Callable[[Any, Any], str]] = {
    "task.enqueue": lambda asked, reply: f"task {reply.id} is accepted",
    "task.handoff": lambda asked, reply: f"task {asked.task_id} is handed over to {asked.to}",
    "task.answer": lambda asked, reply: str(reply),
    "task.replay": lambda asked, reply: f"task {reply.id} is queued again",
    "task.drop": lambda asked, reply: f"{asked.task_id} is deleted",
    "task.cancel": lambda asked, reply: f"task {asked.task_id}, which was {reply}, is being cancelled",
    "agent.spawn": lambda asked, reply: f"an agent of the role {asked.role} is being started",
    "agent.retire": lambda asked, reply: f"{asked.agent_id} is retiring",
    "agent.forget": lambda asked, reply: reply.words,
    "agent.release": lambda asked, reply: f"{asked.agent_id} is started again",
    "agent.take_over": lambda asked, reply: f"the terminal of {asked.agent_id} is yours until you give it back",
    "agent.give_back": lambda asked, reply: f"{asked.agent_id} has its terminal back",
    "agent.pause": _held,
    "agent.resume": _held,
    "fleet.stop": _held,
    "fleet.start": _held,
    "fleet.seen": lambda asked, reply: "you have seen it: nobody else is told; it waits as before",
    "node.drain": lambda asked, reply: (
        f"{asked.node} is drained"
        + (f"; at work are still {', '.join(agent for agent, _ in reply.working)}" if reply.working else "")
    ),
    "node.undrain": lambda asked, reply: f"{asked.node} is in use again",
    "message.send": lambda asked, reply: "the message is on its way",
    "checkin.add": lambda asked, reply: f"check-in {reply.checkin.id} is kept{_warned(reply)}",
    "checkin.change": lambda asked, reply: f"check-in {asked.checkin_id} is changed{_warned(reply)}",
    "checkin.resume": lambda asked, reply: f"check-in {asked.checkin_id} goes on",
    "checkin.run": lambda asked, reply: f"check-in {asked.checkin_id} fires now",
    "checkin.pause": lambda asked, reply: f"check-in {asked.checkin_id} is suspended",
    "checkin.remove": lambda asked, reply: f"check-in {asked.checkin_id} is removed",
}

_PLACES: Mapping[str, Callable[[Any], str]] = {
    "task.enqueue": lambda reply: f"/tasks/{quote(reply.id)}",
    "agent.spawn": lambda reply: f"/fleet?spawned={quote(reply.id)}",
}

_GONE: Mapping[str, tuple[Callable[[Any], str], str]] = {
    "agent.forget": (lambda asked: f"/agents/{quote(asked.agent_id)}", "/fleet"),
    "checkin.remove": (lambda asked: f"/time/{quote(asked.checkin_id)}", "/time"),
}
"""What leaves nothing of the page that was about it: that page, and the one with the others."""
