"""Prompts with which much can go wrong on the way into a real CLI, and the words that the model shall get of each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hosted import Hosted

from torch_tasks import TaskState
from torch_tasks.workers.certify.fake_model.steps import Text, Tokens


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


ANSWER = "The answer:\n\n```sh\necho ─ │ ❯ ✻ ✦ 'x'\n```\nand that is all."


def check_odd_prompts(agent: Hosted, kept: Callable[[str], str], answer: str, *, counts: bool) -> None:
    """The model receives each of them once and exactly, or ``kept`` as this CLI keeps it, and its answer comes back.

    With ``counts``, the CLI reports the model's own counts of tokens.
    """
    before = len(agent.llm.prompts(agent.home.key))
    rule = agent.llm.on("torch task odd-", Tokens(1000, 50), Text(answer))
    tasks = {odd.name: agent.give(odd.prompt, id=f"odd-{odd.name}") for odd in ODD_PROMPTS}
    for odd in ODD_PROMPTS:
        task = tasks[odd.name]
        result = task.result(timeout=120)
        assert (odd.name, result.status, result.answer) == (odd.name, TaskState.SUCCEEDED, answer)
        assert result.evidence[0].kind == "stop_event"
        assert result.usage
        assert not counts or (result.usage.input_tokens, result.usage.output_tokens) == (1000, 50)
        [received] = agent.received(task.id)
        assert f"{kept(odd.arrives)}\n\n[torch task {task.id} " in received
        notes = agent.notes(task)
        assert all(any(note.startswith(fact) for note in notes) for fact in ("staged", "submitted", "accepted")), notes
    assert len(agent.llm.prompts(agent.home.key)) == before + len(ODD_PROMPTS)
    assert not (agent.home.work / "ran-by-the-cli").exists()
    agent.llm.off(rule)
