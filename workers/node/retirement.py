"""The end of an agent on its node: its summary is kept, its terminal ended, its tasks and messages given back."""

from __future__ import annotations

import contextlib
import logging
import shutil
from pathlib import Path

from torch_tasks.errors import TorchError
from torch_tasks.fleet import Fleet
from torch_tasks.machine.agent_folder import mail_in
from torch_tasks.model.agent import AgentInfo, AgentSpec, RetirementReport, RetireOrder
from torch_tasks.model.durations import local_time
from torch_tasks.model.fields import now
from torch_tasks.model.message import Message
from torch_tasks.orchestration.staffing import bury_messages, give_tasks_back
from torch_tasks.redaction import redacted
from torch_tasks.security.audit import note_event
from torch_tasks.state_folder import JOURNAL, TMUX
from torch_tasks.system.files import make_folder, write_private
from torch_tasks.workers.folders import AgentJournal, undelivered
from torch_tasks.workers.git.tree import branch_or_commit, uncommitted_changes
from torch_tasks.workers.host.terminal import end_terminal
from torch_tasks.workers.tmux.pane import AgentPane

log = logging.getLogger(__name__)

_HISTORY = 200
_DIFF_LIMIT = 16_000
#: What a later agent of the same id must not find. The folders of its attempts stay: results name their files.
_FILES_OF_ONE_LIFE = ("messages", "mail", "events", "last_message", "liveness")


class Retirement:
    """Ends agents of one node whose workers are gone. Each step can be repeated."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._settings = fleet.settings

    def carry_out(self, agent: AgentSpec, order: RetireOrder) -> RetirementReport:
        """Keep a summary, end the terminal, give back its tasks and messages; the caller removes it from the fleet."""
        folder = self._settings.state.agent(agent.id)
        journal = AgentJournal.read(folder / JOURNAL)
        entry = next(iter(self._fleet.registry.get_agents([agent.id])), None)
        info = entry if entry and entry.node == self._settings.node else None
        incarnation = journal.incarnation if journal else 0
        file = self._settings.state.retired(agent.id, incarnation)
        if not file.exists():
            make_folder(file.parent)
            write_private(file, redacted("\n".join(self._summary(agent, order, journal, info))) + "\n")
        end_terminal(agent.id, self._settings)
        report = RetirementReport(
            agent_id=agent.id,
            node=self._settings.node,
            incarnation=incarnation,
            by=order.by,
            note=order.note,
            at=now(),
            file=str(file),
        )
        tasks = give_tasks_back(info, report.words, self._fleet) if info else []
        messages = bury_messages(info, report.words, self._fleet, self._unread(folder)) if info else []
        self._tidy(folder, journal)
        log.info("%s: has retired, see %s", agent.id, file)
        note_event("agent.retired", f"agent {agent.id}", why=report.words)
        return report.model_copy(update={"tasks": tuple(tasks), "messages": tuple(messages)})

    def _summary(
        self, agent: AgentSpec, order: RetireOrder, journal: AgentJournal | None, info: AgentInfo | None
    ) -> list[str]:
        """The lines that a person, or the agent's successor, may want to read."""
        lines = [
            f"# {agent.id}: {agent.role} {','.join(agent.skills)} ({agent.kind})",
            "",
            f"Retired {local_time(now())} on {self._settings.node} by {order.by}"
            + (f": {order.note}" if order.note else "."),
            f"Parent: {agent.parent or 'none'}; {agent.lifetime}.",
        ]
        if info and (ended := info.performance_metrics):
            lines.append(f"Tasks: {ended.succeeded} succeeded, {ended.failed} failed.")
        if journal and journal.current:
            lines += ["", f"## Task {journal.current.task_id}, begun {journal.current.begun_at:%H:%M:%S}, not finished"]
            record = self._fleet.records.find(journal.current.task_id)
            if record and (handoff := record.handoff):
                lines += [f"Branch {handoff.branch or 'none'}.", "", handoff.diff or ""]
        workdir = Path(info.workdir if info else agent.workdir or "/")
        if info and (branch := branch_or_commit(workdir)):
            lines += ["", f"## {workdir}, branch {branch}", "", uncommitted_changes(workdir, _DIFF_LIMIT) or ""]
        if screen := self._screen(agent.id, journal):
            lines += ["", "## Its last screen", "", "```", screen, "```"]
        folder = self._settings.state.agent(agent.id)
        return [*lines, "", f"Its transcript is {folder / 'transcript'}, its answers are below {folder / 'runs'}."]

    def _screen(self, agent_id: str, journal: AgentJournal | None) -> str:
        if journal is None or journal.pane is None:
            return ""
        with contextlib.suppress(TorchError):
            pane = AgentPane.adopt(self._settings.state.agent(agent_id) / TMUX, journal.pane)
            if pane:
                with contextlib.closing(pane):
                    return pane.screen(_HISTORY)
        return ""

    @staticmethod
    def _unread(folder: Path) -> list[Message]:
        """Messages that did not come through the broker, or that the broker may have forgotten."""
        mail = [Message.model_validate_json(file.read_bytes()) for file in mail_in(folder)]
        return mail + [waiting.message for waiting in undelivered(folder / "messages")]

    @staticmethod
    def _tidy(folder: Path, journal: AgentJournal | None) -> None:
        for name in _FILES_OF_ONE_LIFE:
            path = folder / name
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        if journal:
            journal.model_copy(update={"pane": None, "session": None, "current": None}).write(folder / JOURNAL)
