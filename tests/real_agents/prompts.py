"""The prompts that went wrong with every tool that types into agents."""

from __future__ import annotations

THIRTY_LINES = "\n".join(f"line {number} of thirty: \"it's\" $HOME `id` \\ back" for number in range(30))

PLAIN = {
    "one character": "x",
    "thirty lines": THIRTY_LINES,
    "20 kB": "".join(f"{number:05d} the quick brown fox jumps over the lazy dog\n" for number in range(400)).rstrip(),
    "quotes": "\"double\" 'single' `backtick` $HOME ${x} $(id) %s #{pane_id} \\n * ? ; | & < >",
    "emoji": "🚒 👩‍👩‍👧 é 漢字 ─ │ done",
    "a leading dash": "-n is no option",
    "a hash": "# not a note",
    "tabs": "one\ttwo\t\tthree",
    "a key's name": "Enter",
    "other prompts": "> claude\n❯ codex\n│ > box │\n? for shortcuts\n(Y)es/(N)o",  # noqa: RUF001
    "a trailing backslash": "ends with \\",
    "an exclamation mark": "!ls",
    "a slash": "/quit",
    "an at sign": "@nobody and me@example.com",
}
"""Their names, and their words, which reach the model as they are."""
