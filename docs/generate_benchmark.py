"""Writes docs/benchmark.md from docs/benchmark.json, what a run found: ``python docs/generate_benchmark.py``."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.field.findings import (
    CELERY,
    CHECKINS,
    IDLE,
    KILLED,
    MISHAPS,
    RATES,
    RECOVERY,
    REDBEAT,
    TORCH,
    WRONG,
    FieldRun,
    facts,
    grid,
    loads,
)

DATA = Path(__file__).with_name("benchmark.json")

HEAD = """\
# The benchmark

Torch beside what does parts of the same: plain Celery, RedBeat, the script of the Tmux Orchestrator that Torch
replaces, and the sender of AWS's CLI Agent Orchestrator (CAO), on the same machine, with the same faults.
What Torch loses is said [below](#what-torch-loses).

- `make bench-field` repeats it, in about half an hour; `make bench-field FIELD=--quick` in less than ten minutes, with
  few repetitions. It prints these tables and writes them, with the raw data, to `benchmarks/results`.
  `make bench-page` writes this page anew.
- CAO's sender takes part where it is installed: in the environment that `BENCH_CAO` names, or on PATH. No sender of
  agent-deck has been tried: it could not be installed where this run was made.
- [benchmark.json](benchmark.json) has the raw data of this run; this page is generated from it by
  `python docs/generate_benchmark.py`.

## The machine, and how busy it was
"""
QUICK = "This is a run with few repetitions (`--quick`): it shows that everything runs, and hardly more.\n\n"
LOAD = """
The load is what Linux says of the last minute: more than the number of processors means that all of them are busy, with
the run itself or with other work, so that times are longer than on a machine at rest. Both sides of a comparison had
the same machine, one after the other.
"""

METHODS = {
    WRONG: """\
## Wrong verdicts

A fake coding agent (`tests/fakes/cli`) runs in a real terminal, and records what its model receives. A fault is played,
a prompt is sent, and the sender says whether it arrived. The verdict is wrong if it says yes and the model did not get
exactly these words, or no and it did. `benchmarks/faults.py` has the faults. Torch sends to two programs, one that
reports by hooks and one that it knows by its screen alone. The old script says yes always. CAO sends as its server does
for Claude Code, and says no where tmux refuses; what its server would refuse to send because it takes a terminal for
busy or broken is left out. The old script types, so that faults of pastes do not strike it.

How many wrong verdicts there would be in 1,000 sends; in brackets how many there were, at how many sends.
""",
    MISHAPS: """\
The same sends, by what happened: prompts lost, doubled, given to a shell, to a dialog or to another program, and texts
of others that were submitted. One send may do several of these.
""",
    KILLED: """\
## Lost and doubled

Four workers take tasks that a client puts in all the time; each runs a shell command of 0.05 to 0.6 s that writes a
line when it begins and one when it ends. A worker is killed (`kill -9`) as soon as all four are there, at random and
the same for both; every second time what it runs is killed with it. In the end everything is waited for. Plain Celery
has `acks_late`, `reject_on_worker_lost`, a prefetch of one, and a visibility timeout of 10 s with a look every 10 s:
far shorter than its hour by default, and safe only as long as no task takes longer. Torch has its defaults, but for the
pause before a dead worker is started again (one second at most) and the quarantine of agents that crash.

How many there would be in 10,000 accepted tasks. A task whose shell was killed has to be begun again to be done at all.
""",
    RECOVERY: """\
## Recovery

From the fault to the moment when the task works again, in seconds. In a terminal that lives on Torch begins nothing
again: the next worker finds the task in it. Where a machine is lost, two machines are network namespaces, with the
broker on a third; the settings are the defaults. A percentile of few values is hardly more than the largest of them.
""",
    CHECKINS: """\
## Check-ins

Five notes are due at each second. The beat that leads is killed again and again, while another one stands by, and one
more is started. RedBeat looks at its timetable each second, and its lock lasts five (with its defaults, 25 minutes). A
note of Torch counts when it is in its agent's inbox, one of RedBeat when it is in its queue.
""",
    IDLE: """\
## Idle

One of several that have nothing to do. Torch's worker has a terminal with a shell beside it, hears messages and says
that it lives; plain Celery's has the same pool and waits for tasks.
""",
    RATES: """\
## Rates

Four workers, for which all tasks wait, that each run one shell command; then one client. Torch's task is signed and on
the client's disk before it is accepted, runs in a terminal that people can look at, and its end is recorded.
""",
}


@dataclass(frozen=True)
class Loss:
    """Something that another does better: what is measured, who that is, and why it is so."""

    what: str
    table: str
    measure: str
    other: str
    why: str
    less_is_better: bool = True

    def said(self, run: FieldRun) -> str:
        """The line of the page, with this run's numbers; none if Torch did not lose."""
        values = {one.system: one.value for one in run.findings(self.table) if one.measure == self.measure}
        ours, theirs = values.get(TORCH), values.get(self.other)
        if ours is None or not theirs:
            return f"- **{self.what}**: not measured in this run. {self.why}\n"
        if (ours < theirs) is self.less_is_better:
            return ""
        return f"- **{self.what}**: {ours / theirs:.2g} times that of {self.other}. {self.why}\n"


TRIP = "a task that does nothing, there and back, p50"
LOSSES = (
    Loss(
        "the rate of enqueueing one by one",
        RATES,
        "enqueued one by one",
        CELERY,
        "Each task is signed, and flushed to the client's disk before it is accepted. Many at once share a flush.",
        less_is_better=False,
    ),
    Loss(
        "the time of a task that does nothing",
        RATES,
        TRIP,
        CELERY,
        "It goes through a terminal, and its end is noticed, judged, signed and recorded.",
    ),
    Loss(
        "the rate of trivial shell commands",
        RATES,
        "trivial shell commands, 4 workers, done",
        CELERY,
        "Work that takes milliseconds and needs no terminal is better given to plain Celery.",
        less_is_better=False,
    ),
    Loss(
        "the memory of an idle worker",
        IDLE,
        "memory of a worker that it shares with no other (USS)",
        CELERY,
        "Its terminal comes on top. `TORCH_WARM_START=true` shares much of it ([scale.md](scale.md)).",
    ),
    Loss(
        "the commands to the broker of an idle worker",
        IDLE,
        "commands to the broker for it",
        CELERY,
        "Heartbeats, its inbox, pauses and leases; those inside scripts are counted, too.",
    ),
    Loss(
        "the median lateness of check-ins",
        CHECKINS,
        "lateness, p50",
        REDBEAT,
        "A note goes through a node worker into an inbox, each step recorded; RedBeat's is only put into a queue.",
    ),
)
LOSSES_HEAD = """\
## What Torch loses

"""
LOSSES_TAIL = """\
- **What cannot be known is said to be so**: where a program without hooks may have lost a prompt, Torch reports that it
  does not know, and a person has to look. Others say that it was sent.
- **Simplicity**: a worker, a terminal, a node worker and beat have to run; the old script is three lines.
"""


def page() -> str:
    """The whole page."""
    run = FieldRun.of(json.loads(DATA.read_text()))
    found = [f"\n{method}\n{grid(run.findings(table))}" for table, method in METHODS.items()]
    lost = LOSSES_HEAD + "".join(loss.said(run) for loss in LOSSES) + LOSSES_TAIL
    return "".join(
        [
            HEAD,
            "\n",
            QUICK if run.quick else "",
            f"{run.note}\n\n" if run.note else "",
            facts({"run": run.at[:16].replace("T", " ")}, run.machine, run.versions),
            "\n",
            loads(run.parts),
            LOAD,
            *found,
            "\n",
            lost,
        ]
    )


if __name__ == "__main__":
    Path(__file__).with_name("benchmark.md").write_text(page())
