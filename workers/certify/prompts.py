"""Prompts with which much can go wrong on the way into a program, and the words that the model shall get of each."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class HostilePrompt:
    """One prompt."""

    name: str
    prompt: str
    words: str = ""
    """What arrives, if that is not the prompt itself."""

    @property
    def arrives(self) -> str:
        """The words as the model gets them."""
        return self.words or self.prompt


RAN_LOCALLY = "ran-by-the-program"
"""A file in the working folder that exists if the program has run a prompt as its own command."""

HOSTILE_PROMPTS = (
    HostilePrompt("thirty-lines", "\n".join(f"line {number} of thirty" for number in range(1, 31))),
    HostilePrompt("20-kB", "\n".join(f"{number}: " + "0123456789 " * 9 for number in range(200)) + "\nits end"),
    HostilePrompt("quotes", "-n --help it's \"quoted\" 'twice' `id` $(id) $HOME \\ \\\\ %s {a,b} * ? [x] ; | & < > ~"),
    HostilePrompt("letters", "é 漢字 🚒 👩\u200d🚒 ﷽"),
    HostilePrompt("slash", "/exit and /help are words here\n/etc/hosts too"),
    HostilePrompt("bang", f"!touch {RAN_LOCALLY}"),
    HostilePrompt("at", "@README.md is what it is about\n# a heading, not a memory"),
    HostilePrompt("tabs", "\tone\ttwo\n\tthree"),
    HostilePrompt(
        "controls",
        "red \x1b[31m bell \x07 break \x03 end\r\nsecond\r\nthird",
        words="red ␛[31m bell ␇ break ␃ end\nsecond\nthird",
    ),
    HostilePrompt("marks", "❯ mine\n› mine\n> mine\n│ > mine │\n─────\n✻ Working… (esc to interrupt)"),  # noqa: RUF001
    HostilePrompt("ends", "  begins with blanks and ends with a backslash \\"),
)
