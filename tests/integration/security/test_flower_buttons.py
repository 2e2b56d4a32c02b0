"""Flower's buttons: those that remain work, and the others say why not."""

from __future__ import annotations

import base64
import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator

import pytest
from machine import Machine
from waiting import until

WORKER = "dev-1"

REFUSED = {
    "/api/worker/pool/grow/{worker}?n=1": "'torch-tasks spawn developer' starts another agent",
    "/api/worker/pool/shrink/{worker}?n=1": "'torch-tasks retire dev-1' ends an agent",
    "/api/worker/pool/restart/{worker}": "dev-1 is one agent and has no pool to restart",
    "/api/worker/pool/autoscale/{worker}?min=1&max=3": "pools of agents grow by themselves, see 'torch-tasks scale'",
    "/api/worker/queue/add-consumer/{worker}?queue=torch.qa.any": "a worker reads the queues that its agent's role",
    "/api/worker/queue/cancel-consumer/{worker}?queue=torch.any.any": "a worker reads the queues that its agent's role",
    "/api/task/timeout/torch.run?hard=1&workername={worker}": "each task has its own limit",
    "/api/task/rate-limit/torch.run?ratelimit=1&workername={worker}": "under [budgets] in torch.toml",
}


class Buttons:
    """The stack's Flower, for somebody who knows its password."""

    def __init__(self, machine: Machine) -> None:
        self._url = json.loads((machine.state / "run" / "flower.json").read_bytes())["facts"]["url"]
        password = (machine.state / "flower.password").read_text().strip()
        self._token = base64.b64encode(f"torch:{password}".encode()).decode()

    def press(self, path: str, method: str = "POST") -> tuple[int, str]:
        """Status and text of what Flower says to it."""
        headers = {"Authorization": f"Basic {self._token}"}
        request = urllib.request.Request(self._url + path, method=method, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    machine = Machine()
    machine.torch("up", "--detach", "--agent", f"{WORKER}:developer", seconds=90)
    yield machine
    machine.close()


@pytest.fixture(scope="module")
def buttons(machine: Machine) -> Buttons:
    return Buttons(machine)


@pytest.fixture(scope="module")
def worker(buttons: Buttons) -> str:
    """The agent worker's name, once Flower knows it."""

    def known() -> str | None:
        buttons.press("/api/workers?refresh=true", "GET")
        names = json.loads(buttons.press("/api/workers", "GET")[1])
        return next((name for name in names if name.startswith(f"{WORKER}@")), None)

    return until(known, "Flower knows the worker", 60)


@pytest.mark.parametrize("button", REFUSED)
def test_a_button_that_cannot_work_says_why(button: str, buttons: Buttons, worker: str) -> None:
    status, said = buttons.press(button.format(worker=urllib.parse.quote(worker)))
    assert status == 403
    assert REFUSED[button] in said


def test_revoke_ends_a_task_in_its_pane(buttons: Buttons, worker: str, machine: Machine) -> None:
    del worker
    machine.torch("run", "--id", "revoked", "sleep 60")
    until(lambda: json.loads(machine.torch("task", "revoked", "--json").stdout)["state"] == "running", "it runs", 30)
    assert buttons.press("/api/task/revoke/revoked?terminate=true&signal=SIGKILL")[0] == 200
    counted = until(
        lambda: json.loads(machine.torch("policy", "refusals", "--json").stdout)["counts"].get(
            "person:operator control.revoke"
        ),
        "a signal of its own is refused",
        30,
    )
    assert counted >= 1
    assert json.loads(machine.torch("task", "revoked", "--json").stdout)["state"] == "running"
    assert buttons.press("/api/task/revoke/revoked?terminate=true")[0] == 200
    until(lambda: json.loads(machine.torch("task", "revoked", "--json").stdout)["state"] == "cancelled", "it ends", 30)


def test_shutdown_ends_a_worker_of_this_node_and_its_node_worker_starts_the_next(
    buttons: Buttons, worker: str, machine: Machine
) -> None:
    machine.torch("run", "--wait", "MEMORY=kept")
    former = json.loads(machine.torch("agent", WORKER, "--json").stdout)
    assert buttons.press(f"/api/worker/shutdown/{urllib.parse.quote(worker)}")[0] == 200

    def is_new() -> bool:
        now = json.loads(machine.torch("agent", WORKER, "--json").stdout)
        return bool(now["incarnation"] > former["incarnation"])

    until(is_new, "another worker has the agent", 60)
    assert machine.torch("run", "--wait", "echo $MEMORY").stdout == "kept\n"
