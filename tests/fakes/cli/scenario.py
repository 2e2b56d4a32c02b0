"""What the fake agent does, as data: one JSON file, which is read again whenever it has changed."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from functools import partial

from fakes.cli.data import BadScenario, build, plain, read_by
from fakes.cli.steps import Say, Step, Work, parse_steps


@dataclass(frozen=True)
class Turn:
    """What follows a prompt that contains ``match``; with ``times``, only so many."""

    steps: tuple[Step, ...] = field(default_factory=lambda: (Work(), Say()), metadata=read_by(parse_steps))
    match: str = ""
    times: int = 0


@dataclass(frozen=True)
class Start:
    """From the launch to the first composer. What is typed before it is ready is lost."""

    ready_after: float = 0.0
    bracketed_paste: bool = True
    #: Of those in ``dialogs.BUILT_IN``, one after the other.
    dialogs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Looks:
    """What it looks like. Titles know ``{topic}`` and ``{folder}``; an empty one is never set."""

    name: str = "Fake Code"
    title_idle: str = "✳ {topic}"
    title_busy: tuple[str, ...] = ("⠂ {topic}", "⠐ {topic}")
    title_asking: str = "✳ {topic}"
    #: Before the text in the composer.
    mark: str = ">"
    #: A suggestion, dim, in the empty composer.
    ghost: str = ""
    #: A prompt that was taken stays above the composer.
    echoes_prompts: bool = True
    alternate_screen: bool = False
    #: Its modes, which Shift+Tab changes; in one that is called auto, it asks for no permission.
    modes: tuple[str, ...] = ()
    spinner_seconds: float = 0.25
    #: With a text in the composer the footer's hints are gone, also "esc to interrupt".
    draft_hides_hints: bool = True
    #: The composer has its frame. Without it, all is new: it begins on an empty screen.
    framed: bool = True
    #: These words stand above the composer while it idles, and change ten times a second.
    idle_spinner: str = ""
    #: So many titles a second.
    titles_per_second: int = 0


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
    #: Escape interrupts also while a text is in the composer.
    escape_beside_draft: bool = True
    #: So many C-c in an empty composer end it, if no more seconds than these are between them.
    ctrl_c_exits: int = 2
    ctrl_c_seconds: float = 2.0
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
    #: Nothing is read for so many seconds once a paste is drawn; of Enters read at once, each submits the text.
    busy_after_paste: float = 0.0
    #: A swallowed Enter becomes a line break in the text.
    swallowed_breaks: bool = False
    #: Enter, and what is typed after it, is acted on so many seconds later.
    accept_after: float = 0.0
    #: What changes is seen so many seconds later.
    draw_after: float = 0.0
    drop_pastes: int = 0
    cut_pastes: int = 0
    cut_at: int = 10
    #: This dialog opens right after a prompt's first paste.
    dialog_after_paste: str = ""
    #: The composer is emptied as if the prompt were taken, so many times; the model gets nothing.
    lose_prompts: int = 0
    #: The prompt is taken twice.
    double_accept: bool = False
    #: A dialog ignores what is pressed within so many seconds after it opened.
    deaf_dialogs: float = 0.0
    #: This dialog opens when a turn is over.
    dialog_after_turn: str = ""


@dataclass(frozen=True)
class Events:
    """Which events it reports, and when: through its hooks, and its files in HOME."""

    #: Events without a hook.
    off: tuple[str, ...] = ()
    #: Events whose hooks start so many seconds late, while the agent goes on.
    late: dict[str, float] = field(default_factory=dict)
    #: Events whose hooks start twice.
    twice: tuple[str, ...] = ()
    #: Seconds until a hook that hangs is left behind.
    patience: float = 60.0
    #: Seconds from an open dialog, and from the end of a turn, to the Notification.
    permission_notice: float = 6.0
    idle_notice: float = 60.0
    #: ``~/.claude/sessions/<pid>.json`` and the transcript, as Claude Code writes them.
    claude_files: bool = False


@dataclass(frozen=True)
class Scenario:
    """All of it."""

    default: Turn = field(default_factory=Turn, metadata=read_by(partial(build, Turn)))
    #: The first whose ``match`` is in the prompt; else the default.
    turns: tuple[Turn, ...] = field(
        default_factory=tuple, metadata=read_by(lambda data: tuple(build(Turn, item) for item in data))
    )
    start: Start = field(default_factory=Start, metadata=read_by(partial(build, Start)))
    looks: Looks = field(default_factory=Looks, metadata=read_by(partial(build, Looks)))
    ways: Ways = field(default_factory=Ways, metadata=read_by(partial(build, Ways)))
    faults: Faults = field(default_factory=Faults, metadata=read_by(partial(build, Faults)))
    events: Events = field(default_factory=Events, metadata=read_by(partial(build, Events)))

    @classmethod
    def parse(cls, text: str) -> Scenario:
        """The scenario in the JSON text."""
        try:
            data = json.loads(text)
        except ValueError as error:
            raise BadScenario(f"not JSON: {error}") from None
        return build(cls, data)

    def dump(self) -> str:
        """The JSON text that :meth:`parse` reads."""
        return json.dumps(plain(self), indent=1, ensure_ascii=False)


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
