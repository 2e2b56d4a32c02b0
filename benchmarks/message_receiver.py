"""One agent that reads its messages into a file: the real inbox and messages of an agent worker, without a pane.

    python -m benchmarks.message_receiver AGENT FILE

Its "program" is the file: a message in it counts as taken, as a prompt does when a real program's event says so.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from torch_tasks.fleet import fleet
from torch_tasks.model.agent import AgentSpec, AgentState
from torch_tasks.model.fields import now
from torch_tasks.transport.claiming import IntakePause
from torch_tasks.workers.folders import MessageFolder
from torch_tasks.workers.host.holds_watcher import HoldsWatcher
from torch_tasks.workers.host.hosted_agent import HostedAgent, TaskOrders
from torch_tasks.workers.host.lifecycle import Lifecycle
from torch_tasks.workers.host.message_carrier import MessageCarrier
from torch_tasks.workers.host.presence import AgentPresence
from torch_tasks.workers.host.quota import AccountQuota
from torch_tasks.workers.programs.submission import Submission, SubmissionPhase, SubmissionStep


class Reader:
    """Stands where an agent's program stands; it is always idle."""

    account = None
    is_conversational = False
    reports_turns = False
    listens_while_working = True

    def __init__(self, file: Path) -> None:
        self._file = file
        self._output = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def is_free(self, pane: object) -> bool:
        """It never works on anything."""
        return True

    def read(self, pane: object) -> Any:
        """How it is."""
        return SimpleNamespace(state=AgentState.READY)

    def hand_message(self, pane: object, letter: MessageFolder, beside: object) -> Submission:
        """Append the words to the file once: where it ended before is noted first."""
        mark = letter.folder / "submission.json"
        if not mark.exists():
            new = mark.with_suffix(".new")
            new.write_text(str(self._file.stat().st_size))
            new.replace(mark)
        if self._file.stat().st_size <= int(mark.read_text()):
            os.write(self._output, f"{letter.message.id} {letter.message.message}\n".encode())
        accepted = SubmissionStep(phase=SubmissionPhase.ACCEPTED, at=now(), evidence="it stands in the file")
        return Submission(tag=letter.tag, mark=mark.read_text(), steps=(accepted,))


def main(agent_id: str, file: Path) -> None:
    """Read until this process is killed."""
    spec = AgentSpec(id=agent_id, role="reader")
    presence = AgentPresence(spec, fleet())
    presence.take(Path.cwd())
    parts: Any = SimpleNamespace(is_alive=True, pane=None, wait=time.sleep)
    kind: Any = Reader(file)
    intake = IntakePause()
    place = HostedAgent(
        kind=kind,
        terminal=parts,
        bell=parts,
        presence=presence,
        records=fleet().records,
        settings=fleet().settings,
        results=parts,
        life=Lifecycle(),
        orders=TaskOrders(),
        intake=intake,
        holds=HoldsWatcher(fleet(), intake, spec),
        quota=AccountQuota(kind, fleet(), intake),
        guard=parts,
        trees=parts,
        deliver_during_task=lambda _: None,
    )
    mail = MessageCarrier(place, fleet(), threading.Lock())
    presence.show(AgentState.READY)
    mail.start()
    while True:
        time.sleep(fleet().settings.heartbeat_seconds)
        presence.beat()
        mail.look()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
