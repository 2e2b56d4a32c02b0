"""The end of an agent on its node: a summary of it is kept, its terminal ends, and what it had is given back."""

from __future__ import annotations

import contextlib
import logging
import shutil
from pathlib import Path

from torch_tasks.errors import TorchError
from torch_tasks.fleet import Fleet
from torch_tasks.machine.agent_folder import mail_in
from torch_tasks.model.agent import AgentInfo, AgentSpec, RetirementReport, RetireOrder
from torch_tasks.model.fields import now
from torch_tasks.model.message import Message
from torch_tasks.orchestration.staffing import bury_messages, give_tasks_back
from torch_tasks.state_folder import JOURNAL, TMUX
from torch_tasks.system.files import make_folder, write_private
from torch_tasks.workers.folders import AgentJournal, undelivered
from torch_tasks.workers.git.tree import branch_or_commit, uncommitted_changes
from torch_tasks.workers.host.terminal import end_session
from torch_tasks.workers.tmux.pane import AgentPane
from torch_tasks.workers.tmux.server import AgentServer

log = logging.getLogger(__name__)

_HISTORY = 200
_DIFF_LIMIT = 16_000
#: What a successor of the same id must not find. Its tries stay: results name their files.
_FILES_OF_ONE_LIFE = ("messages", "mail", "events", "last_message", "liveness")


class Retirement:
    """Ends agents of one node whose workers are gone. Each step may be done again."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._settings = fleet.settings

    def carry_out(self, agent: AgentSpec, order: RetireOrder) -> RetirementReport:
        """Keep a summary, end the terminal, give back what it had; the caller then removes it from the fleet."""
        folder = self._settings.state.agent(agent.id)
        journal = AgentJournal.read(folder / JOURNAL)
        entry = next(iter(self._fleet.registry.get_agents([agent.id])), None)
        info = entry if entry and entry.node == self._settings.node else None
        file = self._keep_summary(agent, order, journal, info)
        self._end_terminal(folder, journal)
        tasks = give_tasks_back(info, self._fleet) if info else []
        messages = bury_messages(info, self._fleet, self._unread(folder)) if info else []
        self._tidy(folder, journal)
        log.info("%s: has retired, see %s", agent.id, file)
        return RetirementReport(
            agent_id=agent.id,
            node=self._settings.node,
            incarnation=journal.incarnation if journal else 0,
            by=order.by,
            note=order.note,
            at=now(),
            file=str(file),
            tasks=tuple(tasks),
            messages=tuple(messages),
        )

    def _keep_summary(
        self, agent: AgentSpec, order: RetireOrder, journal: AgentJournal | None, info: AgentInfo | None
    ) -> Path:
        """Write down what a person, or the agent that goes on, may want to know; once."""
        incarnation = journal.incarnation if journal else 0
        file = self._settings.state.retired(agent.id, incarnation)
        if file.exists():
            return file
        make_folder(file.parent)
        write_private(file, "\n".join(self._summary(agent, order, journal, info)) + "\n")
        return file

    def _summary(
        self, agent: AgentSpec, order: RetireOrder, journal: AgentJournal | None, info: AgentInfo | None
    ) -> list[str]:
        known = info.performance_metrics if info else None
        lines = [
            f"# {agent.id}: {agent.role} {','.join(agent.skills)} ({agent.kind})",
            "",
            f"Retired {now():%Y-%m-%d %H:%M:%S} UTC on {self._settings.node} by {order.by}"
            + (f": {order.note}" if order.note else "."),
            f"Parent: {agent.parent or 'none'}; {agent.lifetime}.",
        ]
        if known:
            lines.append(f"Tasks: {known.succeeded} succeeded, {known.failed} failed.")
        if journal and journal.current:
            lines += ["", f"## Task {journal.current.task_id}, begun {journal.current.begun_at:%H:%M:%S}, not finished"]
            lines += self._handoff(journal.current.task_id)
        workdir = Path(info.workdir if info else agent.workdir or "/")
        if info and (branch := branch_or_commit(workdir)):
            lines += ["", f"## {workdir}, branch {branch}", "", uncommitted_changes(workdir, _DIFF_LIMIT) or ""]
        if screen := self._screen(agent.id, journal):
            lines += ["", "## Its last screen", "", "```", screen, "```"]
        folder = self._settings.state.agent(agent.id)
        return [*lines, "", f"Its transcript is {folder / 'transcript'}, its answers are below {folder / 'runs'}."]

    def _handoff(self, task_id: str) -> list[str]:
        record = self._fleet.records.find(task_id)
        if record is None or record.handoff is None:
            return []
        handoff = record.handoff
        return [f"Branch {handoff.branch or 'none'}.", "", handoff.diff or ""]

    def _screen(self, agent_id: str, journal: AgentJournal | None) -> str:
        if journal is None or journal.pane is None:
            return ""
        with contextlib.suppress(TorchError):
            pane = AgentPane.adopt(self._settings.state.agent(agent_id) / TMUX, journal.pane)
            if pane:
                try:
                    return pane.screen(_HISTORY)
                finally:
                    pane.close()
        return ""

    def _end_terminal(self, folder: Path, journal: AgentJournal | None) -> None:
        AgentPane(AgentServer(folder / TMUX), "%0").end()
        if journal and journal.session:
            end_session(journal.session, journal.agent_id)

    @staticmethod
    def _unread(folder: Path) -> list[Message]:
        """Messages that did not come through the broker, or that the broker may have forgotten."""
        came = [Message.model_validate_json(file.read_bytes()) for file in mail_in(folder)]
        return came + [waiting.message for waiting in undelivered(folder / "messages")]

    @staticmethod
    def _tidy(folder: Path, journal: AgentJournal | None) -> None:
        for name in _FILES_OF_ONE_LIFE:
            path = folder / name
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        if journal:
            journal.model_copy(update={"pane": None, "session": None, "current": None}).write(folder / JOURNAL)
