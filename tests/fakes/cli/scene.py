"""The lower part of the screen: what moves, the composer or a dialog, and the footer."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field

from fakes.cli.cells import pad, visible, width, wrap
from fakes.cli.composer import Composer
from fakes.cli.dialogs import Dialog, OpenDialog
from fakes.cli.scenario import Looks
from fakes.cli.terminal import Picture

_DIM, _PLAIN = "\x1b[2m", "\x1b[22m"
_REVERSE, _UPRIGHT = "\x1b[7m", "\x1b[27m"
_STARS = "·✢✳✶✻✽"
POINTER = "\N{HEAVY RIGHT-POINTING ANGLE QUOTATION MARK ORNAMENT}"

Block = tuple[list[str], tuple[int, int]]


@dataclass
class Scene:
    """What is to be seen now, and how it is drawn."""

    composer: Composer = field(default_factory=Composer)
    dialog: OpenDialog | None = None
    busy: bool = False
    topic: str = ""
    #: The spinner's words, or nothing; ``{seconds}`` is how long the turn has taken ``since`` it began.
    spinner: str = ""
    since: float = 0.0
    #: The line of the answer that still grows.
    growing: str = ""
    queued: list[str] = field(default_factory=list)
    #: Said in the footer's place.
    notice: str = ""
    #: A person chose that it asks for no permission any more.
    asks_nothing: bool = False
    #: The place of its mode among those that it has.
    mode: int = 0

    def picture(self, columns: int, rows: int, looks: Looks) -> Picture:
        """What the terminal shall show."""
        above = self._above(columns)
        if self.dialog and self.dialog.dialog.whole_screen:
            return self._whole_screen(self.dialog.dialog, columns, rows, looks)
        if looks.idle_spinner and not self.busy:
            above = [
                "",
                wrap(f"{_STARS[int(time.monotonic() * 10) % len(_STARS)]} {looks.idle_spinner}", columns)[0],
                "",
            ]
        if self.dialog:
            below, cursor = self._dialog(self.dialog, columns)
        else:
            below, cursor = self._composer(columns, max(rows - 8, 1), looks)
        lines = [*above, *below]
        cut = max(len(lines) - rows, 0)  # the block must fit
        place = (max(len(above) + cursor[0] - cut, 0), cursor[1])
        return Picture(lines[cut:], place, self._title(looks))

    def _whole_screen(self, dialog: Dialog, columns: int, rows: int, looks: Looks) -> Picture:
        lines = [*dialog.body, *[""] * rows][: rows - 1]
        lines = [*(line[:columns] for line in lines), dialog.hint]
        return Picture(lines, (rows - 1, len(dialog.hint)), self._title(looks))

    def _title(self, looks: Looks) -> str:
        if self.dialog:
            title = looks.title_asking
        elif self.busy and looks.title_busy:
            title = looks.title_busy[int(time.monotonic()) % len(looks.title_busy)]
        else:
            title = looks.title_idle
        folder = os.path.basename(os.getcwd())  # noqa: PTH109, PTH119
        return title.replace("{topic}", visible(self.topic)).replace("{folder}", visible(folder))

    def _above(self, columns: int) -> list[str]:
        lines = [self.growing] if self.growing else []
        if self.spinner:
            passed = time.monotonic() - self.since
            star = _STARS[int(passed * 4) % len(_STARS)]
            words = self.spinner.replace("{seconds}", str(int(passed)))
            lines += ["", wrap(f"{star} {words}", columns)[0]]
        for text in self.queued:
            lines += [f"{_DIM}{wrap(f'> {text}', columns - 1)[0]}{_PLAIN}"]
        return [*lines, ""]

    def _composer(self, columns: int, most: int, looks: Looks) -> Block:
        inner = columns - 6  # the box, and "> "
        text = wrap(self.composer.draft.shown, inner)
        if width(text[-1]) == inner:
            text.append("")
        text = text[-most:]
        rows = [f"│ {looks.mark if at == 0 else ' '} {pad(line, inner)} │" for at, line in enumerate(text)]
        if self.composer.empty and looks.ghost and not self.busy:
            ghost = wrap(looks.ghost, inner)[0]
            rows = [f"│ {looks.mark} {_DIM}{ghost}{_PLAIN}{' ' * (inner - width(ghost))} │"]
        if not looks.framed:
            return [f"▌ {row[2:-2].strip()}" for row in rows], (len(text) - 1, 2 + width(text[-1]))
        lines = [f"╭{'─' * (columns - 2)}╮", *rows, f"╰{'─' * (columns - 2)}╯", f"  {self._footer(looks)}"[:columns]]
        return lines, (len(text), 4 + width(text[-1]))

    def _footer(self, looks: Looks) -> str:
        if self.notice:
            return self.notice
        if self.composer.draft.collapsed:
            return "paste again to expand"
        if looks.draft_hides_hints and not self.composer.empty:
            return ""
        mode = f"⏵⏵ {looks.modes[self.mode]} on · " if looks.modes else ""
        return mode + ("esc to interrupt" if self.busy else "? for shortcuts")

    def _dialog(self, open_dialog: OpenDialog, columns: int) -> Block:
        dialog = open_dialog.dialog
        inside = [dialog.title, *(f"  {line}" for line in dialog.body)] if dialog.title else list(dialog.body)
        if dialog.style == "inline":
            spelled = "/".join(f"({choice[0]}){choice[1:]}" for choice in dialog.choices)
            lines = [*inside[:-1], f"{inside[-1]} {spelled} [{dialog.choices[dialog.default]}]: {open_dialog.typed}"]
            return lines, (len(lines) - 1, width(lines[-1]))
        chosen = 0
        for at in open_dialog.seen:
            if at == open_dialog.selected:
                chosen = len(inside)
            inside.append(_choice(open_dialog, at))
        pieces = [wrap(line, columns - 4) for line in inside]
        row = sum(map(len, pieces[:chosen])) + 1
        rows = [f"│ {pad(piece, columns - 4)} │" for line in pieces for piece in line]
        if dialog.style == "colours":
            rows[row - 1] = f"│ {_REVERSE}{rows[row - 1][2:-2]}{_UPRIGHT} │"
        lines = [f"╭{'─' * (columns - 2)}╮", *rows, f"╰{'─' * (columns - 2)}╯", f"  {dialog.hint}"[:columns]]
        return lines, (row, 2)


def _choice(opened: OpenDialog, at: int) -> str:
    """The row of a choice."""
    dialog, is_selected = opened.dialog, at == opened.selected
    text = opened.writing.draft.shown if opened.writing and is_selected else dialog.choices[at]
    if dialog.numbered:
        text = f"{at + 1}. {text}"
    match dialog.style:
        case "radio":
            return f"{'●' if is_selected else '○'} {text}"
        case "colours":
            return text
    if is_selected:
        return f"{POINTER} {text}"
    is_first, is_last = at == opened.seen[0] and at > 0, at == opened.seen[-1] and at < len(dialog.choices) - 1
    return f"{'↑' if is_first else '↓' if is_last else ' '} {text}"
