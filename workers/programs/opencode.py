"""OpenCode.

Its program in the pane serves HTTP on the loopback. Prompts go that way, under an id of ours, into a conversation that
the pane shows: whatever a person types there meanwhile is left alone, and a prompt given twice is one prompt.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import socket
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

from torch_tasks.model.agent import AgentState
from torch_tasks.model.fields import now
from torch_tasks.model.task import Question, Usage
from torch_tasks.system.files import write_private
from torch_tasks.workers.folders import AttemptFolder, PromptFolder
from torch_tasks.workers.programs.coding import CodingAgent
from torch_tasks.workers.programs.config import overlaid
from torch_tasks.workers.programs.events import EventLog
from torch_tasks.workers.programs.kind import StateReading
from torch_tasks.workers.programs.opencode_server import (
    ConversationLog,
    OpenCodeServer,
    ServerAway,
    ServerListener,
    new_message_id,
    usage_since,
)
from torch_tasks.workers.programs.prompt import briefing
from torch_tasks.workers.programs.screen import Screen
from torch_tasks.workers.programs.submission import Submission, SubmissionPhase
from torch_tasks.workers.programs.turn import Turn
from torch_tasks.workers.tmux.pane import AgentPane

#: Where it shows a conversation, and not its first screen.
_SHOWN = re.compile(r"• OpenCode \d")
_LIMIT = re.compile(r"usage limit|quota|billing|insufficient", re.IGNORECASE)
_REPLIES = {"1": "once", "allow": "once", "allow once": "once", "2": "always", "allow always": "always"}
_REJECTS = ("3", "deny", "reject")


class OpenCode(CodingAgent):
    """OpenCode in its pane."""

    briefed_by_flag = True
    reports_turns = True
    _listener: ServerListener | None = None

    # ── launch ───────────────────────────────────────────────────────────────────────────────────────────────────

    def command(self) -> list[str]:
        model = ["--model", self.config.model] if self.config.model else []
        return [*self.config.command, *model, "--port", str(self._server.port)]

    def environment(self) -> Mapping[str, str]:
        settings = overlaid(json.loads(os.environ.get("OPENCODE_CONFIG_CONTENT") or "{}"), self.config.settings)
        instructions = [*settings.get("instructions", ()), str(self._briefing)]
        runs = {"external_directory": {str(self.folder / "runs" / "**"): "allow"}}
        settings = overlaid(settings, {"instructions": instructions, "permission": runs})
        own = {"OPENCODE_SERVER_PASSWORD": self._server.password, "OPENCODE_CONFIG_CONTENT": json.dumps(settings)}
        return {**self.config.environment, **own}

    @property
    def _briefing(self) -> Path:
        return self.folder / "briefing.md"

    def prepare(self) -> None:
        self._briefing.write_text(briefing(self.spec))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        (self.folder / "session").unlink(missing_ok=True)
        server = {"port": port, "password": secrets.token_urlsafe(24)}
        write_private(self.folder / "server.json", json.dumps(server))
        self.__dict__.pop("_server", None)

    @cached_property
    def _server(self) -> OpenCodeServer:
        return OpenCodeServer(**json.loads((self.folder / "server.json").read_bytes()))

    @property
    def _session(self) -> str | None:
        try:
            return (self.folder / "session").read_text()
        except FileNotFoundError:
            return None

    def get_ready(self, pane: AgentPane) -> bool:
        screen = Screen.of(pane)
        try:
            session = self._session or self._server.open_session(self.agent_id)
            (self.folder / "session").write_text(session)
            if screen is None or not _SHOWN.search(screen.text):
                self._server.show(session)
                return False
        except ServerAway:
            return False
        (self.folder / "ready").touch()
        return self.is_free(pane)

    # ── prompts ──────────────────────────────────────────────────────────────────────────────────────────────────

    def advance(self, pane: AgentPane, folder: PromptFolder, submission: Submission) -> Submission:
        session = self._session
        if session is None or submission.phase in (SubmissionPhase.ACCEPTED, SubmissionPhase.REFUSED):
            return submission
        try:
            return self._given(folder, session, submission)
        except ServerAway:
            return submission  # it is asked again; if its program has died, the pane shows that

    def _given(self, folder: PromptFolder, session: str, submission: Submission) -> Submission:
        """The prompt is in the conversation. Its id is on the disk before, so that it is never made two."""
        file = folder.folder / f"message.{submission.round}"
        if submission.phase is SubmissionPhase.INTENDED:
            if self._server.status(session)["type"] != "idle":
                return submission
            write_private(file, new_message_id())
            submission = submission.advance_to(
                folder, SubmissionPhase.STAGED, f"as message {file.read_text()} for session {session}"
            )
        message = file.read_text()
        if submission.phase is SubmissionPhase.STAGED:
            submission = submission.advance_to(
                folder, SubmissionPhase.SUBMITTED, "given to its server", entered_at=now()
            )
            folder.begun.touch()
        if not self._server.has(session, message):
            self._server.prompt(session, message, submission.text(folder))
        if not self._server.has(session, message):
            return submission
        return submission.advance_to(folder, SubmissionPhase.ACCEPTED, f"its session has the message {message}")

    def is_free(self, pane: AgentPane) -> bool:
        reading = self.status(pane)
        return reading is not None and reading.state is AgentState.READY

    # ── what it does ─────────────────────────────────────────────────────────────────────────────────────────────

    @cached_property
    def own_log(self) -> EventLog:
        return ConversationLog(lambda: (self._server, self._session))

    def turn(self, submission: Submission) -> Turn:
        if self._listener is None or not self._listener.is_alive():
            self._listener = ServerListener(self._server, self.folder)
            self._listener.start()
        return super().turn(submission)

    def status(self, pane: AgentPane) -> StateReading | None:
        session = self._session
        if session is None:
            return None
        try:
            status = self._server.status(session)
            if status["type"] == "busy" and self._server.permissions(session):
                return StateReading(AgentState.WAITING, "server", "permission")
        except ServerAway:
            return None
        if status["type"] == "retry" and _LIMIT.search(status["message"]):
            until = datetime.fromtimestamp(status["next"] / 1000, UTC)
            return StateReading(AgentState.LIMITED, "server", status["message"], until=until)
        state = AgentState.READY if status["type"] == "idle" else AgentState.WORKING
        return StateReading(state, "server", str(status["type"]))

    def usage(self, run: AttemptFolder, turn: Turn) -> Usage | None:
        session, submission = self._session, Submission.load(run)
        if session is None or submission is None:
            return None
        try:
            return usage_since(self._server.messages(session, 1000), submission.steps[0].at)
        except ServerAway:
            return None

    # ── interventions ────────────────────────────────────────────────────────────────────────────────────────────

    def permit(self, pane: AgentPane, question: Question, *, allowed: bool) -> None:
        self._reply("once" if allowed else "reject", "" if allowed else self.config.answers.reason)

    def answer(self, pane: AgentPane, question: Question, reply: str) -> bool:
        words = reply.strip().casefold()
        if words in _REPLIES:
            return self._reply(_REPLIES[words])
        return self._reply("reject", "" if words in _REJECTS else reply)

    def _reply(self, reply: str, reason: str = "") -> bool:
        try:
            asked = self._server.permissions(self._session or "")
            for request in asked[:1]:
                self._server.reply(request["id"], reply, reason)
        except ServerAway:
            return False
        return bool(asked)

    def interrupt(self, pane: AgentPane, *, force: bool) -> None:
        if force or self._session is None:
            super().interrupt(pane, force=force)
            return
        try:
            self._server.abort(self._session)
        except ServerAway:
            super().interrupt(pane, force=force)

    def has_stopped(self, pane: AgentPane, run: AttemptFolder) -> bool:
        reading = self.status(pane)
        return reading is not None and reading.state is AgentState.READY

    def clear(self, pane: AgentPane) -> None:
        """Nothing of ours ever stands in its composer."""

    def redraw_input(self, pane: AgentPane) -> None:
        """Nor does anything there keep a prompt away."""
