"""``torch-tasks keys``: the keys that lie in this machine's folder."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from torch_tasks.caller import CallerKind
from torch_tasks.cli.options import JSON, Duration
from torch_tasks.cli.output import as_json, as_json_or_line, as_table, local
from torch_tasks.cli.tables import Column, state
from torch_tasks.errors import BrokerAway, NoBrokerUsers
from torch_tasks.machine import broker_logins
from torch_tasks.machine.agent_folder import refuse_in_pane
from torch_tasks.machine.fleet_keys import rotated_elsewhere
from torch_tasks.machine.issued_keys import issue_into
from torch_tasks.model.asker import Asker
from torch_tasks.model.broker_users import BrokerRole, user_name
from torch_tasks.security.audit import note_event
from torch_tasks.server.tokens import TokenRole
from torch_tasks.settings import settings
from torch_tasks.signing.key_certificate import KeyCertificate
from torch_tasks.signing.keyring import LIFETIME_SECONDS, Keyring, keyring

_DAY = 86_400
_COLUMNS = (Column("KIND"), Column("NAME"), Column("ROLE"), Column("SERIAL"), Column("ENDS"), state())


@click.group()
def keys() -> None:
    """List, issue, rotate and revoke the keys with which this fleet signs."""
    refuse_in_pane(settings().state, "keys")


@keys.command("list")
@JSON
def list_keys(json_wanted: bool) -> None:
    """List the fleet's roots, this machine's own keys, and, where the root is, all certificates that it issued."""
    ring = keyring()
    *former, latest = ring.fleet_keys.roots
    own = {one.certificate.serial for one in ring.identities()}
    certificates = _known(ring)
    if json_wanted:
        as_json(
            {
                "fleet": ring.fleet,
                "root_is_here": ring.may_issue,
                "roots": [
                    {"name": one.name, "until": one.until and _moment(one.until).isoformat()}
                    for one in (*former, latest)
                ],
                "revoked": ring.fleet_keys.revoked,
                "certificates": [_facts(ring, one) | {"own": one.serial in own} for one in certificates],
            }
        )
        return
    where = f"its root's private key is in {ring.folder}" if ring.may_issue else "its root is on another machine"
    click.echo(f"fleet {ring.fleet}; {where}")
    for root in former:
        stands = "revoked" if root.name in ring.fleet_keys.revoked else f"its last certificate ends {_end(root.until)}"
        click.echo(f"root  {root.name}, followed by another; {stands}")
    click.echo(f"root  {latest.name}, issues certificates")
    as_table(_COLUMNS, [_row(ring, one, one.serial in own) for one in certificates])


def _known(ring: Keyring) -> list[KeyCertificate]:
    """The certificates that are known here, each once: this machine's own, and those that its root issued."""
    found = {one.serial: one for one in ring.issued()} if ring.may_issue else {}
    found |= {one.certificate.serial: one.certificate for one in ring.identities()}
    return sorted(found.values(), key=lambda one: (one.kind, one.name, one.valid_until))


def _state(ring: Keyring, one: KeyCertificate) -> str:
    if ring.is_revoked(one):
        return "revoked"
    return "ended" if one.valid_until < time.time() else "valid"


def _facts(ring: Keyring, one: KeyCertificate) -> dict[str, Any]:
    return {
        "kind": one.kind,
        "name": one.name,
        "role": one.role,
        "serial": one.serial,
        "issuer": one.issuer,
        "ends": one.ends_at.isoformat(),
        "revoked": ring.is_revoked(one),
        "ended": one.valid_until < time.time(),
    }


def _row(ring: Keyring, one: KeyCertificate, is_own: bool) -> tuple[Any, ...]:
    stands = _state(ring, one) + (", in use here" if is_own else "")
    return one.kind, one.name, one.role or "", one.serial, local(one.ends_at), stands


def _end(seconds: int | None) -> str:
    return local(_moment(seconds or 0)) or ""


def _moment(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


@keys.command()
@click.option("--name", required=True, help="What its bearer is called in records and logs.")
@click.option(
    "--role", required=True, type=click.Choice([str(role) for role in TokenRole]), help="What its bearer may do."
)
@click.option("--days", type=click.IntRange(1, 3650), default=LIFETIME_SECONDS // _DAY, show_default=True)
@click.option("--out", "folder", required=True, type=click.Path(path_type=Path), help="A new folder for the keys.")
@JSON
def issue(name: str, role: str, days: int, folder: Path, json_wanted: bool) -> None:
    """Make keys for a program or a person elsewhere, who sets TORCH_KEYS_DIR to the folder."""
    kind = TokenRole(role).kind
    made = issue_into(ring := keyring(), folder, kind, name, role, days * _DAY)
    as_json_or_line(
        json_wanted,
        _facts(ring, made) | {"folder": str(folder)},
        f"{folder}: {kind} {name}, serial {made.serial}, until {local(made.ends_at)}",
    )


@keys.command()
@click.option("--root", "is_root", is_flag=True, help="The fleet's root, on the machine that has it.")
@click.option("--timeout", type=Duration(), default=30.0, help="How long it waits for that machine (default: 30s).")
@JSON
def rotate(is_root: bool, timeout: float, json_wanted: bool) -> None:
    """Replace this machine's own keys, or with --root the fleet's root. What was signed before stays valid.

    Where the root is not, the machine with the root is asked, through the broker.
    A root that is followed by another one is trusted until the last certificate ends that it issued. To have a key
    that somebody stole count no more, revoke it.
    """
    ring = keyring()
    if ring.may_issue:
        ring.identity(CallerKind.NODE)  # so that there is one
    if is_root:
        former = ring.fleet_keys.latest.name
        ring.rotate_root()
        if not json_wanted:
            click.echo(f"the root {ring.fleet_keys.latest.name} follows {former}")
    made = [one.certificate for one in (ring.rotate() if ring.may_issue else [rotated_elsewhere(ring, timeout)])]
    if json_wanted:
        as_json({"root": ring.fleet_keys.latest.name, "keys": [_facts(ring, one) for one in made]})
        return
    for one in made:
        click.echo(f"new key of {one.owner}: serial {one.serial}, until {local(one.ends_at)}")


@keys.command()
@click.argument("name", metavar="SERIAL|NAME")
@JSON
def revoke(name: str, json_wanted: bool) -> None:
    """Have nothing count any more that these keys sign or ever signed, tasks that wait included.

    One key by its serial, all of a node, program or person by its name, or all that a former root issued by its name.
    A node whose last key this was loses its users on the broker, too.
    """
    ring = keyring()
    revoked = ring.revoke(name)
    shut_out = {node: _end_users(node) for node in _shut_out(ring, revoked)}
    if json_wanted:
        ended = {node: {"broker_users_ended": found, "why_not": why} for node, (found, why) in shut_out.items()}
        as_json([_facts(ring, one) | ended.get(one.name, {}) for one in revoked])
        return
    for one in revoked:
        click.echo(f"revoked: {one.owner}, serial {one.serial}")
    for node, (found, why) in shut_out.items():
        click.echo(f"{node} needs a new key: 'torch-tasks node invite' here, 'node join TOKEN' there")
        if found:
            click.echo(f"its users on the broker are ended, with their connections: {', '.join(found)}")
        if why:
            click.echo(f"its users on the broker, if it has any, still get in: {why}", err=True)
            names = " ".join(user_name(role, node) for role in BrokerRole)
            click.echo(
                f"end them with the administrator's login: 'TORCH_BROKER_URL=… torch-tasks broker remove {names}'"
            )


def _shut_out(ring: Keyring, revoked: list[KeyCertificate]) -> list[str]:
    """The other machines that have no key any more."""
    still = {one.name for one in ring.issued() if one.kind is CallerKind.NODE and _state(ring, one) == "valid"}
    return sorted({one.name for one in revoked if one.kind is CallerKind.NODE} - still - {ring.node})


def _end_users(node: str) -> tuple[list[str], str]:
    """Which users of this machine the broker had and has no more; and if that cannot be told, why."""
    try:
        found = broker_logins.remove_users_of(settings(), node)
    except (NoBrokerUsers, BrokerAway) as error:
        return [], str(error)
    if found:
        note_event("broker.removed", ", ".join(found), who=Asker.now(), durable=True)
    return found, ""
