"""What all coding agents have in common: prompts go into their composer, their events and screen are read."""

from __future__ import annotations

import contextlib
import json
import shlex
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from torch_tasks.model.agent import AgentState
from torch_tasks.model.task import Question, TaskSpec
from torch_tasks.model.usage import Usage
from torch_tasks.state_folder import EVENTS
from torch_tasks.system.files import set_mark, write_private
from torch_tasks.workers.folders import AttemptFolder, MessageFolder, PromptFolder
from torch_tasks.workers.programs.answering import Answered, Answerer, Dialogs, give, permit
from torch_tasks.workers.programs.conversation import conversation_words, new_conversation
from torch_tasks.workers.programs.events import (
    REPORT,
    EventKind,
    EventLog,
    HookFolder,
    JoinedLogs,
    ProgramEvent,
    conversation_of,
)
from torch_tasks.workers.programs.keeping import KeepingAgent
from torch_tasks.workers.programs.kind import Hindrance, ProgramEnding, Progress, StateReading
from torch_tasks.workers.programs.lasting import LastingChanges
from torch_tasks.workers.programs.pane_program import is_left_to_a_shell, kill_program
from torch_tasks.workers.programs.prompt import Prompt, briefing, compose_prompt, task_hints
from torch_tasks.workers.programs.questions import ChosenAnswer, merge_question
from torch_tasks.workers.programs.screen import Composer, ComposerContent, Screen, read_composer
from torch_tasks.workers.programs.screen_reading import ScreenReading, ScreenRules
from torch_tasks.workers.programs.submission import Submission, SubmissionPhase
from torch_tasks.workers.programs.submitter import Submitter
from torch_tasks.workers.programs.turn import (
    Turn,
    ending_of,
    read_turn,
    store_ending,
    stored_ending,
)
from torch_tasks.workers.programs.turn_watcher import TurnWatcher
from torch_tasks.workers.programs.unknown_menu import unless_menu
from torch_tasks.workers.tmux.pane import AgentPane, PaneLook

_OURS_ALONE = frozenset({ComposerContent.OURS, ComposerContent.PART})
#: What an interrupting key would do there is not known.
_NOT_TYPED_INTO = frozenset({AgentState.EXITED, AgentState.UNKNOWN})
_AT_REST = frozenset({AgentState.READY, AgentState.LIMITED, AgentState.LOGIN, AgentState.ERROR})


class CodingAgent(KeepingAgent):
    """A coding agent's program in its pane. Subclasses override the first part."""

    is_conversational = True

    # ── what each program does in its own way ────────────────────────────────────────────────────────────────────

    #: The program gets its briefing by a flag or a setting; else the briefing comes before its first prompt.
    briefed_by_flag = False

    def command(self) -> list[str]:
        """The command line that runs in the pane."""
        return [*self.config.command, *(["--model", self.config.model] if self.config.model else [])]

    def prepare(self) -> None:
        """Write the program's settings for this agent, below :attr:`folder`; called before each start."""

    def translate(self, name: str, given: Mapping[str, Any]) -> ProgramEvent | None:
        """What an event that a hook of the program reported means."""
        return None

    @property
    def own_log(self) -> EventLog | None:
        """The events that the program reports beside its hooks: its session log, its server."""
        return None

    def status(self, pane: AgentPane) -> StateReading | None:
        """What the program is doing now, from its best live source; None if only its screen shows it."""
        return None

    def disarm(self, words: str) -> Prompt:
        """The words with everything made safe that the program would run or replace itself."""
        return Prompt(words)

    def stage(self, pane: AgentPane, text: str, used_at: int) -> bool:
        """Put the text into the empty composer, unless a person typed since."""
        return pane.type_unless_used(used_at, text=text)

    def submit(self, pane: AgentPane, used_at: int) -> bool:
        """Have the program take the text in its composer, unless a person typed since."""
        return pane.type_unless_used(used_at, keys=self.config.submit.keys)

    def permit(self, pane: AgentPane, question: Question, *, allowed: bool) -> Answered:
        """Give this once, or refuse, the permission that the program asks for."""
        return permit(Answerer(pane, self._rules.menu), self.config.answers, allowed=allowed)

    def choose(self, pane: AgentPane, question: Question, reply: ChosenAnswer) -> Answered:
        """Give a person's answer to the question."""
        return give(Answerer(pane, self._rules.menu), self.config.answers, question, reply)

    def usage(self, run: AttemptFolder, turn: Turn) -> Usage | None:
        """What the task cost; called once, at its end."""
        return turn.usage

    # ── the start ────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def events(self) -> Path:
        """The folder into which the program's hooks and the agent's own commands report."""
        return self.folder / EVENTS

    @property
    def briefing_file(self) -> Path:
        """Where a program that reads its briefing from a file finds it."""
        return self.own / "briefing.md"

    @property
    def briefing(self) -> str:
        """The text that the agent gets before its first task."""
        return briefing(self.spec, tools=self.config.tools)

    def report_command(self, name: str) -> str:
        """The shell command by which a hook of the program reports the event of this name."""
        return shlex.join(["sh", str(REPORT), str(self.events), str(self.folder / "bell"), name])

    def launch(self, resumes: str | None = None) -> list[str]:
        self.events.mkdir(exist_ok=True)
        self.own.mkdir(exist_ok=True)
        for mark in ("ready", "current", *(() if resumes else ("briefed",))):
            (self.own / mark).unlink(missing_ok=True)
        self.config.require_program(self.spec)
        self.lasting.undo()
        self.given_conversation = resumes or self._new_conversation()
        self.prepare()
        return [*self.command(), *conversation_words(self, resumes=resumes is not None)]

    def _new_conversation(self) -> str | None:
        if self.config.conversation.resume:
            self.log.mark()  # the events of the last conversation must not name this one
        return new_conversation(self.config)

    @property
    def conversation(self) -> str | None:
        if not self.config.conversation.resume:
            return None
        return conversation_of(self.events) or self.given_conversation

    def is_kept(self, conversation: str) -> bool:
        return bool(self.config.conversation.resume)

    def get_ready(self, pane: AgentPane) -> bool:
        view = self.read_screen(pane)
        if view is None:
            return False
        if view.best.state is AgentState.READY and view.composer.is_empty:
            self.lasting.forget()  # what is chosen at the start is meant to last
            set_mark(self.own / "ready")
            return True
        self.answer_dialog(pane, view)
        return False

    def is_running(self, look: PaneLook) -> bool:
        return not self.has_started or not is_left_to_a_shell(look)

    # ── what it does ─────────────────────────────────────────────────────────────────────────────────────────────

    @cached_property
    def log(self) -> EventLog:
        """All events of the program, and the agent's own reports."""
        hooks = HookFolder(self.events, self.translate)
        return JoinedLogs(hooks, self.own_log) if self.own_log else hooks

    @cached_property
    def _rules(self) -> ScreenRules:
        return ScreenRules(self.config)

    @cached_property
    def _dialogs(self) -> Dialogs:
        return Dialogs(self.config.dialogs)

    @cached_property
    def lasting(self) -> LastingChanges:
        return LastingChanges(self.own, self.config, lambda: self.workdir, self.outside)

    @cached_property
    def _watcher(self) -> TurnWatcher:
        return TurnWatcher(self)

    def read_screen(self, pane: AgentPane) -> ScreenReading | None:
        """The pane as it is now, and what it shows; None if it is gone."""
        screen = Screen.of(pane)
        if screen is None:
            return None
        composer = self._composer_on(screen)
        return ScreenReading.of(screen, composer, self._rules.read(screen, composer), self.status(pane))

    def _composer_on(self, screen: Screen) -> Composer:
        composer = read_composer(screen, self.config.composer)
        content = composer.compare(self._pasted(), self.config.composer.placeholder) if composer.text else None
        return unless_menu(composer, screen) if content is ComposerContent.FOREIGN else composer

    def read(self, pane: AgentPane) -> StateReading:
        view = self.read_screen(pane)
        return view.best if view else StateReading(AgentState.EXITED, "pane")

    def is_free(self, pane: AgentPane) -> bool:
        view = self.read_screen(pane)
        if view is None or view.screen.in_use:
            return False
        return view.best.state is AgentState.READY and view.composer.is_empty

    def hindrance(self, pane: AgentPane) -> Hindrance | None:
        view = self.read_screen(pane)
        if view is None:
            return None
        if view.screen.in_use:
            return Hindrance.PERSON
        if view.composer.text:
            return Hindrance.OWN_TEXT if self._is_ours(view, self._pasted()) else Hindrance.PERSON
        if view.best.state is AgentState.WAITING or self._dialogs.find(view.screen, self._pasted()):
            return Hindrance.DIALOG
        if view.best.state is AgentState.WORKING:
            return Hindrance.OTHER_WORK
        is_known = view.composer.seen and view.best.state is not AgentState.UNKNOWN
        return None if is_known else Hindrance.UNKNOWN_SCREEN

    def has_draft(self, pane: AgentPane) -> bool:
        return self.hindrance(pane) is Hindrance.PERSON

    def restore(self, pane: AgentPane) -> bool:
        return self.lasting.restore(pane, lambda: self.read_screen(pane))

    def clear_input(self, pane: AgentPane) -> None:
        """Answer a known dialog that covers the input line, or empty it if it holds Torch's text and nothing else."""
        view = self.read_screen(pane)
        if view is None or view.screen.in_use:
            return
        if not view.composer.seen:
            self.answer_dialog(pane, view)
        elif view.composer.text:
            self.discard_input(pane)

    def answer_dialog(self, pane: AgentPane, view: ScreenReading) -> None:
        """Answer the dialog that covers the composer, if the TOML knows it."""
        self._dialogs.answer(pane, view.screen, self._pasted())

    def explain(self, pane: AgentPane) -> list[tuple[str, str]]:
        view = self.read_screen(pane)
        if view is None:
            return [("pane", "gone")]
        events = (("event", f"{event.at:%H:%M:%S} {event.kind} ({event.origin})") for event in self.log.since("")[-3:])
        return [*view.explain(self.status(pane)), *events]

    # ── a task ───────────────────────────────────────────────────────────────────────────────────────────────────

    def begin(self, pane: AgentPane, run: AttemptFolder, spec: TaskSpec, variables: Mapping[str, str]) -> None:
        run.prompt.write_bytes(spec.prompt.encode())
        extras = [f"folder: {spec.workdir}"] if spec.workdir else []
        if spec.context:
            run.context.write_text(json.dumps(spec.context, indent=2))
            extras.append(f"context: {run.context}")
        prompt = compose_prompt(
            spec.prompt,
            run.tag,
            self.config.prompt,
            file=run.prompt,
            before=self._introduction,
            extras=extras,
            hints=task_hints(run.task_id),
            disarm=self.disarm,
        )
        self.note_typed(run)
        submission = Submission.create(run, prompt.text, self.log.mark(), "; ".join(prompt.notes))
        self.step(pane, run, submission)

    @property
    def _introduction(self) -> str:
        """The text before the first prompt of a new program."""
        return "" if self.briefed_by_flag or (self.own / "briefed").exists() else self.briefing

    def progress(self, pane: AgentPane, run: AttemptFolder, spec: TaskSpec) -> Progress:
        submission = Submission.load(run)
        assert submission, f"{run.folder} holds no submission"
        submission = self.step(pane, run, submission)
        progress = self._watcher.progress(pane, run, spec, submission)
        self.lasting.note(pane, progress.reading.question)
        return progress

    def step(self, pane: AgentPane, folder: PromptFolder, submission: Submission) -> Submission:
        submission = self.advance(pane, folder, submission)
        if submission.phase is SubmissionPhase.ACCEPTED:
            set_mark(self.own / "briefed")
        return submission

    def advance(self, pane: AgentPane, folder: PromptFolder, submission: Submission) -> Submission:
        return Submitter(self, pane, folder).advance(submission, self.turn(submission))

    def turn(self, submission: Submission) -> Turn:
        """What events report since the prompt was submitted."""
        return read_turn(self.log.since(submission.mark), submission.tag, submission.assumed_acceptance)

    # ── a message ────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def listens_while_working(self) -> bool:
        return self.config.submit.while_working

    def hand_message(self, pane: AgentPane, letter: MessageFolder, beside: AttemptFolder | None) -> Submission:
        submission = Submission.load(letter) or self._begin_message(letter, beside)
        submission = self.step(pane, letter, submission)
        if beside and submission.phase is SubmissionPhase.ACCEPTED:
            self.note_typed(beside)
        return submission

    def note_typed(self, folder: PromptFolder) -> None:
        """Note whose text is typed, so that it can be recognised in the composer."""
        write_private(self.own / "current", f"{folder.folder}\n")

    def _begin_message(self, letter: MessageFolder, beside: AttemptFolder | None) -> Submission:
        letter.prompt.write_bytes(letter.message.message.encode())
        config = self.config.prompt.model_copy(update={"guard": "A message, word for word:"})
        prompt = compose_prompt(
            letter.message.message,
            letter.tag,
            config,
            file=letter.prompt,
            before=self._introduction,
            hints=letter.hints,
            disarm=self.disarm,
        )
        self.note_typed(letter)
        # A new mark would hide the events of the task.
        task = Submission.load(beside) if beside else None
        mark = task.mark if task else self.log.mark()
        return Submission.create(letter, prompt.text, mark, "; ".join(prompt.notes))

    def message_question(self, pane: AgentPane, letter: MessageFolder) -> Question | None:
        submission, view = Submission.load(letter), self.read_screen(pane)
        if view is None or AgentState.WAITING not in (view.best.state, view.by_screen.state):
            return None
        asking = self.turn(submission).asking if submission else None
        return merge_question(asking, view.best.question or view.by_screen.question)

    def message_answer(self, letter: MessageFolder) -> str | None:
        submission = Submission.load(letter)
        over = self.turn(submission).over if submission else None
        return over.text if over and over.kind is EventKind.STOPPED else None

    def ending(self, run: AttemptFolder) -> ProgramEnding | None:
        if stored := stored_ending(run):
            return stored
        submission = Submission.load(run)
        if submission is None:
            return None
        turn = self.turn(submission)
        ended = None if self._watcher.continues_after_denial(turn) else ending_of(turn)
        return self.end(run, turn, *ended) if ended else None

    def end(self, run: AttemptFolder, turn: Turn, ending: ProgramEnding, answer: str) -> ProgramEnding:
        """Store how the task ended."""
        return store_ending(run, replace(ending, usage=self.usage(run, turn)), answer)

    @property
    def pause(self) -> float:
        return self._watcher.pause

    # ── interventions ────────────────────────────────────────────────────────────────────────────────────────────

    def discard_input(self, pane: AgentPane) -> None:
        text = self._pasted()
        view = self.read_screen(pane)
        if view is None or not self._is_ours(view, text):
            return
        rows = sum(len(line) // 20 + 1 for line in text.split("\n")[-100:])
        pane.press(*self.config.keys.clear * (2 * rows + 2))

    def _is_ours(self, view: ScreenReading, text: str) -> bool:
        return bool(text) and view.composer.compare(text, self.config.composer.placeholder) in _OURS_ALONE

    def _pasted(self) -> str:
        with contextlib.suppress(FileNotFoundError):
            return (Path((self.own / "current").read_text().rstrip("\n")) / "pasted").read_bytes().decode()
        return ""

    def interrupt(self, pane: AgentPane, *, force: bool) -> None:
        if force:
            if look := pane.look():
                kill_program(look)
        elif view := self.read_screen(pane):
            # Right after it was given its prompt it may not show that it works: the prompt still looks like a draft.
            is_given = self._is_ours(view, self._pasted())
            if view.best.state not in (_NOT_TYPED_INTO if is_given else _AT_REST | _NOT_TYPED_INTO):
                pane.press(*self.config.keys.interrupt)

    def has_stopped(self, pane: AgentPane, run: AttemptFolder) -> bool:
        view = self.read_screen(pane)
        if view is None:
            return True
        if view.best.state not in _AT_REST:
            return False
        if self._is_ours(view, self._pasted()):
            self.discard_input(pane)  # an interrupted program may put the prompt back
            return False
        return True

    def answer(self, pane: AgentPane, question: Question, reply: str) -> bool:
        return self._watcher.answer(pane, question, reply)
