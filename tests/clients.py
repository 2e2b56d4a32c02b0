"""Programs that enqueue: this process, and others."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from nodes import PACE, Broker
from replicas import Pair

from torch_tasks import Torch
from torch_tasks.app import app
from torch_tasks.fleet import fleet
from torch_tasks.model.agent import AgentInfo, AgentState
from torch_tasks.model.fields import now
from torch_tasks.settings import settings


@contextmanager
def client_of(broker: Broker | Pair, folder: Path, **environment: str) -> Iterator[Torch]:
    """Make this process, and those it starts, clients of the broker with this state folder."""
    with pytest.MonkeyPatch.context() as patch:
        here = {"TORCH_BROKER_URL": broker.url, "TORCH_STATE_DIR": str(folder)}
        for name, value in {**PACE, **here, **environment}.items():
            patch.setenv(name, value)
        read_settings_anew()
        # Collecting the tests may have read it, and an earlier client may be connected to another broker.
        address = settings().broker()
        app.conf.update(broker_url=address.celery_url, result_backend=address.results_url)
        app._after_fork()
        app._backend = app._get_backend()
        yield Torch()
        gc.collect()  # Celery's results unsubscribe while the broker is there
    read_settings_anew()


def read_settings_anew() -> None:
    """Have the settings and the fleet read from the environment again."""
    settings.cache_clear()
    fleet.cache_clear()


def start_client(statements: str, **environment: str) -> subprocess.Popen[str]:
    """Start another program, which has ``torch`` and ``recovery``."""
    imports = "import sys\nfrom torch_tasks import Torch\nfrom torch_tasks.tasks import recovery\n"
    program = f"{imports}torch = Torch()\n{statements}"
    return subprocess.Popen(
        [sys.executable, "-c", program],
        env={**os.environ, **environment},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run_client(statements: str, **environment: str) -> str:
    """Run another program, which must succeed; what it prints."""
    client = start_client(statements, **environment)
    output, errors = client.communicate(timeout=60)
    assert client.returncode == 0, errors
    return output


def register_agent(name: str, role: str) -> None:
    """Enter an agent that is ready and has no process into the fleet."""
    info = AgentInfo(
        agent_id=name,
        role=role,
        kind="shell",
        node="n",
        pid=1,
        host="h",
        incarnation=0,
        workdir="/w",
        tmux_socket="/t",
        started_at=now(),
        state=AgentState.READY,
    )
    fleet().registry.register(info, holder_is_gone=True)
