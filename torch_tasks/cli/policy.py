"""``torch-tasks policy``: who may do what."""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from torch_tasks.cli.options import JSON
from torch_tasks.cli.output import as_json, as_table, local
from torch_tasks.cli.tables import Column, wrapped
from torch_tasks.errors import InvalidRequest
from torch_tasks.link import perform
from torch_tasks.operations import policy as operations
from torch_tasks.security.rights import Extent

_SIGNS = {Extent.NONE: "-", Extent.OWN: "own", Extent.ANY: "any"}
_DENIAL_COLUMNS = (Column("AT"), Column("WHO"), Column("WHAT"), wrapped("WHY"))


@click.group()
def policy() -> None:
    """Show who may do what, which rule decides, and what was refused."""


@policy.command()
@click.argument("caller", required=False)
@JSON
def show(caller: str | None, json_wanted: bool) -> None:
    """Print the table of rights, or of one CALLER (a sort or a role) each rule and where it stands."""
    rules = perform(operations.show, operations.ShowPolicy.build(caller=caller))
    if not rules:
        raise InvalidRequest(f"the policy has no table for {caller!r}; 'torch-tasks policy show' prints all")
    if json_wanted:
        as_json(rules)
    elif caller:
        for rule in rules:
            click.echo(f"{rule.right + ':':<10}{rule.rule}")
    else:
        callers = list(dict.fromkeys(rule.caller for rule in rules))
        cells = {(rule.right, rule.caller): _SIGNS[rule.extent] for rule in rules}
        click.echo(f"{'':<10}" + "  ".join(callers))
        for right in dict.fromkeys(rule.right for rule in rules):
            click.echo(f"{right:<10}" + "  ".join(f"{cells[right, who]:<{len(who)}}" for who in callers).rstrip())


@policy.command()
@click.argument("caller")
@click.argument("operation")
@click.argument("fields", nargs=-1, metavar="[FIELD=VALUE]...")
@click.option("--role", metavar="ROLE", help="The role of an agent (default: as the registry has it).")
@JSON
def explain(caller: str, operation: str, fields: tuple[str, ...], role: str | None, json_wanted: bool) -> None:
    """Say whether CALLER may do OPERATION, and which rule decides.

    CALLER is `person`, `node`, `operator`, `program`, `viewer`, or an agent's id. Exit code 5 means that it may not.
    """
    asked = {"caller": caller, "operation": operation, "role": role, "fields": dict(map(_field, fields))}
    found = perform(operations.explain, operations.Explain.build(**asked))
    if json_wanted:
        as_json(found)
    else:
        verdict = {True: "may", False: "may not", None: "may, for its own,"}[found.allowed]
        click.echo(f"{found.caller} {verdict} do {found.operation}")
        for why in found.why:
            click.echo(f"  {why}")
    sys.exit(5 if found.allowed is False else 0)


def _field(text: str) -> tuple[str, Any]:
    name, separator, value = text.partition("=")
    if not separator:
        raise InvalidRequest(f"{text!r} is no field of a request; write it as FIELD=VALUE")
    if value[:1] in ("[", "{"):
        try:
            return name, json.loads(value)
        except ValueError as error:
            raise InvalidRequest(f"the value of {name} is no JSON: {error}") from None
    return name, value


@policy.command()
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True, help="How many, the latest.")
@JSON
def refusals(limit: int, json_wanted: bool) -> None:
    """List what callers asked for and may not do, and how often each did."""
    found = perform(operations.refusals, operations.ListRefusals.build(limit=limit))
    if json_wanted:
        as_json(found)
        return
    as_table(_DENIAL_COLUMNS, ((local(one.at), one.by.name, one.operation, one.why) for one in found.latest))
    for what, times in found.counts.items():
        click.echo(f"{times:>6} x {what}")
