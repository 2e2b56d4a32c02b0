"""``torch-tasks broker``."""

from __future__ import annotations

from pathlib import Path

import click
from pydantic import SecretStr

from torch_tasks.cli.options import JSON
from torch_tasks.cli.output import as_json, as_table
from torch_tasks.cli.tables import Column
from torch_tasks.machine import broker_logins, moving
from torch_tasks.machine.agent_folder import refuse_in_pane
from torch_tasks.model.asker import Asker
from torch_tasks.model.broker_address import BrokerAddress, standard_url
from torch_tasks.model.broker_users import BrokerRole, user_name
from torch_tasks.security.audit import note_event
from torch_tasks.settings import settings
from torch_tasks.system.files import write_private


@click.group()
def broker() -> None:
    """Make the users with whom Torch's processes reach the broker, change their passwords, and move to another one."""
    refuse_in_pane(settings().state, "broker")


@broker.command()
@JSON
def users(json_wanted: bool) -> None:
    """List this machine's users on the broker, and how many connections each has."""
    kept, counts = broker_logins.known_logins(settings()), broker_logins.connections(settings())
    roles = {login.user: str(role) for role, login in kept.logins.items()} if kept else {}
    rows = [
        {"user": user, "role": roles.get(user, ""), "connections": None if counts is None else counts.get(user, 0)}
        for user in sorted({*roles, *(counts or ())})
    ]
    if json_wanted:
        as_json(rows)
        return
    as_table([Column("USER"), Column("ROLE"), Column("CONNECTIONS")], [tuple(row.values()) for row in rows])
    if counts is None:
        click.echo("note: this broker does not say whose each connection is", err=True)


@broker.command()
def make() -> None:
    """Make this node's users on the broker that TORCH_BROKER_URL names, with a login there that may make users."""
    made = broker_logins.make(settings())
    _note("made", *(login.user for login in made.logins.values()))
    click.echo("made " + ", ".join(login.user for login in made.logins.values()))
    click.echo("From now on this machine's processes connect as they: start them again, and leave the login out of the")
    click.echo("address. Its login is needed for 'torch-tasks broker rotate' and 'add' alone.")


@broker.command()
@click.option("--disconnect", is_flag=True, help="End what is connected, too; each process logs in again.")
def rotate(disconnect: bool) -> None:
    """Give this machine's users new passwords while work goes on."""
    new = broker_logins.rotate(settings(), disconnect=disconnect)
    _note("rotated", *(login.user for login in new.logins.values()))
    click.echo("new passwords for " + ", ".join(login.user for login in new.logins.values()))


@broker.command()
@click.argument("role", type=click.Choice([str(BrokerRole.PROGRAM), str(BrokerRole.VIEWER)]))
@click.argument("name")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
def add(role: str, name: str, file: Path) -> None:
    """Make a user for a program or a viewer elsewhere, and write the broker's address with its login into FILE."""
    address = broker_logins.add(settings(), BrokerRole(role), name)
    _note("added", user_name(BrokerRole(role), name))
    write_private(file.absolute(), address.url.get_secret_value() + "\n")
    click.echo(f"{address} is in {file}")


@broker.command()
@click.argument("users", nargs=-1)
def remove(users: tuple[str, ...]) -> None:
    """Delete users that Torch has made; without a name, this machine's own on a broker elsewhere."""
    _note("removed", *broker_logins.remove(settings(), list(users)))


@broker.command()
@click.argument("url")
@click.option(
    "--login", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="A file with USER:PASSWORD for it."
)
def move(url: str, login: Path | None) -> None:
    """Have the whole fleet go to another, empty server while it works."""
    new = _address(url)
    given = settings().given_broker()
    moved = new.with_login(moving.read_login(login.read_text()) if login else given.login if given else None)
    count = moving.move(settings(), moved, click.echo)
    note_event("broker.moved", str(new), who=Asker.now(), durable=True)
    click.echo(
        f"the fleet's broker is {new} now, with all that it had ({count} keys). Keep the former server until every"
    )
    click.echo("machine was up once; then set TORCH_BROKER_URL to the new address everywhere.")


@broker.command()
@click.argument("url")
def follow(url: str) -> None:
    """Tell this machine where the broker has moved, if the former server is gone and cannot say so."""
    new = _address(url)
    moving.follow(settings(), new)
    note_event("broker.followed", str(new), who=Asker.now(), durable=True)


def _address(url: str) -> BrokerAddress:
    try:
        address = BrokerAddress(url=SecretStr(standard_url(url)), source="TORCH_BROKER_URL")
    except ValueError as error:
        raise click.UsageError(f"the address {error}") from None
    if address.login:
        raise click.UsageError("write no login into the address, where others could see it")
    return address


def _note(what: str, *users: str) -> None:
    """Note in the audit what became of users of the broker."""
    note_event(f"broker.{what}", ", ".join(users), who=Asker.now(), durable=True)
