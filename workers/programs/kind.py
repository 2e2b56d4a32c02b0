"""What Torch must know of a kind of agent program to host it, and which class of Torch's drives which kind."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from importlib import import_module
from pathlib import Path
from typing import Any

from torch_tasks.errors import AgentUnavailable, InvalidSettings
from torch_tasks.model.agent import AgentSpec, AgentState
from torch_tasks.model.task import Evidence, Failure, Question, TaskSpec, Usage
from torch_tasks.workers.folders import AttemptFolder, MessageFolder
from torch_tasks.workers.programs.config import KindConfig, kind_config
from torch_tasks.workers.programs.submission import Submission
from torch_tasks.workers.tmux.pane import AgentPane, PaneLook


def login_hint(agent_id: str) -> str:
    """What a person has to do for an agent whose program wants a login."""
    return f"agent {agent_id} wants a login: run 'torch-tasks attach {agent_id}' and log in"


TYPING = "a person is typing in the agent's pane"
"""Why nothing is put into a pane at the moment."""


@dataclass(frozen=True)
class StateReading:
    """What the program is doing, and where that was read."""

    state: AgentState
    source: str
    """Where it was read: ``hooks``, ``session file``, ``title``, ``screen``, …"""
    rule: str = ""
    """Which event or rule decided."""
    question: Question | None = None
    """What it waits for, if it waits."""
    until: datetime | None = None
    """When its limit ends, if it is limited and shows that."""
    hindrance: str = ""
    """What keeps a prompt out of the program until a person sees to it."""


@dataclass(frozen=True)
class ProgramEnding:
    """How the agent's program left a task. The answer is in the run's output file."""

    evidence: Evidence
    failure: Failure | None = None
    """Why it is no success, if the program itself reported that."""
    exit_code: int | None = None
    usage: Usage | None = None


@dataclass(frozen=True)
class Progress:
    """How far a task in the pane is."""

    reading: StateReading
    ending: ProgramEnding | None = None
    facts: tuple[str, ...] = field(default=())
    """What became known since the last look, for the task's history: staged, submitted, accepted, a note."""


class AgentKind(ABC):
    """One agent program in its pane, with its folder on disk.

    Nothing here waits for long: the agent's worker calls again when the bell rings, and after ``pause`` seconds.
    """

    #: One can talk with it: it takes texts, asks questions, and may be sent back to a task.
    is_conversational = False
    #: It reports every prompt that it accepts, and every answer it has given.
    reports_turns = False

    def __init__(self, config: KindConfig, spec: AgentSpec, folder: Path, workdir: Path) -> None:
        self.config = config
        self.spec = spec
        self.agent_id = spec.id
        self.folder = folder
        self.workdir = workdir

    @property
    def account(self) -> str | None:
        """The account whose limits its agents share; none for a program that talks to no model."""
        return (self.config.account or self.config.base or self.spec.kind) if self.is_conversational else None

    @abstractmethod
    def launch(self) -> list[str]:
        """The command that runs in the pane. Called before each start, so it may prepare files."""

    def environment(self) -> Mapping[str, str]:
        """What the program's environment has beside the worker's own; called after :meth:`launch`."""
        return self.config.environment

    @abstractmethod
    def get_ready(self, pane: AgentPane) -> bool:
        """Go on with the start: answer its dialogs as the configuration says. True once the program takes tasks."""

    def is_running(self, look: PaneLook) -> bool:
        """The program still runs in the living pane; False if it left a shell there, which must get no prompt."""
        return True

    @abstractmethod
    def read(self, pane: AgentPane) -> StateReading:
        """What the program is doing now, from the best source there is."""

    def explain(self, pane: AgentPane) -> list[tuple[str, str]]:
        """The program's state as each source shows it, the decisive one first."""
        reading = self.read(pane)
        return [(reading.source, f"{reading.state} ({reading.rule})")]

    @abstractmethod
    def is_free(self, pane: AgentPane) -> bool:
        """Nothing but an empty input line is in the pane: typing disturbs no person."""

    @abstractmethod
    def redraw_input(self, pane: AgentPane) -> None:
        """Have the input line show what is in it, and not what a job in the background printed there."""

    @abstractmethod
    def discard_input(self, pane: AgentPane) -> None:
        """Empty the input line of what a worker of ours left there."""

    @abstractmethod
    def begin(self, pane: AgentPane, run: AttemptFolder, spec: TaskSpec, variables: Mapping[str, str]) -> None:
        """Begin to put the task into a free pane. ``run.begun`` exists once the program may have it."""

    @abstractmethod
    def progress(self, pane: AgentPane, run: AttemptFolder, spec: TaskSpec) -> Progress:
        """How far the task is; does whatever is due for it now: goes on with the submission, answers by policy."""

    @abstractmethod
    def ending(self, run: AttemptFolder) -> ProgramEnding | None:
        """How the program left the task as far as is noted on the disk, or nothing while it works on it."""

    @abstractmethod
    def interrupt(self, pane: AgentPane, *, force: bool) -> None:
        """Have the program stop what it does; with ``force``, without asking it."""

    @abstractmethod
    def has_stopped(self, pane: AgentPane, run: AttemptFolder) -> bool:
        """The program does not work on the task any more."""

    def answer(self, pane: AgentPane, question: Question, reply: str) -> bool:
        """Answer what the program asks: a choice's number or, where it takes one, a text. False: it cannot."""
        return False

    def send_back(self, pane: AgentPane, run: AttemptFolder, text: str) -> bool:
        """Have the program go on with a task that it thinks is done. False: this kind does not."""
        return False

    # ── messages ─────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def listens_while_working(self) -> bool:
        """It takes a text while it works, and comes to it by itself."""
        return False

    @abstractmethod
    def hand_message(self, pane: AgentPane, letter: MessageFolder, beside: AttemptFolder | None) -> Submission:
        """Bring a message one step further into the program, ``beside`` the task in it; returns how far it is."""

    def message_question(self, pane: AgentPane, letter: MessageFolder) -> Question | None:
        """What the program waits for while it works on a message."""
        return self.read(pane).question

    def message_answer(self, letter: MessageFolder) -> str | None:
        """What the program answered to a message that it took; None while it has not, or if no event reports it."""
        return None

    @property
    def pause(self) -> float:
        """Seconds after which to look again though no bell rang."""
        return 5.0


_PROGRAMS = {
    "aider": "torch_tasks.workers.programs.aider:Aider",
    "claude": "torch_tasks.workers.programs.claude:Claude",
    "gemini": "torch_tasks.workers.programs.gemini:Gemini",
    "codex": "torch_tasks.workers.programs.codex:Codex",
    "generic": "torch_tasks.workers.programs.generic:Generic",
    "opencode": "torch_tasks.workers.programs.opencode:OpenCode",
    "shell": "torch_tasks.workers.programs.shell:Shell",
}


def require_startable(spec: AgentSpec) -> None:
    """Refuse at once what would only fail when the agent's worker starts."""
    kind_config(spec.kind).require_program(spec)
    if spec.workdir and not Path(spec.workdir).is_dir():
        raise AgentUnavailable(f"agent {spec.id} cannot start: its workdir {spec.workdir} is not a folder on this node")


def program_of(spec: AgentSpec, folder: Path, workdir: Path) -> AgentKind:
    """The program that this agent is."""
    kind = spec.kind
    config = kind_config(kind)
    named = config.base or kind
    program = config.program or (named if named in _PROGRAMS else "generic")
    if program not in _PROGRAMS:
        raise InvalidSettings(f"agent kind {kind!r}: there is no program {program!r}, but {', '.join(_PROGRAMS)}")
    module, name = _PROGRAMS[program].split(":")
    made: Any = getattr(import_module(module), name)(config, spec, folder, workdir)
    assert isinstance(made, AgentKind)
    return made
