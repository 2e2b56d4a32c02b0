"""What a node worker shows of its machine to Prometheus."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

from torch_tasks.caller import CallerKind
from torch_tasks.communication.messenger import outbox_of
from torch_tasks.errors import TorchError
from torch_tasks.fleet import Fleet
from torch_tasks.model import metrics
from torch_tasks.model.node import KeptAgent
from torch_tasks.monitoring.exposition import Measure, Readings
from torch_tasks.signing.keyring import keyring
from torch_tasks.system.machine_use import disk_space, used_below
from torch_tasks.system.tally import Series, Tallies, files_of


def machine_metrics(
    of: Fleet, kept: Callable[[], Sequence[KeptAgent]], sessions: Callable[[], Mapping[str, int]]
) -> Readings:
    """``kept`` are the agents of this machine, ``sessions`` the first processes in their panes."""
    machine = _Machine(of, kept, sessions)
    return Readings(machine.counted, machine.measures)


class _Machine:
    def __init__(
        self, of: Fleet, kept: Callable[[], Sequence[KeptAgent]], sessions: Callable[[], Mapping[str, int]]
    ) -> None:
        self._fleet = of
        self._state = of.settings.state
        self._kept = kept
        self._sessions = sessions
        self._tallies = Tallies()

    def counted(self) -> Series:
        return self._tallies.sum(files_of(self._state))

    def measures(self) -> Iterator[Measure]:
        settings = self._fleet.settings
        yield Measure(metrics.NODE_INFO, 1, (settings.node, version("torch-tasks")))
        standing = Counter((agent.role, str(agent.state)) for agent in self._kept())
        for labels, count in standing.items():
            yield Measure(metrics.KEPT_AGENTS, count, labels)
        for agent, used in used_below(self._sessions()).items():
            yield Measure(metrics.AGENT_MEMORY, used.memory, (agent,))
            yield Measure(metrics.AGENT_CPU, used.cpu, (agent,))
            yield Measure(metrics.AGENT_PROCESSES, used.processes, (agent,))
        with suppress(OSError):
            disk = disk_space(settings.state_dir)
            yield Measure(metrics.DISK_FREE, disk.free)
            yield Measure(metrics.DISK_SIZE, disk.size)
        yield Measure(metrics.SPOOLED_MESSAGES, outbox_of(self._fleet).waiting())
        yield from self._broker()
        yield from self._certificates()

    def _broker(self) -> Iterator[Measure]:
        begun = time.monotonic()
        try:
            self._fleet.client.ping()
        except TorchError:
            yield Measure(metrics.BROKER_UP, 0)
        else:
            yield Measure(metrics.BROKER_UP, 1)
            yield Measure(metrics.BROKER_PING_SECONDS, time.monotonic() - begun)

    def _certificates(self) -> Iterator[Measure]:
        settings = self._fleet.settings
        for name, file in (("broker", settings.broker_certificate), ("server", settings.server_certificate)):
            if file and (ends := _end_of(file)):
                yield Measure(metrics.CERTIFICATE_ENDS, ends, (name,))
        if settings.signing != "off":
            with suppress(TorchError, OSError):
                for own in (one.certificate for one in keyring().identities()):
                    if own.kind is CallerKind.NODE:  # a person's is renewed when they next ask for something
                        yield Measure(metrics.CERTIFICATE_ENDS, own.valid_until, (own.owner,))


def _end_of(file: Path) -> float | None:
    """When the first certificate in the file ends; None if none can be read there."""
    from cryptography import x509  # 30 ms, which only a machine with a certificate needs

    with suppress(OSError, ValueError):
        return x509.load_pem_x509_certificate(file.read_bytes()).not_valid_after_utc.timestamp()
    return None
