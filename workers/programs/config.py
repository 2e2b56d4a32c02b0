"""``config/agents/<kind>.toml``: the settings of one kind of agent program."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from torch_tasks.config_files import config_file, config_names, shipped_config, user_config
from torch_tasks.errors import AgentUnavailable, InvalidSettings
from torch_tasks.model.agent import AgentSpec, AgentState
from torch_tasks.model.fields import faults
from torch_tasks.model.near import did_you_mean
from torch_tasks.model.sandbox import Network, SandboxMode
from torch_tasks.model.task import Permissions
from torch_tasks.toml_config import Location, hint, place, read_toml
from torch_tasks.workers.programs.events import ErrorKind, EventKind
from torch_tasks.workers.programs.telemetry import TelemetryConfig
from torch_tasks.workers.sandbox.policy import BoxPaths


def _compiled(pattern: Any) -> Any:
    try:
        return re.compile(pattern, re.MULTILINE) if isinstance(pattern, str) else pattern
    except re.error as error:
        raise ValueError(f"is no regular expression: {error}") from None


Regex = Annotated[re.Pattern[str], BeforeValidator(_compiled)]
"""A regular expression; ``^`` and ``$`` match at each line."""


def _worded(pattern: Any) -> Any:
    return _compiled(f"(?i:{pattern})") if isinstance(pattern, str) else pattern


def _seen(pattern: Any) -> Any:
    return _compiled(f"(?i){pattern}") if isinstance(pattern, str) else pattern


Words = Annotated[re.Pattern[str], BeforeValidator(_worded)]
"""A regular expression that all words of a choice fit, in any case."""
Seen = Annotated[re.Pattern[str], BeforeValidator(_seen)]
"""A regular expression for words that are somewhere in a text, in any case."""
Keys = tuple[str, ...]
"""Keys by their tmux names."""


class Section(BaseModel):
    """A table of the file; a key that it does not know is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class PromptConfig(Section):
    """How a task's words become the text that is pasted."""

    guarded: tuple[str, ...] = ()
    """Beginnings of a prompt that the program takes as its own commands: ``!``, ``/``, …"""
    guard: str = "The task, word for word:"
    """The line that is put before such a prompt."""
    limit_bytes: int = 100_000
    """A longer prompt is put into a file, and the pasted text names the file."""
    altered: Regex | None = None
    """Characters that the program changes: a prompt with one also names a file with the exact words."""
    wrappers: tuple[Regex, ...] = ()
    """What the program puts around a prompt before it reports it and gives it to the model; ``text`` is the prompt."""


class SubmitConfig(Section):
    """How a text is submitted, and for how many seconds each step is waited for."""

    keys: Keys = ("Enter",)
    while_working: bool = False
    """The program queues texts that it gets while it works."""
    settle_seconds: float = 0.0
    """From seeing the text in the composer to the first Enter."""
    again_seconds: float = 1.0
    """Until Enter is pressed again if Torch's text is still in the composer; doubled each time."""
    trace_seconds: float = 10.0
    """Until a submitted text that left no trace counts as indeterminate."""


class ComposerConfig(Section):
    """Where the program's input is on the screen."""

    top: Regex | None = None
    """The line above the composer; unset: the composer begins with the last line that matches ``prompt``."""
    bottom: Regex | None = None
    """The line below it; unset: it ends with the screen."""
    open_ended: bool = False
    """A tall text pushes the line below it off the screen."""
    covered: Regex | None = None
    """The screen's last line while a dialog covers the composer."""
    prompt: Regex = re.compile(r"^\s*[│┃|]?\s*[>»\u276f\u203a]( |$)")
    """The beginning of its first line."""
    continuation: Regex = re.compile(r"^\s*[│┃|]?\s*")
    """The beginning of its other lines."""
    end: Regex = re.compile(r"\s*[│┃|]?$")
    """The end of each line."""
    placeholder: Regex | None = None
    """What it shows instead of a long paste."""
    hints: tuple[Regex, ...] = ()
    """What it shows while it is empty."""


class KeysConfig(Section):
    interrupt: Keys = ("Escape",)
    clear: Keys = ("C-u",)
    """Removes at least one line, or one empty line, from the composer."""


class ConversationConfig(Section):
    """The words at the end of the command that tie the program to a conversation.

    ``{conversation}`` is its id, ``{folder}`` the agent's own folder.
    """

    begin: tuple[str, ...] = ()
    """They begin a conversation under a new id, a UUID; without ``{conversation}``, its hooks report the id."""
    resume: tuple[str, ...] = ()
    """They go on with an earlier one; unset: each program begins with an empty head."""


class PermissionsConfig(Section):
    """How requests for permission are answered unless the task says it. The patterns are shell globs."""

    mode: Permissions = Permissions.ASK
    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()
    """Wins over ``allow`` and the mode."""


class ReplyConfig(Section):
    """How something that the program asks is answered: by the words of a choice, or by keys alone."""

    choose: Words | None = None
    """The words of the choice, all of them and in any case; where it stands and what is highlighted do not matter."""
    keys: Keys = ()
    """What is pressed once the choice is highlighted (unset: Enter), or without looking if no choice is named.

    ``{text}`` is a text that is pasted; Enter after it is pressed once the text is seen.
    """

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.choose is None and not self.keys:
            raise ValueError("names neither the words of a choice (`choose`) nor `keys`")
        return self


#: What a choice says that changes something for later: a mode, a rule, a question that is not asked again.
_LASTING = (
    r"\b(?:always|never|remember|bypass|yolo|from now on|every time|all edits)\b|(?:don['\u2019]?t|do not|stop) ask"
    r"|\b(?:this|the|entire|whole) session\b|\bauto(?:matically)?[- ]?(?:mode|accept|approve|edit|run)"
)


def _reply(words: str) -> ReplyConfig:
    return ReplyConfig.model_validate({"choose": words})


class AnswersConfig(Section):
    """How a question of the program is answered."""

    allow: ReplyConfig = _reply(r"(?:yes|allow|approve|accept|proceed|run|ok)\b.*")
    """Gives the permission that is asked for, this once: a lasting choice is never taken."""
    deny: ReplyConfig = _reply(r"(?:no|deny|reject|refuse|decline|cancel|don['\u2019]t)\b.*")
    """Refuses it. ``{text}`` is the reason."""
    reason: str = "Torch's policy does not allow this. Go on without it, or report that it cannot be done."
    text: ReplyConfig | None = None
    """Gives an answer in a person's own words; unset: none can be given."""
    tick: Keys = ("Space",)
    """Ticks the highlighted choice where more than one may be taken, or takes the tick away."""
    confirm: Words = _worded("next|submit|done|confirm|continue")
    """The choice that gives the ticks."""
    lasting: Seen = _seen(_LASTING)
    """What a choice says that changes something for later; a policy never takes it."""
    written: tuple[str, ...] = ()
    """The files into which such a choice writes; ``{workdir}`` is the program's folder, ``~`` the user's home."""


class ModeConfig(Section):
    """The program's mode, in which it asks more or less."""

    shown: Regex
    """Where the screen shows it, in the group ``mode``; no match: none."""
    keys: Keys
    """They change it to the next one."""

    @field_validator("shown")
    @classmethod
    def _has_a_mode(cls, shown: re.Pattern[str]) -> re.Pattern[str]:
        if "mode" not in shown.groupindex:
            raise ValueError("has no group (?P<mode>…)")
        return shown


class DialogConfig(ReplyConfig):
    """A dialog, and how it is answered."""

    pattern: Regex
    note: str = ""


class RuleConfig(Section):
    """What a part of the screen shows of the program's state.

    The groups ``question``, ``subject`` and ``until`` of the pattern go into the reading.
    """

    name: str
    state: AgentState
    where: str = Field("screen", pattern=r"^(screen|title|composer|(bottom|above composer)( \d+)?)$")
    pattern: Regex
    unless: Regex | None = None
    priority: int = 0
    """Of the rules that match, the one with the largest priority decides."""


class AnswerConfig(Section):
    """How an answer that is read from the screen is cleaned."""

    drop: tuple[Regex, ...] = ()
    """Lines that are no part of the answer."""
    strip: Regex | None = None
    """What is removed from the beginning of each line."""


class HookConfig(Section):
    """What an event of the program's hooks means. All values but ``event`` name fields in the event's JSON."""

    event: EventKind
    text: str = ""
    """The prompt, the answer, or the error's message."""
    error: str = ""
    tool: str = ""
    """The tool that needs permission, for the first text in ``input``."""
    input: str = ""


class AcpConfig(Section):
    """What is asked of a program that speaks the Agent Client Protocol, by the program's own names."""

    auth: str | None = None
    """The method by which it is authenticated if it wants a login; unset, a person chooses in the pane."""
    mode: str | None = None
    """The mode in which a session begins."""


class ToolConfig(Section):
    """A tool of the program that runs a shell command, before which it asks its person."""

    name: str
    input: Mapping[str, str] = {"command": "{command}"}


class CertifyConfig(Section):
    """How a program that Torch does not know is tried against the fake model.

    In the values, ``{url}`` and ``{openai_url}`` are the model's addresses for Anthropic's and Google's clients and for
    OpenAI's, ``{key}`` is the API key, ``{home}`` and ``{work}`` are the folders that it is started with and in.
    """

    environment: Mapping[str, str] = {}
    files: Mapping[str, str] = {}
    """Written below the home, by their names."""
    model: str | None = None
    """What the program calls the model."""
    tool: ToolConfig | None = None
    exit: Keys = ("C-c", "C-c")
    """They leave the program if its composer is empty."""
    gives_up: bool = False
    """It soon tells of an overloaded model, and does not try again for a minute."""
    not_applicable: Mapping[str, str] = {}
    """What it cannot do, by the promise's name, and why."""


class KindConfig(Section):
    """The whole file."""

    base: str | None = None
    """The kind that this one is laid over; in a chain, the lowest."""
    program: str | None = None
    """The driver in :mod:`torch_tasks.workers.programs`; unset: the one named like the base or the file, or generic."""
    account: str | None = None
    """The account with a model provider that the agents share; unset: the base's or the kind's own."""
    command: tuple[str, ...] = Field(min_length=1)
    door: bool = False
    """Prompts go through a server of the program's own, if its driver knows one."""
    tools: bool = False
    """The program gets Torch's tools for its model, if its driver knows how."""
    environment: Mapping[str, str] = {}
    from_environment: tuple[str, ...] = ()
    """The variables of the worker's that the program gets beside those of every pane, as `ANTHROPIC_*`."""
    sandbox: SandboxMode | None = None
    """Whether the program runs in a box, unless the agent's declaration says; unset: as `TORCH_SANDBOX` says."""
    network: Network | None = None
    """What it reaches from its box: ``all``, ``none``, or a list of hosts; unset: as `TORCH_SANDBOX_NETWORK` says."""
    box: BoxPaths = BoxPaths()
    """What of the user's it has in its box."""
    model: str | None = None
    """Unset: the program's own default."""
    models: tuple[str, ...] = ()
    """The models that are known to work."""
    settings: Mapping[str, Any] = {}
    """Laid over the user's in the program's settings file for this agent."""
    telemetry: TelemetryConfig = TelemetryConfig()
    """What has the program send its own telemetry."""
    prompt: PromptConfig = PromptConfig()
    submit: SubmitConfig = SubmitConfig()
    composer: ComposerConfig = ComposerConfig()
    keys: KeysConfig = KeysConfig()
    conversation: ConversationConfig = ConversationConfig()
    permissions: PermissionsConfig = PermissionsConfig()
    answers: AnswersConfig = AnswersConfig()
    answer: AnswerConfig = AnswerConfig()
    mode: ModeConfig | None = None
    dialogs: tuple[DialogConfig, ...] = ()
    rules: tuple[RuleConfig, ...] = ()
    acp: AcpConfig = AcpConfig()
    hooks: Mapping[str, HookConfig] = {}
    """The events of a program that reads Claude Code's hook settings."""
    errors: Mapping[str, ErrorKind] = {}
    """The kind of error for each reason that a failed turn's hook gives."""
    certify: CertifyConfig | None = None
    """Unset: as its base is tried, if that is one of Torch's."""

    @property
    def path(self) -> str | None:
        """Where the program is; None if it is not on the agent's PATH."""
        return shutil.which(self.command[0], path=self.environment.get("PATH"))

    def require_program(self, spec: AgentSpec) -> None:
        """Raise :class:`AgentUnavailable` if the program is not there."""
        if self.path is None:
            raise AgentUnavailable(
                f"agent {spec.id}: there is no program {self.command[0]!r} on PATH; install it, "
                f"or set `command` in agents/{spec.kind}.toml in the configuration folder"
            )


#: The lists of a file that its base's are added to.
_JOINED = ("rules", "dialogs", "from_environment")


@cache
def kind_config(kind: str) -> KindConfig:
    """The configuration of a kind, or :class:`InvalidSettings`."""
    path = _file(kind)
    files = [path]
    try:
        return KindConfig.model_validate(_whole(path, files))
    except ValidationError as error:
        wrong = [_place(files, loc) + words + hint(KindConfig, loc, words) for loc, words in faults(error)]
        raise InvalidSettings(f"cannot use {'; '.join(wrong)}") from None


def lowest_shipped(kind: str) -> str | None:
    """The kind of Torch's own that this kind is, or is laid over; None if its file is wholly the user's."""
    lowest = kind_config(kind).base or kind
    own, shipped = _file(lowest), shipped_config() / "agents" / f"{lowest}.toml"
    return lowest if shipped.is_file() and (own == shipped or read_toml(own).get("base") == lowest) else None


def _place(files: Sequence[Path], loc: Location) -> str:
    """Where a value of a kind stands: in its own file or in one of those that it is laid over, the nearest first."""
    for file in files:
        own: Any = read_toml(file)
        if loc[0] in _JOINED and len(loc) > 1 and isinstance(loc[1], int):
            count = len(own.get(loc[0], ()))
            if loc[1] >= count:
                loc = (loc[0], loc[1] - count, *loc[2:])
                continue
        elif not _holds(own, loc):
            continue
        return place(file, file.read_text(), loc)
    return place(files[0], "", loc)


def _holds(values: Any, loc: Location) -> bool:
    """Whether there is a value at this location."""
    for part in loc:
        try:
            values = values[part]
        except (LookupError, TypeError):
            return False
    return True


def _file(kind: str) -> Path:
    path = config_file(f"agents/{kind}.toml")
    if path is None:
        kinds = config_names("agents")
        hint = did_you_mean(kind, kinds, f"there are: {', '.join(kinds)}")
        raise InvalidSettings(f"there is no agent kind {kind!r}: no agents/{kind}.toml in {user_config()}; {hint}")
    return path


def _whole(path: Path, files: list[Path]) -> dict[str, Any]:
    """The file's values laid over its base's, which joins the files; its own rules and dialogs come first."""
    own = read_toml(path)
    name = own.get("base")
    if not isinstance(name, str):
        return own
    # A user's file may be laid over the shipped one of the same name.
    base = shipped_config() / "agents" / path.name if name == path.stem else _file(name)
    if base in files or not base.is_file():
        why = "is laid over it" if base in files else "is none of Torch's"
        raise InvalidSettings(f"{path} is laid over {name!r}, which {why}; name another `base`")
    files.append(base)
    under = _whole(base, files)
    lists = {name: [*own.get(name, ()), *under.get(name, ())] for name in _JOINED}
    return {**overlaid(under, own), **lists, "base": under.get("base", name)}


#: A string, which is kept, or a comment.
_COMMENT = re.compile(r'("(?:\\.|[^"\\])*")|//[^\n]*|/\*.*?\*/', re.DOTALL)
_TRAILING_COMMA = re.compile(r'("(?:\\.|[^"\\])*")|,(?=\s*[}\]])')


def read_settings(path: Path) -> dict[str, Any]:
    """The settings in a JSON file with comments; none if there is no file."""
    try:
        text = path.read_text()
    except FileNotFoundError:
        return {}
    plain = _TRAILING_COMMA.sub(r"\1", _COMMENT.sub(r"\1", text))
    try:
        settings = json.loads(plain or "{}")
    except ValueError as error:
        raise AgentUnavailable(f"{path} is no valid JSON ({error}); correct it, or the agent cannot start") from None
    return settings if isinstance(settings, dict) else {}


def overlaid(settings: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """The settings with ``over`` laid over them: tables are merged, everything else is replaced."""
    merged = dict(settings)
    for name, value in over.items():
        before = merged.get(name)
        merged[name] = overlaid(before, value) if isinstance(before, Mapping) and isinstance(value, Mapping) else value
    return merged
