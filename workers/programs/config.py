"""``config/agents/<kind>.toml``: what a user may say of a kind of agent program."""

from __future__ import annotations

import json
import re
import shutil
import tomllib
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from torch_tasks.config_files import config_file, config_names, shipped_config, user_config
from torch_tasks.errors import AgentUnavailable, InvalidSettings
from torch_tasks.model.agent import AgentSpec, AgentState
from torch_tasks.model.fields import readable
from torch_tasks.model.task import Permissions
from torch_tasks.workers.programs.events import ErrorKind, EventKind


def _compiled(pattern: Any) -> Any:
    try:
        return re.compile(pattern, re.MULTILINE) if isinstance(pattern, str) else pattern
    except re.error as error:
        raise ValueError(f"is no regular expression: {error}") from None


Regex = Annotated[re.Pattern[str], BeforeValidator(_compiled)]
"""A regular expression; ``^`` and ``$`` match at each line."""
Keys = tuple[str, ...]
"""Keys by their tmux names."""


class Section(BaseModel):
    """A table of the file, which knows all of its keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class PromptConfig(Section):
    """How a task's words are made into what is pasted."""

    guarded: tuple[str, ...] = ()
    """What the program takes as a command of its own at the beginning of a prompt: ``!``, ``/``, …"""
    guard: str = "The task, word for word:"
    """The line that then comes before it."""
    limit_bytes: int = 100_000
    """What is longer is put into a file that the prompt names."""
    altered: Regex | None = None
    """What the program does not keep as it is: a prompt with it names a file with the exact words, too."""


class SubmitConfig(Section):
    """How a text is submitted, and how patient that is, in seconds."""

    keys: Keys = ("Enter",)
    while_working: bool = False
    """It takes texts while it works, and comes to them by itself."""
    settle_seconds: float = 0.0
    """From the text being seen in the composer to the first Enter."""
    again_seconds: float = 1.0
    """Until Enter is pressed again on a text of ours that still stands there; doubled each time."""
    trace_seconds: float = 10.0
    """How long a submitted text may leave no trace; then it is indeterminate whether the program has it."""


class ComposerConfig(Section):
    """Where the program's input stands on the screen."""

    top: Regex | None = None
    """The line above it; unset: it begins with the last line that matches ``prompt``."""
    bottom: Regex | None = None
    """The line below it; unset: it ends with the screen."""
    open_ended: bool = False
    """A tall text pushes the line below it out of the screen."""
    covered: Regex | None = None
    """What the screen's last line says while something else stands in its place."""
    prompt: Regex = re.compile(r"^\s*[│┃|]?\s*[>»\u276f\u203a]( |$)")
    """What its first line begins with."""
    continuation: Regex = re.compile(r"^\s*[│┃|]?\s*")
    """What its other lines begin with."""
    end: Regex = re.compile(r"\s*[│┃|]?$")
    """What its lines end with."""
    placeholder: Regex | None = None
    """What it shows in the place of a long paste."""
    hints: tuple[Regex, ...] = ()
    """What it shows while it is empty."""


class KeysConfig(Section):
    """What is pressed for what."""

    interrupt: Keys = ("Escape",)
    clear: Keys = ("C-u",)
    """Removes at least a line, or an empty line, of what stands in the composer."""


class PermissionsConfig(Section):
    """What becomes of requests for permission, where the task does not say it. The patterns are shell globs."""

    mode: Permissions = Permissions.ASK
    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()
    """Comes before ``allow`` and the mode."""


class AnswersConfig(Section):
    """The keys that answer a question: ``{n}`` is a choice's number, ``{text}`` a text that is pasted."""

    allow: Keys = ("1",)
    deny: Keys = ("Escape",)
    """``{text}`` is the reason."""
    reason: str = "Torch's policy does not allow this. Go on without it, or report that it cannot be done."
    choice: Keys = ("{n}",)
    text: Keys = ()
    """``{n}`` is the choice that takes a text."""
    text_choice: Regex | None = None
    """What that choice is called; where there is none, no text can be given."""


class DialogConfig(Section):
    """A dialog of the start, and how it is answered."""

    pattern: Regex
    keys: Keys
    note: str = ""


class RuleConfig(Section):
    """What a part of the screen says about the program's state.

    The groups ``question``, ``subject`` and ``until`` of the pattern go into the reading.
    """

    name: str
    state: AgentState
    where: str = Field("screen", pattern=r"^(screen|title|composer|(bottom|above composer)( \d+)?)$")
    pattern: Regex
    unless: Regex | None = None
    choices: Regex | None = None
    """Each match is a choice; its first group, if it has one, is the choice's text."""
    priority: int = 0
    """The largest one that fits decides."""


class AnswerConfig(Section):
    """How the answer is cleaned where it has to be read from the screen."""

    drop: tuple[Regex, ...] = ()
    """Lines that match one of these are no part of it."""
    strip: Regex | None = None
    """What is taken from the beginning of each line."""


class HookConfig(Section):
    """What an event of the program's hooks means. The values but ``event`` name fields in the event's JSON."""

    event: EventKind
    text: str = ""
    """The prompt, the answer, or the error's words."""
    error: str = ""
    tool: str = ""
    """The tool that permission is asked for; with it goes the first text in ``input``."""
    input: str = ""


class KindConfig(Section):
    """The whole file."""

    base: str | None = None
    """The kind that this one is laid over; of one that is laid over another, the undermost."""
    program: str | None = None
    """Which of Torch's programs drives it; unset: the one of its base's or its file's name, or ``generic``."""
    account: str | None = None
    """The account with a provider of models that its agents share; unset: they share the base's or the kind's own."""
    command: tuple[str, ...] = Field(min_length=1)
    measured: str | None = None
    """The release of the program with which it was measured what this file says."""
    environment: Mapping[str, str] = {}
    model: str | None = None
    """The model to use; unset: the program's own default."""
    models: tuple[str, ...] = ()
    """The models that are known to work."""
    settings: Mapping[str, Any] = {}
    """What goes into the program's own settings file for this agent, over the user's."""
    prompt: PromptConfig = PromptConfig()
    submit: SubmitConfig = SubmitConfig()
    composer: ComposerConfig = ComposerConfig()
    keys: KeysConfig = KeysConfig()
    permissions: PermissionsConfig = PermissionsConfig()
    answers: AnswersConfig = AnswersConfig()
    answer: AnswerConfig = AnswerConfig()
    dialogs: tuple[DialogConfig, ...] = ()
    rules: tuple[RuleConfig, ...] = ()
    hooks: Mapping[str, HookConfig] = {}
    """Events that the program's hooks report, for a program that reads Claude Code's hook settings."""
    errors: Mapping[str, ErrorKind] = {}
    """What the words mean that a failed turn's hook gives as its reason."""

    @property
    def path(self) -> str | None:
        """Where its program is; None if it is not on the PATH that an agent has."""
        return shutil.which(self.command[0], path=self.environment.get("PATH"))

    def require_program(self, spec: AgentSpec) -> None:
        """:class:`AgentUnavailable` if this agent's program is not there."""
        if self.path is None:
            raise AgentUnavailable(
                f"agent {spec.id}: there is no program {self.command[0]!r} on PATH; install it, "
                f"or set `command` in agents/{spec.kind}.toml in the configuration folder"
            )


@cache
def kind_config(kind: str) -> KindConfig:
    """The configuration of a kind, or :class:`InvalidSettings`."""
    path = _file(kind)
    try:
        return KindConfig.model_validate(_whole(path, [path]))
    except ValidationError as error:
        raise InvalidSettings(f"{path}: {readable(error)}") from None


def _file(kind: str) -> Path:
    path = config_file(f"agents/{kind}.toml")
    if path is None:
        raise InvalidSettings(
            f"there is no agent kind {kind!r}: no agents/{kind}.toml in {user_config()}; "
            f"there are: {', '.join(config_names('agents'))}"
        )
    return path


def _whole(path: Path, above: Sequence[Path]) -> dict[str, Any]:
    """What the file says, laid over what its base says; its own rules and dialogs come before the base's."""
    try:
        own = tomllib.loads(path.read_text())
    except tomllib.TOMLDecodeError as error:
        raise InvalidSettings(f"{path} is not valid TOML: {error}") from None
    name = own.get("base")
    if not isinstance(name, str):
        return own
    # A file of the user's may be laid over Torch's own of the same name.
    base = shipped_config() / "agents" / path.name if name == path.stem else _file(name)
    if base in above or not base.is_file():
        why = "is laid over it" if base in above else "is none of Torch's"
        raise InvalidSettings(f"{path} is laid over {name!r}, which {why}; name another `base`")
    under = _whole(base, [*above, base])
    lists = {name: [*own.get(name, ()), *under.get(name, ())] for name in ("rules", "dialogs")}
    return {**overlaid(under, own), **lists, "base": under.get("base", name)}


#: A string, kept; or a comment.
_COMMENT = re.compile(r'("(?:\\.|[^"\\])*")|//[^\n]*|/\*.*?\*/', re.DOTALL)
_TRAILING_COMMA = re.compile(r'("(?:\\.|[^"\\])*")|,(?=\s*[}\]])')


def read_settings(path: Path) -> dict[str, Any]:
    """The settings in the file, which may hold comments; none if there is no file."""
    try:
        text = path.read_text()
    except FileNotFoundError:
        return {}
    plain = _TRAILING_COMMA.sub(r"\1", _COMMENT.sub(r"\1", text))
    try:
        settings = json.loads(plain or "{}")
    except ValueError as error:
        raise AgentUnavailable(f"{path} is no valid JSON ({error}); put it right, or the agent cannot start") from None
    return settings if isinstance(settings, dict) else {}


def overlaid(settings: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """The settings with others over them: tables are merged, everything else is replaced."""
    merged = dict(settings)
    for name, value in over.items():
        before = merged.get(name)
        merged[name] = overlaid(before, value) if isinstance(before, Mapping) and isinstance(value, Mapping) else value
    return merged
