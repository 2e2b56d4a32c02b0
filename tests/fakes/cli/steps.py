"""What the fake agent can do in a turn."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from fakes.cli.data import BadScenario, build, read_by

FOREVER = 1e9


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
    """Ask before a tool is used. A choice that begins with No, and Escape, deny: then only ``denied`` comes.

    A choice with "auto" changes the mode; after one with "always" nothing is asked in this session, and after one with
    "project" in no session in this folder. A ``silent`` denial ends the turn as an interruption does, without a hook.
    """

    do = "permission"
    tool: str = "Bash"
    command: str = "touch a.txt"
    question: str = "Do you want to proceed?"
    choices: tuple[str, ...] = ("Yes", "No")
    default: int = 0
    numbered: bool = True
    style: str = "pointer"
    window: int = 0
    denied: tuple[Step, ...] = field(default_factory=tuple, metadata=read_by(lambda data: parse_steps(data)))
    silent: bool = True


@dataclass(frozen=True)
class Ask(Step):
    """Ask the user something; ``free`` adds a choice that takes a text. ``{choice}`` in Say is what was chosen."""

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


@dataclass(frozen=True)
class Open(Step):
    """Show this dialog, one of ``dialogs.BUILT_IN``, without a hook; go on when it is closed."""

    do = "open"
    dialog: str = "survey"


@dataclass(frozen=True)
class Update(Step):
    """Start anew as another binary in the same process would: as the scenario then says, without the conversation."""

    do = "update"


@dataclass(frozen=True)
class AskModel(Step):
    """Ask the model at OPENAI_BASE_URL, and do what it says: answer, use the shell after asking, fail."""

    do = "ask-model"


STEPS: dict[str, type[Step]] = {
    step.do: step
    for step in (
        *(Work, Say, Run, Permission, Ask, Compact, Retry, Limit),
        *(Login, Fail, Loop, Storm, Hang, Crash, Shell, Open, Update, AskModel),
    )
}


def parse_steps(data: list[dict[str, Any]]) -> tuple[Step, ...]:
    """The steps that the JSON lists."""
    return tuple(_step(item) for item in data)


def _step(data: dict[str, Any]) -> Step:
    kind = STEPS.get(data.get("do", ""))
    if kind is None:
        raise BadScenario(f"no step is {data!r}; 'do' is one of {', '.join(STEPS)}")
    return build(kind, {name: value for name, value in data.items() if name != "do"})
