"""Puts what this machine knows of its agents' tasks and accounts back into a broker that has forgotten it."""

from __future__ import annotations

import logging
from itertools import islice
from pathlib import Path
from urllib.parse import unquote

from torch_tasks.fleet import Fleet
from torch_tasks.keys import agent_queue
from torch_tasks.machine.agent_folder import is_hosted
from torch_tasks.model.task import HELD, Priority, TaskState
from torch_tasks.state_folder import JOURNAL
from torch_tasks.transport.envelope import message_id, readdressed
from torch_tasks.workers.folders import AgentJournal, AttemptFolder, CurrentAttempt, kept_attempts, prune_attempts
from torch_tasks.workers.host.quota import Spending

log = logging.getLogger(__name__)

_AT_ONCE = 500


class AgentAttempts:
    """The attempts in an agent's folder, as a source for the reconciler."""

    def __init__(self, folder: Path, fleet: Fleet) -> None:
        self._folder = folder
        self._fleet = fleet
        self.name = f"agent {fleet.settings.node} {folder}"

    def put_back(self) -> bool:
        """Put back the records that the broker lost or holds in an older revision."""
        fleet = self._fleet
        prune_attempts(self._folder / "runs", fleet.settings.result_days)
        restored, left = 0, kept_attempts(self._folder / "runs")
        while batch := list(islice(left, _AT_ONCE)):
            outlines = fleet.records.outlines(run.task_id for run in batch)
            for run, outline in zip(batch, outlines, strict=True):
                kept = run.recall()
                if kept and (outline is None or outline.revision < int(kept[0]["revision"])):
                    restored += fleet.records.restore(run.task_id, kept[0])
        if restored:
            log.info("%s: put %d tasks back into the broker", self._folder.name, restored)
        return True


class MachineSpending:
    """What this machine has used of its accounts, as a source for the reconciler."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._folder = fleet.settings.state.spent
        self.name = f"spending {fleet.settings.node} {self._folder}"

    def put_back(self) -> bool:
        """Have the broker count at least what it counted before."""
        for file in sorted(self._folder.glob("*.json")):
            Spending(unquote(file.stem), self._fleet).count()
        return True


def reconcile_agent(folder: Path, fleet: Fleet, *, always: bool = False) -> None:
    """Put back what this agent did, and what this machine used of its accounts."""
    fleet.reconciler.reconcile(MachineSpending(fleet), always=always)
    fleet.reconciler.reconcile(AgentAttempts(folder, fleet), always=always)


def put_back_for_machine(fleet: Fleet) -> None:
    """Put back what each agent of this machine did: its worker may be dead, frozen, or still starting.

    The task of an agent without a worker waits for the next one. Only the agent's own worker marks it as reconciled,
    for that worker may be about to write more.
    """
    fleet.reconciler.reconcile(MachineSpending(fleet), always=True)
    for folder in fleet.settings.state.agents():
        if journal := AgentJournal.read(folder / JOURNAL):
            AgentAttempts(folder, fleet).put_back()
            if journal.current and not is_hosted(folder):
                reclaim(folder, journal.agent_id, journal.current, fleet)


def reclaim(folder: Path, agent_id: str, current: CurrentAttempt, fleet: Fleet) -> None:
    """Queue the task that the pane was left with for the agent's next worker, ahead of all others.

    The lease of a worker that died is not waited for. The caller has the lock of the agent's folder, or has seen that
    nobody has it: the kernel lets go of it only when the worker ends, so nobody renews or settles that delivery any
    more. And nothing begins twice: a tag stands for one delivery and moves it in one step, here or where somebody finds
    the lease ended, whoever comes first; who takes the message finds in the record that the task is this agent's.
    """
    queue, step = agent_queue(agent_id), Priority.URGENT.step
    kept = AttemptFolder(folder / "runs", current.task_id, current.attempt).recall()
    if kept is None or TaskState(kept[0]["state"]) not in HELD:
        return
    deliveries = fleet.deliveries
    message = readdressed(kept[1] or "", queue, even_expired=True)
    # Its delivery may be held by the worker that died, wait in the queue already, or be forgotten.
    if current.delivery and deliveries.move(current.delivery, queue, step, message):
        return
    if message and current.task_id not in map(message_id, deliveries.waiting(queue)):
        deliveries.put(queue, message, step)
