"""Moves a fleet to another, empty server while it works: everyone waits, all is copied, everyone goes there.

The former server says to each process that connects what it is to do. While it says that the broker is being moved, it
says so for a moment at a time: should the mover die, the fleet goes on with it. One write makes the other server the
fleet's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import redis
from pydantic import ValidationError
from redis.connection import parse_url
from redis.exceptions import NoPermissionError, ResponseError, WatchError
from redis.utils import str_if_bytes

from torch_tasks import keys
from torch_tasks.broker.connection import BrokerClient, connect
from torch_tasks.broker.following import place_now
from torch_tasks.broker.logins import OwnLogin
from torch_tasks.broker.moved import MoveNote, keep, latest
from torch_tasks.broker.reconciler import identity_of
from torch_tasks.broker.tls import client_options
from torch_tasks.broker.users import family_of, save_users
from torch_tasks.errors import BrokerNotMoved, BrokerUnreachable
from torch_tasks.model.broker_address import BrokerAddress
from torch_tasks.model.broker_moves import KnownMove, known_moves
from torch_tasks.model.broker_users import BEGINNING, JOINING, BrokerLogin
from torch_tasks.settings import Settings
from torch_tasks.store.key_copies import KeyCopy, delete_keys, names, read_keys, write_keys
from torch_tasks.store.key_families import Fate
from torch_tasks.transport import gate

FENCE_SECONDS = 30
"""For so long the former server says that it is being moved, unless that is said again."""
_ANSWER_SECONDS = 30.0
_TOO_LATE = "it took too long: the fleet has gone on with the former server, or another mover has come. Try again"


def move(settings: Settings, new: BrokerAddress, say: Callable[[str], None]) -> int:
    """Move the fleet to this server; returns how many keys were copied.

    :class:`BrokerNotMoved` if that cannot be; then the fleet goes on as before. What is left on the other server then
    is deleted by the next move.
    """
    given = settings.given_broker()
    if given is None:
        raise BrokerNotMoved("this machine's own broker is for this machine alone: set TORCH_BROKER_URL to move it")
    connect().ping()  # where it is by now
    old = latest(given)
    source, target = _client(old, settings), _client(new, settings)
    _require_fit(source, target, old, new)
    known = KnownMove(_written(new), _next_number(settings, source, target))
    fence = _Fence(source, target, MoveNote(to=known.to, number=known.number))
    _require_empty(target)
    _bring_users(source, target, new)
    _require_login(settings, new)
    fence.put()
    try:
        _end_connections(source)
        say("everyone waits")
        count = _copy(source, target, fence)
        say(f"{count} keys are copied")
        fence.make_lasting()
    except BaseException as error:
        with suppress(BrokerNotMoved, WatchError):  # the copy is the fleet's, or another mover's
            _delete_all(target, fence)
            delete_keys(target, [keys.BROKER_ARRIVED], guard=fence.guard)
        fence.lift()
        if isinstance(error, WatchError):
            raise BrokerNotMoved(_TOO_LATE) from error
        raise
    keep(old, known)
    fence.forget_former_moves()
    _end_connections(source)
    try:  # so that it says so, too, should it start again
        source.execute_command("SAVE")
    except (ResponseError, BrokerUnreachable) as error:
        say(f"the former server could not write to its disk that the fleet has left, so do not start it again: {error}")
    return count


def follow(settings: Settings, new: BrokerAddress) -> None:
    """Have this machine go to this server, to which its fleet has moved.

    :class:`BrokerNotMoved` if no fleet works there.
    """
    old = latest(settings.broker())
    if not _client(new.with_login(_own_login(settings)), settings).exists(keys.FLEET_FORMAT):
        raise BrokerNotMoved(f"no fleet has {new}: 'torch-tasks doctor' on another machine says where its broker is")
    if old.place != new.place:
        keep(old, KnownMove(_written(new), 1 + max(_known_numbers(settings), default=0)))


def _written(address: BrokerAddress) -> str:
    return address.with_login(None).url.get_secret_value()


def _next_number(settings: Settings, source: redis.Redis, target: redis.Redis) -> int:
    """Above that of each move of which this machine or one of the servers knows, whatever time it is here."""
    notes = [_read(client, key) for client in (source, target) for key in (keys.BROKER_MOVED, keys.BROKER_ARRIVED)]
    known = [*_known_numbers(settings), *(note.number for note in notes if note)]
    return max(int(time.time() * 1000), 1 + max(known, default=0))


def _known_numbers(settings: Settings) -> list[int]:
    return [one.number for one in known_moves(settings.state.broker_moved).values()]


class _Fence:
    """What the former server says meanwhile, and what is noted on the new one.

    It holds while the former one says this: a mover that was held up for too long writes to neither any more.
    """

    def __init__(self, source: redis.Redis, target: redis.Redis, note: MoveNote) -> None:
        self._source = source
        self._target = target
        self._moving = note.signed()
        self._moved = note.model_copy(update={"is_over": True}).signed()
        self._arrived_before = _read(target, keys.BROKER_ARRIVED)

    def put(self) -> None:
        """Unless something is said already, but of a move away from where the fleet is again."""
        arrived = _read(self._source, keys.BROKER_ARRIVED)

        def may_put(said: MoveNote | None) -> bool:
            return said is None or (said.is_over and arrived is not None and said.number < arrived.number)

        text = self._moving.model_dump_json()
        if not self._say(may_put, lambda pipe: pipe.set(keys.BROKER_MOVED, text, ex=FENCE_SECONDS)):
            raise BrokerNotMoved("another 'torch-tasks broker move' is at work, or was a moment ago. Try again later")

    def renew(self) -> None:
        self._require(self._say(self._is_own, lambda pipe: pipe.expire(keys.BROKER_MOVED, FENCE_SECONDS)))

    def note_arrival(self) -> None:
        """Unless another mover has come to the new server since this one looked at it."""
        text = self._moving.model_dump_json()
        noted = _write_if(
            self._target,
            keys.BROKER_ARRIVED,
            lambda noted: noted == self._arrived_before,
            lambda pipe: pipe.set(keys.BROKER_ARRIVED, text),
        )
        self._require(noted)

    def guard(self, pipe: Any) -> None:
        """Begin a transaction on the new server, as long as everyone waits and no other mover has come there."""
        self.renew()
        pipe.watch(keys.BROKER_ARRIVED)
        self._require(_read(pipe, keys.BROKER_ARRIVED) == self._moving)
        pipe.multi()

    def make_lasting(self) -> None:
        """The switch, even if its answer is lost."""

        def leave(pipe: Any) -> None:
            pipe.set(keys.BROKER_MOVED, self._moved.model_dump_json())
            pipe.hdel(keys.BROKER_STATE, gate.SERVER)

        self._require(self._say(self._is_own, leave) or _read(self._source, keys.BROKER_MOVED) == self._moved)

    def lift(self) -> None:
        """Say nothing any more, if the switch is not made."""
        self._say(self._is_own, lambda pipe: pipe.delete(keys.BROKER_MOVED))

    def forget_former_moves(self) -> None:
        """Have the new server not say any more that the fleet once left it."""
        _write_if(
            self._target,
            keys.BROKER_MOVED,
            lambda said: said is not None and said.number < self._moving.number,
            lambda pipe: pipe.delete(keys.BROKER_MOVED),
        )

    def _is_own(self, said: MoveNote | None) -> bool:
        return said == self._moving

    def _say(self, may: Callable[[MoveNote | None], bool], write: Callable[[Any], object]) -> bool:
        return _write_if(self._source, keys.BROKER_MOVED, may, write)

    def _require(self, holds: bool) -> None:
        if not holds:
            raise BrokerNotMoved(_TOO_LATE)


def _write_if(
    client: redis.Redis, key: str, may: Callable[[MoveNote | None], bool], write: Callable[[Any], object]
) -> bool:
    """Look at a note and write, in one step; false if it was not to be."""
    with client.pipeline() as pipe:
        pipe.watch(key)  # type: ignore[no-untyped-call]
        if may(_read(pipe, key)):
            pipe.multi()
            write(pipe)
            with suppress(WatchError):
                pipe.execute()
                return True
    return False


def _read(client: Any, key: str) -> MoveNote | None:
    try:
        return MoveNote.model_validate_json(client.get(key) or "")
    except ValidationError:
        return None


def _client(address: BrokerAddress, settings: Settings) -> BrokerClient:
    """A client that no note sends elsewhere; it does not decode responses."""
    options: dict[str, Any] = {
        **parse_url(address.plain_url),  # type: ignore[no-untyped-call]
        **client_options(address, settings),
        **place_now(address),
        "protocol": 2,
        "socket_timeout": _ANSWER_SECONDS,
    }
    return BrokerClient(redis.ConnectionPool(**options), address)


def _require_fit(source: redis.Redis, target: redis.Redis, old: BrokerAddress, new: BrokerAddress) -> None:
    if identity_of(source) == identity_of(target):
        raise BrokerNotMoved(f"{new} is the broker that the fleet has")
    if old.database != new.database:
        raise BrokerNotMoved(
            f"{new} is database {new.database}, and the fleet's is {old.database}: it must be the same"
        )


def _require_empty(target: redis.Redis) -> None:
    """Only what a move that failed has left may be on the new server, or the fleet itself when it moved away."""
    found = names(target, lambda _: True)
    if not found:
        return
    note = _read(target, keys.BROKER_MOVED) or _read(target, keys.BROKER_ARRIVED)
    if note is None or target.hexists(keys.BROKER_STATE, gate.SERVER):
        raise BrokerNotMoved(f"a fleet has {len(found)} keys on the new server: it must be empty")
    note.require_signed()


def _delete_all(target: redis.Redis, fence: _Fence) -> None:
    """But not what is said and noted: who was away must not take the server for the fleet's before it is."""
    kept = keys.BROKER_MOVED, keys.BROKER_ARRIVED
    delete_keys(target, (name for name in names(target, lambda _: True) if name not in kept), guard=fence.guard)


def _bring_users(source: redis.Redis, target: BrokerClient, new: BrokerAddress) -> None:
    """Make the users of Torch's on the new server, with the passwords that the machines have."""
    try:
        lines = [str_if_bytes(line).split() for line in source.acl_list()]
    except NoPermissionError as error:
        raise BrokerNotMoved(
            f"this login may not see who has users on the broker: {error}; name one in TORCH_BROKER_URL that may"
        ) from None
    ours = [line for line in lines if line[1].startswith((BEGINNING, JOINING))]
    if not ours:
        return
    if {family_of(source), family_of(target)} != {"valkey"}:
        raise BrokerNotMoved(
            "the fleet has users of its own on its broker, and only Valkey and Redis show what they may do"
        )
    for _, name, *rules in ours:
        target.execute_command("ACL", "SETUSER", name, "reset", *rules)
    save_users(new, target)


def _require_login(settings: Settings, new: BrokerAddress) -> None:
    """The login that this machine's processes have must be good there, too."""
    try:
        _client(new.with_login(_own_login(settings)), settings).ping()
    except BrokerUnreachable as error:
        raise BrokerNotMoved(f"{new} must take the login that this machine's processes have: {error}") from None


def _own_login(settings: Settings) -> BrokerLogin | None:
    address = settings.broker()
    words = OwnLogin(address).get_credentials() if address.login is None else None
    return BrokerLogin(user=words[0], password=words[1]) if words else address.login


def _end_connections(client: BrokerClient) -> None:
    """End all connections of programs but this one; who connects again hears what is said."""
    own = client.client_id()
    for one in client.client_list():
        if int(one["id"]) != own and not set(one.get("flags", "")) & set("SM"):
            client.client_kill_filter(_id=one["id"])


def _copy(source: redis.Redis, target: redis.Redis, fence: _Fence) -> int:
    fence.note_arrival()
    _delete_all(target, fence)
    lasting = names(source, lambda fate: fate is not Fate.EPHEMERAL)
    count = write_keys(target, read_keys(source, lasting), guard=fence.guard)
    write_keys(target, _gate_copy(source), guard=fence.guard)
    return count


def _gate_copy(source: redis.Redis) -> Iterator[KeyCopy]:
    found = zip(gate.LASTING, source.hmget(keys.BROKER_STATE, gate.LASTING), strict=True)
    if lasting := [[name, str_if_bytes(value)] for name, value in found if value is not None]:
        yield KeyCopy(keys.BROKER_STATE, "hash", lasting)


def read_login(text: str) -> BrokerLogin:
    """A login from a file: ``USER:PASSWORD``."""
    user, _, password = text.strip().partition(":")
    return BrokerLogin(user=user, password=password)
