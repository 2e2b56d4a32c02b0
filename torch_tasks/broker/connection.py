"""Makes every client of the broker, and decides what counts as a broker that is away.

Getting a connection is tried again while the broker is away; a command is not, for it may have run before its
connection broke. Both raise :class:`BrokerUnreachable`. A key that another program wrote raises :class:`WrongType`;
what else the broker refuses (an error in a script of ours) is raised as redis-py raises it.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import redis
from redis.client import Pipeline, PubSub
from redis.connection import DefaultParser, parse_url
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    InvalidResponse,
    MasterDownError,
    OutOfMemoryError,
    ReadOnlyError,
)
from redis.exceptions import ConnectionError as NoConnection
from redis.exceptions import TimeoutError as NoAnswer
from redis.utils import str_if_bytes

from torch_tasks.broker.following import FollowingConnection
from torch_tasks.broker.logins import OwnLogin
from torch_tasks.broker.memory import REMEDY
from torch_tasks.broker.moved import BrokerMoving
from torch_tasks.broker.tls import why_untrusted
from torch_tasks.errors import BrokerAway, BrokerFull, BrokerUnreachable, BrokerUntrusted, NothingRuns, WrongType
from torch_tasks.keys import PREFIX
from torch_tasks.model.broker_address import OWN_PLACE, BrokerAddress
from torch_tasks.settings import settings
from torch_tasks.system import own_broker

IDLE_SECONDS = 15
"""A connection that was idle for longer is checked before it is used."""


class CannotWrite(NoConnection):
    """The broker lives and takes nothing, not even a PING, because it cannot write to its disk."""


# To redis-py it would be an error of that command alone; workers and what keeps them alive would end of it.
DefaultParser.EXCEPTION_CLASSES["MISCONF"] = CannotWrite

LOST = (NoConnection, NoAnswer, InvalidResponse)
"""What redis-py raises when no broker is at the other end. Only code with a client of kombu's or Celery's needs it;
ours raise :class:`BrokerUnreachable`."""
_AWAY = (*LOST, ReadOnlyError, MasterDownError, OutOfMemoryError)
"""The same, and the answers of a broker that cannot serve now."""

_CONNECTIONS = 10_000
"""How many threads of one process may use the broker at a time; redis-py itself refuses the one after a hundred."""

KEEPALIVE = {socket.TCP_KEEPIDLE: 5, socket.TCP_KEEPINTVL: 2, socket.TCP_KEEPCNT: 3}
"""When, in seconds, the kernel ends a wait for a broker whose machine is gone; it wakes no process before."""


class BrokerClient(redis.Redis):
    """A client that raises :class:`BrokerUnreachable` exactly when the broker is away, and :class:`WrongType`."""

    def __init__(self, pool: redis.ConnectionPool, address: BrokerAddress) -> None:
        super().__init__(connection_pool=pool)
        self._address = address

    def execute_command(self, *args: Any, **options: Any) -> Any:
        with _named_errors(self._address, self.connection_pool, [args]):
            return super().execute_command(*args, **options)  # type: ignore[no-untyped-call]

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> _BrokerPipeline:
        pipeline = _BrokerPipeline(self.connection_pool, self.response_callbacks, transaction, shard_hint)
        pipeline.address = self._address
        return pipeline

    def pubsub(self, **options: Any) -> _BrokerPubSub:
        channel = _BrokerPubSub(self.connection_pool, event_dispatcher=self._event_dispatcher, **options)
        channel.address = self._address
        return channel


class _BrokerPipeline(Pipeline):
    address: BrokerAddress

    def execute(self, raise_on_error: bool = True) -> list[Any]:
        commands = [args for args, _ in self.command_stack]
        with _named_errors(self.address, self.connection_pool, commands):
            return super().execute(raise_on_error)

    def immediate_execute_command(self, *args: Any, **options: Any) -> Any:
        with _named_errors(self.address, self.connection_pool, [args]):
            return super().immediate_execute_command(*args, **options)  # type: ignore[no-untyped-call]


class _BrokerPubSub(PubSub):
    address: BrokerAddress

    def execute_command(self, *args: Any) -> Any:
        with _named_errors(self.address, self.connection_pool):
            return super().execute_command(*args)  # type: ignore[no-untyped-call]

    def parse_response(self, block: bool = True, timeout: float = 0) -> Any:
        with _named_errors(self.address, self.connection_pool):
            return super().parse_response(block, timeout)  # type: ignore[no-untyped-call]


def connect(address: BrokerAddress | None = None, *, decoded: bool = True, wait_seconds: float = 0.0) -> BrokerClient:
    """A client of the broker, on this process's one pool for the address; text comes back as ``str`` if ``decoded``.

    It sends nothing before the first command, and waits up to ``broker_connect_seconds`` for a broker that is away or
    still loading. A blocking command must end within that time, or, for a client that does nothing else, within
    ``wait_seconds``.
    """
    address = address or settings().broker()
    return BrokerClient(_pool(address, settings().broker_connect_seconds, decoded, wait_seconds), address)


def answers(address: BrokerAddress) -> bool:
    """Whether the broker answers within a second and takes the password, though it may be unable to do more."""
    pool = redis.ConnectionPool(**_options(address, seconds=1.0))
    try:
        return bool(redis.Redis(connection_pool=pool).ping())
    except CannotWrite:
        return True
    except LOST:
        return False
    finally:
        pool.disconnect()


@contextmanager
def broker_errors(address: BrokerAddress | None = None) -> Iterator[None]:
    """Names the errors of kombu and Celery: :class:`BrokerUnreachable` if the broker is away, :class:`WrongType`."""
    try:
        yield
    except Exception as error:
        if not isinstance(error, WrongType) and any(map(is_wrong_type, _causes(error))):
            raise WrongType(_WRONG_KEY) from error
        if not is_away(error) or isinstance(error, BrokerAway):
            raise
        raise unreachable(address or settings().broker(), error, may_have_run=True) from error


def is_away(error: BaseException) -> bool:
    """Whether this error, of our clients, kombu, or Celery, means that the broker is away."""
    from kombu.exceptions import OperationalError  # only when something broke: commands that never publish start faster

    return isinstance(error, (BrokerAway, *_AWAY, OperationalError))


@contextmanager
def _named_errors(
    address: BrokerAddress, pool: redis.ConnectionPool, commands: Iterable[Sequence[Any]] = ()
) -> Iterator[None]:
    """Raises :class:`BrokerUnreachable` and :class:`WrongType` for what these commands raise."""
    try:
        yield
    except _AWAY as error:
        raise unreachable(address, error, may_have_run=True) from error
    except redis.ResponseError as error:
        if not is_wrong_type(error):
            raise
        raise wrong_type(pool, [key for command in commands for key in _keys_in(command)]) from error


def is_wrong_type(error: BaseException) -> bool:
    """Whether the broker has refused a command because a key is of another type than Torch keeps there."""
    return isinstance(error, redis.ResponseError) and "WRONGTYPE" in str(error)


_WRONG_KEY = (
    "a key on the broker is of another type than Torch keeps there: another program wrote it. Find it with "
    "'redis-cli --scan --pattern \"nova:torch:*\"' and TYPE, and delete it"
)
_ASKED_TYPES = 50


def wrong_type(pool: redis.ConnectionPool, names: Iterable[str]) -> WrongType:
    """The error in words: which of these keys it is, as far as their types tell."""
    asked = list(dict.fromkeys(names))[:_ASKED_TYPES]
    try:
        with redis.Redis(connection_pool=pool).pipeline(transaction=False) as pipe:
            for name in asked:
                pipe.type(name)
            answers = pipe.execute()
    except redis.RedisError:
        answers = []
    types = {name: str_if_bytes(answer) for name, answer in zip(asked, answers, strict=False)}
    wrong = {name: kind for name, kind in types.items() if kind == "string"}  # as a plain SET leaves it
    found = wrong or {name: kind for name, kind in types.items() if kind != "none"}
    if not found:
        return WrongType(_WRONG_KEY)
    keys = " or ".join(f"{name} (a {kind})" for name, kind in found.items())
    return WrongType(
        f"on the broker, the key {keys} is of another type than Torch keeps there: another program wrote it. Delete it"
    )


def _keys_in(command: Sequence[Any]) -> list[str]:
    """The keys of a command as redis-py gets it, of those that Torch gives."""
    if command[0] in ("EVALSHA", "EVAL"):
        return [str(key) for key in command[3 : 3 + int(command[2])]]
    return [str(word) for word in command[1:] if str(word).startswith((PREFIX, "torch."))]


def unreachable(address: BrokerAddress, error: BaseException, *, may_have_run: bool = False) -> BrokerUnreachable:
    """The error in words: what happened, at which address, and what to do."""
    if not address.runs:
        return nothing_runs()
    if untrusted := why_untrusted(_causes(error)):
        return BrokerUntrusted(f"the broker at {address} (from {address.source}) is not trusted: {untrusted}")
    full = any(isinstance(cause, OutOfMemoryError) for cause in _causes(error))
    raised = (BrokerFull if full else BrokerUnreachable)(_explanation(address, error))
    raised.may_have_run = may_have_run
    return raised


def nothing_is_here() -> bool:
    """Whether the settings name no broker, and none runs here; one that was killed may have left its address."""
    address = settings().broker()
    return not address.runs or (address.place == OWN_PLACE and own_broker.is_gone(settings().state))


def nothing_runs() -> NothingRuns:
    return NothingRuns(settings().state_dir)


def _explanation(address: BrokerAddress, error: BaseException) -> str:
    where = f"{address} (from {address.source})"
    causes = list(_causes(error))
    if any(isinstance(cause, AuthenticationError) for cause in causes):
        remedy = (
            "Set TORCH_BROKER_URL to redis://:PASSWORD@HOST:PORT/DB or unix://:PASSWORD@/SOCKET with the right password"
        )
        return f"the broker at {where} refused the password: {_reason(causes)}. {remedy}"
    if any(isinstance(cause, BrokerMoving) for cause in causes):
        return f"the broker at {where} takes nothing: {_reason(causes)}"
    if any(isinstance(cause, BusyLoadingError) for cause in causes):
        return f"the broker at {where} is still loading its data. Try again in a moment"
    if any(isinstance(cause, OutOfMemoryError) for cause in causes):
        return f"the broker at {where} takes nothing new: its memory is used up. {REMEDY}"
    if any(isinstance(cause, (redis.ResponseError, CannotWrite)) for cause in causes):
        return f"the broker at {where} cannot serve requests now: {_reason(causes)}. Look at its log"
    if address.source == "torch-tasks up":
        return f"no broker answers at {where}: {_reason(causes)}. Start it with 'torch-tasks up'"
    return f"no broker answers at {where}: {_reason(causes)}. Start that broker or correct TORCH_BROKER_URL"


class PatientPool(redis.ConnectionPool):
    """Hands out only connections on which the broker just answered, and waits a while to get one.

    Once it has waited in vain, it does not wait again before the broker has answered.
    """

    def __init__(self, *, address: BrokerAddress, seconds: float, **options: Any) -> None:
        super().__init__(**options)
        self._address = address
        self._seconds = seconds
        self._waited_in_vain = False

    def get_connection(self, *args: Any, **options: Any) -> Any:
        """A connection that answers, or :class:`BrokerUnreachable`."""
        if not self._address.runs and nothing_is_here():
            raise nothing_runs()
        begun = time.monotonic()
        try:
            connection = self._answered_connection(*args, **options)
        except LOST as error:
            connection = self._wait_for_answer(error, begun + self._seconds, *args, **options)
        self._waited_in_vain = False
        return connection

    def _wait_for_answer(self, error: Exception, deadline: float, *args: Any, **options: Any) -> Any:
        left = deadline - time.monotonic()  # a frozen broker used it up: it takes a connection and is silent
        try:
            if self._waited_in_vain or left <= 0 or not _is_worth_waiting(error):
                raise error
            if self._address.place == OWN_PLACE and own_broker.is_gone(settings().state):
                raise nothing_runs()
            # With Tornado, where that is installed; only who waits for a broker needs them.
            from tenacity import Retrying, retry_if_exception, stop_after_delay
            from tenacity.wait import wait_random_exponential

            trying = Retrying(
                retry=retry_if_exception(_is_worth_waiting),
                stop=stop_after_delay(left),
                wait=wait_random_exponential(multiplier=0.05, max=0.5),
                reraise=True,
            )
            return trying(self._answered_connection, *args, **options)
        except LOST as last:
            self._waited_in_vain = _is_worth_waiting(last)
            raise unreachable(self._address, last) from last

    def _answered_connection(self, *args: Any, **options: Any) -> Any:
        try:
            connection: Any = super().get_connection(*args, **options)
        except AuthenticationError:
            if self._address.login:
                raise
            connection = super().get_connection(*args, **options)  # the password may just have been changed
        try:
            connection.check_health()
        except BaseException:
            self.release(connection)
            raise
        return connection


def _is_worth_waiting(error: BaseException) -> bool:
    """Whether waiting may help: the broker is away or still loading, and neither refuses us nor do we it."""
    is_lost = isinstance(error, (NoConnection, NoAnswer)) and not isinstance(error, AuthenticationError)
    return is_lost and why_untrusted(_causes(error)) is None


@cache
def _pool(address: BrokerAddress, seconds: float, decoded: bool, wait_seconds: float) -> PatientPool:
    # redis-py's pools notice a fork by themselves and begin anew in the child.
    options = _options(address, seconds, decoded)
    if wait_seconds:
        options["socket_timeout"] = wait_seconds + seconds
        if address.socket is None:
            options |= {"socket_keepalive": True, "socket_keepalive_options": KEEPALIVE}
    return PatientPool(address=address, seconds=seconds, **options)


def _options(address: BrokerAddress, seconds: float, decoded: bool = True) -> dict[str, Any]:
    return {
        **parse_url(address.plain_url),  # type: ignore[no-untyped-call]
        "connection_class": FollowingConnection,
        "follows": address,
        "credential_provider": None if address.login else OwnLogin(address),
        "decode_responses": decoded,
        # Whatever bytes lie on the broker, reading them is no error of its own.
        "encoding_errors": "replace",
        "health_check_interval": IDLE_SECONDS,
        "max_connections": _CONNECTIONS,
        # With protocol 3, redis-py asks for maintenance notifications on every connection and is refused.
        "protocol": 2,
        "redis_connect_func": _greet,
        "socket_connect_timeout": seconds,
        "socket_timeout": seconds,
    }


def _greet(connection: Any) -> None:
    """Log in, and fail at once if the broker is still loading or wants a password that we do not have."""
    connection.on_connect()
    connection.send_command("PING", check_health=False)
    connection.read_response()


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _reason(causes: list[BaseException]) -> str:
    system = [cause.strerror for cause in causes if isinstance(cause, OSError) and cause.strerror]
    return (system[-1] if system else str(causes[0])).rstrip(".")
