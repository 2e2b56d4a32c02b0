"""Why Torch thinks that a program does what it says: every source, and what it told."""

from __future__ import annotations

from torch_tasks.workers.programs.events import EventLog
from torch_tasks.workers.programs.kind import Reading
from torch_tasks.workers.programs.submitter import Sight

_EVENTS = 3


def explain(sight: Sight, status: Reading | None, log: EventLog) -> list[tuple[str, str]]:
    """Each source and its word, the decisive one first."""
    reading, drawn, composer = sight.reading, sight.drawn, sight.composer
    stands = f"holds {composer.text!r}" if composer.text else "empty"
    return [
        (reading.source, f"{reading.state} ({reading.rule})"),
        ("live source", f"{status.state} ({status.source}: {status.rule})" if status else "none"),
        ("screen", f"{drawn.state} ({drawn.rule})"),
        ("title", sight.screen.title),
        ("composer", stands if composer.seen else "not seen"),
        *(("event", f"{event.at:%H:%M:%S} {event.kind} ({event.origin})") for event in log.since("")[-_EVENTS:]),
    ]
