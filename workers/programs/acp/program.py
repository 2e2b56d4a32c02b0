"""Programs that speak the Agent Client Protocol: prompts, permissions and answers are messages, not keys.

A program of Torch's own, ``pane``, runs in the pane and has the agent's program as its child. It lives as long as
that one does, so that the next worker finds the session, and what happened in it, as a former worker left them.
"""

from __future__ import annotations

import sys
import uuid
from collections.abc import Mapping
from functools import cached_property
from typing import Any

from pydantic import TypeAdapter, ValidationError

from torch_tasks.model.agent import AgentState
from torch_tasks.model.fields import now
from torch_tasks.model.task import Question
from torch_tasks.system.files import set_mark, write_private
from torch_tasks.workers.folders import AttemptFolder, PromptFolder
from torch_tasks.workers.programs.acp.door import EVENT, Given, KeptSession, PaneAway, PaneDoor, PaneStart, PaneStatus
from torch_tasks.workers.programs.answering import Answered
from torch_tasks.workers.programs.coding import CodingAgent
from torch_tasks.workers.programs.events import ProgramEvent
from torch_tasks.workers.programs.kind import Hindrance, StateReading
from torch_tasks.workers.programs.questions import understand_answer
from torch_tasks.workers.programs.submission import Submission, SubmissionPhase
from torch_tasks.workers.tmux.pane import AgentPane

_PANE = "torch_tasks.workers.programs.acp.pane"
_EVENT = TypeAdapter(ProgramEvent)
_DONE = frozenset({SubmissionPhase.ACCEPTED, SubmissionPhase.REFUSED, SubmissionPhase.INDETERMINATE})


class Acp(CodingAgent):
    reports_turns = True

    def command(self) -> list[str]:
        # -P: nothing in the agent's folder can take the place of a module.
        return [sys.executable, "-P", "-m", _PANE, str(self.folder)]

    def prepare(self) -> None:
        if self.given_conversation is None:
            KeptSession.forget(self.folder)
        PaneStart(
            life=uuid.uuid4().hex,
            command=self.config.command,
            session=self.given_conversation,
            auth=self.config.acp.auth,
            mode=self.config.acp.mode,
            model=self.config.model,
        ).write(self.folder)

    @property
    def conversation(self) -> str | None:
        kept = KeptSession.read(self.folder)
        return kept.session if kept else None

    def is_kept(self, conversation: str) -> bool:
        kept = KeptSession.read(self.folder)
        return kept is not None and kept.is_kept and kept.session == conversation

    @cached_property
    def _door(self) -> PaneDoor:
        return PaneDoor(self.folder)

    @property
    def _status(self) -> PaneStatus | None:
        """What the program in the pane says; None if it does not answer."""
        try:
            return self._door.status()
        except PaneAway:
            return None

    def get_ready(self, pane: AgentPane) -> bool:
        status = self._status
        if status is None or status.state is not AgentState.READY:
            return False
        if not status.resumed:
            (self.own / "briefed").unlink(missing_ok=True)
        set_mark(self.own / "ready")
        return True

    def status(self, pane: AgentPane) -> StateReading | None:
        status = self._status
        return StateReading(status.state, "acp", status.rule, status.question) if status else None

    def translate(self, name: str, given: Mapping[str, Any]) -> ProgramEvent | None:
        if not name.startswith(EVENT):
            return None
        try:
            return _EVENT.validate_python(given)
        except ValidationError:
            return None

    # ── prompts ──────────────────────────────────────────────────────────────────────────────────────────────────

    def advance(self, pane: AgentPane, folder: PromptFolder, submission: Submission) -> Submission:
        if submission.phase in _DONE:
            return submission
        if accepted := self.turn(submission).accepted:
            evidence = "the agent's program works on the whole prompt"
            if accepted.text != submission.text(folder):
                evidence = f"its program has a changed prompt: {len(accepted.text)} characters"
            set_mark(folder.begun)
            return submission.advance_to(folder, SubmissionPhase.ACCEPTED, f"acp: {evidence}", confirmed=True)
        try:
            return self._deliver(folder, submission)
        except PaneAway:
            return submission  # the worker tries again; if the program has died, the pane shows that

    def _deliver(self, folder: PromptFolder, submission: Submission) -> Submission:
        """Give the program the prompt. Its number is on the disk before, so that it never becomes two prompts."""
        file = folder.folder / f"given.{submission.round}"
        if submission.phase is SubmissionPhase.INTENDED:
            status = self._door.status()
            if status.state is not AgentState.READY:
                return submission
            write_private(file, f"{status.life} {uuid.uuid4().hex}")
            submission = submission.advance_to(folder, SubmissionPhase.STAGED, "for the session that the pane shows")
        if submission.phase is SubmissionPhase.STAGED:
            submission = submission.advance_to(
                folder, SubmissionPhase.SUBMITTED, "given to the program in the pane", entered_at=now()
            )
            set_mark(folder.begun)
        life, number = file.read_text().split()
        if self._door.prompt(life, number, submission.text(folder)) is Given.GONE:
            evidence = "the program that was given the text has ended, and did not say that it works on it"
            return submission.advance_to(folder, SubmissionPhase.INDETERMINATE, evidence)
        return submission

    # ── what else the worker asks and does ───────────────────────────────────────────────────────────────────────

    def is_free(self, pane: AgentPane) -> bool:
        status = self._status
        return status is not None and status.state is AgentState.READY

    def hindrance(self, pane: AgentPane) -> Hindrance | None:
        status = self._status
        return Hindrance.DIALOG if status and status.question else None

    def restore(self, pane: AgentPane) -> bool:
        status = self._status
        return status is None or not status.is_changed

    def permit(self, pane: AgentPane, question: Question, *, allowed: bool) -> Answered:
        try:
            return self._door.permit(question, allowed=allowed)
        except PaneAway:
            return Answered.NOT_GIVEN

    def answer(self, pane: AgentPane, question: Question, reply: str) -> bool:
        words = reply.strip().casefold()
        if words in ("allow", "deny"):
            return self.permit(pane, question, allowed=words == "allow") is Answered.GIVEN
        chosen = understand_answer(reply, question, None)
        try:
            return chosen is not None and self._door.choose(question, chosen.numbers[0])
        except PaneAway:
            return False

    def interrupt(self, pane: AgentPane, *, force: bool) -> None:
        if not force:
            try:
                self._door.cancel()
            except PaneAway:
                force = True
        if force:
            super().interrupt(pane, force=True)

    def has_stopped(self, pane: AgentPane, run: AttemptFolder) -> bool:
        return self.is_free(pane)

    def discard_input(self, pane: AgentPane) -> None:
        """Nothing to do: Torch never types into the pane."""

    def clear_input(self, pane: AgentPane) -> None:
        """Nothing to do: what a person has typed keeps no prompt out."""
