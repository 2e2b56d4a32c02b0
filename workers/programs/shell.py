"""The ``shell`` agent: a task's prompt is a script, run in one persistent shell; a message is a typed command line.

The script never passes through the terminal: the pane gets one short line that sources it.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import signal
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

import psutil

from torch_tasks.model.agent import AgentState
from torch_tasks.model.task import Evidence, Failure, FailureKind, TaskSpec
from torch_tasks.state_folder import BELL
from torch_tasks.system.files import read_plain, write_private
from torch_tasks.system.processes import kill_each
from torch_tasks.workers.folders import AttemptFolder, MessageFolder
from torch_tasks.workers.programs.config import ComposerConfig, KeysConfig
from torch_tasks.workers.programs.events import EventKind, ProgramEvent
from torch_tasks.workers.programs.kind import AgentKind, Hindrance, ProgramEnding, Progress, StateReading
from torch_tasks.workers.programs.pane_program import leader_of
from torch_tasks.workers.programs.prompt import show_controls
from torch_tasks.workers.programs.screen import Composer, Screen, read_composer
from torch_tasks.workers.programs.screen_reading import ScreenReading
from torch_tasks.workers.programs.submission import Submission
from torch_tasks.workers.programs.submitter import Submitter
from torch_tasks.workers.programs.turn import Turn
from torch_tasks.workers.tmux.pane import AgentPane, PaneLook

_SCRIPTS = Path(__file__).parent / "scripts"
#: A longer text is sourced from its file: a text that fills the screen cannot be seen whole.
_LONGEST = 1500
_MOST_LINES = 10


class Shell(AgentKind):
    """A shell, started by ``keeper.bash``, which starts the next one when it ends."""

    #: The folder of a task that was not typed because a person was typing.
    _unstarted: Path | None = None

    def launch(self, resumes: str | None = None) -> list[str]:
        self.own.mkdir(exist_ok=True)
        bell, rc = str(self.folder / BELL), self.own / "shell.bash"
        write_private(
            rc,
            f"__torch_folder={shlex.quote(str(self.own))}\n"
            f"__torch_bell={shlex.quote(bell)}\n"
            f"__torch_agent={self.agent_id}\n"
            f". {shlex.quote(str(_SCRIPTS / 'shell.bash'))}\n",
        )
        (self.own / "ready").unlink(missing_ok=True)
        keeper = [self.config.command[0], str(_SCRIPTS / "keeper.bash"), str(self.own), bell]
        return [*keeper, *self.config.command, "--rcfile", str(rc), "-i"]

    def get_ready(self, pane: AgentPane) -> bool:
        return self.has_started

    def read(self, pane: AgentPane) -> StateReading:
        if not self.has_started:
            return StateReading(AgentState.STARTING, "prompt")
        if self._at_prompt(pane.look()):
            return StateReading(AgentState.READY, "foreground process", "the shell")
        return StateReading(AgentState.WORKING, "foreground process", "a command")

    def is_free(self, pane: AgentPane) -> bool:
        look = pane.look()
        return look is not None and self._is_free(pane, look)

    def _is_free(self, pane: AgentPane, look: PaneLook) -> bool:
        return not look.in_use and self._is_empty(pane, look)

    def _is_empty(self, pane: AgentPane, look: PaneLook) -> bool:
        return self.has_started and pane.cursor_line(look).rstrip() == f"{self.agent_id}>"

    def clear_input(self, pane: AgentPane) -> None:
        look = pane.look()
        if look and self._at_prompt(look) and not self._is_empty(pane, look) and not pane.keyboard.person:
            pane.press("C-x", "C-l")

    def _at_prompt(self, look: PaneLook | None) -> bool:
        return look is not None and look.command == Path(self.config.command[0]).name

    def discard_input(self, pane: AgentPane) -> None:
        pane.press("C-u")

    def begin(self, pane: AgentPane, run: AttemptFolder, spec: TaskSpec, variables: Mapping[str, str]) -> None:
        run.prompt.write_text(spec.prompt + "\n", newline="")
        os.mkfifo(run.written / "pipe", 0o600)
        os.mkfifo(run.written / "drained", 0o600)
        run.context.write_text(json.dumps(spec.context, indent=2))
        lines = [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]
        if spec.workdir:
            lines.append(f"cd -- {shlex.quote(spec.workdir)}")
        lines += [
            f"printf '%s\\n' {shlex.quote(f'── {spec.id}: {spec.title}')}",
            f"__torch_run={shlex.quote(str(run.written))}",
            f"__torch_prompt={shlex.quote(str(run.prompt))}",
            f". {shlex.quote(str(_SCRIPTS / 'task.bash'))}",
        ]
        start = run.folder / "start"
        start.write_text("\n".join(lines) + "\n")
        write_private(self.own / "current", f"{run.written}\n")
        self._start(pane, run)

    def _start(self, pane: AgentPane, run: AttemptFolder) -> None:
        """Have the shell source the script, unless a person is typing."""
        look = pane.look()
        # The leading space keeps the line out of the shell's history.
        line = f" . {shlex.quote(str(run.folder / 'start'))}"
        started = look and self._is_free(pane, look) and pane.type_unless_used(look.used_at, text=line, keys=["Enter"])
        self._unstarted = None if started else run.folder

    @cached_property
    def _input(self) -> ShellInput:
        return ShellInput(self)

    def hand_message(self, pane: AgentPane, letter: MessageFolder, beside: AttemptFolder | None) -> Submission:
        submission = Submission.load(letter) or self._input.intend(letter)
        return Submitter(self._input, pane, letter).advance(submission, self._input.turn(submission, letter))

    def progress(self, pane: AgentPane, run: AttemptFolder, spec: TaskSpec) -> Progress:
        if self._unstarted == run.folder:
            self._start(pane, run)
        if self._unstarted == run.folder:
            return Progress(StateReading(AgentState.WAITING, "terminal", "in use", hindrance=Hindrance.PERSON))
        return Progress(StateReading(AgentState.WORKING, "run folder"), self.ending(run))

    def ending(self, run: AttemptFolder) -> ProgramEnding | None:
        try:
            line = read_plain(run.exit).decode(errors="replace")
        except FileNotFoundError:
            return None
        if not line.endswith("\n"):
            return None
        word, how = line.split()
        code = int(word)
        failure = None
        if how == "shell" and code == 128 + signal.SIGKILL:
            failure = Failure(kind=FailureKind.AGENT_CRASHED, message="agent crashed: its shell was killed")
        elif code:
            failure = Failure(kind=FailureKind.EXIT_CODE, message=f"exit code {code}")
        evidence = Evidence(kind="exit_code", detail=f"exit code {code}", passed=code == 0)
        return ProgramEnding(evidence, failure, exit_code=code)

    def has_stopped(self, pane: AgentPane, run: AttemptFolder) -> bool:
        return self._unstarted == run.folder or self.ending(run) is not None

    def interrupt(self, pane: AgentPane, *, force: bool) -> None:
        look = pane.look()
        if look is None:
            return
        with contextlib.suppress(psutil.NoSuchProcess):
            keeper = leader_of(look)
            if force:
                # The shell before its commands, or it would go on with the script; the keeper starts a new one.
                kill_each(keeper.children() + keeper.children(recursive=True))
            else:
                for shell in keeper.children():
                    shell.send_signal(signal.SIGUSR1)
                pane.press("C-c")


class ShellInput:
    """The line at one shell's prompt. The shell adds a byte to the file ``taken`` for every line that it takes."""

    reports_turns = True

    def __init__(self, shell: Shell) -> None:
        self._shell = shell
        self._taken = shell.own / "taken"
        composer = ComposerConfig(
            prompt=re.compile(rf"^{re.escape(shell.agent_id)}> ?"),
            continuation=re.compile("^"),
            end=re.compile(r"\s*$"),
        )
        self.config = shell.config.model_copy(update={"composer": composer, "keys": KeysConfig()})

    def intend(self, letter: MessageFolder) -> Submission:
        """Begin the message's submission, with the text that is to be typed."""
        text, notes = show_controls(letter.message.message.strip("\n"))
        letter.prompt.write_text(text + "\n", newline="")
        if len(text) > _LONGEST or text.count("\n") >= _MOST_LINES:
            notes.append(f"sourced from {letter.prompt}, for its length")
            text = f" . {shlex.quote(str(letter.prompt))}"
        return Submission.create(letter, text, str(self._lines_taken), "; ".join(notes))

    def turn(self, submission: Submission, letter: MessageFolder) -> Turn:
        """Whether the shell took a line since the message was begun."""
        if self._lines_taken <= int(submission.mark) or not letter.begun.exists():
            return Turn()
        return Turn(accepted=ProgramEvent(EventKind.ACCEPTED, text=submission.text(letter), origin="shell"))

    @property
    def _lines_taken(self) -> int:
        return self._taken.stat().st_size if self._taken.exists() else 0

    def read_screen(self, pane: AgentPane) -> ScreenReading | None:
        """The pane as it is now; None if it is gone."""
        screen = Screen.of(pane)
        if screen is None:
            return None
        reading = self._shell.read(pane)
        # While a command runs, what follows the prompt is its output.
        is_at_prompt = reading.state is AgentState.READY
        composer = read_composer(screen, self.config.composer) if is_at_prompt else Composer(seen=False)
        return ScreenReading(screen, composer, reading, reading)

    def stage(self, pane: AgentPane, text: str, used_at: int) -> bool:
        """Type the text at the prompt, unless a person typed since."""
        return pane.type_unless_used(used_at, text=text)

    def submit(self, pane: AgentPane, used_at: int) -> bool:
        """Have the shell take the line, unless a person typed since."""
        return pane.type_unless_used(used_at, keys=["Enter"])

    def answer_dialog(self, pane: AgentPane, view: ScreenReading) -> None:
        """Nothing to do: a shell has no dialogs."""

    def discard_input(self, pane: AgentPane) -> None:
        pane.press("C-e", "C-u")

    def interrupt(self, pane: AgentPane, *, force: bool) -> None:
        self._shell.interrupt(pane, force=force)
