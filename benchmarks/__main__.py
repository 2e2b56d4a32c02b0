"""Run benchmarks: ``python -m benchmarks [NAME …] [--json FILE] [--quick]``; without a name all of them."""

from __future__ import annotations

import json
import sys
from datetime import datetime
from importlib import import_module
from os import getloadavg
from pathlib import Path
from typing import Any

import click
import psutil
from rich.console import Console

from benchmarks.harness import open_stage
from benchmarks.measures import table

NAMES = (
    "budget",
    "enqueue",
    "signed",
    "audit",
    "metrics",
    "ledger",
    "registry",
    "checkins",
    "transport",
    "idle",
    "traffic",
    "scale",
    "throughput",
    "takeover",
    "spawn",
    "start",
    "warm",
    "recovery",
    "reboot",
    "submission",
    "messages",
    "message_storm",
    "faults",
    "real",
    "doors",
    "mcp",
    "server",
    "console",
    "cards",
    "desk",
    "boxed",
    "certify",
)
RESULTS = Path(__file__).parent / "results"


@click.command(help=__doc__)
@click.argument("names", nargs=-1, metavar="[NAME …]", type=click.Choice(NAMES))
@click.option("--json", "file", type=click.File("w"), help="Write the numbers there too; - is the standard output.")
@click.option("--quick", is_flag=True, help="Fewer agents, fewer repetitions: to see that it works.")
def main(names: tuple[str, ...], file: Any, quick: bool) -> None:
    """All benchmarks share one stage: one for each would cost more than it separates."""
    console = Console(stderr=file is sys.stdout)
    begun = datetime.now().astimezone()
    found: dict[str, Any] = {"at": begun.isoformat(timespec="seconds"), "quick": quick, "machine": _machine()}
    with open_stage() as stage:
        found["broker"] = stage.broker.name()
        for name in names or NAMES:
            benchmark = import_module(f"benchmarks.{name}")
            measures = benchmark.measure(stage, quick)
            found[name] = [measure.as_json() for measure in measures]
            console.print(table(f"{name}: {(benchmark.__doc__ or '').strip()}", measures), "")
    text = json.dumps(found, indent=2, ensure_ascii=False) + "\n"
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{begun:%Y-%m-%dT%H-%M-%S}.json").write_text(text)
    if file:
        file.write(text)


def _machine() -> dict[str, Any]:
    return {"cpus": psutil.cpu_count(), "load": getloadavg()[0], "python": sys.version.split()[0]}


main()
