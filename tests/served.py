"""A server of Torch under test: a process with a state folder of its own, before a broker."""

from __future__ import annotations

import os
import re
import shutil
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import forked
import httpx2
from machine import short_folder
from nodes import MARK, PACE, SESSION, Broker
from waiting import until

END_SECONDS = 15.0


class Served:
    """One server, and how a client asks it."""

    def __init__(self, broker_url: str, *words: str, port: int = 0, **environment: str) -> None:
        self.folder = short_folder()
        self.state = self.folder / "state"
        self.port = port
        self.authority: Path | None = None
        """Who issued its certificate, if it has one."""
        self._words = words
        self._log = self.folder / "server.log"
        own = {"TORCH_BROKER_URL": broker_url, "TORCH_STATE_DIR": str(self.state), SESSION: MARK}
        self.env = {**os.environ, **PACE, **own, **environment}

    def start(self) -> None:
        """Start it, and wait until it listens."""
        argv = [sys.executable, "-m", "torch_tasks.cli", "serve", "--port", str(self.port), *self._words]
        begin = len(self.log())
        with self._log.open("ab") as log:
            self.process = forked.start(argv, self.env, log)
        self.url = until(lambda: self._address(begin), f"the server listens: {self.log()}")
        self.port = int(self.url.rpartition(":")[2])
        until(self._answers, f"the server answers: {self.log()}")

    def _address(self, begin: int) -> str | None:
        assert self.process.poll() is None, self.log()
        found = re.search(r"^server  (\S+)", self.log()[begin:], re.MULTILINE)
        return found[1] if found else None

    def _answers(self) -> bool:
        try:
            trusted = ssl.create_default_context(cafile=self.authority)
            return httpx2.get(f"{self.url}/healthz", trust_env=False, verify=trusted).status_code == 200
        except httpx2.TransportError:
            return False

    def log(self) -> str:
        return self._log.read_text() if self._log.exists() else ""

    @property
    def own_token(self) -> str:
        """The token of the folder's owner."""
        return (self.state / "server.token").read_text().strip()

    def token(self, name: str, role: str, *words: str) -> str:
        """A new token, made by the command."""
        return self.command("token", "create", "--name", name, "--role", role, *words).stdout.strip()

    def command(self, *words: str, code: int | None = 0, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run ``torch-tasks`` on the server's machine."""
        argv = [sys.executable, "-m", "torch_tasks.cli", *words]
        env = {**self.env, **environment}
        done = forked.run(argv, env)
        assert code in (None, done.returncode), done.stdout + done.stderr
        return done

    def client(self, token: str | None = None, **how: Any) -> httpx2.Client:
        """A client with the owner's token, or with another one; none if it is empty."""
        token = self.own_token if token is None else token
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return httpx2.Client(base_url=self.url, headers=headers, trust_env=False, timeout=60, **how)

    def end(self) -> int:
        """End it by a signal; its exit code."""
        self.process.terminate()
        return self.process.wait(END_SECONDS)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(END_SECONDS)
        shutil.rmtree(self.folder)


@contextmanager
def served(broker: Broker, *words: str, **environment: str) -> Iterator[Served]:
    """A server before this broker, for as long as it is needed."""
    server = Served(broker.url, *words, **environment)
    try:
        server.start()
        yield server
    finally:
        server.close()


def mode_of(file: Path) -> int:
    return file.stat().st_mode & 0o777
