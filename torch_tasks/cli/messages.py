"""``torch-tasks send | ask | reply | broadcast | inbox | messages``: for people, and for agents from their panes."""

from __future__ import annotations

from typing import Any

import click

from torch_tasks.caller import caller
from torch_tasks.cli.options import JSON, SENDER, Duration, text_of
from torch_tasks.cli.output import ago, as_json, as_table, waiting
from torch_tasks.communication.orchestrator import NovaOrchestrator
from torch_tasks.errors import NotInPane
from torch_tasks.model.message import MessageKind, MessageRecord, Sent, When
from torch_tasks.state_folder import LAST_MESSAGE
from torch_tasks.store.messages import AuditEntry

_WHEN = click.option("--when", type=click.Choice([str(w) for w in When]), default=When.IDLE.value, show_default=True)
_EMERGENCY = click.option("--emergency", is_flag=True, help="Overtakes all others, and the policy.")


def _how(when: str, emergency: bool, **more: Any) -> dict[str, Any]:
    return {"when": when, "priority": "emergency" if emergency else "normal", **more}


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("agent_id", metavar="AGENT")
@click.argument("text", nargs=-1, required=True, type=click.UNPROCESSED)
@_WHEN
@_EMERGENCY
@click.option(
    "--kind", type=click.Choice([str(k) for k in MessageKind]), default=MessageKind.TEXT.value, show_default=True
)
@click.option("--about", metavar="MESSAGE", help="The message that this one acknowledges or goes on from.")
@click.option("--expires", type=Duration(), help="Not to be delivered later than that, as 90 or 5m.")
@click.option("--id", "message_id", help="The message's id; the same one twice is one message.")
@click.option("--wait", "wait_seconds", type=Duration(or_zero=True), help="Wait until the receiver has it.")
@SENDER
@JSON
def send(
    agent_id: str,
    text: tuple[str, ...],
    when: str,
    emergency: bool,
    kind: str,
    about: str | None,
    expires: float | None,
    message_id: str | None,
    wait_seconds: float | None,
    sender: str | None,
    json_wanted: bool,
) -> None:
    """Send TEXT to AGENT, which gets it when it is idle. `-` reads the text from standard input."""
    nova = NovaOrchestrator(sender)
    how = _how(when, emergency, kind=kind, reply_to=about, expires=expires, id=message_id)
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
@click.argument("agent_id", metavar="AGENT")
@click.argument("text", nargs=-1, required=True, type=click.UNPROCESSED)
@click.option("--timeout", type=Duration(or_zero=True), help="How long to wait for the reply (default: for ever).")
@_WHEN
@_EMERGENCY
@SENDER
@JSON
def ask(
    agent_id: str,
    text: tuple[str, ...],
    timeout: float | None,
    when: str,
    emergency: bool,
    sender: str | None,
    json_wanted: bool,
) -> None:
    """Ask AGENT and print its reply. Exit code 124 if none came in time."""
    with waiting(f"waiting for {agent_id}"):
        reply = NovaOrchestrator(sender).ask(agent_id, text_of(text), timeout, **_how(when, emergency))
    if json_wanted:
        as_json(reply)
    else:
        click.echo(reply.message.message)


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("text", nargs=-1, required=True, type=click.UNPROCESSED)
@click.option("--to", "message_id", metavar="MESSAGE", help="The message to answer (default: this agent's last one).")
@_WHEN
@SENDER
@JSON
def reply(text: tuple[str, ...], message_id: str | None, when: str, sender: str | None, json_wanted: bool) -> None:
    """Answer a message: its sender gets TEXT."""
    sent = NovaOrchestrator(sender).reply(message_id or _last_message(), text_of(text), when=when)
    _print_sent([sent], json_wanted)


def _last_message() -> str:
    own = caller()
    if own.folder is None:
        raise NotInPane("this is no agent's pane: say which message you answer with --to")
    try:
        return (own.folder / LAST_MESSAGE).read_text().strip()
    except FileNotFoundError:
        raise NotInPane(f"agent {own.agent} has got no message yet") from None


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("text", nargs=-1, required=True, type=click.UNPROCESSED)
@click.option("--role", help="Only to agents of this role.")
@click.option("--skill", "skills", multiple=True, help="Only to agents with this skill; repeat for more.")
@click.option("--project", metavar="FOLDER", help="Only to agents that work in this folder, or in one of this name.")
@_WHEN
@_EMERGENCY
@SENDER
@JSON
def broadcast(
    text: tuple[str, ...],
    role: str | None,
    skills: tuple[str, ...],
    project: str | None,
    when: str,
    emergency: bool,
    sender: str | None,
    json_wanted: bool,
) -> None:
    """Send TEXT to every agent that is online and matches."""
    how = _how(when, emergency)
    _print_sent(
        NovaOrchestrator(sender).broadcast(text_of(text), role=role, skills=skills, project=project, **how), json_wanted
    )


@click.command()
@click.argument("party", required=False)
@click.option("--peek", is_flag=True, help="Leave the messages unread.")
@JSON
def inbox(party: str | None, peek: bool, json_wanted: bool) -> None:
    """Show what waits for you, who has then read it; of an agent's inbox, it is only shown."""
    nova = NovaOrchestrator()
    own = party in (None, nova.sender) and caller().agent is None
    records = nova.read() if own and not peek else nova.inbox(party)
    if json_wanted:
        as_json(records)
        return
    for record in records:
        message = record.message
        answers = f", answers {message.reply_to}" if message.reply_to else ""
        click.echo(f"{message.id} from {message.sender}, {ago(record.accepted_at)}{answers}:\n{message.message}\n")


@click.command()
@click.argument("message_id", metavar="MESSAGE", required=False)
@click.option("--with", "party", metavar="WHO", help="Only from and to this agent.")
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="How many.")
@click.option("--replay", is_flag=True, help="Have MESSAGE delivered, though it was given up.")
@click.option("--refused", is_flag=True, help="What was refused and why, and what came past the broker.")
@JSON
def messages(
    message_id: str | None, party: str | None, limit: int, replay: bool, refused: bool, json_wanted: bool
) -> None:
    """List the latest messages, or show one: how far it is, since when, and why."""
    nova = NovaOrchestrator()
    if refused:
        _show_refused(nova.refused(limit), json_wanted)
        return
    if message_id is None:
        records = nova.history(party, limit)
        if json_wanted:
            as_json(records)
        else:
            as_table(
                ("MESSAGE", "FROM", "TO", "STATE", "ACCEPTED", "TEXT"), [_row(record) for record in records], cut=True
            )
        return
    if replay:
        click.echo(f"message {message_id} {nova.replay(message_id)}")
        return
    record = nova.message(message_id)
    if json_wanted:
        as_json(record)
    else:
        _show(record)


def _show_refused(entries: list[AuditEntry], json_wanted: bool) -> None:
    if json_wanted:
        as_json(entries)
        return
    rows = [(ago(entry.at), entry.sender, entry.target, entry.what, entry.message_id, entry.why) for entry in entries]
    as_table(("WHEN", "FROM", "TO", "WHAT", "MESSAGE", "WHY"), rows)


def _row(record: MessageRecord) -> tuple[Any, ...]:
    message = record.message
    return message.id, message.sender, message.target, record.state, ago(record.accepted_at), message.title


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
            (name.removesuffix("_at"), moment.isoformat(timespec="milliseconds"))
            for name in ("accepted_at", "staged_at", "delivered_at", "acknowledged_at", "read_at", "expires_at")
            if (moment := getattr(record, name))
        ),
        ("note", record.note),
    ]
    for name, value in lines:
        if value:
            click.echo(f"{name + ':':<14}{value}")
    click.echo(f"\n{message.message}")
