"""Prompts with which much can go wrong on the way into a real CLI, and the words that the model shall get of each."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Odd:
    """One prompt."""

    name: str
    prompt: str
    words: str = ""
    """What arrives, if that is not the prompt itself."""

    @property
    def arrives(self) -> str:
        """The words as the model gets them."""
        return self.words or self.prompt


ODD_PROMPTS = [
    Odd("one-character", "x"),
    Odd("thirty-lines", "\n".join(f"line {number} of thirty" for number in range(1, 31))),
    Odd("20-kB", "\n".join(f"{number}: " + "0123456789 " * 9 for number in range(200)) + "\nits end"),
    Odd("quotes", "it's \"quoted\" 'twice' `id` $(id) $HOME ${HOME} \\ \\\\ %s {a,b} * ? [x] ; | & < > ~"),
    Odd("emoji", "é 漢字 🚒 👩\u200d🚒 ﷽"),
    Odd("slash", "/exit and /help are words here\n/etc/hosts too"),
    Odd("bang", "!touch ran-by-the-cli"),
    Odd("hash", "# a heading, not a memory"),
    Odd("at", "@README.md is what it is about"),
    Odd("dash", "-n --help -- -x"),
    Odd("tab", "\tone\ttwo\n\tthree"),
    Odd("crlf", "first\r\nsecond\r\nthird", words="first\nsecond\nthird"),
    Odd("control", "red \x1b[31m bell \x07 break \x03 end", words="red ␛[31m bell ␇ break ␃ end"),
    Odd("enter", "Enter"),
    Odd("marks", "❯ mine\n› mine\n> mine\n│ > mine │\n─────\n✻ Working… (esc to interrupt)"),
    Odd("backslash", "ends with a backslash \\"),
    Odd("blanks", "  begins and ends with blanks  "),
]
