"""What the fake agent does, as data: one JSON file, which is read again whenever it has changed."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, ClassVar, TypeVar

FOREVER = 1e9
Made = TypeVar("Made")


class BadScenario(Exception):
    """The scenario's file cannot be used; the text says why."""


def _nested(of: Callable[[Any], Any], default: Callable[[], Any]) -> Any:
    return field(default_factory=default, metadata={"of": of})


# ── the steps of a turn ──────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Step:
    """One thing that the agent does in a turn."""

    do: ClassVar[str]


@dataclass(frozen=True)
class Work(Step):
    """Show the spinner and nothing else."""

    do = "work"
    seconds: float = 0.2


@dataclass(frozen=True)
class Say(Step):
    """Answer: at once, or streamed. ``{words}`` are the prompt's first words, ``{prompt}`` is all of it."""

    do = "say"
    text: str = "You said: {words}"
    seconds: float = 0.0


@dataclass(frozen=True)
class Run(Step):
    """Run a shell command as a tool of the agent's, with the prompt as its input; its output is shown."""

    do = "run"
    command: str = "true"


@dataclass(frozen=True)
class Permission(Step):
    """Ask before a tool is used. The last choice, and Escape, deny: then ``denied`` comes and the turn is over."""

    do = "permission"
    tool: str = "Bash"
    command: str = "touch a.txt"
    question: str = "Do you want to proceed?"
    choices: tuple[str, ...] = ("Yes", "No")
    denied: tuple[Step, ...] = _nested(lambda steps: _steps(steps), tuple)


@dataclass(frozen=True)
class Ask(Step):
    """Ask the user something; ``free`` adds a choice that takes a text. Later ``{choice}`` in Say is what was chosen."""

    do = "ask"
    question: str = "Which one?"
    choices: tuple[str, ...] = ("Red", "Blue")
    free: bool = False


@dataclass(frozen=True)
class Compact(Step):
    """Compact the conversation."""

    do = "compact"
    seconds: float = 0.5


@dataclass(frozen=True)
class Retry(Step):
    """The model is overloaded (529) or limits the rate (429): tries again, and then goes on, or ``fails``."""

    do = "retry"
    status: int = 529
    text: str = "Overloaded"
    attempts: int = 3
    of: int = 10
    seconds: float = 0.5
    fails: bool = False


@dataclass(frozen=True)
class Limit(Step):
    """The account's usage limit is reached; the turn ends, with ``modal`` after a choice."""

    do = "limit"
    resets: str = "3:45pm"
    text: str = "You've hit your usage limit · resets {resets}"
    modal: bool = False


@dataclass(frozen=True)
class Login(Step):
    """The login has run out; the turn ends, with ``screen`` in the login screen."""

    do = "login"
    screen: bool = False


@dataclass(frozen=True)
class Fail(Step):
    """The turn ends with an error."""

    do = "fail"
    text: str = "API Error: 500 Internal server error"
    error: str = "unknown"


@dataclass(frozen=True)
class Loop(Step):
    """Print the same again and again; ``times`` 0 is for ever."""

    do = "loop"
    text: str = "Let me try that once more."
    every: float = 0.1
    times: int = 0


@dataclass(frozen=True)
class Storm(Step):
    """Draw everything anew, many times a second."""

    do = "storm"
    seconds: float = 1.0
    per_second: int = 300


@dataclass(frozen=True)
class Hang(Step):
    """Neither read nor draw."""

    do = "hang"
    seconds: float = FOREVER


@dataclass(frozen=True)
class Crash(Step):
    """End in the middle, with this exit code; a negative one is a signal."""

    do = "crash"
    code: int = 1
    text: str = ""


@dataclass(frozen=True)
class Shell(Step):
    """End, and leave a shell in the pane."""

    do = "shell"


STEPS: dict[str, type[Step]] = {
    step.do: step
    for step in (
        *(Work, Say, Run, Permission, Ask, Compact, Retry, Limit),
        *(Login, Fail, Loop, Storm, Hang, Crash, Shell),
    )
}


def _steps(data: list[dict[str, Any]]) -> tuple[Step, ...]:
    return tuple(_step(item) for item in data)


def _step(data: dict[str, Any]) -> Step:
    kind = STEPS.get(data.get("do", ""))
    if kind is None:
        raise BadScenario(f"no step is {data!r}; 'do' is one of {', '.join(STEPS)}")
    return _build(kind, {name: value for name, value in data.items() if name != "do"})


# ── the rest ─────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Turn:
    """What follows a prompt that contains ``match``; with ``times``, only so many."""

    steps: tuple[Step, ...] = _nested(_steps, lambda: (Work(), Say()))
    match: str = ""
    times: int = 0


@dataclass(frozen=True)
class Start:
    """From the launch to the first composer. What is typed before it is ready is lost."""

    ready_after: float = 0.0
    bracketed_paste: bool = True
    #: Of ``theme``, ``login``, ``api_key``, ``notes``, ``trust``, ``update``.
    dialogs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Looks:
    """What it looks like."""

    name: str = "Fake Code"
    titles: bool = True
    #: A suggestion, dim, in the empty composer.
    ghost: str = ""
    alternate_screen: bool = False
    spinner_seconds: float = 0.25
    #: With a text in the composer the footer's hints are gone, also "esc to interrupt".
    draft_hides_hints: bool = True


@dataclass(frozen=True)
class Ways:
    """How it takes keys."""

    #: Enter while it works: ``queue``, ``steer`` or ``ignore``.
    busy_enter: str = "queue"
    #: A typed LF submits, as a typed CR does.
    lf_submits: bool = False
    #: Enter in an empty composer submits the ghost suggestion.
    enter_takes_ghost: bool = False
    #: Escape before any text came puts the prompt back into the composer.
    escape_restores: bool = False
    #: So many C-c in an empty composer end it.
    ctrl_c_exits: int = 2
    #: ``!…``, ``/word`` and a last backslash mean what they do in Claude Code.
    bang_runs: bool = True
    slash_commands: bool = True
    slash_stays: bool = False
    backslash_continues: bool = True
    #: A paste with more line breaks or characters than this is shown as ``[Pasted text #1 +29 lines]``.
    collapse_lines: int = 3
    collapse_chars: int = 800
    #: What becomes of the text: of its ends (``end``, ``both``), its tabs (so many blanks), its escape characters.
    strip: str = ""
    tab_blanks: int = 0
    drop_escapes: bool = False


@dataclass(frozen=True)
class Faults:
    """What goes wrong with the input. Numbers count for each prompt anew."""

    #: Only with the first so many prompts; 0 is with all.
    prompts: int = 0
    swallow_enters: int = 0
    #: Enter within so many seconds after a paste is swallowed.
    deaf_after_paste: float = 0.0
    #: Enter, and what is typed after it, is acted on so many seconds later.
    accept_after: float = 0.0
    drop_pastes: int = 0
    cut_pastes: int = 0
    cut_at: int = 10
    #: The prompt is taken twice.
    double_accept: bool = False


@dataclass(frozen=True)
class Events:
    """Which hooks run, and when."""

    #: Events without a hook.
    off: tuple[str, ...] = ()
    #: Events told so many seconds late, while the agent goes on.
    late: dict[str, float] = field(default_factory=dict)
    #: Events told twice.
    twice: tuple[str, ...] = ()
    #: Seconds until a hook that hangs is left behind.
    patience: float = 60.0
    #: Seconds from an open dialog, and from the end of a turn, to the Notification.
    permission_notice: float = 6.0
    idle_notice: float = 60.0


@dataclass(frozen=True)
class Scenario:
    """All of it."""

    default: Turn = _nested(lambda data: _build(Turn, data), Turn)
    #: The first whose ``match`` is in the prompt; else the default.
    turns: tuple[Turn, ...] = _nested(lambda data: tuple(_build(Turn, item) for item in data), tuple)
    start: Start = _nested(lambda data: _build(Start, data), Start)
    looks: Looks = _nested(lambda data: _build(Looks, data), Looks)
    ways: Ways = _nested(lambda data: _build(Ways, data), Ways)
    faults: Faults = _nested(lambda data: _build(Faults, data), Faults)
    events: Events = _nested(lambda data: _build(Events, data), Events)

    @classmethod
    def parse(cls, text: str) -> Scenario:
        """The scenario in the JSON text."""
        try:
            data = json.loads(text)
        except ValueError as error:
            raise BadScenario(f"not JSON: {error}") from None
        return _build(cls, data)

    def dump(self) -> str:
        """The JSON text that :meth:`parse` reads."""
        return json.dumps(_plain(self), indent=1, ensure_ascii=False)


class ScenarioFile:
    """The file, and what it says now."""

    def __init__(self, path: str | None) -> None:
        self._path = path
        self._stamp: tuple[int, ...] = ()
        self.now = Scenario()

    def refresh(self) -> Scenario:
        """Read it if it is another file than before."""
        if self._path is None:
            return self.now
        status = os.stat(self._path)  # noqa: PTH116  # pathlib would cost half the time of the start
        stamp = (status.st_ino, status.st_size, status.st_mtime_ns)
        if stamp != self._stamp:
            with open(self._path, encoding="utf-8") as file:  # noqa: PTH123
                self.now = Scenario.parse(file.read())
            self._stamp = stamp
        return self.now


def _build(cls: type[Made], data: dict[str, Any]) -> Made:
    known = {item.name: item for item in fields(cls)}  # type: ignore[arg-type]
    if unknown := data.keys() - known:
        raise BadScenario(f"{cls.__name__} has no {', '.join(sorted(unknown))}; it has {', '.join(known)}")
    made = {}
    for name, value in data.items():
        nested = known[name].metadata.get("of")
        made[name] = nested(value) if nested else tuple(value) if isinstance(value, list) else value
    return cls(**made)


def _plain(value: Any) -> Any:
    """The dataclass as JSON has it, without what is at its default."""
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if not hasattr(value, "__dataclass_fields__"):
        return value
    plain: dict[str, Any] = {"do": value.do} if isinstance(value, Step) else {}
    for item in fields(value):
        own = getattr(value, item.name)
        usual = item.default if item.default is not MISSING else item.default_factory()  # type: ignore[misc]
        if own != usual:
            plain[item.name] = _plain(own)
    return plain
