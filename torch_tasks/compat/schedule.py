"""``schedule_with_note.sh``: makes a check-in for an agent, or for any pane of the user's tmux server."""

from __future__ import annotations

import math
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

from torch_tasks.checkins.delivery import pane_named
from torch_tasks.compat.send import is_agent, say, text
from torch_tasks.errors import InvalidCheckin, NothingFires, PaneNotFound, TorchError
from torch_tasks.facades.checkins import Checkins
from torch_tasks.link import perform
from torch_tasks.model.checkin import PaneTarget
from torch_tasks.operations import checkins as operations
from torch_tasks.operations.operation import WAIT_SECONDS
from torch_tasks.settings import settings
from torch_tasks.system.terminal import visible_output

DEFAULTS = ("3", "Standard check-in", "tmux-orc:0")
"""Minutes, note and target."""
NOTE_FILE = "next_check_note.txt"


@visible_output()
def main() -> int:
    """The program; ``sys.argv`` holds its name, then minutes, note and target as far as they are given."""
    called_as, *words = sys.argv
    try:
        given = [text([word]) for word in words[:3]]
        # An empty word stands for the default, as in the original.
        minutes, note, target = (word or default for word, default in zip_longest(given, DEFAULTS, fillvalue=""))
        checkin_id, warnings = schedule(minutes, note, target, _folder(called_as))
    except TorchError as error:
        print(f"Error: {error}", file=sys.stderr)  # noqa: T201 - this is what the program says
        return error.exit_code
    begun = time.time()
    now, then = (time.strftime("%H:%M:%S", time.localtime(moment)) for moment in (begun, begun + 60 * float(minutes)))
    say(f"Scheduling check in {minutes} minutes with note: {note}")
    say(f"Scheduled successfully - process detached (PID: {os.getpid()})")
    say(f"SCHEDULED TO RUN AT: {then} (in {minutes} minutes from {now})")
    about = f"it is check-in {checkin_id}: 'torch-tasks checkin history {checkin_id}' shows its outcome, and "
    for line in (*warnings, f"{about}'torch-tasks checkin remove {checkin_id}' cancels it"):
        print(f"Note: {line}", file=sys.stderr)  # noqa: T201 - this is what the program says
    return 0


def schedule(minutes: str, note: str, target: str, folder: Path) -> tuple[str, Sequence[str]]:
    """Schedule the note and write it into the folder's file, or raise; returns the check-in's id and warnings."""
    length = _length(minutes)
    patience = operations.AwaitReadiness.build(patience=min(WAIT_SECONDS, settings().beat_lease_seconds + 1))
    ready = perform(operations.get_readiness, patience)
    if ready.lacks:
        raise NothingFires(f"nothing was scheduled: {'; '.join(ready.lacks)}")
    receiver: dict[str, Any] = {"target": target} if is_agent(target) else {"pane": _pane(target, ready.nodes)}
    new = _note_file(folder, minutes, note)
    try:
        kept = Checkins().after(length, note, **receiver)
    except BaseException:
        new.unlink()
        raise
    new.replace(folder / NOTE_FILE)
    return kept.checkin.id, kept.warnings


def _length(minutes: str) -> float:
    try:
        length = float(minutes)
    except ValueError:
        length = math.nan
    if not 0 < length < math.inf:
        raise InvalidCheckin(
            f"{minutes!r} is not a number of minutes above 0, such as 30 or 0.5; nothing was scheduled"
        )
    return length


def _pane(target: str, nodes: Sequence[str]) -> PaneTarget:
    try:
        pane = pane_named(target)
    except PaneNotFound as error:
        raise PaneNotFound(f"{error}. There is no agent of this name either, and nothing was scheduled") from None
    if pane.node not in nodes:
        raise NothingFires(
            f"nothing was scheduled: no node worker runs on {pane.node} to deliver the note into {target}; "
            "'torch-tasks up' or 'torch-tasks node' starts one"
        )
    return pane


def _folder(called_as: str) -> Path:
    """The folder of the installed file, as in the original; for the program on the PATH the current folder."""
    place = Path(called_as).absolute().parent
    return Path.cwd() if place == Path(sys.executable).absolute().parent else place


def _note_file(folder: Path, minutes: str, note: str) -> Path:
    date = time.strftime("%a %b %e %H:%M:%S %Z %Y")
    content = f"=== Next Check Note ({date}) ===\nScheduled for: {minutes} minutes\n\n{note}\n"
    try:
        with tempfile.NamedTemporaryFile("w", dir=folder, prefix=f".{NOTE_FILE}.", delete=False) as new:
            new.write(content)
    except OSError as error:
        raise TorchError(f"cannot write {folder / NOTE_FILE}: {error.strerror}; nothing was scheduled") from None
    made = Path(new.name)
    made.chmod(0o644)
    return made


if __name__ == "__main__":
    sys.exit(main())
