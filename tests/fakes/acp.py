"""A program that speaks the Agent Client Protocol, by hand, and does wrong what a test wants it to.

``python -m fakes.acp FOLDER``. What it does at its start and in a turn is in ``FOLDER/play.json``, which it reads anew
each time; what it receives it notes in ``FOLDER/received.jsonl``.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

SAY = ({"say": "It is done."},)
ALLOW, ALWAYS, REJECT = (
    {"optionId": "yes", "name": "Allow", "kind": "allow_once"},
    {"optionId": "ever", "name": "Always allow", "kind": "allow_always"},
    {"optionId": "no", "name": "Reject", "kind": "reject_once"},
)


class FakeAcp:
    """The fake as a test sees it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        self.play()

    @property
    def program(self) -> Path:
        """A command that starts it."""
        file = self.folder / "fake-acp"
        file.write_text(
            f'#!/bin/sh\nPYTHONPATH={Path(__file__).parents[1]} exec "{sys.executable}" -m fakes.acp "$0.d"\n'
        )
        file.write_text(file.read_text().replace('"$0.d"', f'"{self.folder}"'))
        file.chmod(0o755)
        return file

    def play(self, *steps: Mapping[str, Any], **start: Any) -> None:
        """What it does in each turn from now on, and at its next start."""
        draft = self.folder / "play.json.new"
        draft.write_text(json.dumps({"steps": steps or SAY, **start}))
        draft.replace(self.folder / "play.json")

    def release(self, name: str) -> None:
        """Let a turn that holds go on."""
        (self.folder / f"go-{name}").touch()

    def holds(self, name: str) -> bool:
        """Whether a turn holds there."""
        return (self.folder / f"at-{name}").exists()

    def received(self, method: str) -> list[dict[str, Any]]:
        """The parameters of each message of this method, or the answers to its requests."""
        try:
            lines = (self.folder / "received.jsonl").read_text().splitlines()
        except FileNotFoundError:
            return []
        messages = [json.loads(line) for line in lines]
        return [one.get("params", one.get("result")) for one in messages if one.get("method", "answer") == method]

    def prompts(self) -> list[str]:
        """Every prompt that it received."""
        return ["".join(block["text"] for block in one["prompt"]) for one in self.received("session/prompt")]


class Agent:
    """The program itself."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._answers: dict[str, Any] = {}
        self._answered = threading.Condition()
        self._asked = 0
        self._cancelled = threading.Event()

    @property
    def _play(self) -> dict[str, Any]:
        return json.loads((self._folder / "play.json").read_bytes())

    def run(self) -> None:
        """Serve the standard input to its end."""
        for line in sys.stdin.buffer:
            message = json.loads(line)
            with (self._folder / "received.jsonl").open("a") as log:
                log.write(json.dumps(message) + "\n")
            if "method" not in message:
                with self._answered:
                    self._answers[message["id"]] = message.get("result")
                    self._answered.notify_all()
            elif message["method"] == "session/cancel":
                self._cancelled.set()
                with self._answered:
                    self._answered.notify_all()
            else:
                threading.Thread(target=self._serve, args=(message,), daemon=True).start()

    def _serve(self, message: Mapping[str, Any]) -> None:
        handle = getattr(self, "_" + message["method"].replace("/", "_"))
        result = handle(message.get("params") or {})
        if result is not None:
            self._send({"id": message["id"], **result})

    def _initialize(self, _: Mapping[str, Any]) -> dict[str, Any] | None:
        play = self._play
        if play.get("silent"):
            return None
        for line in play.get("garbage", ()):
            self._write(line)
        can = {"loadSession": play.get("load", False)}
        methods = (
            [{"id": "card", "name": "Key card", "description": "Hold it to the reader"}] if play.get("auth") else []
        )
        hello = {"protocolVersion": play.get("version", 1), "agentCapabilities": can, "authMethods": methods}
        return {"result": {**hello, "agentInfo": {"name": "fake", "version": "7.8"}}}

    def _authenticate(self, _: Mapping[str, Any]) -> dict[str, Any]:
        (self._folder / "logged-in").touch()
        return {"result": {}}

    def _session_new(self, _: Mapping[str, Any]) -> dict[str, Any]:
        if self._play.get("auth") == "at once" and not (self._folder / "logged-in").exists():
            return {"error": {"code": -32000, "message": "Authentication required"}}
        modes = [{"id": "ask", "name": "Ask"}, {"id": "code", "name": "Code"}]
        session = f"session-{os.getpid()}"
        return {"result": {"sessionId": session, "modes": {"currentModeId": "ask", "availableModes": modes}}}

    def _session_load(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Tell the session's last prompt, in two pieces, and the beginning of an answer."""
        prompts = [one["prompt"][0]["text"] for one in self._received("session/prompt")]
        for text in (prompts[-1][:9], prompts[-1][9:]) if prompts else ():
            chunk = {"sessionUpdate": "user_message_chunk", "content": {"type": "text", "text": text}}
            self._update(given["sessionId"], chunk)
        self._do_say(given["sessionId"], "As I said.\n")
        return {"result": {}}

    def _received(self, method: str) -> list[dict[str, Any]]:
        lines = (self._folder / "received.jsonl").read_text().splitlines()
        return [one["params"] for line in lines if (one := json.loads(line)).get("method") == method]

    def _session_set_mode(self, _: Mapping[str, Any]) -> dict[str, Any]:
        return {"result": {}}

    def _session_prompt(self, given: Mapping[str, Any]) -> dict[str, Any] | None:
        self._cancelled.clear()
        for step in self._play["steps"]:
            [(name, value)] = step.items()
            ended = getattr(self, f"_do_{name}")(given["sessionId"], value)
            if self._cancelled.is_set():
                return {"result": {"stopReason": "cancelled"}}
            if ended:
                return ended
        return {"result": {"stopReason": "end_turn"}}

    # ── the steps of a turn ──────────────────────────────────────────────────────────────────────────────────────

    def _do_say(self, session: str, text: str) -> None:
        self._update(session, {"sessionUpdate": "agent_message_chunk", "content": {"type": "text", "text": text}})

    def _do_tool(self, session: str, title: str) -> None:
        call = {"toolCallId": title, "title": title, "kind": "execute", "status": "pending"}
        self._update(session, {"sessionUpdate": "tool_call", **call})
        self._update(session, {"sessionUpdate": "tool_call_update", "toolCallId": title, "status": "completed"})

    def _do_update(self, session: str, update: Mapping[str, Any]) -> None:
        self._update(session, update)

    def _do_ask(self, session: str, options: Sequence[Mapping[str, Any]]) -> None:
        self._asked += 1
        number = f"ask-{self._asked}"
        call = {"toolCallId": number, "title": "touch it", "kind": "execute", "rawInput": {"command": "touch it"}}
        self._send(
            {
                "id": number,
                "method": "session/request_permission",
                "params": {"sessionId": session, "toolCall": call, "options": options},
            }
        )
        with self._answered:
            self._answered.wait_for(lambda: number in self._answers)

    def _do_hold(self, _: str, name: str) -> None:
        (self._folder / f"at-{name}").touch()
        while not (self._folder / f"go-{name}").exists() and not self._cancelled.is_set():
            time.sleep(0.02)

    def _do_deaf(self, _: str, __: Any) -> None:
        """Hear of no cancellation."""
        while True:
            time.sleep(1)

    def _do_garbage(self, _: str, line: str) -> None:
        self._write(line)

    def _do_long(self, session: str, size: int) -> None:
        self._do_say(session, "x" * size)

    def _do_usage(self, session: str, cost: float) -> None:
        self._update(
            session,
            {"sessionUpdate": "usage_update", "used": 1, "size": 2, "cost": {"amount": cost, "currency": "USD"}},
        )

    def _do_die(self, _: str, code: int) -> None:
        os._exit(code)

    def _do_error(self, _: str, error: Mapping[str, Any]) -> dict[str, Any]:
        return {"error": error}

    def _do_login(self, _: str, message: str) -> dict[str, Any] | None:
        """Want a login before anything is done."""
        if (self._folder / "logged-in").exists():
            return None
        return {"error": {"code": -32000, "message": message}}

    def _do_stop(self, _: str, reason: str) -> dict[str, Any]:
        usage = {"totalTokens": 12, "inputTokens": 5, "outputTokens": 7}
        return {"result": {"stopReason": reason, "usage": usage}}

    # ── what it writes ───────────────────────────────────────────────────────────────────────────────────────────

    def _update(self, session: str, update: Mapping[str, Any]) -> None:
        self._send({"method": "session/update", "params": {"sessionId": session, "update": update}})

    def _send(self, message: Mapping[str, Any]) -> None:
        self._write(json.dumps({"jsonrpc": "2.0", **message}))

    def _write(self, line: str) -> None:
        with self._lock:
            sys.stdout.write(line + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    Agent(Path(sys.argv[1])).run()
