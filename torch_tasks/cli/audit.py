"""``torch-tasks audit``: what was done and decided on this machine, and whether the log of it is whole."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence

import click

from torch_tasks.cli.options import JSON, Duration
from torch_tasks.cli.output import as_json, as_table, local
from torch_tasks.cli.tables import Column, wrapped
from torch_tasks.link import perform
from torch_tasks.model.audit_record import AuditOutcome
from torch_tasks.operations import audit as operations
from torch_tasks.operations.audit import AuditShown, AuditVerdict, ComplianceReport

_COLUMNS = (
    Column("N"), Column("AT"), Column("WHO"), Column("WHAT"), Column("OUTCOME"), wrapped("ON"), wrapped("WHY"),
)  # fmt: skip


@click.group()
def audit() -> None:
    """Show, verify and report what was done and decided on this machine."""


@audit.command()
@click.option("--since", type=Duration(), help="How far back, as 90m or 2d (default: all that is kept).")
@click.option("--who", metavar="CALLER", help="Only what this caller did: dev-1, agent:dev-1, person:operator, …")
@click.option("--what", metavar="ACT", help="Only these acts: task.cancel, or task for all about tasks.")
@click.option("--outcome", type=click.Choice([str(one) for one in AuditOutcome]), help="Only what ended so.")
@click.option("--limit", type=click.IntRange(1, 100_000), default=100, show_default=True, help="How many, the latest.")
@JSON
def show(
    since: float | None, who: str | None, what: str | None, outcome: str | None, limit: int, json_wanted: bool
) -> None:
    """List the latest entries: who, on whose behalf, what, on what, by which rule, how it ended."""
    asked = {"seconds": since, "who": who, "what": what, "outcome": outcome, "limit": limit}
    found = perform(operations.show, operations.FindAudit.build(**asked))
    if json_wanted:
        as_json(found)
    else:
        as_table(_COLUMNS, map(_row, found))


def _row(one: AuditShown) -> tuple[int, str, str, str, str, str, str]:
    who = f"{one.who} for {one.behalf}" if one.behalf else one.who
    return one.number, local(one.at), who, one.what, one.outcome, one.on, one.why or one.rule


@audit.command()
@JSON
def verify(json_wanted: bool) -> None:
    """Check the log entry by entry, and against what this node has signed of it. Exit code 1: it is not as it was."""
    verdict = perform(operations.verify, operations.VerifyAudit())
    if json_wanted:
        as_json(verdict)
    else:
        click.echo("\n".join(_verdict(verdict)))
    sys.exit(0 if verdict.intact else 1)


def _verdict(verdict: AuditVerdict) -> Iterator[str]:
    extent = f"{verdict.entries} entries in {verdict.files} files of node {verdict.node}"
    if verdict.intact:
        yield f"intact: {extent}"
    else:
        where = f" ({verdict.file}, line {verdict.line})" if verdict.file else ""
        yield f"{verdict.fault}: {verdict.words}{where}"
        yield f"The first bad entry is {verdict.number}, among {extent}."
    for head in verdict.heads:
        yield f"compared with entry {head.number}, signed {local(head.at)}, kept {head.kept}"
    yield from (f"warning: {warning}" for warning in verdict.warnings)


@audit.command()
@click.option("--since", type=Duration(), default=30 * 86_400, help="How far back, as 90m or 2d (default: 30d).")
@click.option("--markdown", is_flag=True, help="Print Markdown (default).")
@JSON
def report(since: float, markdown: bool, json_wanted: bool) -> None:
    """Report who could do what, who did and was refused what, the keys, and how long all this is kept."""
    if markdown and json_wanted:
        raise click.UsageError("choose one of --markdown and --json")
    found = perform(operations.report, operations.ReportSince.build(seconds=since))
    if json_wanted:
        as_json(found)
    else:
        click.echo("\n".join(_as_markdown(found)))


def _as_markdown(found: ComplianceReport) -> Iterator[str]:
    yield f"# Audit of node {found.node}, {local(found.since)} to {local(found.until)}"
    yield from ("", "## Is the log whole?", "", *(f"- {line}" for line in _verdict(found.verdict)))
    yield from ("", "## Who could do what", "")
    callers = list(dict.fromkeys(rule.caller for rule in found.rights))
    cells = {(rule.right, rule.caller): str(rule.extent) for rule in found.rights}
    rights = list(dict.fromkeys(rule.right for rule in found.rights))
    yield from _rows(("right", *callers), ((right, *(cells[right, who] for who in callers)) for right in rights))
    yield from ("", "## Who did what", "")
    yield from _rows(("who", "what", "outcome", "times"), ((d.who, d.what, d.outcome, d.times) for d in found.done))
    yield from ("", "## What was refused", "")
    yield from _rows(("at", "who", "what", "why"), ((local(r.at), r.who, r.what, r.why) for r in found.refused))
    yield from ("", "## Keys of this machine", "")
    keys = ((k.owner, k.serial, k.role, local(k.valid_until), "yes" if k.revoked else "no") for k in found.keys)
    yield from _rows(("owner", "serial", "role", "valid until", "revoked"), keys)
    changes = ((local(c.at), c.who, c.what, c.on) for c in found.key_changes)
    yield from ("", *_rows(("at", "who", "change", "on"), changes))
    kept = found.retention
    yield from ("", "## Retention", "", f"- kept for {kept.days:g} days (TORCH_AUDIT_DAYS)")
    oldest = local(kept.oldest) if kept.oldest else "none"
    yield f"- {kept.files} files, {kept.bytes:,} bytes, the oldest entry: {oldest}"


def _rows(head: Sequence[str], rows: Iterable[Sequence[object]]) -> Iterator[str]:
    lines = [f"| {' | '.join(map(_cell, row))} |" for row in rows]
    if not lines:
        yield "None."
        return
    yield f"| {' | '.join(head)} |"
    yield "|" + "---|" * len(head)
    yield from lines


def _cell(value: object) -> str:
    return " ".join(str("" if value is None else value).replace("|", "\\|").split())
