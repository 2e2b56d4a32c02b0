"""``torch-tasks operations``: every act that a caller may ask for, with what it takes and returns."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import click

from torch_tasks.cli.options import JSON
from torch_tasks.cli.output import as_json, as_table
from torch_tasks.cli.tables import Column, wrapped
from torch_tasks.operations.describing import FieldRow, Shapes
from torch_tasks.operations.operation import Operation, all_operations, operation_named

_COLUMNS = (Column("OPERATION"), Column("ACCESS", spare=2), Column("RIGHT", spare=1), wrapped("WHAT IT DOES"))
_FIELD_COLUMNS = (Column("FIELD"), wrapped("TYPE", least=12), Column("DEFAULT", spare=1), wrapped("MEANING"))

COMMANDS_OF: dict[str, tuple[str, ...]] = {
    "task.enqueue": ("run",),
    "task.enqueue_many": ("run --file",),
    "task.get": ("task", "run --wait"),
    "task.spooled": ("run",),
    "task.history": ("task",),
    "task.trace": ("trace",),
    "task.list": ("tasks",),
    "task.wait": ("run --wait", "cancel"),
    "task.cancel": ("cancel",),
    "task.answer": ("answer",),
    "task.handoff": ("handoff",),
    "task.handed_over": ("handoff",),
    "task.dead": ("dead list", "dead show"),
    "task.replay": ("dead replay",),
    "task.drop": ("dead drop",),
    "agent.list": ("agents",),
    "agent.get": ("agent", "attach"),
    "agent.screen": ("screen",),
    "agent.scrollback": ("screen --history",),
    "agent.explain": ("screen --explain",),
    "agent.resources": ("agent",),
    "agent.trees": ("git report",),
    "agent.spawn": ("spawn",),
    "agent.spawned": ("spawn",),
    "agent.retire": ("retire",),
    "agent.retired": ("retire",),
    "agent.forget": ("agents forget",),
    "agent.release": ("agent --release",),
    "agent.pause": ("pause",),
    "agent.resume": ("resume",),
    "node.list": ("node list",),
    "node.get": ("node show",),
    "node.drain": ("node drain",),
    "node.at_work": ("node drain --wait",),
    "node.undrain": ("node undrain",),
    "pool.plan": ("scale --dry-run",),
    "pool.grow": ("scale",),
    "fleet.stop": ("stop",),
    "fleet.start": ("start",),
    "fleet.summary": ("summary",),
    "fleet.report": ("report",),
    "fleet.memory": ("node list",),
    "fleet.events": ("monitor",),
    "budget.list": ("budget",),
    "policy.show": ("policy show",),
    "policy.explain": ("policy explain",),
    "policy.refusals": ("policy refusals",),
    "audit.show": ("audit show",),
    "audit.verify": ("audit verify",),
    "audit.report": ("audit report",),
    "pane.done": ("done",),
    "pane.fail": ("fail",),
    "pane.progress": ("progress",),
    "message.send": ("send",),
    "message.ask": ("ask",),
    "message.await_reply": ("ask",),
    "message.reply": ("reply",),
    "message.broadcast": ("broadcast",),
    "message.inbox": ("inbox --peek",),
    "message.read": ("inbox",),
    "message.get": ("messages",),
    "message.await_delivery": ("send --wait",),
    "message.history": ("messages",),
    "message.refused": ("messages --refused",),
    "message.replay": ("messages --replay",),
    "checkin.add": ("checkin add",),
    "checkin.change": ("checkin edit",),
    "checkin.list": ("checkin list",),
    "checkin.get": ("checkin show",),
    "checkin.history": ("checkin history",),
    "checkin.pause": ("checkin pause",),
    "checkin.resume": ("checkin resume",),
    "checkin.remove": ("checkin remove",),
    "checkin.run": ("checkin run",),
    "note.add": ("note add",),
    "note.list": ("note list",),
    "note.search": ("note search",),
    "claim.take": ("claim",),
    "claim.release": ("release",),
    "claim.list": ("claims",),
    "help.ask": ("help-wanted",),
    "team.find": ("team",),
}
"""The commands that ask for each operation; tests/unit/doors/test_operations_page.py names what no command asks for."""


@click.command()
@click.argument("name", required=False)
@JSON
def operations(name: str | None, json_wanted: bool) -> None:
    """List what can be asked of Torch through any door, or show what the operation NAME takes and returns."""
    if name is None:
        _list(json_wanted)
    else:
        _show(operation_named(name), json_wanted)


def _list(json_wanted: bool) -> None:
    if json_wanted:
        as_json([_facts(one) for one in all_operations()])
        return
    as_table(_COLUMNS, [(one.name, one.access, one.right, one.description) for one in all_operations()])


def _show(operation: Operation[Any, Any], json_wanted: bool) -> None:
    if json_wanted:
        request, reply = operation.request.model_json_schema(), operation.reply.json_schema(mode="serialization")
        as_json(_facts(operation) | {"request": request, "reply": reply})
        return
    shapes = Shapes()
    fields, reply_words = shapes.of_request(operation), shapes.of_reply(operation)
    click.echo(f"{operation.name}: {operation.description}")
    click.echo(f"{operation.access}s; right: {operation.right}; returns: {reply_words}")
    if commands := COMMANDS_OF.get(operation.name):
        click.echo(f"commands: {', '.join(f'torch-tasks {command}' for command in commands)}")
    _print_fields("takes", fields)
    for value, rows in shapes.values.items():
        _print_fields(value, rows)


def _print_fields(heading: str, rows: Iterable[FieldRow]) -> None:
    if cells := [(row.name, row.type.replace("`", ""), row.default, row.meaning) for row in rows]:
        click.echo(f"\n{heading}:")
        as_table(_FIELD_COLUMNS, cells)


def _facts(operation: Operation[Any, Any]) -> dict[str, Any]:
    return {
        "name": operation.name,
        "access": operation.access,
        "right": operation.right,
        "description": operation.description,
        "commands": COMMANDS_OF.get(operation.name, ()),
    }
