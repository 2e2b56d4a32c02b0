"""Counts of what a process has done, kept in a file beside its other files; the node worker reads all of a machine.

A process counts on where the one before it ended. One that has nothing to count writes nothing.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from torch_tasks.errors import StateFolderUnusable
from torch_tasks.model.metrics import METRICS, Metric, MetricType
from torch_tasks.state_folder import TALLY, StateFolder
from torch_tasks.system.files import make_folder

Series = dict[tuple[str, tuple[str, ...]], list[float]]
"""By a metric's name and its labels' values: a counter's one number; of a histogram how many values are at most each
bound, then how many there are, then their sum."""


class Tally:
    """What one process, and its predecessors in the same place, have counted."""

    def __init__(self) -> None:
        self._series: Series = {}
        self._file: Path | None = None
        self._written: tuple[int, int] | None = None
        self._changing = threading.RLock()
        self._put_off = False

    def keep_in(self, file: Path) -> None:
        """Keep the counts in this file from now on, beginning with what stands there; its folder is there."""
        with self._changing:
            self._series, self._file, self._written = {}, file, None

    def series(self) -> Series:
        with self._changing:
            return {key: list(numbers) for key, numbers in self._series.items()}

    def count(self, metric: Metric, by: float = 1.0, **labels: str) -> None:
        self._change(metric, labels, [by])

    def begin(self, metric: Metric, **labels: str) -> None:
        """Show zeros, so that the first count is an increase."""
        self._change(metric, labels, [0.0] * _width(metric))

    def observe(self, metric: Metric, value: float, **labels: str) -> None:
        """Add a value to a histogram; less than nothing is nothing, as clocks differ."""
        value = max(value, 0.0)
        self._change(metric, labels, [*(float(value <= bound) for bound in metric.bounds), 1.0, value])

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Write what is counted in here when it is over, in one go."""
        with self._changing:
            self._put_off = True
            try:
                yield
            finally:
                self._put_off = False
                self._write()

    def _change(self, metric: Metric, labels: Mapping[str, str], numbers: list[float]) -> None:
        key = metric.name, tuple(str(labels[name]) for name in metric.labels)
        with self._changing:
            self._follow()
            _add(self._series, key, numbers)
            self._write()

    def _follow(self) -> None:
        """Take what another process has written here since: a former one, or a beat that led meanwhile."""
        if self._file and (stamp := _stamp(self._file)) != self._written:
            self._series = read_tally(self._file)
            self._written = stamp

    def _write(self) -> None:
        """A count that cannot be written is not worth an error: the next one tries again."""
        if self._file is None or self._put_off:
            return
        new = self._file.with_name(f"{self._file.name}.{os.getpid()}")
        with suppress(OSError):
            rows = [[name, labels, numbers] for (name, labels), numbers in self._series.items()]
            new.write_text(json.dumps(rows))
            new.replace(self._file)
            self._written = _stamp(self._file)


class Tallies:
    """The sums of many files; one that has not changed is not read again."""

    def __init__(self) -> None:
        self._read: dict[Path, tuple[tuple[int, int] | None, Series]] = {}

    def sum(self, files: Iterable[Path]) -> Series:
        total: Series = {}
        for file in files:
            stamp = _stamp(file)
            if stamp is None:
                continue
            if file not in self._read or self._read[file][0] != stamp:
                self._read[file] = stamp, read_tally(file)
            for key, numbers in self._read[file][1].items():
                _add(total, key, numbers)
        return total


def read_tally(file: Path) -> Series:
    """What stands in the file, as far as it fits the metrics of this version."""
    found: Series = {}
    with suppress(OSError, ValueError, TypeError):
        for name, labels, numbers in json.loads(file.read_bytes()):
            metric = METRICS.get(name)
            if metric and len(labels) == len(metric.labels) and len(numbers) == _width(metric):
                found[name, tuple(map(str, labels))] = list(map(float, numbers))
    return found


def _width(metric: Metric) -> int:
    return len(metric.bounds) + 2 if metric.type is MetricType.HISTOGRAM else 1


def _add(series: Series, key: tuple[str, tuple[str, ...]], numbers: list[float]) -> None:
    known = series.get(key)
    series[key] = list(numbers) if known is None else [a + b for a, b in zip(known, numbers, strict=True)]


def _stamp(file: Path) -> tuple[int, int] | None:
    with suppress(OSError):
        status = file.stat()
        return status.st_mtime_ns, status.st_ino
    return None


NODE, BEAT = "node", "beat"
"""The lasting processes of a machine that count, beside its agent workers."""


def keep_tally_of(process: str, state: StateFolder) -> None:
    """Have this process count where the node worker looks; where that cannot be, nothing of it is shown."""
    with suppress(StateFolderUnusable):
        make_folder(state.tallies)
        tally().keep_in(state.tallies / f"{process}.json")


def files_of(state: StateFolder) -> list[Path]:
    """Every file in which processes of this machine count."""
    return [*(folder / TALLY for folder in state.agents()), *(state.tallies / f"{name}.json" for name in (NODE, BEAT))]


_own = Tally()


def tally() -> Tally:
    """The counts of this process."""
    return _own
