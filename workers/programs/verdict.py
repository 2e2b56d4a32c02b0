"""How a task ended, judged from its submission and from what the program told."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from torch_tasks.model.task import Evidence, Failure, FailureKind, Usage
from torch_tasks.system.files import write_private
from torch_tasks.workers.host.runs import Run
from torch_tasks.workers.programs.events import Event, EventKind
from torch_tasks.workers.programs.kind import Ending
from torch_tasks.workers.programs.submission import Phase, Submission
from torch_tasks.workers.programs.turn import Turn


class KeptEnding(BaseModel):
    """An ending as it lies in the run's folder."""

    model_config = ConfigDict(frozen=True)

    evidence: Evidence
    failure: Failure | None = None
    usage: Usage | None = None


def keep_ending(run: Run, ending: Ending, answer: str) -> Ending:
    """Put the answer and then the ending on the disk."""
    run.output.write_text(answer, encoding="utf-8", newline="")
    kept = KeptEnding(evidence=ending.evidence, failure=ending.failure, usage=ending.usage)
    write_private(_file(run), kept.model_dump_json(indent=1) + "\n")
    return ending


def kept_ending(run: Run) -> Ending | None:
    """The ending that was kept, if there is one."""
    try:
        kept = KeptEnding.model_validate_json(_file(run).read_bytes())
    except FileNotFoundError:
        return None
    return Ending(kept.evidence, kept.failure, usage=kept.usage)


def put_ending_aside(run: Run, number: int) -> None:
    """The agent goes on with the task: this was the end of one round of it only."""
    if _file(run).exists():
        _file(run).rename(run.folder / f"ending.{number}.json")


def _file(run: Run) -> Path:
    return run.folder / "ending.json"


def not_submitted(submission: Submission) -> Ending | None:
    """The ending of a task that the program does not have, or may not have."""
    said = submission.steps[-1].evidence
    if submission.phase is Phase.REFUSED:
        message = f"the agent's program did not take the prompt: {said}"
        return failed(FailureKind.AGENT_UNAVAILABLE, message, Evidence(kind="submission", detail=said, passed=False))
    if submission.phase is Phase.INDETERMINATE:
        message = f"cannot tell whether the agent got the prompt: {said}"
        return failed(FailureKind.INDETERMINATE, message, Evidence(kind="submission", detail=said, passed=False))
    return None


def told(turn: Turn) -> tuple[Ending, str] | None:
    """The ending and the answer, if what the program told amounts to one."""
    over = turn.over
    if over is None:
        return None
    if over.kind is EventKind.STOPPED:
        return reported(turn) if turn.report else (_stopped(over), over.text)
    if turn.report:
        return reported(turn)
    if over.kind is EventKind.FAILED:
        ending = _error(over)
        return (ending, over.text) if ending else None
    if over.kind is EventKind.INTERRUPTED:
        return failed(FailureKind.AGENT_FAILED, "its turn was interrupted in its pane", _evidence(over)), over.text
    return None


def reported(turn: Turn) -> tuple[Ending, str]:
    """The ending that the agent itself reported; its own words, or what it said last, are the answer."""
    report = turn.report
    assert report
    answer = report.text or (turn.over.text if turn.over else "")
    if report.kind is EventKind.DONE:
        detail = report.text or "the agent said that it is done"
        return Ending(Evidence(kind="done", detail=detail, passed=True)), answer
    reason = report.text or "it gave no reason"
    evidence = Evidence(kind="fail", detail=reason, passed=False)
    return failed(FailureKind.AGENT_FAILED, f"the agent gave up: {reason}", evidence), answer


def failed(kind: FailureKind, message: str, evidence: Evidence) -> Ending:
    """An ending that is no success."""
    return Ending(evidence, Failure(kind=kind, message=message))


def _stopped(over: Event) -> Ending:
    return Ending(Evidence(kind="stop_event", detail=f"{over.origin}: the turn is over", passed=True))


def _error(over: Event) -> Ending | None:
    """A limit is waited for, and a login is a person's to give: neither ends the task."""
    said = " ".join(over.text.split()) or "no reason given"
    if over.error == "overloaded":
        return failed(FailureKind.OVERLOADED, f"the model's provider is overloaded: {said}", _evidence(over))
    if over.error in ("limit", "login"):
        return None
    return failed(FailureKind.AGENT_FAILED, f"the agent's program told an error: {said}", _evidence(over))


def _evidence(over: Event) -> Evidence:
    return Evidence(kind="stop_event", detail=f"{over.origin}: {over.text or over.kind}", passed=False)
