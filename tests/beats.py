"""Beats and node workers as processes, and agents that exist only in the registry."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from machine import short_folder, survivors
from nodes import MARK, PACE, SESSION, Broker, ProcessNode, ShowsLogs
from waiting import until

from torch_tasks import keys
from torch_tasks.fleet import fleet
from torch_tasks.model.agent import AgentInfo, AgentState
from torch_tasks.model.checkin import At, Checkin, CheckinRecord, Fire, Target
from torch_tasks.model.fields import now


class BeatMachine(ShowsLogs):
    """A machine with its own state folder, for beats and node workers."""

    def __init__(self, broker: Broker, name: str = "node-b", **environment: str) -> None:
        self.folder = short_folder()
        self.processes: list[ProcessNode] = []
        self._env = {
            **os.environ,
            **PACE,
            SESSION: MARK,
            "TORCH_BROKER_URL": broker.url,
            "TORCH_STATE_DIR": str(self.folder / "state"),
            "TORCH_AGENTS": "[]",
            "TORCH_NODE": name,
            **environment,
        }

    def node_worker(self) -> ProcessNode:
        """A node worker, which delivers check-ins, once it is ready."""
        worker = self.start("node", "worker", "--node")
        until(lambda: " ready." in worker.logs(), "the node worker is ready", 60)
        return worker

    def beat(self, name: str = "beat", app: str = "torch_tasks", **environment: str) -> ProcessNode:
        """A beat with a journal of its own."""
        state = str(self.folder / name)
        return self.start(
            name, "beat", app=app, **{"TORCH_STATE_DIR": state, "TORCH_BEAT_LEASE_SECONDS": "2", **environment}
        )

    def start(self, name: str, *words: str, app: str = "torch_tasks", **environment: str) -> ProcessNode:
        """A Celery program of this app."""
        argv = [sys.executable, "-m", "celery", "-A", app, *words, "--loglevel", "INFO"]
        log = self.folder / f"{name}.{len(self.processes)}.log"
        self.processes.append(ProcessNode(name, argv, {**self._env, **environment}, log))
        return self.processes[-1]

    def logs(self) -> list[tuple[str, str]]:
        return [(process.name, process.logs()) for process in self.processes]

    def close(self) -> None:
        """End every process that was started here."""
        for process in self.processes:
            if process.status == "running":
                process.process.send_signal(signal.SIGCONT)
            process.teardown()
        until(lambda: not survivors(str(self.folder)), f"nothing of {self.folder} is left")
        shutil.rmtree(self.folder)


def leads(beat: ProcessNode) -> bool:
    """Whether the beat leads."""
    held = fleet().client.get(keys.BEAT_LEADER)
    return held is not None and f"({held})" in beat.logs()


def registered(agent_id: str, role: str = "developer", **fields: Any) -> AgentInfo:
    """Register an agent with a fresh heartbeat; no process of it runs."""
    info = AgentInfo(
        agent_id=agent_id,
        role=role,
        node="elsewhere",
        host="elsewhere",
        pid=1,
        tmux_socket="/nowhere",
        started_at=now(),
        **{"kind": "shell", "incarnation": 0, "state": AgentState.READY, "workdir": "/srv/shop", **fields},
    )
    known = fleet().registry.register(info, holder_is_gone=True)
    fleet().registry.heartbeat(known)
    return known


def checkin(note: str = "look at the build", seconds: float = 3600, **fields: Any) -> Checkin:
    """A check-in for developer-1, so many seconds from now, unless the fields say otherwise."""
    what: Mapping[str, Any] = {
        "note": note,
        "target": Target(agent="developer-1"),
        "schedule": At(at=fleet().checkins.now() + timedelta(seconds=seconds)),
        "sender": "operator",
        **fields,
    }
    return Checkin.build(**what)


def fires(record: CheckinRecord | Checkin) -> list[Fire]:
    """The check-in's history, oldest first."""
    known = record.checkin if isinstance(record, CheckinRecord) else record
    return fleet().checkins.history(known.id, 100)[::-1]
