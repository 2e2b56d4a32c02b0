"""Whether a sender's word can be believed: what each said of its prompts under each fault, and what came of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

from benchmarks.fake_agents import SILENT, TELLING, fake_agents
from benchmarks.faults import FAULTS, Count, Fault, counts
from benchmarks.field import peers
from benchmarks.field.findings import MISHAPS, OLD_SCRIPT, TORCH, WRONG, FieldFinding
from benchmarks.harness import Stage
from benchmarks.lanes import Lane, ScriptLane, TorchLane
from benchmarks.old_script import OldScript

PER = 1_000
QUICK_FAULTS = ("none", "a person's text in the composer", "two senders")


def measure(stage: Stage, quick: bool) -> Iterator[FieldFinding]:
    """Every sender under every fault, side by side."""
    faults = [fault for fault in FAULTS if not quick or fault.name in QUICK_FAULTS]
    times = 1 if quick else 4
    with ExitStack() as stack:
        senders = [*_torch(stage, stack), *_others(stage, stack)]
        with ThreadPoolExecutor(len(senders)) as side_by_side:
            jobs = [
                (one.system, side_by_side.submit(counts, one.folder, one.lane, one.kind, one.near, times, faults))
                for one in senders
            ]
            found = [(system, job.result()) for system, job in jobs]
    yield from findings(faults, found)


def findings(faults: Sequence[Fault], found: Sequence[tuple[str, Sequence[Count]]]) -> Iterator[FieldFinding]:
    """For each system what it said that was not so, and what went wrong; of a system with two senders, of both."""
    for number, fault in enumerate(faults):
        made: dict[str, Count] = {}
        for system, theirs in found:
            made[system] = theirs[number] + made[system] if system in made else theirs[number]
        for table, what in ((WRONG, "wrong"), (MISHAPS, "bad")):
            for system, count in made.items():
                if count.broken:
                    yield FieldFinding(table, fault.name, system, None, f"per {PER:,}", "broken off")
                else:
                    yield FieldFinding.share(table, fault.name, system, getattr(count, what), count.sent, PER)
    yield from _in_all(found)
    for table in (WRONG, MISHAPS):
        for system, why in peers.missing().items():
            yield FieldFinding(table, "all faults", system, None, f"per {PER:,}", why)


def _in_all(found: Sequence[tuple[str, Sequence[Count]]]) -> Iterator[FieldFinding]:
    for table, what in ((WRONG, "wrong"), (MISHAPS, "bad")):
        for system in dict.fromkeys(system for system, _ in found):
            whole = [one for name, theirs in found if name == system for one in theirs if not one.broken]
            wrong, sent = sum(getattr(one, what) for one in whole), sum(one.sent for one in whole)
            yield FieldFinding.share(table, "all faults", system, wrong, sent, PER)


def _torch(stage: Stage, stack: ExitStack) -> Iterator[SimpleNamespace]:
    for kind in (TELLING, SILENT):
        [agent] = stack.enter_context(fake_agents(stage, [f"field-{kind}"], kind))
        folder = _own(stage, f"{TORCH}-{kind}")
        yield SimpleNamespace(system=TORCH, folder=folder, lane=TorchLane(stage, agent), kind=kind, near=agent.cli)


def _others(stage: Stage, stack: ExitStack) -> Iterator[SimpleNamespace]:
    for system, make in {OLD_SCRIPT: OldScript, **peers.installed()}.items():
        folder = _own(stage, system.replace(" ", "-"))
        sender = stack.enter_context(make(folder))
        near = stack.enter_context(make(folder, f"{sender.session}-api"))
        lane: Lane = ScriptLane(sender)
        yield SimpleNamespace(system=system, folder=folder, lane=lane, kind="", near=near.cli)


def _own(stage: Stage, name: str) -> Path:
    """A folder of its own, so that no sender's effect is taken for another's."""
    folder = stage.folder / "senders" / name
    folder.mkdir(parents=True)
    return folder
