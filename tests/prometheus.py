"""A real Prometheus before what is tested, if ``.ci/prometheus`` or the system has brought one."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml
from waiting import until

REPO = Path(__file__).parents[1]
MONITORING = REPO / "compose" / "monitoring"
END_SECONDS = 15.0


def program(name: str) -> str:
    """The path of ``prometheus`` or ``promtool``; without it, the test is skipped."""
    own = REPO / ".venv" / "prometheus" / "usr" / "bin" / name
    found = shutil.which(name) or (str(own) if own.exists() else None)
    if found is None:
        pytest.skip(f"there is no {name}; .ci/prometheus gets Debian's")
    return found


def free_port() -> int:
    """A port on loopback that nothing listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Prometheus:
    """One server, and what it knows."""

    def __init__(self, url: str) -> None:
        self._client = httpx2.Client(base_url=f"{url}/api/v1", trust_env=False, timeout=30)

    def is_ready(self) -> bool:
        try:
            return self._client.get("/status/buildinfo").status_code == 200
        except httpx2.TransportError:
            return False

    def query(self, expression: str) -> list[dict[str, Any]]:
        """What an expression is now; an error if it is none."""
        answer = self._client.get("/query", params={"query": expression}).json()
        assert answer["status"] == "success", f"{expression}: {answer}"
        result: list[dict[str, Any]] = answer["data"]["result"]
        return result

    def over(self, expression: str, begin: float, end: float, step: float) -> list[dict[str, Any]]:
        """What an expression was from one moment to another."""
        asked = {"query": expression, "start": begin, "end": end, "step": step}
        answer = self._client.get("/query_range", params=asked).json()
        assert answer["status"] == "success", f"{expression}: {answer}"
        result: list[dict[str, Any]] = answer["data"]["result"]
        return result

    def value(self, expression: str) -> float | None:
        """The one number that an expression is; None while there is none."""
        found = self.query(expression)
        return float(found[0]["value"][1]) if found else None

    def firing(self) -> dict[str, dict[str, Any]]:
        """The alerts that fire, by their names."""
        alerts = self._client.get("/alerts").json()["data"]["alerts"]
        return {alert["labels"]["alertname"]: alert for alert in alerts if alert["state"] == "firing"}


@contextmanager
def prometheus(
    folder: Path, rules: str, scrapes: Mapping[str, Mapping[str, Any]], pace: str = "500ms"
) -> Iterator[Prometheus]:
    """A Prometheus that scrapes at this pace; each of ``scrapes`` is a job."""
    port = free_port()
    (folder / "alerts.yml").write_text(rules)
    every = {"scrape_interval": pace, "scrape_timeout": pace, "evaluation_interval": pace}
    jobs = [{"job_name": name, **how} for name, how in scrapes.items()]
    (folder / "prometheus.yml").write_text(
        yaml.safe_dump({"global": every, "rule_files": ["alerts.yml"], "scrape_configs": jobs})
    )
    url = f"http://127.0.0.1:{port}"
    argv = [program("prometheus"), f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder}/data"]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen([*argv, f"--web.listen-address=127.0.0.1:{port}"], stdout=log, stderr=log)
    try:
        server = Prometheus(url)
        until(server.is_ready, f"Prometheus answers: {(folder / 'log').read_text()[-2000:]}")
        yield server
    finally:
        process.terminate()
        process.wait(END_SECONDS)
