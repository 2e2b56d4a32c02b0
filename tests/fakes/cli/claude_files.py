"""What Claude Code writes beside its screen: the state of its process, and the transcript of the session."""

from __future__ import annotations

import contextlib
import json
import os
import time
import uuid
from typing import Any

_HOME = os.path.expanduser("~/.claude")  # noqa: PTH111


class ClaudeFiles:
    """``sessions/<pid>.json`` and ``projects/<folder>/<session>.jsonl`` below ``~/.claude``, if they are ``wanted``."""

    def __init__(self, *, wanted: bool, session: str) -> None:
        self.session = session
        self._cwd = os.getcwd()  # noqa: PTH109
        self._wanted = wanted
        self._state = f"{_HOME}/sessions/{os.getpid()}.json"
        self.transcript = f"{_HOME}/projects/{self._cwd.replace('/', '-')}/{session}.jsonl"
        self._written = ("", "")

    def state(self, status: str, waiting_for: str = "") -> None:
        """It is ``idle``, ``busy`` or ``waiting``."""
        if not self._wanted or self._written == (status, waiting_for):
            return
        self._written = (status, waiting_for)
        now = round(time.time() * 1000)
        facts: dict[str, Any] = {
            "pid": os.getpid(),
            "sessionId": self.session,
            "cwd": self._cwd,
            "status": status,
            "updatedAt": now,
            "statusUpdatedAt": now,
            "kind": "interactive",
            "version": "9.9.9",
        }
        if waiting_for:
            facts["waitingFor"] = waiting_for
        os.makedirs(os.path.dirname(self._state), exist_ok=True)  # noqa: PTH103, PTH120
        with open(self._state, "w", encoding="utf-8") as file:  # noqa: PTH123  # not atomic: neither is the real one
            json.dump(facts, file)

    def log(self, kind: str, text: str) -> None:
        """A row of the transcript."""
        if not self._wanted:
            return
        os.makedirs(os.path.dirname(self.transcript), exist_ok=True)  # noqa: PTH103, PTH120
        with open(self.transcript, "a", encoding="utf-8") as file:  # noqa: PTH123
            for row in _ROWS[kind](text):
                file.write(json.dumps({**row, "sessionId": self.session, "uuid": str(uuid.uuid4())}) + "\n")

    def gone(self) -> None:
        """The program ends as it should."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._state)  # noqa: PTH108


def _user(text: str) -> list[dict[str, Any]]:
    return [{"type": "user", "message": {"role": "user", "content": text}}]


def _assistant(text: str, **more: Any) -> list[dict[str, Any]]:
    usage = {"input_tokens": 100, "output_tokens": len(text.split())}
    content = [{"type": "text", "text": text}]
    message = {"role": "assistant", "content": content, "stop_reason": "end_turn", "usage": usage}
    return [{"type": "assistant", "message": message, **more}]


def _finished(text: str) -> list[dict[str, Any]]:
    return [*_assistant(text), {"type": "system", "subtype": "turn_duration", "durationMs": 1000}]


def _failed(text: str) -> list[dict[str, Any]]:
    return _assistant(text, isApiErrorMessage=True)


def _interrupted(text: str) -> list[dict[str, Any]]:
    return _user(text or "[Request interrupted by user]")


_ROWS = {"user": _user, "assistant": _finished, "error": _failed, "interrupted": _interrupted}
