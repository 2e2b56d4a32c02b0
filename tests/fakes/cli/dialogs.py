"""Dialogs, which cover the composer until they are answered."""

from __future__ import annotations

import time
from dataclasses import dataclass

from fakes.cli.composer import Composer
from fakes.cli.keys import Input, Key, Paste, Typed
from fakes.cli.scenario import Ways

_UP, _DOWN = {"Up", "C-p", "k"}, {"Down", "C-n", "j"}


@dataclass(frozen=True)
class Dialog:
    """A question, and what can be chosen. The default is counted from 0."""

    name: str
    title: str = ""
    body: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    default: int = 0
    #: The choices have numbers, which take them at once.
    numbered: bool = True
    #: How they are drawn: with a ``pointer``, ``radio`` buttons, ``colours``, or ``inline``, where a letter is typed.
    style: str = "pointer"
    #: So many choices are seen at a time; 0 is all.
    window: int = 0
    hint: str = "Enter to confirm · Esc to cancel"
    #: The last choice takes a text.
    free: bool = False
    #: These choices, counted from 1, and 0 for Escape, end the program.
    leaving: tuple[int, ...] = ()
    #: Nothing that is chosen closes it.
    stays: bool = False
    #: The turn goes on with what is chosen.
    of_turn: bool = False
    #: It has no frame, and covers all of the screen: a pager, an editor. With ``alternate``, on the other screen.
    whole_screen: bool = False
    alternate: bool = False
    #: These keys close it, and nothing else does; ``any`` is each.
    closed_by: tuple[str, ...] = ()


@dataclass(frozen=True)
class Choice:
    """What was chosen, counted from 1; 0 is Escape."""

    number: int
    text: str


class OpenDialog:
    """A dialog, and where its pointer is."""

    def __init__(self, dialog: Dialog) -> None:
        self.dialog = dialog
        self.since = time.monotonic()
        self.selected = dialog.default
        self.writing: Composer | None = None
        self.typed = ""

    @property
    def seen(self) -> range:
        """The choices that are seen."""
        count = len(self.dialog.choices)
        window = self.dialog.window or count
        first = min(max(self.selected - window // 2, 0), count - window)
        return range(first, first + window)

    def take(self, given: Input) -> Choice | None:
        """The choice that this completes."""
        if self.writing is not None:
            return self._write(self.writing, given)
        if isinstance(given, Paste):
            return None
        return self._press(given.name if isinstance(given, Key) else given.text)

    def _press(self, key: str) -> Choice | None:
        count = len(self.dialog.choices)
        if self.dialog.closed_by:
            return Choice(1, key) if {key, "any"} & set(self.dialog.closed_by) else None
        if key == "Escape":
            return Choice(0, "")
        if self.dialog.style == "inline":
            return self._type(key)
        if key in _UP | _DOWN and count:
            self.selected = (self.selected + (1 if key in _DOWN else -1)) % count
        elif self.dialog.numbered and key.isdecimal() and 1 <= int(key) <= count:
            self.selected = int(key) - 1
            return self._choose()
        elif key == "Enter":
            return self._choose()
        return None

    def _type(self, key: str) -> Choice | None:
        if key != "Enter":
            self.typed = self.typed[:-1] if key == "Backspace" else self.typed + key
            return None
        letters = [choice[0].lower() for choice in self.dialog.choices]
        typed, self.typed = self.typed.lower(), ""
        self.selected = letters.index(typed) if typed in letters else self.dialog.default
        return self._choose() if typed in letters or not typed else None

    def _choose(self) -> Choice | None:
        if self.dialog.free and self.selected == len(self.dialog.choices) - 1:
            self.writing = Composer()
            return None
        return Choice(self.selected + 1, self.dialog.choices[self.selected] if self.dialog.choices else "")

    def _write(self, line: Composer, given: Input) -> Choice | None:
        if isinstance(given, Typed):
            line.type(given.text)
        elif isinstance(given, Paste):
            line.paste(given.text, Ways())
        elif given.name == "Backspace":
            line.backspace()
        elif given.name == "C-u":
            line.kill_line()
        elif given.name == "Escape":
            self.writing = None
        elif given.name == "Enter" and not line.empty:
            return Choice(self.selected + 1, line.draft.text)
        return None


BUILT_IN = {
    dialog.name: dialog
    for dialog in (
        Dialog(
            "theme",
            "Choose the text style that looks best with your terminal:",
            choices=(
                "Dark mode ✔",
                "Light mode",
                "Dark mode (colorblind-friendly)",
                "Light mode (colorblind-friendly)",
            ),
            hint="To change this later, run /theme",
        ),
        Dialog(
            "login",
            "Select login method:",
            choices=(
                "Account with subscription · Pro, Max, Team, or Enterprise",
                "Console account · API usage billing",
            ),
            stays=True,
        ),
        Dialog("sign-in", "Sign in to go on:", choices=("I have signed in", "Quit"), leaving=(2,)),
        Dialog(
            "api_key",
            "Detected a custom API key in your environment",
            ("Do you want to use this API key?",),
            ("Yes", "No (recommended) ✔"),
            default=1,
        ),
        Dialog(
            "notes",
            "Security notes:",
            ("1. It can make mistakes", "2. Only use it with code you trust"),
            hint="Press Enter to continue…",
        ),
        Dialog(
            "trust",
            "Do you trust the files in this folder?",
            ("It may read, write, or execute files contained in this folder.",),
            ("Yes, proceed", "No, exit"),
            leaving=(0, 2),
        ),
        Dialog(
            "trust-no-first",
            "Do you trust the files in this folder?",
            ("It may read, write, or execute files contained in this folder.",),
            ("No, exit", "Yes, but only to read", "Yes, proceed"),
            numbered=False,
            leaving=(0, 1),
        ),
        Dialog(
            "trust-by-name",
            "Do you trust the files in this folder?",
            choices=("No, exit", "I shall type its name", "Yes, as a guest"),
            numbered=False,
            leaving=(0, 1),
        ),
        Dialog("feedback", "How is it doing this session? (optional)", choices=("Bad", "Fine", "Good", "Dismiss")),
        Dialog("update", "Update available!", ("9.9.9 → 10.0.0",), ("Update now", "Skip", "Skip until next version")),
        # What no kind knows: another hint, another language, no choice at all, another program on the screen.
        Dialog("survey", "Rate us!", choices=("Bad", "Good", "No, thanks"), default=1, hint="0-9 to rate"),
        Dialog(
            "german",
            "Der neuen Lizenz zustimmen?",
            ("Sie gilt ab dem 1. Mai.",),
            ("Ja, zustimmen", "Nein, beenden"),
            hint="Eingabetaste: bestätigen · Abbruchtaste: zurück",
        ),
        Dialog("licence", "LICENCE NOTICE", ("You accept it by going on.",), hint="Press any key", closed_by=("any",)),
        Dialog(
            "pager",
            body=("commit 1d1e", "", "    Mend it", "", "> a line that looks like a prompt", "> ", "(END)"),
            hint=":",
            whole_screen=True,
            closed_by=("q",),
        ),
        Dialog(
            "editor",
            body=("pick 1d1e Mend it", "~", "~"),
            hint='".git/rebase-todo" 1L, 18B',
            whole_screen=True,
            alternate=True,
            closed_by=("q",),
        ),
    )
}
