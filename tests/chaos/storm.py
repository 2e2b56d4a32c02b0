"""A storm: tasks flow while faults strike; then everything is healed, and the oracle speaks."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from chaos.client import Order, answer
from chaos.faults import Fault, ServiceFault
from chaos.fleet import Fleet
from chaos.oracle import Line, Strike, Verdict, judge
from chaos.table import table
from torch_tasks.model.task import TaskRecord

TICK_SECONDS = 0.05
#: Once everything is healed the fleet must go on ending tasks: so long without a single one, and it never will.
STILL_SECONDS = 60.0
REPORTED = 8


@dataclass
class Outcome:
    """What a storm left."""

    strikes: list[Strike]
    records: Mapping[str, TaskRecord | None]
    verdict: Verdict
    report: str
    """For each task in question its record, its history and what the logs say of it."""

    @property
    def table(self) -> str:
        """The faults and the oracle's counts."""
        return table(self.strikes, self.records, self.verdict)


def storm(fleet: Fleet, faults: Sequence[Fault], order: Order) -> Outcome:
    """Let the tasks flow and the faults strike; return what became of the tasks."""
    client = fleet.hand_in(order)
    strikes = _strike(fleet, faults)
    client.wait(STILL_SECONDS + order.seconds)
    accepted = [task for task in order.tasks if task in fleet.accepted()]
    _settle(fleet, accepted)
    effects = {task: Line.read(fleet.effects / task) for task in accepted}
    records = fleet.records(accepted)
    verdict = judge({task: answer(task) for task in accepted}, effects, records, strikes)
    verdict.orphans += fleet.surplus()
    if client.returncode:
        verdict.orphans.append(f"the client ended with code {client.returncode} after {len(accepted)} tasks")
    report = _report(fleet, verdict, effects, records)
    return Outcome(strikes, records, verdict, "\n".join([*map(str, strikes), report]))


def _strike(fleet: Fleet, faults: Sequence[Fault]) -> list[Strike]:
    steps = sorted(((at, step, fault) for fault in faults for at, step in fault.steps()), key=lambda step: step[0])
    struck: list[tuple[Fault, Strike]] = []
    begun = time.monotonic()
    for at, step, fault in steps:
        while time.monotonic() < begun + at:
            _revive(fleet, struck)
        if strike := step(fleet):
            struck.append((fault, strike))
    fleet.heal()
    _revive(fleet, struck)
    return [strike for _, strike in struck]


def _revive(fleet: Fleet, struck: Sequence[tuple[Fault, Strike]]) -> None:
    """Keep alive what a machine keeps alive, and note what runs again."""
    fleet.revive()
    now = time.time()
    for fault, strike in struck:
        waiting = isinstance(fault, ServiceFault) and strike.back_at is None and now >= strike.before + fault.lasts
        if waiting and fault.is_back(fleet):
            strike.back_at = now
    time.sleep(TICK_SECONDS)


def _settle(fleet: Fleet, tasks: Sequence[str]) -> None:
    """Until all tasks have ended, or nothing moves any more."""
    ended, since = -1, time.monotonic()
    while ended < len(tasks) and time.monotonic() < since + STILL_SECONDS:
        fleet.revive()
        if (now := fleet.ended(tasks)) > ended:
            ended, since = now, time.monotonic()
        time.sleep(0.2)


def _report(
    fleet: Fleet, verdict: Verdict, effects: Mapping[str, Sequence[Line]], records: Mapping[str, TaskRecord | None]
) -> str:
    parts = list(verdict.orphans)
    for task, wrong in list(verdict.findings.items())[:REPORTED]:
        record = records[task]
        parts += [
            f"━━ {task}: {'; '.join(wrong)}",
            record.model_dump_json(indent=1, exclude={"spec"}) if record else "no record",
            *(f"history: {entry}" for entry in fleet.history(task)),
            *(f"effect:  {line}" for line in effects[task]),
            fleet.mentions(task),
        ]
    return "\n".join([*parts, fleet.tails()] if parts else parts)
