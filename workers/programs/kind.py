"""What the host needs of a kind of agent program, and which class drives which kind."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path

from torch_tasks.errors import AgentUnavailable, InvalidSettings, SandboxRefused
from torch_tasks.model.agent import AgentSpec, AgentState
from torch_tasks.model.sandbox import Network
from torch_tasks.model.task import Evidence, Fact, Failure, Question, TaskSpec
from torch_tasks.model.usage import Usage
from torch_tasks.settings import Settings, settings
from torch_tasks.started_by_name import load
from torch_tasks.state_folder import PROGRAM
from torch_tasks.workers.folders import AttemptFolder, MessageFolder
from torch_tasks.workers.programs.config import KindConfig, kind_config, overlaid
from torch_tasks.workers.programs.submission import Submission
from torch_tasks.workers.sandbox.ability import why_not
from torch_tasks.workers.sandbox.box import Box
from torch_tasks.workers.sandbox.decision import Boxing, decide
from torch_tasks.workers.tmux.pane import AgentPane, PaneLook


def login_hint(agent_id: str) -> str:
    """What a person has to do for an agent whose program wants a login."""
    return f"agent {agent_id} wants a login: run 'torch-tasks attach {agent_id}' and log in"


class Hindrance(StrEnum):
    """What keeps a prompt out of a program until it is removed."""

    PERSON = "a person is typing in the agent's pane"
    OWN_TEXT = "a text of Torch's own is still in the input line of the agent's program"
    DIALOG = "a dialog covers the input line of the agent's program"
    OTHER_WORK = "the agent's program works on something else: a message, what a person typed, or something of its own"
    UNKNOWN_SCREEN = "the agent's program shows a screen that no rule of its kind knows"


@dataclass(frozen=True)
class StateReading:
    """What the program is doing, and where that was read."""

    state: AgentState
    source: str
    """Where it was read: ``hooks``, ``session file``, ``title``, ``screen``, …"""
    rule: str = ""
    """Which event or rule decided."""
    question: Question | None = None
    """What the program waits for."""
    until: datetime | None = None
    """When the limit ends, if the program shows that."""
    hindrance: Hindrance | None = None
    shows: str = ""
    """The last line of a screen on which no input line is seen."""
    offers: Question | None = None
    """The menu on a screen that no rule knows."""

    @property
    def obstacle(self) -> str:
        """The hindrance in words, with what the screen shows if no rule knows it."""
        if self.hindrance is Hindrance.UNKNOWN_SCREEN and self.shows:
            return f"{self.hindrance}; its last line: {self.shows}"
        return str(self.hindrance or "")


@dataclass(frozen=True)
class ProgramEnding:
    """How the agent's program left a task. The answer is in the attempt's output file."""

    evidence: Evidence
    failure: Failure | None = None
    exit_code: int | None = None
    usage: Usage | None = None


@dataclass(frozen=True)
class Progress:
    """How far a task in the pane is."""

    reading: StateReading
    ending: ProgramEnding | None = None
    facts: tuple[Fact, ...] = ()
    """Fact since the last look, for the task's history: staged, submitted, accepted, a note."""


class Continuation(StrEnum):
    """How a new program takes up a task or message that the one before it was killed with."""

    NOT_KEPT = "its conversation does not hold the prompt"
    ANSWERED = "its conversation holds the whole answer"
    RESUMED = "asked to go on"


class AgentKind(ABC):
    """One agent program in its pane, with its folder on disk.

    Nothing here waits for long: the agent's worker calls again when the bell rings, and after ``pause`` seconds.
    """

    #: The program takes texts, asks questions, and may be sent back to a task.
    is_conversational = False
    #: The program reports every prompt that it accepts, and every answer that it gives.
    reports_turns = False

    def __init__(self, config: KindConfig, spec: AgentSpec, folder: Path, workdir: Path) -> None:
        self.config = config
        self.spec = spec
        self.agent_id = spec.id
        self.folder = folder
        self.own = folder / PROGRAM
        """The files of the program, which may write them."""
        self.box: Box | None = None
        """What the program runs in; None: the whole machine."""
        self.workdir = workdir
        self.given_conversation: str | None = None
        """The conversation that the program was started with, if one was named."""

    def outside(self, path: Path) -> Path:
        """Where a path of the program's lies for its worker."""
        return self.box.outside(path) if self.box else path

    @property
    def conversation(self) -> str | None:
        """The program's conversation, by which another program can go on with it; None if there is none."""
        return self.given_conversation

    def is_kept(self, conversation: str) -> bool:
        """Whether a program can go on with this conversation."""
        return False

    @property
    def account(self) -> str | None:
        """The account whose limits the kind's agents share; None for a program that uses no model."""
        return (self.config.account or self.config.base or self.spec.kind) if self.is_conversational else None

    @abstractmethod
    def launch(self, resumes: str | None = None) -> list[str]:
        """Prepare the program's files and return the command that runs in the pane; called before each start.

        ``resumes`` is the conversation to go on with, if it is kept.
        """

    def environment(self) -> Mapping[str, str]:
        """The program's variables beside the worker's own; called after :meth:`launch`."""
        return self.config.environment

    @property
    def has_started(self) -> bool:
        """Whether the program in the pane was ready once."""
        return (self.own / "ready").exists()

    @abstractmethod
    def get_ready(self, pane: AgentPane) -> bool:
        """Go on with the start: answer the configured dialogs. True once the program takes tasks."""

    def is_running(self, look: PaneLook) -> bool:
        """Whether the program still runs in the living pane; a shell that it left there must get no prompt."""
        return True

    @abstractmethod
    def read(self, pane: AgentPane) -> StateReading:
        """What the program is doing now, from the best source."""

    def explain(self, pane: AgentPane) -> list[tuple[str, str]]:
        """Each source and the state that it shows, the decisive one first."""
        reading = self.read(pane)
        return [(reading.source, f"{reading.state} ({reading.rule})")]

    @abstractmethod
    def is_free(self, pane: AgentPane) -> bool:
        """Whether the program is ready and its input line empty, so that typing disturbs no person."""

    def hindrance(self, pane: AgentPane) -> Hindrance | None:
        """What keeps a prompt out of the program; None if it is free, or soon will be."""
        return None if self.is_free(pane) else Hindrance.PERSON

    def has_draft(self, pane: AgentPane) -> bool:
        """Whether a person types, or has typed, into the program's input line."""
        return False

    def restore(self, pane: AgentPane) -> bool:
        """Take back what choices changed for later, in the free program; false if only a new program is without it."""
        return True

    @abstractmethod
    def clear_input(self, pane: AgentPane) -> None:
        """Remove what Torch may remove from the input line: what a background job printed over it, its own text."""

    @abstractmethod
    def discard_input(self, pane: AgentPane) -> None:
        """Empty the input line if it holds Torch's text and nothing else."""

    @abstractmethod
    def begin(self, pane: AgentPane, run: AttemptFolder, spec: TaskSpec, variables: Mapping[str, str]) -> None:
        """Begin to type the task into a free pane. ``run.begun`` exists once the program may have it."""

    @abstractmethod
    def progress(self, pane: AgentPane, run: AttemptFolder, spec: TaskSpec) -> Progress:
        """Do what is due for the task now (submit, answer by policy); returns how far it is."""

    @abstractmethod
    def ending(self, run: AttemptFolder) -> ProgramEnding | None:
        """How the program left the task, from the disk alone; None while the program works on it."""

    @abstractmethod
    def interrupt(self, pane: AgentPane, *, force: bool) -> None:
        """Interrupt the program; with ``force``, kill it."""

    @abstractmethod
    def has_stopped(self, pane: AgentPane, run: AttemptFolder) -> bool:
        """Whether the program no longer works on the task."""

    def answer(self, pane: AgentPane, question: Question, reply: str) -> bool:
        """Give the program a choice's number or a text. False if the question does not take this reply."""
        return False

    def send_back(self, pane: AgentPane, run: AttemptFolder, text: str) -> bool:
        """Have the program go on with a task that it thinks is done. False if this kind cannot."""
        return False

    def go_on(self, pane: AgentPane, run: AttemptFolder) -> Continuation:
        """Have a free program that goes on with the attempt's conversation go on with the attempt, too.

        A whole answer in the conversation is stored as the attempt's ending.
        """
        return Continuation.NOT_KEPT

    def submissions(self, run: AttemptFolder) -> int:
        """How often the program was given a text for this attempt: its prompt, and what was sent after it."""
        return 0

    # ── messages ─────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def listens_while_working(self) -> bool:
        """Whether the program queues a text that it gets while it works."""
        return False

    @abstractmethod
    def hand_message(self, pane: AgentPane, letter: MessageFolder, beside: AttemptFolder | None) -> Submission:
        """Bring a message one step further into the program, ``beside`` the task that it works on."""

    def message_question(self, pane: AgentPane, letter: MessageFolder) -> Question | None:
        """What the program waits for while it works on a message."""
        return self.read(pane).question

    def go_on_with_message(self, pane: AgentPane, letter: MessageFolder) -> tuple[Continuation, str]:
        """Have a free program that goes on with the message's conversation go on with the message, too.

        With the whole answer, if the conversation holds it.
        """
        return Continuation.NOT_KEPT, ""

    def message_answer(self, letter: MessageFolder) -> str | None:
        """What the program answered to a message; None while it has not, or if no event reports it."""
        return None

    @property
    def pause(self) -> float:
        """Seconds until the next look if no bell rings."""
        return 5.0


#: By name, so that a command loads only the kind that it needs.
_PROGRAMS = {
    "acp": "torch_tasks.workers.programs.acp.program:Acp",
    "aider": "torch_tasks.workers.programs.aider:Aider",
    "claude": "torch_tasks.workers.programs.claude:Claude",
    "gemini": "torch_tasks.workers.programs.gemini:Gemini",
    "codex": "torch_tasks.workers.programs.codex.program:Codex",
    "generic": "torch_tasks.workers.programs.generic:Generic",
    "opencode": "torch_tasks.workers.programs.opencode.program:OpenCode",
    "shell": "torch_tasks.workers.programs.shell:Shell",
}


def require_startable(spec: AgentSpec) -> None:
    """Raise :class:`AgentUnavailable` for what would only fail when the agent's worker starts."""
    kind_config(spec.kind).require_program(spec)
    boxing_of(spec, settings(), why_not)
    if spec.workdir and not Path(spec.workdir).is_dir():
        raise AgentUnavailable(f"agent {spec.id} cannot start: its workdir {spec.workdir} is not a folder on this node")


def boxing_of(spec: AgentSpec, settings: Settings, why_not: Callable[[], str | None]) -> Boxing:
    """Whether the agent's program is boxed; :class:`SandboxRefused` if it must be, and cannot: ``why_not`` says why."""
    kind = kind_config(spec.kind)
    boxing = decide(spec.id, agent=spec.sandbox, kind=kind.sandbox, machine=settings.sandbox, why_not=why_not)
    network = network_of(spec, settings)
    if boxing.is_boxed and kind.box.loopback and network != "all":
        raise SandboxRefused(
            f"agent {spec.id} cannot start: the program of kind {spec.kind} takes its prompts at a port of this "
            f"machine, which a box with network = {network} does not have; set network = all, or use a kind over acp"
        )
    return boxing


def network_of(spec: AgentSpec, settings: Settings) -> Network:
    """What the agent's programs reach from a box; where that is a list, also the collector of their telemetry."""
    kind = kind_config(spec.kind)
    network = spec.network or kind.network or settings.sandbox_network
    sends = settings.programs_telemetry and kind.telemetry.is_known
    return f"{network},{settings.collector_place}" if sends and network not in ("all", "none") else network


def _with_telemetry(config: KindConfig) -> KindConfig:
    """The kind's configuration, with what has its program send its own telemetry if the user wants that."""
    told = config.telemetry.for_user(settings())
    environment = {**config.environment, **told.environment}
    return config.model_copy(update={"environment": environment, "settings": overlaid(config.settings, told.settings)})


def program_of(spec: AgentSpec, folder: Path, workdir: Path) -> AgentKind:
    """The driver of this agent's program."""
    config = _with_telemetry(kind_config(spec.kind))
    named = config.base or spec.kind
    program = config.program or (named if named in _PROGRAMS else "generic")
    if program not in _PROGRAMS:
        raise InvalidSettings(
            f"agent kind {spec.kind!r}: there is no program {program!r}; choose one of {', '.join(_PROGRAMS)}"
        )
    made = load(_PROGRAMS[program])(config, spec, folder, workdir)
    assert isinstance(made, AgentKind)
    return made
