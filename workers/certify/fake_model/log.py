"""The log: what the model received, one JSON line a request, and in a second file how each was answered."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

from torch_tasks.workers.certify.fake_model.book import identity
from torch_tasks.workers.certify.fake_model.conversation import Conversation

REQUESTS = "requests.jsonl"
OUTCOMES = "outcomes.jsonl"
FAILED = ("failed", "dropped")
"""After these, the client's next request of the same identity is its retry."""


class Log:
    """Both files, in one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._count = 0
        self._last: dict[str, str] = {}
        folder.mkdir(parents=True, exist_ok=True)
        for name in (REQUESTS, OUTCOMES):
            (folder / name).touch()

    def retries(self, asked: Conversation, key: str) -> bool:
        """The request comes again because the last one like it failed."""
        with self._lock:
            return self._last.get(identity(asked, key)) in FAILED

    def request(
        self,
        asked: Conversation,
        *,
        path: str,
        key: str,
        client: str,
        side: str | None,
        retry: bool,
        body: dict[str, Any],
    ) -> int:
        """Write down what came; returns its number."""
        with self._lock:
            self._count += 1
            line = {
                "id": self._count,
                "time": time.time(),
                "api": asked.api,
                "path": path,
                "model": asked.model,
                "key": key,
                "client": client,
                "stream": asked.stream,
                "side_request": side is not None,
                "side": side,
                "continues": asked.continues,
                "retry": retry,
                "prompt": asked.prompt,
                "added": asked.added,
                "user_texts": asked.texts("user"),
                "tool_results": asked.texts("result"),
                "body": body,
            }
            self._append(REQUESTS, line)
            return self._count

    def outcome(self, number: int, asked: Conversation, key: str, side: str | None, outcome: str) -> None:
        """Write down how it was answered: ``complete``, ``failed``, ``dropped``, or ``aborted`` by the client."""
        with self._lock:
            if side is None:
                self._last[identity(asked, key)] = outcome
            self._append(OUTCOMES, {"id": number, "time": time.time(), "outcome": outcome})

    def _append(self, name: str, line: dict[str, Any]) -> None:
        with (self._folder / name).open("a") as file:
            file.write(json.dumps(line) + "\n")
