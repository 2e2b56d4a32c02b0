"""Delivers texts to programs in the user's own tmux, which Torch does not host: read first, then typed, then proved.

A program that Torch has a kind for is read by the kind's file, any other by ``generic.toml``. What shows no input line
that these know, a shell or a program that reads lines, gets its text as :class:`TextDelivery` gives it.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from torch_tasks.config_files import config_names
from torch_tasks.errors import AgentUnavailable, DeliveryUncertain, InvalidSettings, NotDelivered
from torch_tasks.model.agent import AgentState
from torch_tasks.visible_text import one_line
from torch_tasks.workers.programs.config import KindConfig, kind_config
from torch_tasks.workers.programs.screen import Composer, ComposerContent, Screen, read_composer
from torch_tasks.workers.programs.screen_reading import ScreenRules
from torch_tasks.workers.programs.unknown_menu import unless_menu
from torch_tasks.workers.tmux.delivery import CONFIRM_SECONDS, READ_SECONDS, SETTLE_SECONDS, TerminalLine, TextDelivery
from torch_tasks.workers.tmux.pane import AgentPane, comparable
from torch_tasks.workers.tmux.user_tmux import LocalUserTmux

_GENERIC = "generic"
_SHELLS = frozenset({"sh", "bash", "dash", "zsh", "fish", "ksh", "ash"})
_INTERPRETERS = re.compile(r"node|bun|deno|python[\d.]*|env|" + "|".join(_SHELLS))
_PAGERS = frozenset({"less", "more", "most", "man", "top", "htop"})
_EDITORS = frozenset({"vi", "vim", "vim.basic", "vim.tiny", "nvim", "view", "nano", "emacs"})
_BEFORE_PROGRAM = ("exec", "env")
#: Where the pane notes the program that took a text there, so that a shell in its place is not taken for it.
_NOTE = "@torch_program"
#: What stands before the cursor while a program asks for yes or no.
_YES_OR_NO = re.compile(r"(\[y(es)?/no?\]|\(y(es)?/no?\S*\)|\(Y\)es/\(N\)o.*)\s*[:?>]?\s*$", re.IGNORECASE)
#: What stands before the cursor while half a line is typed at a prompt.
_DRAFT = re.compile(r"^(?:[^$#%>]*[$#%]|\s*(?:>>>|[>❯›»])) (?P<draft>\S.*)")  # noqa: RUF001 - as programs draw them
_CHOICE = re.compile(r"^\W*[❯›▸►→]\s*\d+[.)] ", re.MULTILINE)  # noqa: RUF001 - as programs draw them
_AT_WORK = frozenset({AgentState.WORKING, AgentState.COMPACTING})
_LEFT = frozenset({ComposerContent.NOTHING, ComposerContent.FOREIGN})
_LONGEST = 60


class ProgramAwareTmux(LocalUserTmux):
    """The user's tmux, whose programs are read before something is typed into them, and afterwards."""

    def _delivery(self, own: AgentPane, line: TerminalLine, text: str, place: str) -> TextDelivery:
        look = own.look()
        if look is None:
            raise AgentUnavailable(f"pane {place} is gone")
        foreground = Foreground.of(look.pid)
        self._refuse_shell_in_its_place(own, foreground, place)
        if covering := foreground.covering:
            raise NotDelivered(f"{covering} in {place} takes no messages; nothing was sent. Leave it first")
        config = foreground.config
        reads = config or kind_config(_GENERIC)
        delivery = ComposerDelivery(own, line, text, place, reads, is_known=config is not None)
        if line.canonical or foreground.is_shell or not delivery.has_composer():
            refuse_prompt(own, line, place, foreground.name)
            return TextDelivery(own, line, text, place)
        self._server.ask("set-option", "-p", "-t", own.pane_id, _NOTE, foreground.name)
        return delivery

    def _refuse_shell_in_its_place(self, own: AgentPane, foreground: Foreground, place: str) -> None:
        """Refuse a shell where a program was: it would run the text as a command."""
        wanted = f"#{{{_NOTE}}}\t#{{pane_start_command}}"
        answer = self._server.ask("display-message", "-p", "-t", own.pane_id, wanted)
        noted, _, started = (answer.stdout[0] if answer and answer.stdout else "").partition("\t")
        words = [word for word in _words(started) if word not in _BEFORE_PROGRAM and "=" not in word]
        program = noted or (Path(words[0].rstrip(";&|")).name if words else "")
        if foreground.is_shell and program and program not in _SHELLS:
            raise NotDelivered(
                f"{program} in {place} has ended, and {foreground.name} in its place would run the message as a "
                "command; nothing was sent. Start it again; for the shell, first run "
                f"'tmux set -p -t {own.pane_id} {_NOTE} sh'"
            )


@dataclass(frozen=True)
class Foreground:
    """The processes that a pane's terminal is for."""

    commands: tuple[tuple[str, ...], ...]
    """The command line of each, the leader's first."""

    @classmethod
    def of(cls, pid: int) -> Foreground:
        """Those of the pane whose first process this is."""
        commands = []
        with contextlib.suppress(psutil.Error, OSError):
            first = psutil.Process(pid)
            group = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[5])
            processes = sorted((first, *first.children(recursive=True)), key=lambda process: process.pid != group)
            for process in processes:
                with contextlib.suppress(psutil.Error, OSError):
                    if os.getpgid(process.pid) == group:
                        commands.append(tuple(process.cmdline()))
        return cls(tuple(command for command in commands if command))

    @property
    def name(self) -> str:
        """What the leader is called."""
        return _program(self.commands[0]) if self.commands else "the program"

    @property
    def is_shell(self) -> bool:
        """Whether a shell waits for a command there."""
        return len(self.commands) == 1 and self.name in _SHELLS

    @property
    def covering(self) -> str | None:
        """The pager or editor that has the screen, to which letters are commands; None if there is none."""
        return next((name for name in map(_program, self.commands) if name in _PAGERS | _EDITORS), None)

    @property
    def config(self) -> KindConfig | None:
        """How the kind of this program reads it; None if Torch has no kind for it."""
        programs = {_program(command) for command in self.commands} - _SHELLS
        for name in config_names("agents"):
            with contextlib.suppress(InvalidSettings):
                config = kind_config(name)
                if name != _GENERIC and Path(config.command[0]).name in programs:
                    return config
        return None


def _program(command: tuple[str, ...]) -> str:
    """The name of what a command line runs, also through an interpreter."""
    own = Path(command[0]).name.lstrip("-")
    scripts = [word for word in command[1:] if not word.startswith("-")]
    if _INTERPRETERS.fullmatch(own) and scripts and "-c" not in command:
        return Path(scripts[0]).name
    return own


def _words(command: str) -> list[str]:
    """The words of a command as tmux shows it, which may be quoted as a whole."""
    try:
        words = shlex.split(command)
    except ValueError:
        return command.split()
    return _words(words[0]) if len(words) == 1 and " " in words[0] else words


def refuse_prompt(pane: AgentPane, line: TerminalLine, place: str, program: str) -> None:
    """Refuse a program that asks for yes or no, or for a password, or whose line somebody has begun."""
    screen = Screen.of(pane)
    if screen is None:
        raise AgentUnavailable(f"pane {place} is gone")
    column, row = screen.cursor
    before = screen.solid[row][:column] if row < len(screen.solid) else ""
    if line.canonical and not line.echoes:
        raise NotDelivered(f"{program} in {place} asks for what it does not show, as a password; nothing was sent")
    if _YES_OR_NO.search(before) or _CHOICE.search("\n".join(screen.bottom(12))):
        asked = one_line(before.strip() or "a choice", _LONGEST)
        raise NotDelivered(f"{program} in {place} asks: {asked}; nothing was sent. Answer it first")
    if draft := _DRAFT.search(before):
        raise _draft(draft["draft"], place, program)


def _draft(text: str, place: str, program: str) -> NotDelivered:
    return NotDelivered(
        f"the input line of {program} in {place} holds {one_line(text, _LONGEST)!r} already; nothing was sent. "
        "Submit or clear that first"
    )


class ComposerDelivery(TextDelivery):
    """Types a text into a program's composer: sent is what was seen there, alone and whole, and is seen no more."""

    def __init__(
        self, pane: AgentPane, line: TerminalLine, text: str, place: str, config: KindConfig, *, is_known: bool
    ) -> None:
        super().__init__(pane, line, text, place)
        self._config = config
        self._is_known = is_known
        self._rules = ScreenRules(config)
        self._seen_before = 0

    def has_composer(self) -> bool:
        """Whether the program is to be read by its composer: a known one always, another where one is seen."""
        return self._is_known or self._look()[1].seen

    def stage(self) -> None:
        screen, composer = self._look()
        self._refuse_unless_free(screen, composer)
        self._seen_before = self._count_above(screen, composer)
        self._pane.paste(self._text)
        if not self._is_read():
            raise DeliveryUncertain(
                f"{self._program} in {self._place} does not read what is typed: the message waits in its terminal, "
                "Enter was not pressed; look at the pane before you send again"
            )
        if not self._wait(lambda: self._content() is ComposerContent.OURS, READ_SECONDS):
            raise self._not_staged(self._content())

    def submit(self) -> None:
        time.sleep(max(SETTLE_SECONDS, self._config.submit.settle_seconds))
        try:
            for seconds in CONFIRM_SECONDS:
                if self._content() is ComposerContent.OURS:
                    self._enter()
                if self._wait(self._has_gone, seconds):
                    return
        except AgentUnavailable as error:
            raise DeliveryUncertain(f"Enter was pressed, and then {error}") from None
        if self._content() is not ComposerContent.OURS:
            raise DeliveryUncertain(
                f"nothing shows that {self._program} in {self._place} took the message, and it is not alone in the "
                "input line; look at the pane before you send again"
            )
        rest = "it was removed from there" if self._clear() else "clear that line before you send again"
        raise NotDelivered(
            f"{self._program} in {self._place} took no text: the message was still in its input line after "
            f"{len(CONFIRM_SECONDS)} Enters; {rest}"
        )

    def _look(self) -> tuple[Screen, Composer]:
        screen = Screen.of(self._pane)
        if screen is None:
            raise AgentUnavailable(f"pane {self._place} is gone")
        return screen, read_composer(screen, self._config.composer)

    def _refuse_unless_free(self, screen: Screen, composer: Composer) -> None:
        """Type only into an empty composer, of a program that listens."""
        reading = self._rules.read(screen, composer)
        program = f"{self._program} in {self._place}"
        if self._is_known and reading.state in _AT_WORK and not self._config.submit.while_working:
            raise NotDelivered(f"{program} is at work and takes no text then; nothing was sent. Wait until it is done")
        if not composer.seen or (self._is_known and reading.state not in {AgentState.READY, *_AT_WORK}):
            asks = f" asks: {reading.question.text}" if reading.question else f" shows: {reading.rule or reading.state}"
            raise NotDelivered(f"{program}{asks}; nothing was sent. Answer it first")
        if re.match(r"\d+[.)] ", composer.text) or not unless_menu(composer, screen).seen:
            raise NotDelivered(f"{program} asks for a choice; nothing was sent. Answer it first")
        if composer.text:
            raise _draft(composer.text, self._place, self._program)

    def _content(self) -> ComposerContent:
        return self._look()[1].compare(self._text, self._config.composer.placeholder)

    def _not_staged(self, content: ComposerContent) -> Exception:
        where = f"the input line of {self._program} in {self._place}"
        if content is ComposerContent.PART:
            rest = "it was removed" if self._clear() else "clear the line before you send again"
            return NotDelivered(f"only a part of the message arrived in {where}, and Enter was not pressed; {rest}")
        why = {
            ComposerContent.UNSEEN: f"something covers {where} since the message was pasted",
            ComposerContent.NOTHING: f"{where} shows nothing of the message",
        }.get(content, f"somebody else wrote into {where} at the same time")
        return DeliveryUncertain(f"{why}: Enter was not pressed; look at the pane before you send again")

    def _has_gone(self) -> bool:
        """Whether two looks in a row find the text gone: one alone may meet a screen that is being redrawn."""
        return self._has_gone_now() and self._has_gone_now()

    def _has_gone_now(self) -> bool:
        screen, composer = self._look()
        if composer.seen:
            return composer.compare(self._text, self._config.composer.placeholder) in _LEFT
        # A dialog covers it: the program's answer to the message, if the message stands above.
        return self._count_above(screen, composer) > self._seen_before

    def _count_above(self, screen: Screen, composer: Composer) -> int:
        """How often the message's beginning stands above the composer."""
        above = "".join(comparable(row) for row in screen.lines[: composer.top])
        return above.count(comparable(self._text)[:_LONGEST])

    def _clear(self) -> bool:
        """Remove our text from the composer; whether it is gone."""
        rows = sum(len(line) // 20 + 1 for line in self._text.split("\n")[-100:])
        self._pane.press(*self._config.keys.clear * (2 * rows + 2))
        return self._wait(lambda: self._content() is ComposerContent.NOTHING, READ_SECONDS)
