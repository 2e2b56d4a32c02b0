"""What an agent's folder remembers of its tasks, told to a broker that has forgotten it."""

from __future__ import annotations

import logging
from itertools import islice
from pathlib import Path

from torch_tasks.fleet import Fleet
from torch_tasks.keys import agent_queue
from torch_tasks.machine.agent_folder import is_hosted
from torch_tasks.model.task import HELD, Priority, TaskState
from torch_tasks.state_folder import JOURNAL
from torch_tasks.transport.deliveries import message_id
from torch_tasks.workers.host.journal import AgentJournal, AttemptFolder, CurrentAttempt, kept_attempts, prune_attempts
from torch_tasks.workers.host.spending import tell_spending

log = logging.getLogger(__name__)

_AT_ONCE = 500


def tell_accounts(folder: Path, fleet: Fleet) -> None:
    """Put back what the broker does not know any more of the agent's tries. What it knows later stays."""
    tell_spending(fleet)
    prune_attempts(folder / "runs", fleet.settings.result_days)
    restored, left = 0, kept_attempts(folder / "runs")
    while some := list(islice(left, _AT_ONCE)):
        for run, outline in zip(some, fleet.records.outlines(run.task_id for run in some), strict=True):
            kept = run.recall()
            if kept and (outline is None or outline.revision < int(kept[0]["revision"])):
                restored += fleet.records.restore(run.task_id, kept[0])
    if restored:
        log.info("%s: told the broker of %d tasks", folder.name, restored)


def tell_for_machine(fleet: Fleet) -> None:
    """Do the same for each agent of this machine: its worker may be dead, frozen, or busy with its start.

    The task of one that has no worker waits for the next.
    """
    for folder in fleet.settings.state.agents():
        if journal := AgentJournal.read(folder / JOURNAL):
            tell_accounts(folder, fleet)
            if journal.current and not is_hosted(folder):
                reclaim(folder, journal.agent_id, journal.current, fleet)


def reclaim(folder: Path, agent_id: str, current: CurrentAttempt, fleet: Fleet) -> None:
    """Have the task that the pane was left with come to the agent's next worker, first of all."""
    queue, step = agent_queue(agent_id), Priority.URGENT.step
    kept = AttemptFolder(folder / "runs", current.task_id, current.attempt).recall()
    if kept is None or TaskState(kept[0]["state"]) not in HELD:
        return
    deliveries, message = fleet.deliveries, kept[1]
    # Its delivery may be held by the worker that died, wait in the queue already, or be forgotten.
    if current.delivery and deliveries.move(current.delivery, queue, step):
        return
    if message and current.task_id not in map(message_id, deliveries.waiting(queue)):
        deliveries.put(queue, message, step)
