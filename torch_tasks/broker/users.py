"""Makes the users of a broker, changes their passwords while work flows, and ends those that are wanted no more."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping

import redis
from redis.exceptions import NoPermissionError, ResponseError
from redis.utils import str_if_bytes

from torch_tasks.broker.connection import BrokerClient, connect
from torch_tasks.errors import NoBrokerUsers
from torch_tasks.model.broker_address import BrokerAddress
from torch_tasks.model.broker_users import (
    BEGINNING,
    JOINING,
    BrokerLogin,
    BrokerLogins,
    Family,
    joiners_rules,
    rules,
)

LOGIN_SECONDS = 10.0
"""How long a connection may take to log in while passwords change; then it is ended, and comes with the new one."""

_LOOK_SECONDS = 0.02


def family_of(client: redis.Redis) -> Family:
    return "dragonfly" if "dragonfly_version" in client.info("server") else "valkey"


def make_users(admin: BrokerAddress, logins: BrokerLogins) -> None:
    """Make these users, with these passwords alone; :class:`NoBrokerUsers` if this broker cannot."""
    client = connect(admin)
    family = family_of(client)
    for role, login in logins.logins.items():
        _set(client, admin, login, "on", "resetpass", f">{login.password}", *rules(role, family, admin.database))
    if not _holds_users_apart(admin, logins):
        delete_users(admin, [login.user for login in logins.logins.values()])
        raise NoBrokerUsers(
            f"the broker at {admin} takes each process that opens its Unix socket for its owner, as DragonflyDB "
            "does: users bind no process there. The system's permissions on the socket keep others out. Valkey has "
            "users there, too"
        )


def make_joiner(admin: BrokerAddress, login: BrokerLogin) -> None:
    """Make the user with whom a machine comes that has a token and no more."""
    client = connect(admin)
    may = joiners_rules(family_of(client), admin.database)
    _set(client, admin, login, "on", "resetpass", f">{login.password}", *may)


def delete_joiners(admin: BrokerAddress, wanted: Collection[str]) -> None:
    """Delete the users of tokens, without those that are wanted still."""
    known = [str_if_bytes(name) for name in connect(admin).acl_users()]
    if over := [name for name in known if name.startswith(JOINING) and name not in wanted]:
        delete_users(admin, over)


def save_users(admin: BrokerAddress, client: BrokerClient | None = None) -> None:
    """Have the broker keep its users over its restart; :class:`NoBrokerUsers` if it would forget them."""
    client = client or connect(admin)
    for command in (("ACL", "SAVE"), ("CONFIG", "REWRITE")):
        try:
            client.execute_command(*command)
        except ResponseError:
            continue
        return
    raise NoBrokerUsers(
        f"the broker at {admin} would forget its users when it restarts: it has neither an aclfile nor a file of its "
        "configuration. Start it with one (aclfile /etc/valkey/users.acl; dragonfly --aclfile=…), then try again"
    )


def change_passwords(
    admin: BrokerAddress,
    former: BrokerLogins,
    keep: Callable[[BrokerLogins], None],
    *,
    disconnect: bool = False,
    login_seconds: float = LOGIN_SECONDS,
) -> BrokerLogins:
    """Give these users new passwords without refusing a connection that is being made.

    ``keep`` writes the new ones where processes read them. The former ones stay good until each connection that may
    have read them has logged in. ``disconnect``: all processes must log in again.
    """
    client, new = connect(admin), former.renewed()
    if disconnect and family_of(client) == "dragonfly":
        raise NoBrokerUsers(
            f"the broker at {admin} does not say whose a connection is, as DragonflyDB does not, so none can be ended "
            "by its user; leave --disconnect out"
        )
    for login in new.logins.values():
        _set(client, admin, login, f">{login.password}")
    keep(new)
    _await_logins(client, login_seconds)
    make_users(admin, new)
    if disconnect:
        end_connections(admin, {login.user for login in new.logins.values()})
    return new


def _await_logins(client: BrokerClient, seconds: float) -> None:
    """Return when each connection that is there now has logged in, or is gone; those that take longer are ended."""
    _silent(client)  # what was connected before this answer is in the next one
    waiting, deadline = _silent(client), time.monotonic() + seconds
    while waiting and time.monotonic() < deadline:
        time.sleep(_LOOK_SECONDS)
        waiting &= _silent(client)
    for one in waiting:
        client.client_kill_filter(_id=one)


def _silent(client: BrokerClient) -> set[str]:
    """The connections that have sent nothing yet: a process reads its password when it is connected."""
    return {one["id"] for one in client.client_list() if one.get("cmd") == "NULL" or one.get("tot-cmds") == "0"}


def known_users(admin: BrokerAddress, names: Collection[str]) -> list[str]:
    """Those of these users that there are; :class:`NoBrokerUsers` if this login may not ask."""
    try:
        known = {str_if_bytes(name) for name in connect(admin).acl_users()}
    except NoPermissionError as error:
        raise NoBrokerUsers(f"this login may not ask who has users on the broker at {admin}: {error}") from None
    return [name for name in names if name in known]


def delete_users(admin: BrokerAddress, names: list[str]) -> None:
    """Delete these users of Torch's; the broker ends their connections."""
    connect(admin).execute_command("ACL", "DELUSER", *[name for name in names if name.startswith(BEGINNING)])


def connections(admin: BrokerAddress) -> Mapping[str, int] | None:
    """How many connections each user has; None if the broker does not say whose each is, as DragonflyDB does not."""
    users = [one.get("user") for one in _clients(admin)]
    return None if None in users else Counter(filter(None, users))


def end_connections(admin: BrokerAddress, names: set[str]) -> None:
    """End the connections of these users; each process connects again by itself."""
    client = connect(admin)
    for one in _clients(admin):
        if one.get("user") in names:
            client.client_kill_filter(_id=one["id"])


def password_hash(password: str) -> str:
    """A password as it may stand in a configuration."""
    return f"#{hashlib.sha256(password.encode()).hexdigest()}"


def _clients(admin: BrokerAddress) -> Iterator[Mapping[str, str]]:
    yield from connect(admin).client_list()


def _set(client: BrokerClient, admin: BrokerAddress, login: BrokerLogin, *words: str) -> None:
    try:
        client.execute_command("ACL", "SETUSER", login.user, *words)
    except NoPermissionError as error:
        raise NoBrokerUsers(
            f"this login may make no users on the broker at {admin}: {error}; name one in TORCH_BROKER_URL that may"
        ) from None
    except ResponseError as error:
        raise NoBrokerUsers(
            f"the broker at {admin} makes no users as Torch needs them: {error}. Valkey 8, Redis 7 do"
        ) from None


def _holds_users_apart(admin: BrokerAddress, logins: BrokerLogins) -> bool:
    """Whether the broker refuses to the first of these what only its administrator may do."""
    try:
        connect(admin.with_login(next(iter(logins.logins.values())))).acl_list()
    except NoPermissionError:
        return True
    return False
