"""A storm of faults: ``make chaos SECONDS=300 SEED=7``. Ends with code 1 if a task was lost or doubled."""

from __future__ import annotations

import secrets
import shutil
import signal
from pathlib import Path
from types import FrameType

import click

from chaos.client import Order
from chaos.faults import KINDS, plan
from chaos.fleet import Fleet
from chaos.storm import storm

TASKS_PER_SECOND = 2.5
FEWEST_TASKS = 200


@click.command(help=__doc__)
@click.option("--seconds", type=float, default=300.0, show_default=True, help="How long faults strike.")
@click.option("--seed", type=int, help="Which faults, and when; a random one is printed.")
@click.option("--kind", "kinds", multiple=True, type=click.Choice(list(KINDS)), help="Only such faults; repeat.")
@click.option("--keep", type=click.Path(path_type=Path), help="If it fails: copy what is on disk to this new folder.")
def main(seconds: float, seed: int | None, kinds: tuple[str, ...], keep: Path | None) -> None:
    """Strike, wait, judge, print."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _leave)
    seed = secrets.randbelow(1_000_000) if seed is None else seed
    click.echo(f"seed {seed}")
    faults = plan(seed, seconds, kinds or tuple(KINDS))
    with Fleet() as fleet:
        tasks = max(FEWEST_TASKS, round(seconds * TASKS_PER_SECOND))
        outcome = storm(fleet, faults, Order(tasks, seconds, seed, fleet.agents))
        outcome.verdict.orphans += fleet.down()
        if not outcome.verdict.good:
            click.echo(outcome.report)
            if keep:
                shutil.copytree(fleet.folder, keep, ignore=shutil.ignore_patterns("bell", "pipe", "drained", "tmux*"))
    click.echo(outcome.table)
    for task, wrong in outcome.verdict.findings.items():
        click.echo(f"{task}: {'; '.join(wrong)}")
    for orphan in outcome.verdict.orphans:
        click.echo(orphan)
    raise SystemExit(not outcome.verdict.good)


def _leave(number: int, _: FrameType | None) -> None:
    raise SystemExit(128 + number)


if __name__ == "__main__":
    main()
