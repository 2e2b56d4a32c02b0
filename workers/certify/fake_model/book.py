"""Which steps answer which request: the rules of the test, and how far each prompt's script got."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass

from torch_tasks.workers.certify.fake_model.conversation import Conversation
from torch_tasks.workers.certify.fake_model.steps import Step, Text, turns


@dataclass
class Rule:
    """Answer prompts that contain ``match`` (or that it finds, as a regular expression) with these steps.

    With ``key``, only those of the client with this API key; with ``times``, only so many prompts.
    """

    match: str
    steps: list[Step]
    regex: bool = False
    key: str | None = None
    times: int | None = None

    def fits(self, prompt: str, key: str) -> bool:
        """The rule is for this prompt."""
        if self.times == 0 or self.key not in (None, key):
            return False
        return re.search(self.match, prompt, re.DOTALL) is not None if self.regex else self.match in prompt


def identity(asked: Conversation, key: str) -> str:
    """What a request shares with its retries and with the turns that follow its tool calls.

    The history does not count, for a retry may come after the CLI has made it shorter; how often it has this prompt
    does, for then the prompt was submitted again.
    """
    said = asked.texts("user")
    return json.dumps([asked.api, key, asked.prompt, said.count(asked.prompt)])


class Book:
    """The rules, newest first, and the scripts that are being played."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rules: dict[int, Rule] = {}
        self._scripts: dict[str, list[list[Step]]] = {}
        self._count = 0
        self._open: set[str] = set()
        self._waiting: dict[str, int] = {}
        self._released = threading.Condition()

    def add(self, rule: Rule) -> int:
        """Have the rule; it goes before all others."""
        with self._lock:
            self._count += 1
            self._rules[self._count] = rule
            return self._count

    def remove(self, number: int) -> None:
        """Have the rule no longer; a script of it that is being played goes on."""
        with self._lock:
            self._rules.pop(number, None)

    def turn(self, asked: Conversation, key: str, *, retry: bool) -> list[Step]:
        """The steps that answer this request; tool results and retries get the next ones of their prompt's script."""
        name = identity(asked, key)
        with self._lock:
            if not (asked.continues or retry) or (retry and not self._scripts.get(name)):
                self._scripts[name] = turns(self._steps(asked.prompt, key))
            script = self._scripts.get(name)
            return script.pop(0) if script else [Text("Done.")]

    def _steps(self, prompt: str, key: str) -> list[Step]:
        for rule in reversed(self._rules.values()):
            if rule.fits(prompt, key):
                if rule.times is not None:
                    rule.times -= 1
                return rule.steps
        return [Text(f"You said: {prompt[:60]}")]

    # ── holds ────────────────────────────────────────────────────────────────────────────────────────────────────

    def hold(self, name: str, gone: Callable[[], bool]) -> None:
        """Return as soon as the name is released, or the client is gone."""
        with self._released:
            self._waiting[name] = self._waiting.get(name, 0) + 1
            while name not in self._open and not gone():
                self._released.wait(0.05)
            self._waiting[name] -= 1

    def release(self, name: str) -> None:
        """Let all go on that are held by this name, now and later."""
        with self._released:
            self._open.add(name)
            self._released.notify_all()

    def holding(self, name: str) -> int:
        """How many requests are held by this name."""
        with self._released:
            return self._waiting.get(name, 0)
