"""Torch beside plain Celery, RedBeat, the old script and CAO, in one run: ``make bench-field``.

    python -m benchmarks.field                          all parts, about half an hour
    python -m benchmarks.field kills --quick            one, with less patience
    make bench-page                                     all, and docs/benchmark.md of what they find

CAO's sender is tried where it is installed: in the environment that ``BENCH_CAO`` names, or on PATH. A column of
what is not there says so.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from functools import partial
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

import click
import psutil
from rich.console import Console
from rich.markdown import Markdown

from benchmarks.field import peers
from benchmarks.field.findings import FieldFinding, FieldPart, FieldRun, facts, grid, loads
from benchmarks.harness import open_stage, said
from torch_tasks.fleet import fleet

PARTS = ("verdicts", "kills", "recoveries", "checkins", "idling", "rates")
RESULTS = Path(__file__).parents[1] / "results"


@click.command(help=__doc__)
@click.argument("names", nargs=-1, metavar="[PART …]", type=click.Choice(PARTS))
@click.option("--json", "file", type=click.Path(path_type=Path), help="Write the run there, too.")
@click.option(
    "--note", default="", help="What a reader of the run has to know: other work on the machine, for example."
)
@click.option("--quick", is_flag=True, help="In less than ten minutes: to see that it works.")
def main(names: tuple[str, ...], file: Path | None, note: str, quick: bool) -> None:
    """One part after the other, so that none is disturbed by another; one that fails does not take the rest along."""
    run = FieldRun(_now(), quick, _machine(), {}, [], note)
    stem = RESULTS / f"field-{run.at.replace(':', '-')[:19]}"
    with open_stage() as stage:
        run.versions = _versions()
        for name in names or PARTS:
            measure = import_module(f"benchmarks.field.{name}").measure
            run.parts.append(part_of(name, partial(measure, stage, quick)))
            for text in _tables(run.parts[-1]):
                Console().print(Markdown(text), "")
            _write(run, stem, file)
    if failed := [part.name for part in run.parts if part.failure]:
        raise SystemExit(f"ended early: {', '.join(failed)}; {stem}.md has the rest")


def _write(run: FieldRun, stem: Path, file: Path | None) -> None:
    """All that is known by now: a run takes long, and may not come to its end."""
    text = json.dumps(run.as_json(), indent=1, ensure_ascii=False) + "\n"
    stem.parent.mkdir(exist_ok=True)
    stem.with_suffix(".json").write_text(text)
    stem.with_suffix(".md").write_text("\n".join([facts(run.machine, run.versions), *_all_tables(run)]))
    if file:
        file.write_text(text)


def part_of(name: str, measure: Callable[[], Iterable[FieldFinding]]) -> FieldPart:
    """What this part finds, also if it ends early, and how busy the machine was meanwhile."""
    part = FieldPart(name, _now(), 0, os.getloadavg()[0], 0)
    begun = time.monotonic()
    try:
        part.findings += measure()
    except Exception as error:
        traceback.print_exc()
        part.failure = type(error).__name__  # what it says may name a folder of this machine
    part.seconds, part.load_after = round(time.monotonic() - begun, 1), os.getloadavg()[0]
    return part


def _tables(part: FieldPart) -> Iterator[str]:
    for table in dict.fromkeys(one.table for one in part.findings):
        yield f"## {table}\n\n{grid(one for one in part.findings if one.table == table)}"
    yield loads([part])


def _all_tables(run: FieldRun) -> Iterator[str]:
    for table in dict.fromkeys(one.table for part in run.parts for one in part.findings):
        yield f"## {table}\n\n{grid(run.findings(table))}"
    yield f"## load\n\n{loads(run.parts)}"


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")


def _machine() -> dict[str, str]:
    """What kind of machine this is; nothing by which this very one could be found."""
    cpus = [line.partition(": ")[2] for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line]
    return {
        "processors": f"{psutil.cpu_count()}, {cpus[0] if cpus else platform.machine()}",
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "system": f"{platform.freedesktop_os_release()['PRETTY_NAME']}, Linux {platform.release().partition('-')[0]}",
        "tmux": said("tmux", "-V").removeprefix("tmux "),
        "Python": sys.version.split()[0],
    }


def _versions() -> dict[str, str]:
    server: dict[str, Any] = fleet().client.info("server")
    kind = next(name for name in ("dragonfly", "valkey", "redis") if f"{name}_version" in server)
    return {
        "broker": f"{kind} {server[f'{kind}_version'].removeprefix('df-v')}",
        "Torch": metadata.version("torch-tasks"),
        "Celery, kombu": f"{metadata.version('celery')}, {metadata.version('kombu')}",
        **peers.versions(),
    }


if __name__ == "__main__":
    shutil.which("tmux") or sys.exit("tmux is not on PATH")
    main()
