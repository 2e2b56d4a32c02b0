"""Prometheus: what a scrape of a machine and of the fleet costs with 100 agents, and what a count costs."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks.harness import ROLE, Stage, clock
from benchmarks.measures import Measure, percentile
from torch_tasks.fleet import fleet
from torch_tasks.model import metrics
from torch_tasks.model.agent import AgentInfo, AgentState
from torch_tasks.model.fields import now
from torch_tasks.model.node import KeptAgent, KeptState
from torch_tasks.monitoring.exposition import Readings
from torch_tasks.monitoring.fleet_metrics import fleet_metrics
from torch_tasks.settings import settings
from torch_tasks.state_folder import JOURNAL, TALLY
from torch_tasks.system.tally import Tally
from torch_tasks.workers.folders import AgentJournal
from torch_tasks.workers.node.machine_pages import readings_of

GOAL_MS = 50.0
_ROLES = ("developer", "qa", "devops", ROLE)
_ENDS = ("succeeded", "failed", "cancelled", "dead")


def measure(stage: Stage, quick: bool) -> list[Measure]:
    """Every agent has counted all that an agent counts, and two processes run in its pane."""
    agents, rounds = (10, 20) if quick else (100, 100)
    ids = [f"{ROLE}-metrics-{number}" for number in range(agents)]
    tallies = [_counted(agent_id, number) for number, agent_id in enumerate(ids)]
    for number, agent_id in enumerate(ids):
        _enter(agent_id, _ROLES[number % len(_ROLES)])
    kept = [KeptAgent(agent_id=one, role=ROLE, kind="shell", state=KeptState.RUNNING) for one in ids]
    with _panes(ids) as sessions:
        for agent_id, session in sessions.items():
            journal = AgentJournal(agent_id=agent_id, kind="shell", session=session)
            journal.write(settings().state.agent(agent_id) / JOURNAL)
        machine = readings_of(lambda: kept, fleet())
        at_rest = [clock(machine.text) * 1e3 for _ in range(rounds)]
        busy = [_processor_ms(machine) for _ in range(rounds)]
        at_work = list(_while_all_count(machine, tallies, rounds))
        size = len(machine.text())
    seen = [clock(fleet_metrics(fleet).text) * 1e3 for _ in range(rounds)]  # each is new, and has not looked
    counted = [clock(lambda: tallies[0].count(metrics.TASKS_TAKEN, role=ROLE, kind="shell")) * 1e6 for _ in range(500)]
    return [
        *_times(f"a scrape of {agents} idle agents", at_rest),
        *_times("… that have all counted since", at_work),
        Measure("CPU of a scrape, p50", percentile(busy, 50), "ms"),
        *_times(f"a scrape of the fleet of {agents}", seen),
        *(Measure(f"a count, p{percent}", percentile(counted, percent), "µs") for percent in (50, 99)),
        Measure("size of a scrape", size / 1024, "KiB"),
    ]


def _times(name: str, took: list[float]) -> Iterator[Measure]:
    yield Measure(f"{name}, p50", percentile(took, 50), "ms", goal=GOAL_MS, direction="≤")
    yield Measure(f"{name}, p99", percentile(took, 99), "ms")


def _while_all_count(machine: Readings, tallies: list[Tally], rounds: int) -> Iterator[float]:
    for _ in range(rounds):
        for tally in tallies:
            tally.count(metrics.TASKS_TAKEN, role=ROLE, kind="shell")
        yield clock(machine.text) * 1e3


def _processor_ms(machine: Readings) -> float:
    begun = time.process_time()
    machine.text()
    return (time.process_time() - begun) * 1e3


def _counted(agent_id: str, number: int) -> Tally:
    folder = settings().state.agent(agent_id)
    folder.mkdir(parents=True, exist_ok=True)
    tally, role = Tally(), _ROLES[number % len(_ROLES)]
    tally.keep_in(folder / TALLY)
    for end in _ENDS:
        tally.count(metrics.TASKS_ENDED, role=role, kind="shell", end=end)
    for spread in (metrics.TASK_QUEUE_SECONDS, metrics.TASK_TOTAL_SECONDS, metrics.MESSAGE_SECONDS):
        tally.observe(spread, 1.0, role=role)
    tally.observe(metrics.TASK_RUN_SECONDS, 1.0, role=role, kind="shell")
    for direction in ("input", "cached", "output"):
        tally.count(metrics.TOKENS, 1000, account="claude", role=role, direction=direction)
    for state in ("acknowledged", "dead"):
        tally.count(metrics.MESSAGES_SETTLED, role=role, state=state)
    return tally


def _enter(agent_id: str, role: str) -> None:
    known = {"agent_id": agent_id, "role": role, "kind": "shell", "node": "n", "pid": 1, "host": "h", "workdir": "/w"}
    info = AgentInfo(**known, incarnation=0, tmux_socket="/t", started_at=now(), state=AgentState.READY)
    fleet().registry.register(info, holder_is_gone=True)


@contextmanager
def _panes(ids: list[str]) -> Iterator[dict[str, int]]:
    """A process for each agent, which has started another one."""
    with ExitStack() as stack:
        argv = ["bash", "-c", "sleep 1000 & wait"]
        started = [subprocess.Popen(argv, start_new_session=True) for _ in ids]
        for process in started:
            stack.callback(_end, process)
        yield {agent_id: process.pid for agent_id, process in zip(ids, started, strict=True)}


def _end(process: subprocess.Popen[bytes]) -> None:
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    process.kill()
    process.wait()
    subprocess.run(["kill", *children], check=False)
