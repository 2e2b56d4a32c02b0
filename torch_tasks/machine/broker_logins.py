"""The users of this machine on its broker: made, given new passwords, handed down to processes that it starts."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping
from functools import partial
from pathlib import Path

from torch_tasks.broker import users
from torch_tasks.broker.logins import logins_file
from torch_tasks.errors import NoBrokerUsers, WrongUsage
from torch_tasks.machine.broker import administrators_address
from torch_tasks.model.broker_address import BrokerAddress
from torch_tasks.model.broker_moves import is_same_broker
from torch_tasks.model.broker_users import (
    JOINING,
    BrokerLogin,
    BrokerLogins,
    BrokerRole,
    new_password,
    read_logins,
    user_name,
)
from torch_tasks.settings import Settings
from torch_tasks.system.files import exclusive, make_folder, write_private


def administrator(settings: Settings) -> BrokerAddress:
    """The broker with a login that may make users: this machine's own, or what TORCH_BROKER_URL names."""
    return settings.given_broker() or administrators_address(settings)


def known_logins(settings: Settings) -> BrokerLogins | None:
    """The users of this machine on its broker; None if all use the one login of its address."""
    kept, address = read_logins(logins_file(settings.broker())), settings.broker()
    is_here = kept and kept.are_made and is_same_broker(settings.state.broker_moved, kept.place, address)
    return kept if is_here else None


def make(settings: Settings) -> BrokerLogins:
    """Make this node's users on a broker elsewhere; from now on its processes connect as they.

    :class:`NoBrokerUsers` if the broker cannot, or would forget them when it restarts; then it has none of them.
    """
    admin = _given(settings)
    with exclusive(settings.state.path / "broker-logins.lock"):
        logins = BrokerLogins.new(admin.place, settings.node)
        _make_lasting(admin, logins)
        _keep(settings.state.broker_logins, logins)
    return logins


def rotate(settings: Settings, *, disconnect: bool = False) -> BrokerLogins:
    """Give this node's users new passwords; what is connected stays, unless ``disconnect``, and nothing is refused."""
    admin, file = administrator(settings), logins_file(settings.broker())
    with exclusive(settings.state.path / "broker-logins.lock"):
        former = known_logins(settings)
        if former is None:
            raise NoBrokerUsers(
                "this machine has no users on its broker whose passwords could change. On a broker elsewhere, "
                "'torch-tasks broker make' makes them"
            )
        new = users.change_passwords(admin, former, partial(_keep, file), disconnect=disconnect)
        if settings.given_broker():
            users.save_users(admin)
    return new


def add(settings: Settings, role: BrokerRole, name: str) -> BrokerAddress:
    """Make one user for a program or a viewer elsewhere; the address with its login."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9_.-]*", name):
        raise WrongUsage(f"{name!r} is no name of a user: small letters, digits and -, _, . after the first")
    admin = administrator(settings)
    login = BrokerLogin(user=user_name(role, name), password=new_password())
    _make_lasting(admin, BrokerLogins(place=admin.place, logins={role: login}), lasting=bool(settings.given_broker()))
    return admin.with_login(login)


def make_for_joining(
    settings: Settings, node: str, token_id: str, open_tokens: Collection[str]
) -> tuple[BrokerAddress, BrokerLogins]:
    """Make the users of a machine that is to join, and one with which it can ask for that and no more.

    The address has the latter's login. Those of tokens that are not open any more are deleted.
    """
    admin = settings.given_broker()
    if admin is None or admin.login is None:
        raise NoBrokerUsers(
            f"to make the users of {node} takes a login that may make users: 'TORCH_BROKER_URL=… torch-tasks node "
            f"invite --name {node}', with the login of the broker's administrator in the address"
        )
    users.delete_joiners(admin, {f"{JOINING}{one}" for one in open_tokens})
    logins = BrokerLogins.new(admin.place, node)
    _make_lasting(admin, logins)
    joiner = BrokerLogin(user=f"{JOINING}{token_id}", password=new_password())
    users.make_joiner(admin, joiner)
    return admin.with_login(joiner), logins


def keep_given(settings: Settings, logins: BrokerLogins, address: BrokerAddress) -> None:
    """Have this machine's processes connect there as the users that were made for it."""
    with exclusive(settings.state.path / "broker-logins.lock"):
        _keep(settings.state.broker_logins, logins.model_copy(update={"place": address.place}))


def remove(settings: Settings, names: list[str]) -> list[str]:
    """Delete these users; the broker ends their connections. Without names: this machine's, on a broker elsewhere.

    Returns whom.
    """
    admin = administrator(settings)
    kept = None if names else known_logins(settings)
    names = names or [login.user for login in (kept.logins.values() if kept else ())]
    users.delete_users(admin, names)
    if kept:
        settings.state.broker_logins.unlink(missing_ok=True)
    if settings.given_broker():
        users.save_users(admin)
    return names


def remove_users_of(settings: Settings, node: str) -> list[str]:
    """Delete the users of a machine, as far as there are any; the broker ends their connections. Returns whom.

    :class:`NoBrokerUsers` or :class:`BrokerAway` if this machine has no login there that may.
    """
    admin, names = administrator(settings), [user_name(role, node) for role in BrokerRole]
    if found := users.known_users(admin, names):
        users.delete_users(admin, found)
        if settings.given_broker():
            users.save_users(admin)
    return found


def hand_down_login(settings: Settings) -> None:
    """Take the login out of TORCH_BROKER_URL in what children inherit; they find it in a private file."""
    given = settings.given_broker()
    if given is None or given.login is None or "TORCH_BROKER_URL" not in os.environ:
        return
    if known_logins(settings) is None:
        _keep(settings.state.broker_logins, BrokerLogins.one_for_all(given.place, given.login))
    os.environ["TORCH_BROKER_URL"] = given.with_login(None).url.get_secret_value()


def connections(settings: Settings) -> Mapping[str, int] | None:
    """How many connections each user of the broker has; None if it does not say."""
    return users.connections(administrator(settings))


def _given(settings: Settings) -> BrokerAddress:
    given = settings.given_broker()
    if given is None:
        raise NoBrokerUsers(
            "this machine's own broker makes its users itself when it starts; 'torch-tasks broker rotate' changes "
            "their passwords. To make users on a broker elsewhere, set TORCH_BROKER_URL with a login that may"
        )
    return given


def _make_lasting(admin: BrokerAddress, logins: BrokerLogins, *, lasting: bool = True) -> None:
    users.make_users(admin, logins)
    try:
        if lasting:
            users.save_users(admin)
    except NoBrokerUsers:
        users.delete_users(admin, [login.user for login in logins.logins.values()])
        raise


def _keep(file: Path, logins: BrokerLogins) -> None:
    make_folder(file.parent)
    write_private(file, logins.model_dump_json())
