"""Workers of the small app over the leased transport, and what its tests ask."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from appended import whole_lines
from celery import Celery
from machine import short_folder
from nodes import MARK, SESSION, Broker, ProcessNode, ShowsLogs
from transport_app import OPTIONS, made_app
from waiting import until

from torch_tasks import keys
from torch_tasks.transport import Deliveries, Gate
from torch_tasks.transport.deliveries import list_of

LEASE_SECONDS: float = OPTIONS["lease_seconds"]
QUEUE = "work"
STEP = 6


class Worker(ProcessNode):
    """One worker of the small app."""

    def ready(self) -> bool:
        """Wait until it takes tasks."""
        until(lambda: f"{self.name}@" in self.logs() and " ready." in self.logs(), f"{self.name} is ready", 60)
        return True


class Bench(ShowsLogs):
    """A broker, a file of effects, and workers."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.folder = short_folder()
        self.effects = self.folder / "effects"
        self.workers: list[Worker] = []
        self.app: Celery = made_app(broker.celery_url)

    def worker(self, name: str, *words: str, ready: bool = True, **options: Any) -> Worker:
        """A new worker of one thread, unless the words say otherwise; the options are the transport's."""
        argv = [sys.executable, "-m", "celery", "-A", "transport_app", "worker", "--loglevel", "INFO"]
        argv += ["-P", "threads", "-c", "1", "-n", f"{name}@bench", "--without-gossip", "--without-mingle", *words]
        worker = Worker(name, argv, self._env(options), self.folder / f"{name}.log")
        self.workers.append(worker)
        if ready:
            worker.ready()
        return worker

    def program(self, text: str) -> None:
        """Run a program that has the small app, a connection and a channel; it must succeed."""
        body = textwrap.indent(textwrap.dedent(text), "    ")
        head = "from transport_app import *\nwith app.connection() as connection, connection.channel() as channel:\n"
        argv = [sys.executable, "-c", head + body]
        done = subprocess.run(argv, env=self._env({}), capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, done.stderr

    def _env(self, options: Mapping[str, Any]) -> dict[str, str]:
        return {
            **os.environ,
            SESSION: MARK,
            "PYTHONPATH": str(Path(__file__).parent),
            "TRANSPORT_URL": self.broker.celery_url,
            "TRANSPORT_EFFECTS": str(self.effects),
            "TRANSPORT_OPTIONS": json.dumps(options),
        }

    def send(self, name: str, *args: Any, **options: Any) -> str:
        """Publish a task; its id."""
        return str(self.app.send_task(name, args, **{"priority": STEP, **options}).id)

    def seen(self, what: str | None = None, task: str | None = None) -> list[dict[str, Any]]:
        """The effects of this kind, of this task."""
        found = map(json.loads, whole_lines(self.effects))
        return [line for line in found if what in (None, line["what"]) and task in (None, line["id"])]

    def await_seen(self, what: str, task: str | None = None, count: int = 1) -> list[dict[str, Any]]:
        """The same, once there are so many."""
        until(lambda: len(self.seen(what, task)) >= count, f"{count} lines of {what} {task or ''}", 60)
        return self.seen(what, task)

    def waiting(self) -> int:
        """How many consumers wait at their bells."""
        return sum(client["cmd"] == "brpop" and "b" in client["flags"] for client in self.broker.client.client_list())

    def leases(self) -> dict[str, int]:
        """The time at which each delivery's lease ends."""
        return {tag: int(ends) for tag, ends in self.broker.client.zrange(keys.LEASES, 0, -1, withscores=True)}

    def dead_letters(self) -> dict[str, str]:
        """The buried messages, also those that cannot be read, by their names."""
        return self.broker.client.hgetall(keys.DEAD_LETTERS)

    def await_settled(self) -> None:
        """Wait until no delivery is held, and no message waits."""
        client = self.broker.client

        def settled() -> bool:
            return not client.exists(keys.LEASES, keys.DELIVERIES) and not self.deliveries.waiting(QUEUE)

        until(settled, f"all is settled: {self.leases()}", 60)

    @property
    def deliveries(self) -> Deliveries:
        """The statements."""
        return Deliveries(self.broker.client)

    @property
    def gate(self) -> Gate:
        """The broker's gate."""
        return Gate(self.broker.client)

    def cut_connections(self) -> None:
        """Cut every connection to the broker but the test's own."""
        client = self.broker.client
        with client.client() as own:  # one connection, so that it knows which is its own
            me = own.client_id()
            for one in own.client_list():
                if int(one["id"]) != me:
                    own.client_kill_filter(_id=one["id"])

    def logs(self) -> Iterator[tuple[str, str]]:
        for worker in self.workers:
            yield f"{worker.name} (pid {worker.process.pid})", worker.logs()
        if self.effects.exists():
            yield "effects", self.effects.read_text()

    def close(self) -> None:
        """End every worker."""
        for worker in self.workers:
            if worker.status == "running":
                worker.process.send_signal(signal.SIGCONT)
            worker.teardown()
        self.app.close()
        shutil.rmtree(self.folder)


def queue_key(step: int = STEP) -> str:
    """The list of the queue's messages of this priority."""
    return list_of(QUEUE, step)


def wire(message: str) -> Mapping[str, Any]:
    """A message, read."""
    return dict(json.loads(message))
