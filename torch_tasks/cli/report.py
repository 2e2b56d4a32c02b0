"""``torch-tasks report``: how the fleet did, for a terminal, as Markdown, or as a page with charts."""

from __future__ import annotations

import click

from torch_tasks.cli.options import JSON, Duration
from torch_tasks.cli.output import as_json, as_table
from torch_tasks.cli.tables import Column
from torch_tasks.link import perform
from torch_tasks.model.report import FleetReport
from torch_tasks.monitoring.report_page import page
from torch_tasks.monitoring.report_words import NOTHING, as_markdown, headline, sections, title_of
from torch_tasks.operations import fleet as operations


@click.command()
@click.option("--since", type=Duration(), default=7 * 86_400, help="How far back, in whole days (default: 7d).")
@click.option("--markdown", is_flag=True, help="Print it as Markdown, for a chat or a file.")
@click.option("--html", is_flag=True, help="Print a page with charts, which needs nothing else.")
@JSON
def report(since: float, markdown: bool, html: bool, json_wanted: bool) -> None:
    """Show how the fleet did: uptime, tasks, delivery, recoveries, use and cost, and what will be full first.

    Days are those of UTC, and today counts as one. Each number is compared with that of as many days before.
    """
    found = perform(operations.report, operations.Since.build(seconds=since))
    if json_wanted:
        as_json(found)
    elif html:
        click.echo(page(found))
    elif markdown:
        click.echo("\n".join(as_markdown(found)))
    else:
        print_report(found)


def print_report(found: FleetReport) -> None:
    """Print it for a terminal, in tables that fit there."""
    click.echo(f"{title_of(found)}: {headline(found)}")
    if not found.nodes:
        click.echo(NOTHING)
        return
    for section in sections(found):
        click.echo(f"\n{section.title.upper()}")
        as_table([Column(heading) for heading in section.columns], section.rows)
