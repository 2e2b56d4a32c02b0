"""One agent that is tried: its kind and its terminal as they are in an agent worker, with neither broker nor fleet."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable
from pathlib import Path

from torch_tasks.errors import PromiseBroken
from torch_tasks.model.agent import AgentInfo, AgentSpec, AgentState
from torch_tasks.model.fields import now
from torch_tasks.model.task import Permissions, Question, TaskSpec
from torch_tasks.settings import settings
from torch_tasks.state_folder import TMUX
from torch_tasks.workers.certify.fake_model.client import ModelRequest
from torch_tasks.workers.certify.home import Home
from torch_tasks.workers.certify.screens import Screens
from torch_tasks.workers.folders import AttemptFolder
from torch_tasks.workers.host.terminal import Bell, Terminal
from torch_tasks.workers.programs.kind import AgentKind, ProgramEnding, Progress, program_of
from torch_tasks.workers.tmux.pane import AgentPane

AGENT_ID = "certify"
SECONDS = 90.0
"""How long a program may take for one step; it is slow where other programs want the processor, too."""

_USED_SECONDS = 1.0
"""How long an input line that was cleared may look used."""


class TriedAgent:
    """The agent, from its first start on."""

    def __init__(self, kind: str, home: Home, folder: Path) -> None:
        self.home = home
        self.llm = home.llm
        self.folder = folder
        self._spec = AgentSpec(id=AGENT_ID, role="developer", kind=kind, workdir=str(home.work))
        self._place: tuple[str, int | None, Path] | None = None
        self._numbers = itertools.count(1)
        folder.mkdir(parents=True)
        self.screens = Screens()
        self._employ()

    def _employ(self) -> None:
        """Have a worker, which knows nothing but what is on the disk."""
        self.kind: AgentKind = program_of(self._spec, self.folder, self.home.work)
        variables = {**self.kind.config.environment, **self.home.variables}
        update = {"environment": variables, "model": self.home.model}
        self.kind.config = self.kind.config.model_copy(update=update)
        self.bell = Bell(self.folder / "bell", lambda: None)
        self.terminal = Terminal(self.folder, self.kind, self.bell, settings())

    @property
    def pane(self) -> AgentPane:
        return self.terminal.pane

    def start(self, workdir: Path | None = None, *, resumes: str | None = None) -> None:
        """Start its program anew, in this folder or at home, and wait until it takes a task.

        It begins a conversation, or goes on with the one that it ``resumes``.
        """
        folder = workdir or self.home.work
        self._place = (*self.terminal.start(self._info(folder), folder, resumes), folder)
        self.terminal.await_start(is_leaving=self._watch_start)
        if held_up := self.terminal.held_up:
            raise PromiseBroken(f"it does not get to its prompt by itself; it shows: {held_up.asks}")

    def _watch_start(self) -> bool:
        """Keep what stands on the screen before the program is ready; never ends the start."""
        if self.terminal.is_alive:
            self.screens.watch_start(self.kind, self.pane)
        return False

    def save_screen(self, name: str) -> None:
        """Keep the screen as it is now under this name."""
        self.screens.save(name, self.kind, self.pane)

    def _info(self, folder: Path) -> AgentInfo:
        return AgentInfo(
            agent_id=AGENT_ID,
            role=self._spec.role,
            kind=self._spec.kind,
            node=AGENT_ID,
            host=AGENT_ID,
            pid=os.getpid(),
            incarnation=1,
            workdir=str(folder),
            tmux_socket=str(self.folder / TMUX),
            started_at=now(),
        )

    def replace_worker(self) -> None:
        """Have the worker gone at this moment, as if it had been killed, and the next one adopt the pane."""
        assert self._place
        conversation, boxing = self.kind.conversation, self.terminal.boxing
        self._dismiss()
        self._employ()
        self.kind.given_conversation = conversation
        if not self.terminal.adopt(*self._place, boxing):
            raise PromiseBroken("the next worker cannot take the pane over: its program does not run there")

    def _dismiss(self) -> None:
        self.terminal.detach()
        self.bell.close()

    def wait(self, condition: Callable[[], object], what: str, seconds: float = SECONDS) -> None:
        """Wait for the condition; :class:`PromiseBroken` if it does not come true in time."""
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                raise PromiseBroken(f"not within {seconds:g} s: {what}")
            self.bell.wait(0.05)

    def await_free(self) -> None:
        """Wait until it takes a prompt, as its host does before each task."""

        deadline = time.monotonic() + SECONDS
        self.kind.clear_input(self.pane)
        while not self.terminal.wait_for(lambda: self.kind.is_free(self.pane), _USED_SECONDS):
            if not self.terminal.is_alive:
                raise PromiseBroken("its program has ended")
            if time.monotonic() > deadline:
                why = self.kind.hindrance(self.pane) or f"it is {self.kind.read(self.pane).state}"
                raise PromiseBroken(f"not within {SECONDS:g} s: it is free for the next prompt; {why}")
            self.kind.clear_input(self.pane)

    def give(self, prompt: str, *, permissions: Permissions | None = None, name: str = "") -> TriedTask:
        """Put the prompt into it as a task."""
        self.await_free()
        task = TriedTask(self, prompt, permissions, name or f"t{next(self._numbers)}")
        task.begin()
        return task

    def do(self, prompt: str, *, permissions: Permissions | None = None, name: str = "") -> TriedTask:
        """Put the prompt into it, and wait until it has ended well."""
        task = self.give(prompt, permissions=permissions, name=name)
        task.await_success()
        return task

    def stop(self, task: TriedTask) -> None:
        """Interrupt it at the task, and wait until it no longer works on that."""
        before = self.pane.pane_id
        self.terminal.interrupt(lambda: self.kind.has_stopped(self.pane, task.folder))
        if not self.terminal.is_alive or self.pane.pane_id != before:
            raise PromiseBroken("it does not stop: its program had to be killed")

    def kill(self) -> None:
        """Kill its program, as a crash does."""
        self.kind.interrupt(self.pane, force=True)
        self.wait(lambda: not self.terminal.is_alive, "it is gone after it was killed")

    def close(self) -> None:
        """End its program with all that it started."""
        self.terminal.end()
        self.bell.close()


class TriedTask:
    """One task of the agent, and what its model received of it."""

    def __init__(self, agent: TriedAgent, prompt: str, permissions: Permissions | None, name: str) -> None:
        self.id = f"certify-{name}"
        self.prompt = prompt
        self.folder = AttemptFolder(agent.folder / "runs", self.id, 1)
        self.news: list[str] = []
        self._agent = agent
        self._spec = TaskSpec(id=self.id, prompt=prompt, permissions=permissions)
        self._ending: ProgramEnding | None = None

    def begin(self) -> None:
        self.folder.open()
        self._agent.kind.begin(self._agent.pane, self.folder, self._spec, {})

    @property
    def answer(self) -> str:
        """What the program answered."""
        return self.folder.output.read_text() if self.folder.output.exists() else ""

    def look(self) -> Progress:
        """Do what is due for the task now, as its host does; returns how far it is."""
        agent = self._agent
        if not agent.terminal.is_alive:
            raise PromiseBroken("its program has ended in the middle of a task")
        progress = agent.kind.progress(agent.pane, self.folder, self._spec)
        self.news += [fact.words for fact in progress.facts]
        return progress

    def watch_until(self, condition: Callable[[Progress], object], what: str, seconds: float = SECONDS) -> Progress:
        """Help the program with the task until the condition holds; :class:`PromiseBroken` if its turn ends before."""
        deadline = time.monotonic() + seconds
        while not condition(progress := self.look()):
            if ending := progress.ending:
                how = ending.failure.message if ending.failure else f"as done, by {ending.evidence.detail}"
                raise PromiseBroken(f"its turn was over before {what}: {how}")
            if time.monotonic() > deadline:
                state = f"it is {progress.reading.state} by {progress.reading.source} ({progress.reading.rule})"
                raise PromiseBroken(f"not within {seconds:g} s: {what}; {state}")
            self._agent.bell.wait(min(self._agent.kind.pause, 0.5))
        return progress

    def await_end(self, seconds: float = SECONDS) -> ProgramEnding:
        """Wait until the task's turn is over."""
        ending = self.watch_until(lambda progress: progress.ending is not None, "its turn is over", seconds).ending
        assert ending
        return ending

    def await_success(self) -> None:
        """Wait until the turn is over, and has ended well."""
        failure = self.await_end().failure
        if failure:
            raise PromiseBroken(f"its turn ended as {failure.kind}: {failure.message}")

    def await_state(self, state: AgentState) -> Progress:
        """Wait until the task is in this state."""
        return self.watch_until(lambda progress: progress.reading.state is state, f"it is seen to be {state}")

    def await_question(self, *, about: str = "") -> Question:
        """Wait until the program asks, its choices seen."""

        def is_whole(question: Question) -> bool:
            # A question that a hook reports gets its choices from the screen; one without a menu has none.
            return bool(question.choices) or not self._agent.kind.reports_turns

        def asks(progress: Progress) -> bool:
            question = progress.reading.question
            is_waiting = progress.reading.state is AgentState.WAITING
            return is_waiting and question is not None and is_whole(question) and about in str(question)

        what = f"it asks{' about ' + about if about else ''}, with its choices"
        question = self.watch_until(asks, what).reading.question
        assert question
        return question

    def reply(self, question: Question, words: str) -> None:
        """Answer its question as a person does through Torch."""
        if not self._agent.kind.answer(self._agent.pane, question, words):
            raise PromiseBroken(f"it does not take the answer {words!r} to {question.text!r}")

    def requests(self) -> list[ModelRequest]:
        """Every request of the program for this task, but those of its own."""
        home, mark = self._agent.home, self._mark
        return [one for one in home.llm.requests(home.key) if not one.side_request and mark in _dense(one.prompt)]

    def received(self) -> list[str]:
        """Every prompt with the task's footer that the model received, exactly."""
        home, mark = self._agent.home, self._mark
        return [prompt for prompt in home.llm.prompts(home.key) if mark in _dense(prompt)]

    @property
    def _mark(self) -> str:
        return _dense(f"[torch task {self.id} ·")

    def require_exact(self, words: str) -> None:
        """:class:`PromiseBroken` unless the model received these words once, as the task's own."""
        received = self.received()
        if len(received) != 1:
            raise PromiseBroken(f"its prompt {_short(self.prompt)} reached the model {len(received)} times")
        if f"{words}\n\n[torch task {self.id} " not in received[0]:
            raise PromiseBroken(f"the model received {_short(received[0])} for the prompt {_short(words)}")


def _dense(text: str) -> str:
    return "".join(text.split())


def _short(text: str) -> str:
    return repr(text if len(text) <= 80 else f"{text[:60]}…{text[-18:]}")
