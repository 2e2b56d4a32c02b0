"""Watches a submitted task: what the program does, what it asks, when its turn is over."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from torch_tasks.models import AgentState, Evidence, FailureKind, Question, TaskSpec, now
from workers.agents.composer import Holds
from workers.agents.kind import Ending, Progress, Reading
from workers.agents.permissions import decide
from workers.agents.screen_answer import answer_on
from workers.agents.submission import Phase, Submission
from workers.agents.submitter import Sight
from workers.agents.turn import Turn
from workers.agents.verdict import failed, not_submitted, reported
from workers.runs import Run
from workers.tmux.pane import AgentPane

if TYPE_CHECKING:
    from workers.agents.coding import CodingAgent

#: Until the next look: while the prompt is on its way, while only the screen tells, and while the bell does.
_SUBMITTING, _BY_SCREEN, _BY_BELL = 0.02, 0.25, 2.0
#: An idle screen without a change for so long ends the turn of a program that was seen busy, or was not.
_IDLE_AFTER_BUSY, _IDLE_UNSEEN = 1.0, 3.0
#: How long a paste may look strange.
_TYPING = 2.0
#: How long an agent that reported its end may go on talking.
_TALKING_SECONDS = 20.0
_HISTORY = 3000
_AGAIN_SECONDS = 3.0
_TRIES = 3


@dataclass
class _Stillness:
    """What the pane of one run shows, and since when."""

    run: Run
    busy_seen: bool = False
    above: str = ""
    since: float = 0.0


class Watch:
    """One agent's running task, look by look. What it remembers between looks, the next worker finds out again."""

    def __init__(self, kind: CodingAgent) -> None:
        self._kind = kind
        self._still: _Stillness | None = None
        self._answered: tuple[Question, float, int] | None = None
        self.pause = _SUBMITTING

    def progress(self, pane: AgentPane, run: Run, spec: TaskSpec, submission: Submission) -> Progress:
        """How far the task is."""
        turn = self._kind.turn(submission)
        sight = self._kind.sight(pane)
        live = sight.reading if sight else Reading(AgentState.EXITED, "pane")
        reading = _reading(turn, live, submission)
        facts = []
        if submission.phase is Phase.INTENDED and sight and self._is_disturbed(submission, sight, run):
            reading = Reading(AgentState.WAITING, "screen", "somebody is typing")
        if sight and reading.question and (fact := self._by_policy(pane, reading.question, spec, sight)):
            facts.append(fact)
        if self._is_answered(reading.question):
            reading = Reading(AgentState.WORKING, "policy", "answered")
        submission, untold = submission.tell(run, turn.notes)
        ending = self._ending(pane, run, submission, turn, sight)
        self.pause = self._pause(submission, turn)
        if reading.question and not reading.question.choices:  # its dialog is not to be seen yet
            self.pause = _BY_SCREEN
        return Progress(reading, ending, (*untold, *facts))

    def _is_disturbed(self, submission: Submission, sight: Sight, run: Run) -> bool:
        """Somebody typed into the composer just when our text came; it is theirs now."""
        holds = sight.composer.holds(submission.text(run), self._kind.config.composer.placeholder)
        return holds is Holds.FOREIGN and submission.since > _TYPING

    def _pause(self, submission: Submission, turn: Turn) -> float:
        if submission.phase is not Phase.ACCEPTED:
            return _SUBMITTING if submission.since < 5 else _BY_SCREEN
        return _BY_BELL if self._kind.tells and not turn.report else _BY_SCREEN

    # ── the end ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _ending(
        self, pane: AgentPane, run: Run, submission: Submission, turn: Turn, sight: Sight | None
    ) -> Ending | None:
        if kept := self._kind.ending(run):
            return kept
        if nowhere := not_submitted(submission):
            return self._kind.end(run, turn, nowhere, "")
        if sight is None or submission.phase is not Phase.ACCEPTED or turn.over:
            return None
        idle = self._idle(run, sight)
        if turn.report:
            talked = (now() - turn.report.at).total_seconds()
            return self._kind.end(run, turn, *reported(turn)) if idle >= 1 or talked > _TALKING_SECONDS else None
        if idle < self._patience():
            return None
        end = submission.placeholder or submission.text(run)[-40:]
        answer = self._answer_on_screen(pane, sight, end)
        return self._kind.end(run, turn, self._silent_ending(answer), answer)

    def _patience(self) -> float:
        assert self._still
        if self._kind.tells:  # its word for it may be late
            return self._kind.config.submit.trace_seconds
        return _IDLE_AFTER_BUSY if self._still.busy_seen else _IDLE_UNSEEN

    def _silent_ending(self, answer: str) -> Ending:
        assert self._still
        if self._kind.tells or not (answer or self._still.busy_seen):
            message = "its turn ended without an answer: interrupted in its pane, or a permission was denied"
            return failed(FailureKind.AGENT_FAILED, message, Evidence(kind="screen", detail=message, passed=False))
        return Ending(Evidence(kind="screen", detail="the program was busy and is idle again", passed=True))

    def _idle(self, run: Run, sight: Sight) -> float:
        """Seconds for which the program has been idle, and nothing above its composer has changed."""
        moment = time.monotonic()
        if self._still is None or self._still.run.folder != run.folder:
            self._still = _Stillness(run, since=moment)
        still = self._still
        if sight.reading.state is AgentState.WORKING:
            still.busy_seen = True
        if sight.reading.state is not AgentState.READY or sight.above != still.above:
            still.above, still.since = sight.above, moment
        return moment - still.since

    def _answer_on_screen(self, pane: AgentPane, sight: Sight, end: str) -> str:
        history = pane.screen(_HISTORY).split("\n")
        below = len(sight.screen.text.split("\n")) - sight.composer.top
        above = "\n".join(history[: len(history) - below] if below > 0 else history)
        return answer_on(above, end, self._kind.config.answer)

    # ── questions ────────────────────────────────────────────────────────────────────────────────────────────────

    def _by_policy(self, pane: AgentPane, question: Question, spec: TaskSpec, sight: Sight) -> str | None:
        """Answer what the policy answers, once its dialog is to be seen; returns what was done."""
        decision = decide(question, spec, self._kind.config.permissions)
        if decision is None or (sight.composer.seen and sight.drawn.state is not AgentState.WAITING):
            return None
        last, moment, times = self._answered or (None, 0.0, 0)
        if last == question:
            if time.monotonic() - moment < _AGAIN_SECONDS or times >= _TRIES:
                return None
        else:
            times = 0
        allowed, why = decision
        answers = self._kind.config.answers
        self._answered = (question, time.monotonic(), times + 1)
        pane.press(*(answers.allow if allowed else answers.deny))
        return f"{'allowed' if allowed else 'denied'} {question.subject} by {why}" if not times else None

    def _is_answered(self, question: Question | None) -> bool:
        return question is not None and self._answered is not None and self._answered[0] == question

    def answer(self, pane: AgentPane, question: Question, reply: str) -> bool:
        """Give a person's answer: the number of a choice, a choice's words, ``allow`` or ``deny``, or a text."""
        answers = self._kind.config.answers
        words = reply.strip().casefold()
        if words in ("allow", "deny"):
            pane.press(*(answers.allow if words == "allow" else answers.deny))
            return True
        choices = question.choices or self._choices_seen(pane)
        named = [number for number, choice in enumerate(choices, 1) if choice.casefold() == words]
        number = int(words) if words.isdecimal() else named[0] if named else 0
        if 0 < number <= len(choices):
            _type(pane, answers.choice, str(number), "")
            return True
        if answers.text and words and not words.isdecimal() and not question.subject:
            _type(pane, answers.text, str(len(choices)), reply)
            return True
        return False

    def _choices_seen(self, pane: AgentPane) -> tuple[str, ...]:
        """Hooks tell what is asked, and often not what can be answered."""
        sight = self._kind.sight(pane)
        return sight.drawn.question.choices if sight and sight.drawn.question else ()


def _reading(turn: Turn, live: Reading, submission: Submission) -> Reading:
    """What the agent does, from what was told and what is to be seen."""
    if submission.phase is not Phase.ACCEPTED:
        asks = live.state in (AgentState.WAITING, AgentState.LOGIN, AgentState.LIMITED)
        return live if asks else Reading(AgentState.WORKING, "submission", submission.phase)
    said = turn.reading
    if said is None or turn.over:
        return said or live
    if turn.asking:
        # Not every program tells that its question was answered.
        if live.state in (AgentState.WORKING, AgentState.COMPACTING, AgentState.READY):
            return Reading(AgentState.WORKING, live.source, live.rule)
        if said.question and live.question and not said.question.choices:
            # What was told may be less than what is to be seen; what permission is asked for, it tells best.
            seen = live.question.model_copy(update={"subject": ""})
            full = said.question.model_copy(update={"choices": live.question.choices})
            return replace(said, question=full if said.question.subject else seen)
        return said
    if live.state in (AgentState.WAITING, AgentState.LIMITED, AgentState.LOGIN, AgentState.COMPACTING):
        return live
    return said


def _type(pane: AgentPane, keys: tuple[str, ...], number: str, text: str) -> None:
    for key in keys:
        if key == "{text}":
            pane.paste(text)
        else:
            pane.press(key.replace("{n}", number))
