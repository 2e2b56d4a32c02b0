"""One prompt's turn as the events since its submission report it, and how the task ended by them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime

from pydantic import TypeAdapter

from torch_tasks.model.agent import AgentState
from torch_tasks.model.task import Evidence, Failure, FailureKind
from torch_tasks.model.usage import Usage
from torch_tasks.system.files import write_private
from torch_tasks.workers.folders import AttemptFolder
from torch_tasks.workers.programs.events import EventKind, ProgramEvent
from torch_tasks.workers.programs.kind import ProgramEnding, StateReading
from torch_tasks.workers.programs.prompt import belongs_to
from torch_tasks.workers.programs.submission import Submission, SubmissionPhase

_REPORTS = frozenset({EventKind.DONE, EventKind.FAIL, EventKind.PROGRESS})


@dataclass(frozen=True)
class Turn:
    """What events report of one prompt's turn."""

    accepted: ProgramEvent | None = None
    over: ProgramEvent | None = None
    """STOPPED, FAILED, INTERRUPTED or ENDED."""
    report: ProgramEvent | None = None
    """DONE or FAIL, from the agent itself."""
    asking: ProgramEvent | None = None
    """The open question."""
    compacting: bool = False
    last: ProgramEvent | None = None
    notes: tuple[str, ...] = ()
    """The agent's own reports of progress."""
    usage: Usage | None = None

    @property
    def reading(self) -> StateReading | None:
        """The state that the events report; None if they report none."""
        if self.last is None:
            return None
        source, rule = _source(self.last)
        if self.over is not None:
            state, until = _after(self.over)
            return StateReading(state, source, rule, until=until)
        if self.asking is not None:
            return StateReading(AgentState.WAITING, source, rule, self.asking.question)
        if self.compacting:
            return StateReading(AgentState.COMPACTING, source, rule)
        return StateReading(AgentState.WORKING, source, rule) if self.accepted else None


def read_turn(events: Iterable[ProgramEvent], tag: str, accepted: ProgramEvent | None = None) -> Turn:
    """The turn of the prompt with this tag, by the events since it was submitted.

    Another prompt's turn may end before this one is accepted; prompts that the agent takes afterwards belong to it.
    ``accepted`` is where the turn begins if no event reports that.
    """
    turn = Turn(accepted=accepted, last=accepted)
    for event in events:
        if accepted is None or event.at >= accepted.at:
            turn = _with(turn, event, tag)
    return turn


def _with(turn: Turn, event: ProgramEvent, tag: str) -> Turn:
    if event.kind in _REPORTS:
        if event.task not in ("", tag.removeprefix("task ")):
            return turn
        is_note = event.kind is EventKind.PROGRESS
        return replace(turn, notes=(*turn.notes, event.text)) if is_note else replace(turn, report=event)
    if turn.accepted is None:
        begins = event.kind is EventKind.ACCEPTED and belongs_to(event.text, tag)
        return replace(turn, accepted=event, last=event) if begins else turn
    return _continued(replace(turn, last=event), event)


def _continued(turn: Turn, event: ProgramEvent) -> Turn:
    match event.kind:
        case EventKind.STOPPED | EventKind.INTERRUPTED | EventKind.ENDED | EventKind.FAILED:
            return turn if turn.over else replace(turn, over=event, asking=None, compacting=False)
        case EventKind.QUESTION:
            return replace(turn, asking=event)
        case EventKind.COMPACTING:
            return replace(turn, compacting=True)
        case EventKind.COMPACTED:
            return replace(turn, compacting=False)
        case EventKind.USAGE if event.usage:
            return replace(turn, usage=Usage.total(filter(None, (turn.usage, event.usage))))
        case EventKind.ACCEPTED | EventKind.WORKING:
            # After a limit or an interruption the program may go on with the same task.
            return replace(turn, asking=None, over=_unless_resumed(turn.over))
        case EventKind.RESOLVED:
            return replace(turn, asking=None)
    return turn


def _unless_resumed(over: ProgramEvent | None) -> ProgramEvent | None:
    if over and (over.kind is EventKind.INTERRUPTED or (over.kind is EventKind.FAILED and over.error == "limit")):
        return None
    return over


def _after(over: ProgramEvent) -> tuple[AgentState, datetime | None]:
    if over.kind is EventKind.FAILED:
        states = {"limit": AgentState.LIMITED, "login": AgentState.LOGIN}
        return states.get(over.error or "", AgentState.ERROR), over.until
    return (AgentState.EXITED if over.kind is EventKind.ENDED else AgentState.READY), None


def _source(event: ProgramEvent) -> tuple[str, str]:
    kind, _, name = event.origin.partition(" ")
    return ("hooks", name) if kind == "hook" else (event.origin or "events", str(event.kind))


_ENDING_FILE = "ending.json"
_ENDING = TypeAdapter(ProgramEnding)


def store_ending(run: AttemptFolder, ending: ProgramEnding, answer: str) -> ProgramEnding:
    """Put the answer and then the ending on the disk."""
    write_private(run.output, answer)
    write_private(run.folder / _ENDING_FILE, _ENDING.dump_json(ending, indent=1, exclude={"exit_code"}).decode() + "\n")
    return ending


def stored_ending(run: AttemptFolder) -> ProgramEnding | None:
    """The stored ending; None if there is none."""
    try:
        return _ENDING.validate_json((run.folder / _ENDING_FILE).read_bytes())
    except FileNotFoundError:
        return None


def put_ending_aside(run: AttemptFolder, number: int) -> None:
    """Keep the stored ending as that of one round only: the agent goes on with the task."""
    file = run.folder / _ENDING_FILE
    if file.exists():
        file.rename(run.folder / f"ending.{number}.json")


def submission_failure(submission: Submission) -> ProgramEnding:
    """The ending of a task that the program refused or may not have."""
    detail = submission.steps[-1].evidence
    evidence = Evidence(kind="submission", detail=detail, passed=False)
    if submission.phase is SubmissionPhase.REFUSED:
        message = f"the agent's program did not take the prompt: {detail}"
        return failed_ending(FailureKind.AGENT_UNAVAILABLE, message, evidence)
    message = f"cannot tell whether the agent got the prompt: {detail}"
    return failed_ending(FailureKind.INDETERMINATE, message, evidence)


def ending_of(turn: Turn) -> tuple[ProgramEnding, str] | None:
    """The ending and the answer, if the events report an end of the task."""
    over = turn.over
    if over is None:
        return None
    if turn.report:
        return reported_ending(turn)
    if over.kind is EventKind.STOPPED:
        evidence = Evidence(kind="stop_event", detail=f"{over.origin}: the turn is over", passed=True)
        return ProgramEnding(evidence), over.text
    if over.kind is EventKind.FAILED:
        ending = _error(over)
        return (ending, over.text) if ending else None
    if over.kind is EventKind.INTERRUPTED:
        message = "its turn was interrupted in its pane"
        return failed_ending(FailureKind.AGENT_FAILED, message, _evidence(over)), over.text
    return None


def reported_ending(turn: Turn) -> tuple[ProgramEnding, str]:
    """The ending that the agent itself reported; its report, or else its last text, is the answer."""
    report = turn.report
    assert report
    answer = report.text or (turn.over.text if turn.over else "")
    if report.kind is EventKind.DONE:
        detail = report.text or "the agent reported that it is done"
        return ProgramEnding(Evidence(kind="done", detail=detail, passed=True)), answer
    reason = report.text or "it gave no reason"
    evidence = Evidence(kind="fail", detail=reason, passed=False)
    return failed_ending(FailureKind.AGENT_FAILED, f"the agent gave up: {reason}", evidence), answer


def failed_ending(kind: FailureKind, message: str, evidence: Evidence) -> ProgramEnding:
    return ProgramEnding(evidence, Failure(kind=kind, message=message))


def _error(over: ProgramEvent) -> ProgramEnding | None:
    """The ending by an error; None for a limit or a missing login, after which the task goes on."""
    reason = " ".join(over.text.split()) or "no reason given"
    if over.error == "overloaded":
        return failed_ending(FailureKind.OVERLOADED, f"the model's provider is overloaded: {reason}", _evidence(over))
    if over.error in ("limit", "login"):
        return None
    return failed_ending(FailureKind.AGENT_FAILED, f"the agent's program reported an error: {reason}", _evidence(over))


def _evidence(over: ProgramEvent) -> Evidence:
    return Evidence(kind="stop_event", detail=f"{over.origin}: {over.text or over.kind}", passed=False)
