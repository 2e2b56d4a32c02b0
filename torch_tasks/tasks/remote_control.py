"""Celery's remote control, reduced to what is needed: who asks travels with each command, and a worker carries out few.

What a worker does not carry out it refuses in words, which ``celery control`` and Flower's buttons show, and counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from celery.app.control import Control
from celery.worker.control import nok
from kombu.pidbox import Mailbox, Node

from torch_tasks.app import (
    ANNOUNCE_QUEUE,
    ANSWER,
    DIFF,
    EXPLAIN,
    HOLDS_CHANGED,
    LOOK,
    RESOURCES,
    RETIRE,
    SCROLLBACK,
    SHOW,
    TAKEOVER,
    app,
)
from torch_tasks.caller import acting_as
from torch_tasks.errors import NotAllowed
from torch_tasks.model.asker import Asker
from torch_tasks.model.reader import shortened
from torch_tasks.security.decision import note_denial, require
from torch_tasks.security.rights import Right, Subject
from torch_tasks.settings import settings
from torch_tasks.tasks.recorded_asker import asker_in, stamp
from torch_tasks.transport.envelope import ASKER_HEADER, SIGNER_HEADER

REVOKE, SHUTDOWN = "revoke", "shutdown"
RIGHTS = {
    **dict.fromkeys(
        (
            *("ping", "report", "conf", "stats", "clock", "registered", "active_queues", "query_task"),
            *("active", "reserved", "scheduled", "revoked"),
            *("dump_active", "dump_reserved", "dump_schedule", "dump_revoked", "dump_tasks"),
            *("hello", "enable_events", "heartbeat"),
        ),
        Right.LOOK,
    ),
    REVOKE: Right.CHANGE,
    SHUTDOWN: Right.HOLD,
    ANNOUNCE_QUEUE: Right.ENQUEUE,
    ANSWER: Right.ANSWER,
    RESOURCES: Right.LOOK,
    DIFF: Right.LOOK,
    SHOW: Right.WATCH,
    SCROLLBACK: Right.WATCH,
    EXPLAIN: Right.WATCH,
    TAKEOVER: Right.TYPE,
    # These have a worker look again at what stands in a record, in the holds, or in its agent's folder.
    LOOK: Right.LOOK,
    RETIRE: Right.LOOK,
    HOLDS_CHANGED: Right.LOOK,
}
"""The commands that a worker carries out, and the right that each takes."""
_ABOUT_AGENT = (SHOW, SCROLLBACK, EXPLAIN, ANSWER, TAKEOVER)
"""Those of which it counts whose agent the worker has."""

_CANCEL = "'torch-tasks cancel TASK' interrupts the agent of a task in its pane; no process gets a signal"
_QUEUES = "a worker reads the queues that its agent's role and skills can serve, and no others"
_DEBUGGING = "a worker that works is not taken apart; 'torch-tasks logs' shows what it says"
REASONS = {
    "pool_grow": "{who} has as many threads as it needs; 'torch-tasks spawn {role}' starts another agent",
    "pool_shrink": "{who} has as many threads as it needs; 'torch-tasks retire {agent}' ends an agent",
    "pool_restart": "{who} has no pool to restart; after SIGTERM its node worker starts it again, its pane goes on",
    "autoscale": "{who} has as many threads as it needs; pools of agents grow by themselves, see 'torch-tasks scale'",
    "add_consumer": _QUEUES,
    "cancel_consumer": _QUEUES,
    "rate_limit": "what agents may use is limited by account, under [budgets] in torch.toml",
    "time_limit": "each task has its own limit, 'torch-tasks run --timeout'",
    "terminate": _CANCEL,
    "revoke_by_stamped_headers": _CANCEL,
    "disable_events": "the fleet's monitors live by the events of all workers",
    "election": "workers of Torch hold no elections",
    "objgraph": _DEBUGGING,
    "memsample": _DEBUGGING,
    "memdump": _DEBUGGING,
}
"""Why a worker refuses the other commands of Celery to every caller."""
_NO_SIGNAL = (None, "SIGTERM", "TERM")
"""Celery's default, which says no more than that the task is to end."""


class GuardedNode(Node):
    """A worker's end of the remote control."""

    def handle_message(self, body: Any, message: Any = None) -> Any:
        signer = message.headers.get(SIGNER_HEADER) if message else None
        return super().handle_message(
            {**body, "arguments": {**(body.get("arguments") or {}), SIGNER_HEADER: signer}}, message
        )

    def handle(self, method: str, arguments: Any = None) -> Any:
        asked = dict(arguments or {})
        asker = asker_in({name: asked.pop(name, None) for name in (ASKER_HEADER, SIGNER_HEADER)})
        with acting_as(asker.caller):
            try:
                _require(method, asked, asker)
            except NotAllowed as error:
                return nok(str(error))
            return super().handle(method, asked)


class GuardedMailbox(Mailbox):
    node_cls = GuardedNode


class RemoteControl(Control):
    """The client's end: each command says who asks."""

    Mailbox = GuardedMailbox

    def broadcast(self, command: str, arguments: Mapping[str, Any] | None = None, *args: Any, **options: Any) -> Any:
        asked = dict(arguments or {})
        stamp(asked)
        return super().broadcast(command, asked, *args, **options)


def _require(method: str, asked: Mapping[str, Any], asker: Asker) -> None:
    """Raise :class:`NotAllowed` unless this worker carries the command out for who asks."""
    name = f"control.{method}" if method in RIGHTS or method in REASONS else "control.unknown"
    right = RIGHTS.get(method)
    if right is None:
        _refuse(name, REASONS.get(method, f"there is no command {shortened(method)!r}").format(**_who_is_here()))
    elif method == REVOKE:
        if asked.get("signal") not in _NO_SIGNAL:
            _refuse(name, _CANCEL)
        for task_id in _ids(asked.get("task_id")):
            require(name, right, Subject(task=task_id))
    else:
        require(name, right, _subject(method, asked))
    if method == SHUTDOWN and asker.node != settings().node:
        where = f"on {asker.node}" if asker.node else "outside Torch"
        _refuse(name, f"a worker is ended from its own node, {settings().node}, and this was asked for {where}")


def _refuse(name: str, why: str) -> NoReturn:
    note_denial(name, Asker.now(), why)
    raise NotAllowed(why)


def _subject(method: str, asked: Mapping[str, Any]) -> Subject:
    if method in (ANSWER, DIFF) and asked.get("task_id"):
        return Subject(task=str(asked["task_id"]))
    if method in _ABOUT_AGENT and app.host:
        return Subject(agent=app.host.info.agent_id)
    return Subject()


def _ids(given: Any) -> Sequence[str]:
    return [str(one) for one in given] if isinstance(given, (list, tuple)) else [str(given)]


def _who_is_here() -> dict[str, str]:
    """This worker and its agent, for a refusal."""
    if app.host is None:
        return {"who": "this is a node worker, which runs no agent; it", "role": "ROLE", "agent": "AGENT"}
    info = app.host.info
    return {"who": f"{info.agent_id} is one agent and", "role": info.role, "agent": info.agent_id}
