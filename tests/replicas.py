"""A broker that may die: a primary and a replica, found by Sentinel or at one address, all real processes."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import threading
import time
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import redis
from chaos.broker import HOST, START_SECONDS, free_port, server_program
from redis.sentinel import Sentinel
from waiting import until

NAME = "torch"
SENTINELS = 3
FAILOVER_SECONDS = 60.0
QUICK_MS = 500
SLOW_MS = 60_000
"""After so long a Sentinel gives up what it does not reach; on a busy machine, not what is only slow."""
SERVER = """\
bind {host}
port {port}
unixsocket {folder}/socket
protected-mode no
dir {folder}
appendonly no
save ""
repl-diskless-sync-delay 0
"""
WATCHER = """\
bind {host}
port {port}
unixsocket {folder}/socket
protected-mode no
dir {folder}
sentinel monitor {name} {where} {primary} 2
sentinel down-after-milliseconds {name} {quick}
sentinel failover-timeout {name} 3000
"""


class Process:
    """One server or Sentinel, in a folder of its own; maybe on another host, which ``enter`` runs it on."""

    def __init__(
        self,
        folder: Path,
        env: Mapping[str, str],
        text: str,
        *options: str,
        host: str = HOST,
        enter: Sequence[str] = (),
        **values: object,
    ) -> None:
        self.place = host, free_port()
        self.port = self.place[1]
        self.folder = folder
        self.log = folder / "log"
        self.config = folder / "valkey.conf"
        self._env = dict(env)
        self._enter = enter
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        socket = str(folder / "socket")
        self.client = redis.Redis(unix_socket_path=socket, decode_responses=True, protocol=2)
        folder.mkdir(parents=True)
        self.config.write_text(text.format(host=host, port=self.port, folder=folder, **values))

    def start(self, *options: str) -> None:
        """Have it answer."""
        argv = [*self._enter, server_program(), str(self.config), *self._options, *options]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                argv, cwd=self.folder, env=self._env, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        until(self.answers, f"it answers: {self.log}", START_SECONDS)

    def answers(self) -> bool:
        """It takes commands."""
        with suppress(redis.RedisError):
            return bool(self.client.ping())
        return False

    def send(self, number: signal.Signals) -> None:
        """Send it a signal, if it runs."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)

    def end(self, how: signal.Signals = signal.SIGKILL) -> None:
        """End it, and see it end."""
        self.send(how)
        if how is not signal.SIGSTOP:
            self.send(signal.SIGCONT)
        if self._process is not None:
            self._process.wait(START_SECONDS)

    @property
    def process(self) -> psutil.Process | None:
        """The living process."""
        if self._process is None or self._process.poll() is not None:
            return None
        return psutil.Process(self._process.pid)


class Pair:
    """A primary and a replica. Like :class:`chaos.broker.Broker` to a fleet, which reaches it by ``url``."""

    url: str
    client: redis.Redis

    def __init__(self, folder: Path, env: Mapping[str, str]) -> None:
        self.folder = folder
        self.log = folder / "log"
        folder.mkdir()
        self.log.touch()
        self.servers = [Process(folder / f"server-{number}", env, SERVER) for number in (1, 2)]

    @property
    def process(self) -> psutil.Process | None:
        """The primary's process, while there is one."""
        return self.primary.process

    @property
    def processes(self) -> list[psutil.Process]:
        """All that live."""
        return [process for one in self.servers if (process := one.process)]

    def start(self) -> None:
        """Have the first server be the primary, and the second its replica, in step."""
        first, second = self.servers
        first.start()
        second.start("--replicaof", f"{HOST} {first.port}")
        until(lambda: is_in_step(second), f"the replica is in step: {second.log}", START_SECONDS)

    @property
    @abstractmethod
    def primary(self) -> Process:
        """The server that counts."""

    @property
    def replica(self) -> Process:
        """The other one."""
        primary = self.primary
        return next(one for one in self.servers if one is not primary)

    @abstractmethod
    def promote(self, replica: Process) -> None:
        """Have the replica be the primary, because the primary is dead."""

    @contextmanager
    def out_of_step(self) -> Iterator[None]:
        """The replica hears nothing of its primary meanwhile."""
        replica = self.replica
        replica.client.config_set("masterauth", "none of its own")
        replica.client.client_kill_filter(_type="master")
        until(lambda: replica.client.info("replication")["master_link_status"] == "down", "the link is down", 10)
        try:
            yield
        finally:
            replica.client.config_set("masterauth", "")

    def fail_over(self, lost_seconds: float = 0.0) -> int:
        """Kill the primary, which has written alone for so long; returns how many bytes its replica never heard of."""
        primary, replica = self.primary, self.replica
        with self.out_of_step():
            time.sleep(lost_seconds)
            lost = offset(primary, "master_repl_offset") - offset(replica, "slave_repl_offset")
            primary.end()
        self.promote(replica)
        until(lambda: replica.client.info("replication")["role"] == "master", "it is primary", FAILOVER_SECONDS)
        return lost

    def mend(self) -> None:
        """Have the dead server be the replica of the other one, in step, whatever Sentinels do meanwhile."""
        primary, replica = self.primary, self.replica
        if not replica.process:
            # A Sentinel may have had it write down what `out_of_step` told it.
            replica.start("--replicaof", f"{HOST} {primary.port}", "--masterauth", "")
        until(lambda: is_in_step(self.replica), f"the replica is in step: {self.folder}", START_SECONDS)

    def end(self, how: signal.Signals = signal.SIGKILL) -> None:
        """End everything."""
        for one in self.servers:
            one.end(how)


class Watched(Pair):
    """A pair that three Sentinels watch."""

    def __init__(self, folder: Path, env: Mapping[str, str]) -> None:
        super().__init__(folder, env)
        self.sentinels = [
            Process(folder / f"sentinel-{n}", env, WATCHER, "--sentinel", **watched(self.servers[0]))
            for n in range(SENTINELS)
        ]
        self.url = url_of(self.sentinels)
        places = [one.place for one in self.sentinels]
        options = {"decode_responses": True, "protocol": 2, "socket_timeout": 5}
        self.client = Sentinel(places, socket_timeout=5).master_for(NAME, redis.Redis, **options)

    @property
    def processes(self) -> list[psutil.Process]:
        return [*super().processes, *(process for one in self.sentinels if (process := one.process))]

    def start(self) -> None:
        super().start()
        for one in self.sentinels:
            one.start()
        until(self.is_watched, "the Sentinels know both servers and each other", START_SECONDS)

    def is_watched(self) -> bool:
        return know_all(self.sentinels)

    @property
    def primary(self) -> Process:
        return named_by(self.sentinels, self.servers)

    def promote(self, replica: Process) -> None:
        until(lambda: self.primary is replica, "Sentinel names the other one", FAILOVER_SECONDS)

    def end(self, how: signal.Signals = signal.SIGKILL) -> None:
        for one in self.sentinels:
            one.end(how)
        super().end(how)


class Service(Pair):
    """A pair behind one address, as an operator's service or a name in DNS gives it."""

    def __init__(self, folder: Path, env: Mapping[str, str]) -> None:
        super().__init__(folder, env)
        self._primary = self.servers[0]
        self._door = Forwarder(lambda: self._primary.port)
        self.url = f"redis://{HOST}:{self._door.port}/0"
        self.client = redis.Redis.from_url(self.url, decode_responses=True, protocol=2, socket_timeout=5)

    @property
    def primary(self) -> Process:
        return self._primary

    def promote(self, replica: Process) -> None:
        replica.client.slaveof()
        self._primary = replica

    def end(self, how: signal.Signals = signal.SIGKILL) -> None:
        super().end(how)
        self._door.close()


class Forwarder:
    """An address that stays the same: each new connection goes to the port that counts then."""

    def __init__(self, target: Callable[[], int]) -> None:
        self._target = target
        self._loop = asyncio.new_event_loop()
        self._server = self._loop.run_until_complete(asyncio.start_server(self._serve, HOST, 0))
        self.port: int = self._server.sockets[0].getsockname()[1]
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            behind, onward = await asyncio.open_connection(HOST, self._target())
            await asyncio.gather(self._pass_on(reader, onward), self._pass_on(behind, writer))
        writer.close()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while words := await reader.read(1 << 16):
                writer.write(words)
                await writer.drain()
        writer.close()

    def close(self) -> None:
        """Take no more connections."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._server.close()


def watched(server: Process) -> dict[str, object]:
    """What a Sentinel's configuration says of the primary that it watches."""
    return {"name": NAME, "where": server.place[0], "primary": server.port, "quick": QUICK_MS}


def url_of(sentinels: Sequence[Process]) -> str:
    """The broker's address by these Sentinels."""
    return f"sentinel://{';'.join('{}:{}'.format(*one.place) for one in sentinels)}/{NAME}/0"


def set_patience(sentinels: Sequence[Process], milliseconds: int) -> None:
    """Have these Sentinels give up what they do not reach for so long."""
    for one in sentinels:
        one.client.execute_command("SENTINEL", "SET", NAME, "down-after-milliseconds", milliseconds)


def know_all(sentinels: Sequence[Process]) -> bool:
    """Each Sentinel knows the replica and the other Sentinels: a fail-over can happen."""
    seen = [one.client.sentinel_master(NAME) for one in sentinels]
    return all(one["num-other-sentinels"] == len(sentinels) - 1 and one["num-slaves"] >= 1 for one in seen)


def named_by(sentinels: Sequence[Process], servers: Sequence[Process]) -> Process:
    """The server that the first Sentinel that answers names as the primary."""
    for one in sentinels:
        with suppress(redis.RedisError):
            place = one.client.sentinel_get_master_addr_by_name(NAME)
            return next(server for server in servers if server.place == place)
    raise AssertionError("no Sentinel answers")


def offset(server: Process, name: str) -> int:
    """How far a server has written or heard."""
    return int(server.client.info("replication")[name])


def is_in_step(replica: Process) -> bool:
    """It hears its primary."""
    with suppress(redis.RedisError):
        return bool(replica.client.info("replication").get("master_link_status") == "up")
    return False
