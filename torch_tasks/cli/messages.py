"""``torch-tasks send | ask | reply | broadcast | inbox | messages``."""

from __future__ import annotations

from typing import Any

import click

from torch_tasks.caller import caller
from torch_tasks.cli.names import AGENT, MESSAGE, ROLE, SKILL
from torch_tasks.cli.options import JSON, SENDER, Duration, text_of
from torch_tasks.cli.output import ago, as_fields, as_json, as_json_or_line, as_json_or_table, local, shown, waiting
from torch_tasks.cli.tables import Column, cut, state, wrapped
from torch_tasks.facades.messages import NovaOrchestrator
from torch_tasks.model.message import MessageKind, MessageRecord, Sent, When
from torch_tasks.model.options import OneOf
from torch_tasks.store.message_audit import AuditEntry
from torch_tasks.visible_text import hanging

_COLUMNS = (Column("MESSAGE"), Column("FROM"), Column("TO"), state(), Column("ACCEPTED", spare=1), cut("TEXT"))
_REFUSED_COLUMNS = (
    Column("WHEN"),
    Column("FROM"),
    Column("TO"),
    Column("WHAT", spare=1),
    Column("MESSAGE", spare=2),
    wrapped("WHY"),
)
_WHEN = click.option("--when", type=OneOf(When), default=When.IDLE.value, show_default=True)
_PAST_ALL = "Deliver before all others, past the policy."
_EMERGENCY = click.option("--emergency", "priority", flag_value="emergency", default="normal", help=_PAST_ALL)


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("agent_id", metavar="AGENT", type=AGENT)
@click.argument("text", nargs=-1, required=True, type=click.UNPROCESSED)
@_WHEN
@_EMERGENCY
@click.option(
    "--as",
    "kind",
    type=OneOf(MessageKind),
    default=MessageKind.TEXT.value,
    show_default=True,
    help="What the message is.",
)
@click.option(
    "--about", "reply_to", metavar="MESSAGE", type=MESSAGE, help="The message that this one answers or acknowledges."
)
@click.option("--expires", type=Duration(), help="Drop it if it is not delivered in this time, as 90 or 5m.")
@click.option("--id", help="The message's id; sending the same id twice sends one message.")
@click.option("--wait", "wait_seconds", type=Duration(or_zero=True), help="Wait this long until the receiver has it.")
@SENDER
@JSON
def send(
    agent_id: str, text: tuple[str, ...], wait_seconds: float | None, sender: str | None, json_wanted: bool, **how: Any
) -> None:
    """Send TEXT to AGENT, which gets it when it is idle. `-` reads the text from standard input."""
    nova = NovaOrchestrator(sender)
    sent = nova.send_message(agent_id, text_of(text), **how)
    if wait_seconds is not None and sent.transport == "broker":
        with waiting(f"message {sent.id}: waiting until {sent.target} has it"):
            record = nova.await_delivery(sent.id, wait_seconds)
        sent = sent.model_copy(update={"state": record.state})
    _print_sent([sent], json_wanted)


def _print_sent(all_sent: list[Sent], json_wanted: bool) -> None:
    if json_wanted:
        as_json(all_sent[0] if len(all_sent) == 1 else all_sent)
        return
    for sent in all_sent:
        way = "" if sent.transport == "broker" else f", transport={sent.transport}"
        click.echo(f"message {sent.id} to {sent.target}: {sent.state}{way}")
        if sent.note:
            click.echo(sent.note, err=True)


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("agent_id", metavar="AGENT", type=AGENT)
@click.argument("text", nargs=-1, required=True, type=click.UNPROCESSED)
@click.option("--timeout", type=Duration(or_zero=True), help="How long to wait for the reply (default: for ever).")
@_WHEN
@_EMERGENCY
@SENDER
@JSON
def ask(
    agent_id: str, text: tuple[str, ...], timeout: float | None, sender: str | None, json_wanted: bool, **how: Any
) -> None:
    """Ask AGENT and print its reply. Exit code 124 if none came in time."""
    with waiting(f"waiting for {agent_id}"):
        reply = NovaOrchestrator(sender).ask(agent_id, text_of(text), timeout, **how)
    as_json_or_line(json_wanted, reply, reply.message.message)


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("text", nargs=-1, required=True, type=click.UNPROCESSED)
@click.option(
    "--to",
    "message_id",
    metavar="MESSAGE",
    type=MESSAGE,
    help="The message to answer (default: this agent's last one).",
)
@_WHEN
@SENDER
@JSON
def reply(text: tuple[str, ...], message_id: str | None, when: str, sender: str | None, json_wanted: bool) -> None:
    """Answer a message: its sender gets TEXT."""
    sent = NovaOrchestrator(sender).reply(message_id, text_of(text), when=when)
    _print_sent([sent], json_wanted)


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("text", nargs=-1, required=True, type=click.UNPROCESSED)
@click.option("--role", type=ROLE, help="Only to agents of this role.")
@click.option("--skill", "skills", multiple=True, type=SKILL, help="Only to agents with this skill; repeat for more.")
@click.option("--project", metavar="FOLDER", help="Only to agents that work in this folder, or in one of this name.")
@_WHEN
@_EMERGENCY
@SENDER
@JSON
def broadcast(text: tuple[str, ...], sender: str | None, json_wanted: bool, **how: Any) -> None:
    """Send TEXT to every agent that is online and matches."""
    _print_sent(NovaOrchestrator(sender).broadcast(text_of(text), **how), json_wanted)


@click.command()
@click.argument("party", type=AGENT, required=False)
@click.option("--peek", is_flag=True, help="Do not mark the messages as read.")
@JSON
def inbox(party: str | None, peek: bool, json_wanted: bool) -> None:
    """Show the messages that wait for you and mark them as read; those of PARTY, an agent, stay unread."""
    nova = NovaOrchestrator()
    own = party in (None, nova.sender) and caller().agent is None
    records = nova.read() if own and not peek else nova.inbox(party)
    if json_wanted:
        as_json(records)
        return
    for record in records:
        message = record.message
        answers = f", answers {message.reply_to}" if message.reply_to else ""
        # No line of the text may look like the head of another message.
        text = hanging(f"\n{message.message}", 2)
        click.echo(f"{message.id} from {message.sender}, {ago(record.accepted_at)}{answers}:{text}\n")


@click.command()
@click.argument("message_id", metavar="MESSAGE", type=MESSAGE, required=False)
@click.option("--with", "party", metavar="WHO", type=AGENT, help="Only from or to this agent.")
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="How many.")
@click.option("--replay", is_flag=True, help="Deliver MESSAGE after all, though it was given up or has expired.")
@click.option("--refused", is_flag=True, help="List the messages that were refused, or went past the broker, and why.")
@JSON
def messages(
    message_id: str | None, party: str | None, limit: int, replay: bool, refused: bool, json_wanted: bool
) -> None:
    """List the latest messages, or show one: its state, since when, and why."""
    nova = NovaOrchestrator()
    if refused:
        as_json_or_table(json_wanted, nova.refused(limit), _REFUSED_COLUMNS, _refused_row)
    elif message_id is None:
        as_json_or_table(json_wanted, nova.history(party, limit), _COLUMNS, _row)
    elif replay:
        state = nova.replay(message_id)
        as_json_or_line(json_wanted, {"id": message_id, "state": state}, f"message {message_id} {state}")
    elif json_wanted:
        as_json(nova.message(message_id))
    else:
        _show(nova.message(message_id))


def _refused_row(entry: AuditEntry) -> tuple[Any, ...]:
    return ago(entry.at), entry.sender, entry.target, entry.what, shown(entry.message_id), entry.why


def _row(record: MessageRecord) -> tuple[Any, ...]:
    message = record.message
    return shown(message.id), message.sender, message.target, record.state, ago(record.accepted_at), message.title


def _show(record: MessageRecord) -> None:
    message = record.message
    lines = [
        ("message", message.id),
        ("from", message.sender),
        ("to", message.target + (f" (meant for {message.via})" if message.via else "")),
        ("kind", f"{message.kind}, {message.priority}, when {message.when}"),
        ("state", f"{record.state}" + ("" if record.transport == "broker" else f", transport={record.transport}")),
        ("about", message.reply_to or ""),
        ("answered", record.reply or ""),
        *(
            (name.removesuffix("_at"), local(moment))
            for name in ("accepted_at", "staged_at", "delivered_at", "acknowledged_at", "read_at", "expires_at")
            if (moment := getattr(record, name))
        ),
        ("note", record.note),
    ]
    as_fields(lines, 14)
    click.echo(f"\n{message.message}")
