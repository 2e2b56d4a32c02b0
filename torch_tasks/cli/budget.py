"""``torch-tasks budget``."""

from __future__ import annotations

import json

import click

from torch_tasks.broker.connection import broker_errors
from torch_tasks.cli.output import as_table, plain
from torch_tasks.fleet import fleet


@click.command()
@click.argument("account", required=False)
@click.option("--json", "json_wanted", is_flag=True, help="For programs.")
def budget(account: str | None, json_wanted: bool) -> None:
    """Show what the fleet has used of ACCOUNT, or of all, what it may, and when the count begins anew."""
    with broker_errors():
        budgets = fleet().budgets
        lines = budgets.lines([account] if account else budgets.accounts())
    if json_wanted:
        click.echo(json.dumps([plain(line) | {"exhausted": line.exhausted} for line in lines], indent=2))
        return
    rows = [
        (
            line.account,
            line.name.replace("_", " "),
            f"{line.used:,}",
            f"{line.limit:,}" if line.limit else "none",
            f"{line.until:%Y-%m-%d %H:%M} UTC",
            "used up" if line.exhausted else "",
        )
        for line in lines
    ]
    as_table(("ACCOUNT", "BUDGET", "USED", "LIMIT", "UNTIL", ""), rows)
