"""Prompts and answers through the server of a Codex, and what its turns report.

A prompt's id is on the disk before the server gets it. The server takes an id as often as it comes, so a prompt is
given again only if the server is at rest and its conversation does not have it.
"""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from torch_tasks.model.agent import AgentState
from torch_tasks.model.fields import now
from torch_tasks.model.task import Question
from torch_tasks.system.files import set_mark, write_private
from torch_tasks.workers.folders import AttemptFolder, PromptFolder
from torch_tasks.workers.programs.codex.server import CodexServer, DoorShut, Message, RequestRefused, ServerTurn
from torch_tasks.workers.programs.events import ErrorKind, EventKind, EventLog, ProgramEvent
from torch_tasks.workers.programs.reset_time import reset_time
from torch_tasks.workers.programs.submission import Submission, SubmissionPhase

log = logging.getLogger(__name__)

ORIGIN = "app server"
AGAIN_SECONDS = 3.0
"""After so long, a server that is at rest and does not have a prompt never got it."""
LOST_SECONDS = 10.0
"""How long a prompt may be unknown at a server that does not answer."""


# ── prompts ──────────────────────────────────────────────────────────────────────────────────────────────────────────


class Delivery:
    """One prompt's way through the server."""

    def __init__(self, server: CodexServer, folder: PromptFolder, submission: Submission) -> None:
        self._server = server
        self._folder = folder
        self._file = folder.folder / f"message.{submission.round}"
        self._refused = self._file.with_name(f"refused.{submission.round}")

    @property
    def may_begin(self) -> bool:
        """Whether the server has not refused this prompt before."""
        return not self._refused.exists()

    @property
    def has_begun(self) -> bool:
        """Whether the server may have got the prompt, so that it must not be typed."""
        return self._file.exists()

    def advance(self, submission: Submission) -> Submission:
        """Take the prompt one step further, or raise :class:`DoorShut`; never waits."""
        conversation = self._server.conversation()
        if submission.phase is SubmissionPhase.INTENDED:
            if not self._takes(conversation):
                return submission
            write_private(self._file, f"torch-{uuid.uuid4()}")
            evidence = f"as message {self._file.read_text()} for conversation {conversation}"
            submission = submission.advance_to(self._folder, SubmissionPhase.STAGED, evidence)
        message = self._file.read_text()
        if submission.phase is SubmissionPhase.STAGED:
            return self._give(conversation, message, submission, "given to its server")
        if self._server.has(conversation, message):
            evidence = f"its conversation has the message {message}"
            return submission.advance_to(self._folder, SubmissionPhase.ACCEPTED, evidence, confirmed=True)
        is_due = submission.seconds_in_phase >= AGAIN_SECONDS
        if is_due and self._server.state(conversation) is AgentState.READY:
            return self._give(conversation, message, submission, "given to its server again, which never got it")
        return submission

    def _takes(self, conversation: str) -> bool:
        """A task begins when nothing goes on; a message may join the turn that does."""
        state = self._server.state(conversation)
        joins = state is AgentState.WORKING and not isinstance(self._folder, AttemptFolder)
        return joins or state is AgentState.READY

    def _give(self, conversation: str, message: str, submission: Submission, evidence: str) -> Submission:
        submission = submission.advance_to(self._folder, SubmissionPhase.SUBMITTED, evidence, entered_at=now())
        set_mark(self._folder.begun)
        try:
            self._server.say(conversation, message, submission.text(self._folder))
        except RequestRefused as refused:
            log.warning("%s: typed instead, as Codex's server does not take it: %s", submission.tag, refused)
            self._file.rename(self._refused)
            return submission.advance_to(self._folder, SubmissionPhase.INTENDED, str(refused))
        return submission

    def without_server(self, submission: Submission, accepted: ProgramEvent | None) -> Submission:
        """What is known of a prompt that the server may have got before it stopped answering."""
        if accepted:
            evidence = f"{accepted.origin}: it has the prompt"
            return submission.advance_to(self._folder, SubmissionPhase.ACCEPTED, evidence, confirmed=True)
        if submission.phase is not SubmissionPhase.SUBMITTED or submission.seconds_in_phase < LOST_SECONDS:
            return submission
        evidence = "its server, which may have the text, does not answer; look at its pane before trying again"
        return submission.advance_to(self._folder, SubmissionPhase.INDETERMINATE, evidence)


# ── questions ────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Approval:
    """A permission that the server asks for, and what may be answered, in the order of the question's choices."""

    request: Message
    question: Question
    decisions: tuple[Any, ...]


_NAMES = {
    "accept": "Yes, proceed",
    "acceptForSession": "Yes, and don't ask again in this session",
    "decline": "No, and go on without it",
    "cancel": "No, and tell Codex what to do differently",
}
_FOR_THIS_ONCE = ("accept", "decline", "cancel")
_FOR_EDITS = ("accept", "acceptForSession", "cancel")


def open_approval(requests: Iterable[Message]) -> Approval | None:
    """The first permission that is asked for in a form that Torch knows."""
    for request in requests:
        with suppress(LookupError, TypeError, AttributeError):
            given = request["params"]
            match request["method"]:
                case "item/commandExecution/requestApproval" if given.get("command"):
                    return _approval(request, f"Bash({_plain(given)})", given.get("availableDecisions") or ())
                case "item/fileChange/requestApproval":
                    return _approval(request, "apply_patch", _FOR_EDITS)
    return None


def _approval(request: Message, subject: str, decisions: Sequence[Any]) -> Approval:
    named = [(name, decision) for decision in decisions if (name := _name(decision))]
    why = request["params"].get("reason")
    text = f"It asks for the permission to use {subject}" + (f": {why}" if why else "")
    lasting = tuple(number for number, (_, decision) in enumerate(named, 1) if decision not in _FOR_THIS_ONCE)
    question = Question(text=text, subject=subject, choices=tuple(name for name, _ in named), lasting=lasting)
    return Approval(request, question, tuple(decision for _, decision in named))


def _plain(given: Mapping[str, Any]) -> str:
    """The command as the model wrote it, without the shell that runs it."""
    actions = given.get("commandActions") or []
    return str(actions[0]["command"] if len(actions) == 1 else given["command"])


def _name(decision: Any) -> str:
    """What the program's own dialog calls the decision; empty if it is an unknown one."""
    if isinstance(decision, str):
        return _NAMES.get(decision, "")
    words = decision.get("acceptWithExecpolicyAmendment", {}).get("execpolicy_amendment")
    return f"Yes, and don't ask again for commands that start with `{' '.join(words)}`" if words else ""


# ── events ───────────────────────────────────────────────────────────────────────────────────────────────────────────

#: The ends of turns, of which the hooks report not all, and not always before the next turn begins.
_BY_SERVER = frozenset({EventKind.STOPPED, EventKind.FAILED, EventKind.INTERRUPTED})


class DoorLog(EventLog):
    """The events that the program reports in other ways, and how the server lists its turns while it answers."""

    def __init__(self, server: CodexServer, beside: EventLog) -> None:
        self._server = server
        self._beside = beside

    def mark(self) -> str:
        place = {"beside": self._beside.mark(), "conversation": "", "turn": ""}
        with suppress(DoorShut):
            place["conversation"] = self._server.conversation()
            place["turn"] = self._server.last_turn(place["conversation"])
        return json.dumps(place)

    def since(self, mark: str) -> list[ProgramEvent]:
        if not mark:
            return self._beside.since("")
        place = json.loads(mark)
        events = self._beside.since(place["beside"])
        if not place["conversation"]:
            return events
        try:
            listed = turn_events(self._server.turns_since(place["conversation"], place["turn"]))
        except DoorShut:
            return events
        others = [event for event in events if event.kind not in _BY_SERVER]
        return sorted([*others, *listed], key=lambda event: event.at)


def turn_events(turns: Sequence[ServerTurn]) -> list[ProgramEvent]:
    """What the turns report, the oldest first."""
    begins = [_begin(turn) for turn in turns]
    events: list[ProgramEvent] = []
    for turn, begun, following in zip(turns, begins, [*begins, None][1:], strict=True):
        if begun:
            events.append(ProgramEvent(EventKind.ACCEPTED, text=_words(turn["items"][0]), at=begun, origin=ORIGIN))
            if end := _end(turn, begun, following):
                events.append(end)
    return events


def _begin(turn: ServerTurn) -> datetime | None:
    """When the turn's prompt came; None if it has none, as one that compacts the conversation."""
    first = next(iter(turn["items"]), None)
    return _moment(first["startedAtMs"]) if first and first["type"] == "userMessage" else None


def _end(turn: ServerTurn, begun: datetime, following: datetime | None) -> ProgramEvent | None:
    at = _ended_at(turn, begun, following)
    texts = [item["text"] for item in turn["items"] if item["type"] == "agentMessage"]
    text = texts[-1] if texts else ""
    match turn["status"]:
        case "completed":
            return ProgramEvent(EventKind.STOPPED, text=text, at=at, origin=ORIGIN)
        # Until an end is in its log, a turn at rest is listed as interrupted, too, whether it begins or has failed.
        case "interrupted" if turn.get("completedAt"):
            return ProgramEvent(EventKind.INTERRUPTED, text=text, at=at, origin=ORIGIN)
        case "failed":
            return failed(turn["error"]["message"], json.dumps(turn["error"].get("codexErrorInfo")), at, ORIGIN)
    return None


def _ended_at(turn: ServerTurn, begun: datetime, following: datetime | None) -> datetime:
    """When it ended, which is listed in whole seconds: in any case after what it brought and before the next one."""
    last = max(item.get("completedAtMs") or 0 for item in turn["items"])
    lasted = begun.timestamp() * 1000 + (turn.get("durationMs") or 0)
    end = _moment(max(last, lasted, (turn.get("completedAt") or 0) * 1000))
    return min(end, following) if following else end


def _words(item: Mapping[str, Any]) -> str:
    return "".join(part["text"] for part in item["content"] if part["type"] == "text")


def _moment(milliseconds: float) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


_OVERLOADED = ("serveroverloaded", "internalservererror", "httpconnectionfailed", "responsestream")
_RENEWED = "network permission was revoked"
"""So it ends a turn in whose middle somebody logs in anew."""


def failed(message: str, info: str, at: datetime, origin: str) -> ProgramEvent:
    """The event of a turn that failed; ``info`` names the error as the server or the session log writes it."""
    kind: ErrorKind = "overloaded" if _RENEWED in message else _error_kind(info.replace("_", "").casefold())
    _, again, when = message.partition("try again at ")
    until = reset_time(when, now()) if kind == "limit" and again else None
    return ProgramEvent(EventKind.FAILED, text=message, error=kind, until=until, at=at, origin=origin)


def _error_kind(info: str) -> ErrorKind:
    if "usagelimitexceeded" in info or "429" in info:
        return "limit"
    if any(word in info for word in ("401", "403", "unauthorized")):
        return "login"
    return "overloaded" if any(word in info for word in _OVERLOADED) else "other"
