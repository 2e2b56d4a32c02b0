"""What becomes of each key on the broker when what lies there is copied, into a backup or onto another server.

Every family of keys has one fate here; one that has none is another program's, and is left alone.
"""

from __future__ import annotations

from enum import StrEnum
from functools import cache

from torch_tasks import keys


class Fate(StrEnum):
    """What becomes of a key in a copy."""

    KEPT = "kept"
    RAISED = "raised"
    """Kept, and a restored number is far above the copied one: what was counted after the copy is not counted again."""
    EPHEMERAL = "ephemeral"
    """Left behind: a sign of life, a lock, a bell, or what the server's own process is known by."""


_K, _R, _E = Fate.KEPT, Fate.RAISED, Fate.EPHEMERAL

_NAMES: dict[str, Fate] = {
    keys.TASK_STATUS: _K,
    keys.AGENT_REGISTRY: _K,
    keys.AGENT_HEARTBEAT: _E,
    keys.AGENT_INCARNATION: _R,
    keys.AGENT_TRAITS: _K,
    keys.AGENT_INDEX: _K,
    keys.AGENT_PERFORMANCE: _K,
    keys.AGENT_LOAD: _E,
    keys.AGENT_CHANGES: _E,
    keys.SOFT_PINS: _K,
    keys.POOLS_GROWN: _E,
    keys.SCALING: _E,
    keys.AGENT_KEPT: _E,
    keys.NODE_REGISTRY: _K,
    keys.NODE_HEARTBEAT: _E,
    keys.NODE_INCARNATION: _R,
    keys.NODES_DRAINED: _K,
    keys.SPAWNED: _K,
    keys.SPAWN_STATES: _K,
    keys.SPAWN_REVISION: _R,
    keys.RETIREMENT_REPORTS: _K,
    # A lease that has ended brings its delivery back; one that is still held is renewed by its holder.
    keys.LEASES: _K,
    keys.DELIVERIES: _K,
    keys.DEAD_LETTERS: _K,
    keys.REFUSALS: _K,
    keys.REFUSALS_DROPPED: _K,
    keys.DENIALS: _K,
    keys.DENIALS_COUNTED: _K,
    keys.AUDIT_HEADS: _K,
    keys.ROLLED_UP: _K,
    keys.SET_ASIDE: _K,
    keys.DEADLINES: _K,
    keys.ENDED_UNOWNED: _E,
    keys.BROKER_STATE: _E,
    keys.FENCE: _E,
    keys.BROKER_MOVED: _E,
    keys.BROKER_ARRIVED: _E,
    keys.HOUSEKEEPING: _E,
    keys.RECONCILED: _E,
    keys.DEMANDED_QUEUES: _K,
    keys.MESSAGES: _K,
    keys.CLAIMS: _K,
    keys.AUDIT: _K,
    keys.NOTICES: _E,
    keys.LAST_STATUS: _K,
    keys.NOTIFIED: _K,
    keys.NOTIFIERS: _E,
    keys.NEEDED_SINCE: _K,
    keys.ACCOUNTS: _K,
    keys.STANDING_BACKUPS: _E,
    keys.HOLDS: _K,
    keys.GIT_REPORTS: _E,
    keys.FOLLOWUPS: _K,
    keys.LOOKED_AFTER: _K,
    keys.CHECKINS: _K,
    keys.CHECKINS_DUE: _K,
    keys.PERIODIC: _K,
    keys.CHECKIN_CHANGES: _E,
    keys.BEAT_LEADER: _E,
    keys.BEAT_EPOCH: _R,
    keys.FLEET_FORMAT: _K,
    keys.FLEET_KEYS: _K,
    keys.CERTIFICATE_REQUESTS: _E,
    keys.JOIN_REQUESTS: _E,
}

_ANY = "\0"


def _before(*names: str) -> str:
    """What the names of a family begin with, from one of them that was made for any thing."""
    return names[0].partition(_ANY)[0]


_BEGINNINGS: dict[str, Fate] = {
    _before(keys.task_record(_ANY)): _K,
    _before(keys.task_history(_ANY)): _K,
    _before(keys.task_trace(_ANY)): _K,
    _before(keys.message_trace(_ANY)): _K,
    _before(keys.checkin_trace(_ANY)): _K,
    _before(keys.bell(_ANY)): _E,
    _before(keys.task_diff(_ANY)): _E,
    _before(keys.backup_part(_ANY)): _E,
    _before(keys.screen(_ANY)): _E,
    _before(keys.drawn_screen(_ANY)): _E,
    _before(keys.account(_ANY, _ANY)): _K,
    _before(keys.rollups(_ANY)): _K,
    _before(keys.notifying(_ANY)): _E,
    _before(keys.key_answer(_ANY)): _E,
    _before(keys.message(_ANY)): _K,
    _before(keys.inbox(_ANY, _ANY)): _K,
    _before(keys.conversation(_ANY)): _K,
    _before(keys.published(_ANY)): _K,
    _before(keys.help_wanted(_ANY, _ANY)): _K,
    _before(keys.exchanges(_ANY)): _K,
    _before(keys.sent_lately(_ANY, _ANY)): _E,
    _before(keys.broadcasts(_ANY)): _E,
    _before(keys.notes(_ANY)): _K,
    _before(keys.checkin(_ANY)): _K,
    _before(keys.checkin_history(_ANY)[0]): _K,
    _before(keys.checkin_history(_ANY)[1]): _K,
    _before(keys.checkin_latest(_ANY)): _K,
    _before(keys.checkin_begun(_ANY, 0)): _K,
    _before(keys.done_order(_ANY)): _K,
    _before(keys.request(_ANY, _ANY, _ANY)): _K,
    keys.CELERY_RESULTS: _K,
    # Torch's queues, those of an app's own Celery tasks, and which exchange leads to which.
    "torch.": _K,
    "celery": _K,
    "_kombu.binding.": _K,
    # What is said to the workers that live, and what they answer.
    "celeryev": _E,
    "celery.pidbox": _E,
    "_kombu.binding.celeryev": _E,
    "_kombu.binding.celery.pidbox": _E,
    "_kombu.binding.reply.celery.pidbox": _E,
}


def fate_of(name: str) -> Fate | None:
    """What becomes of the key of this name; None if it is none of this fleet's."""
    if (fate := _NAMES.get(name)) is not None:
        return fate
    if "celery.pidbox" in name:
        return Fate.EPHEMERAL
    return next((fate for beginning, fate in _longest_first() if name.startswith(beginning)), None)


@cache
def _longest_first() -> list[tuple[str, Fate]]:
    return sorted(_BEGINNINGS.items(), key=lambda one: -len(one[0]))
