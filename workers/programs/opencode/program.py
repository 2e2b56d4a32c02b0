"""OpenCode: prompts go through the HTTP server of the program in the pane, into the conversation that it shows.

So they never meet what a person types there; and as Torch chooses their ids, a prompt given twice is one prompt.
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
from typing import Any

from torch_tasks.model.agent import AgentState
from torch_tasks.model.fields import now
from torch_tasks.model.task import Question
from torch_tasks.model.usage import Usage
from torch_tasks.system.files import set_mark, write_private
from torch_tasks.system.loops import Loop
from torch_tasks.workers.folders import AttemptFolder, PromptFolder
from torch_tasks.workers.programs import torch_tools
from torch_tasks.workers.programs.answering import Answered
from torch_tasks.workers.programs.coding import CodingAgent
from torch_tasks.workers.programs.config import overlaid
from torch_tasks.workers.programs.conversation import KeptPrompt
from torch_tasks.workers.programs.events import EventLog
from torch_tasks.workers.programs.kind import StateReading
from torch_tasks.workers.programs.opencode.server import (
    ConversationLog,
    OpenCodeServer,
    ServerAway,
    chosen,
    chosen_from,
    kept_in,
    listen,
    new_message_id,
    usage_since,
)
from torch_tasks.workers.programs.screen import Screen
from torch_tasks.workers.programs.submission import Submission, SubmissionPhase
from torch_tasks.workers.programs.turn import Turn
from torch_tasks.workers.tmux.pane import AgentPane

#: The program shows a conversation, and not its first screen.
_SHOWN = re.compile(r"• OpenCode \d")
_LIMIT = re.compile(r"usage limit|quota|billing|insufficient", re.IGNORECASE)
_REPLIES = {"1": "once", "allow": "once", "allow once": "once", "2": "always", "allow always": "always"}
_REJECTS = ("3", "deny", "reject")


class OpenCode(CodingAgent):
    briefed_by_flag = True
    reports_turns = True
    _listener: Loop | None = None

    def command(self) -> list[str]:
        return [*super().command(), "--port", str(self._server.port)]

    def environment(self) -> Mapping[str, str]:
        settings = overlaid(json.loads(os.environ.get("OPENCODE_CONFIG_CONTENT") or "{}"), self.config.settings)
        instructions = [*settings.get("instructions", ()), str(self.briefing_file)]
        runs = {"external_directory": {str(self.folder / "runs" / "**"): "allow"}}
        settings = overlaid(settings, {"instructions": instructions, "permission": runs})
        if self.config.tools:
            settings = overlaid(settings, _tools(self.own))
        own = {"OPENCODE_SERVER_PASSWORD": self._server.password, "OPENCODE_CONFIG_CONTENT": json.dumps(settings)}
        return {**self.config.environment, **own}

    def prepare(self) -> None:
        write_private(self.briefing_file, self.briefing)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        if self.given_conversation:
            write_private(self.own / "session", self.given_conversation)
        else:
            (self.own / "session").unlink(missing_ok=True)
        server = {"port": port, "password": secrets.token_urlsafe(24)}
        write_private(self.own / "server.json", json.dumps(server))
        self.__dict__.pop("_server", None)

    @cached_property
    def _server(self) -> OpenCodeServer:
        return OpenCodeServer(**json.loads((self.own / "server.json").read_bytes()))

    @property
    def _session(self) -> str | None:
        try:
            return (self.own / "session").read_text()
        except FileNotFoundError:
            return None

    @property
    def conversation(self) -> str | None:
        return self._session if self.config.conversation.resume else None

    def kept_prompt(self, submission: Submission, run: PromptFolder) -> KeptPrompt | None:
        session, file = self._session, run.folder / f"message.{submission.round}"
        if session is None or not file.exists():
            return None
        try:
            return kept_in(self._server.messages(session, 1000), file.read_text())
        except ServerAway:
            return None

    def get_ready(self, pane: AgentPane) -> bool:
        screen = Screen.of(pane)
        try:
            session = self._session or self._server.open_session(self.agent_id)
            write_private(self.own / "session", session)
            if screen is None or not _SHOWN.search(screen.text):
                self._server.show(session)
                return False
        except ServerAway:
            return False
        set_mark(self.own / "ready")
        return self.is_free(pane)

    def advance(self, pane: AgentPane, folder: PromptFolder, submission: Submission) -> Submission:
        session = self._session
        if session is None or submission.phase in (SubmissionPhase.ACCEPTED, SubmissionPhase.REFUSED):
            return submission
        try:
            return self._deliver(folder, session, submission)
        except ServerAway:
            return submission  # the worker tries again; if the program has died, the pane shows that

    def _deliver(self, folder: PromptFolder, session: str, submission: Submission) -> Submission:
        """Put the prompt into the conversation. Its id is on the disk before, so that it never becomes two prompts."""
        file = folder.folder / f"message.{submission.round}"
        if submission.phase is SubmissionPhase.INTENDED:
            if self._server.status(session)["type"] != "idle":
                return submission
            write_private(file, new_message_id())
            evidence = f"as message {file.read_text()} for session {session}"
            submission = submission.advance_to(folder, SubmissionPhase.STAGED, evidence)
        message = file.read_text()
        if submission.phase is SubmissionPhase.STAGED:
            evidence = "given to its server"
            submission = submission.advance_to(folder, SubmissionPhase.SUBMITTED, evidence, entered_at=now())
            set_mark(folder.begun)
        if not self._server.has(session, message):
            self._server.prompt(session, message, submission.text(folder))
        if not self._server.has(session, message):
            return submission
        return submission.advance_to(folder, SubmissionPhase.ACCEPTED, f"its session has the message {message}")

    def is_free(self, pane: AgentPane) -> bool:
        reading = self.status(pane)
        return reading is not None and reading.state is AgentState.READY

    @cached_property
    def own_log(self) -> EventLog:
        return ConversationLog(lambda: (self._server, self._session))

    def turn(self, submission: Submission) -> Turn:
        if self._listener is None or not self._listener.is_alive:
            self._listener = listen(self._server, self.folder)
        return super().turn(submission)

    def status(self, pane: AgentPane) -> StateReading | None:
        session = self._session
        if session is None:
            return None
        try:
            status = self._server.status(session)
            if status["type"] == "busy" and self._server.permissions(session):
                return StateReading(AgentState.WAITING, "server", "permission")
            if status["type"] == "busy" and (asked := self._server.questions(session)):
                return StateReading(AgentState.WAITING, "server", "question", question=chosen_from(asked[0]))
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

    def permit(self, pane: AgentPane, question: Question, *, allowed: bool) -> Answered:
        is_given = self._reply("once" if allowed else "reject", "" if allowed else self.config.answers.reason)
        return Answered.GIVEN if is_given else Answered.NOT_GIVEN

    def answer(self, pane: AgentPane, question: Question, reply: str) -> bool:
        if not question.subject:
            return self._choose(reply)
        words = reply.strip().casefold()
        if words in _REPLIES:
            return self._reply(_REPLIES[words])
        return self._reply("reject", "" if words in _REJECTS else reply)

    def _choose(self, reply: str) -> bool:
        """Give the model a person's answer to what it asks."""
        try:
            asked = self._server.questions(self._session or "")
            answers = chosen(asked[0], reply) if asked else None
            if answers:
                self._server.answer(asked[0]["id"], answers)
        except ServerAway:
            return False
        return bool(answers)

    def _reply(self, reply: str, reason: str = "") -> bool:
        try:
            asked = self._server.permissions(self._session or "")
            for request in asked[:1]:
                self._server.reply(request["id"], reply, reason)
                if reply == "always":
                    self.lasting.take()
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
        return self.is_free(pane)

    def discard_input(self, pane: AgentPane) -> None:
        """Nothing to do: Torch never types into the composer."""

    def clear_input(self, pane: AgentPane) -> None:
        """Nothing to do: what is in the composer keeps no prompt out."""


def _tools(folder: Path) -> dict[str, Any]:
    """Torch's tools, which the agent may call without asking."""
    server = {
        "type": "local",
        "command": torch_tools.server_command(folder),
        "enabled": True,
        "timeout": torch_tools.TOOL_SECONDS * 1000,
    }
    return {"mcp": {torch_tools.NAME: server}, "permission": {f"{torch_tools.NAME}_*": "allow"}}
