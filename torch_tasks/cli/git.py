"""``torch-tasks git``: how the agents' git trees stand."""

from __future__ import annotations

from collections.abc import Iterator

import click

from torch_tasks.cli.output import ago, as_json, as_table, one_line
from torch_tasks.fleet import fleet
from torch_tasks.store.git_reports import GitReport, GitReports, TreeReport

_HEADINGS = ("AGENT", "ROLE", "BRANCH", "UNCOMMITTED", "LAST COMMIT", "LAST TAG", "TREE", "LOOKED AT")
_LONGEST = 60


@click.group()
def git() -> None:
    """Tell how the agents' git trees stand."""


@git.command()
@click.option("--agent", "agents", multiple=True, help="Only this agent's trees; repeat for more.")
@click.option("--json", "json_wanted", is_flag=True, help="For programs.")
def report(agents: tuple[str, ...], json_wanted: bool) -> None:
    """Report what the nodes found when they last looked after their agents' git trees.

    Listed are the agents whose role's policy in git.toml says so and whose workdir is a git tree.
    """
    reports = [one for one in GitReports(fleet().client).all() if not agents or one.agent in agents]
    if json_wanted:
        as_json(reports)
        return
    as_table(_HEADINGS, [_row(one, tree) for one in reports for tree in one.trees])
    for line in (line for one in reports for line in _remarks(one)):
        click.echo(line)


def _row(report: GitReport, tree: TreeReport) -> tuple[str, ...]:
    waits = f"{tree.uncommitted} since {ago(tree.uncommitted_since)}" if tree.uncommitted else ""
    made = tree.last_commit
    commit = f"{made.id} {ago(made.at)}: {one_line(made.subject, _LONGEST)}" if made else ""
    branch = one_line(tree.branch, _LONGEST) if tree.branch else "(no branch)"
    place = one_line(tree.tree, 200)
    return report.agent, report.role, branch, waits, commit, tree.last_tag or "", place, ago(report.looked_at)


def _remarks(report: GitReport) -> Iterator[str]:
    """What is not as it should be, a line each."""
    if report.trouble:
        yield f"{report.agent}: {one_line(report.trouble, 1000)}"
    for tree in report.trees:
        if tree.trouble:
            yield f"{report.agent}: not committed: {one_line(tree.trouble, 1000)}"
        for left in tree.left_out:
            yield f"{report.agent}: left out: {one_line(left.path, 200)}: {left.why}"
        if tree.left_out_more:
            yield f"{report.agent}: left out: {tree.left_out_more} more"
