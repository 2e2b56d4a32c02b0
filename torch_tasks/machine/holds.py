"""The pauses and stops that a machine knows, on its disk: they hold with the broker and without."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from torch_tasks.caller import CallerKind
from torch_tasks.model.asker import Asker
from torch_tasks.model.fields import now
from torch_tasks.model.hold import STOP, Hold, LatestHolds, Stop
from torch_tasks.settings import settings
from torch_tasks.state_folder import StateFolder
from torch_tasks.store.holds import Holds
from torch_tasks.system.files import exclusive, make_folder, ring_all, usable, write_private

log = logging.getLogger(__name__)


class OverruledHold(NamedTuple):
    """A hold on the broker that does not count here, and why not."""

    scope: str
    hold: Hold
    why: str


class NodeHolds:
    """The holds in one state folder, and its file ``STOP``: while that exists, no task begins on this machine."""

    def __init__(self, state_dir: Path) -> None:
        self._folder = state_dir
        state = StateFolder(state_dir)
        self._file, self._lock, self.stop_file = state.holds, state.holds_lock, state.stop
        self._latest = LatestHolds({})
        self._read: object = None

    def latest(self) -> LatestHolds:
        """The holds as some process of this machine read them last from the broker."""
        with suppress(FileNotFoundError):
            stat = self._file.stat()
            if self._read != (seen := (stat.st_mtime_ns, stat.st_ino)):
                self._latest = self._latest.merged(LatestHolds.model_validate_json(self._file.read_bytes()))
                self._read = seen
        return self._latest

    @property
    def stop(self) -> Stop | None:
        try:
            return Stop.model_validate_json(self.stop_file.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError):  # a person may have made the file by hand
            made = 0.0
            with suppress(OSError):
                made = self.stop_file.stat().st_mtime
            by = Asker(kind=CallerKind.PERSON, name=f"the file {self.stop_file}")
            return Stop(by=by, at=datetime.fromtimestamp(made, UTC))

    def write_stop(self, hold: Hold, *, fleet: bool) -> None:
        make_folder(self._folder)
        write_private(self.stop_file, Stop(**hold.model_dump() | {"fleet": fleet}).model_dump_json() + "\n")
        ring_all(self._folder)

    def remove_stop(self) -> None:
        with usable(self.stop_file):
            self.stop_file.unlink(missing_ok=True)
        ring_all(self._folder)

    def agree(self, holds: Holds, why_not: Callable[[str, Hold], str]) -> list[OverruledHold]:
        """Merge the holds of the broker and of this machine, on both, and follow the fleet's stop.

        ``why_not`` says why a hold that is new on the broker must not be obeyed. Such a one changes nothing here; on
        the broker, what held before takes its place, or it is lifted. They are returned.
        """
        make_folder(self._folder)
        with exclusive(self._lock):
            self._publish_stop(holds)
            here = self.latest()
            there, overruled = _overrule(holds, here, why_not)
            holds.restore(here.later(there))
            both = here.merged(there)
            if both != here:
                self._latest = both
                write_private(self._file, both.model_dump_json() + "\n")
                ring_all(self._folder)
            self._follow_fleet(both)
            os.utime(self._lock)
            return overruled

    def agreed_within(self, seconds: float) -> bool:
        """Whether some process of this machine has merged its holds with the broker's in this time."""
        with suppress(FileNotFoundError):
            return abs(time.time() - self._lock.stat().st_mtime) < seconds
        return False

    def _publish_stop(self, holds: Holds) -> None:
        """Publish a stop of the fleet that was ordered here while the broker was away."""
        stop = self.stop
        if stop and stop.fleet and not stop.revision:
            self.write_stop(holds.put(STOP, stop.model_copy(update={"at": now()})), fleet=True)

    def _follow_fleet(self, latest: LatestHolds) -> None:
        """Keep the file in step with the fleet's stop; a stop of this machine alone stays as it is."""
        stop, fleets = self.stop, latest.in_force(STOP)
        if fleets and stop is None:
            self.write_stop(fleets, fleet=True)
        elif stop and stop.fleet and not fleets:
            self.remove_stop()


def _overrule(
    holds: Holds, here: LatestHolds, why_not: Callable[[str, Hold], str]
) -> tuple[LatestHolds, list[OverruledHold]]:
    """The broker's holds that count, and those that do not and were replaced."""
    counting, overruled = dict(holds.latest().root), list[OverruledHold]()
    for scope, hold in LatestHolds(counting).later(here).items():
        if not (why := why_not(scope, hold)):
            continue
        del counting[scope]
        instead = here.root.get(scope) or _lifted(why)
        if (scope in here.root or not hold.lifted) and (replaced := holds.replace(scope, hold, instead)):
            counting[scope] = replaced
            overruled.append(OverruledHold(scope, hold, why))
    return LatestHolds(counting), overruled


def _lifted(why: str) -> Hold:
    node = settings().node
    return Hold(by=Asker(kind=CallerKind.NODE, name=node, node=node), reason=why, at=now(), lifted=True)
