"""A shell's input line: a message is a command line, typed at the prompt as a person would."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from torch_tasks.model.agent import AgentState
from torch_tasks.workers.host.letters import Letter
from torch_tasks.workers.programs.composer import read_composer
from torch_tasks.workers.programs.config import ComposerConfig, KeysConfig
from torch_tasks.workers.programs.events import Event, EventKind
from torch_tasks.workers.programs.prompt import safe
from torch_tasks.workers.programs.screen import Screen
from torch_tasks.workers.programs.submission import Submission
from torch_tasks.workers.programs.submitter import Sight
from torch_tasks.workers.programs.turn import Turn
from torch_tasks.workers.tmux.pane import AgentPane

if TYPE_CHECKING:
    from torch_tasks.workers.programs.shell import Shell

#: A longer text is sourced from its file: of one that fills the screen nobody sees whether it is whole.
_LONGEST = 1500
_MOST_LINES = 10


class ShellInput:
    """The line at the prompt of one shell. It tells of every line that it takes, in the file ``taken``."""

    tells = True

    def __init__(self, shell: Shell) -> None:
        self._shell = shell
        self._taken = shell.folder / "taken"
        composer = ComposerConfig(
            prompt=re.compile(rf"^{re.escape(shell.agent_id)}> ?"),
            continuation=re.compile("^"),
            end=re.compile(r"\s*$"),
        )
        self.config = shell.config.model_copy(update={"composer": composer, "keys": KeysConfig()})

    def intend(self, letter: Letter) -> Submission:
        """The message as it is to be typed."""
        text, notes = safe(letter.message.message.strip("\n"))
        letter.prompt.write_text(text + "\n", newline="")
        if len(text) > _LONGEST or text.count("\n") >= _MOST_LINES:
            notes.append(f"sourced from {letter.prompt}, for its length")
            text = f" . {shlex.quote(str(letter.prompt))}"
        return Submission.intended(letter, text, str(self._count()), "; ".join(notes))

    def turn(self, submission: Submission, letter: Letter) -> Turn:
        """Whether the shell took a line since the message was begun."""
        if self._count() <= int(submission.mark) or not letter.begun.exists():
            return Turn()
        return Turn(accepted=Event(EventKind.ACCEPTED, text=submission.text(letter), origin="shell"))

    def _count(self) -> int:
        return _size(self._taken)

    def sight(self, pane: AgentPane) -> Sight | None:
        """The pane as it is now; None if it is gone."""
        screen = Screen.of(pane)
        if screen is None:
            return None
        reading = self._shell.read(pane)
        composer = read_composer(screen, self.config.composer)
        if reading.state is not AgentState.READY:
            # What stands below the prompt is a command's output.
            composer = read_composer(Screen.parse("", cursor=(0, 0), title=""), self.config.composer)
        return Sight(screen, composer, reading, reading)

    def stage(self, pane: AgentPane, text: str, used_at: int) -> bool:
        """Put the text behind the prompt, unless a person typed since."""
        return pane.type_unless_used(used_at, text=text)

    def submit(self, pane: AgentPane, used_at: int) -> bool:
        """Have the shell take the line, unless a person typed since."""
        return pane.type_unless_used(used_at, keys=["Enter"])

    def answer_dialog(self, pane: AgentPane, sight: Sight) -> None:
        """A shell asks nothing."""

    def clear(self, pane: AgentPane) -> None:
        """Empty the line."""
        pane.press("C-e", "C-u")


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0
