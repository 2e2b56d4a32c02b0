"""Flower's buttons: those that remain work, for whom the policy lets, and the others say why not."""

from __future__ import annotations

import base64
import hashlib
import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import httpx2
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
    machine = Machine(TORCH_SERVE="true", TORCH_SERVER_PORT="0")
    machine.fork_stack()
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


# ── behind the server's login ────────────────────────────────────────────────────────────────────────────────────


TABLE = {
    "draw": "7", "start": "0", "length": "10", "search[value]": "",
    "order[0][column]": "0", "order[0][dir]": "asc", "columns[0][data]": "name",
}  # fmt: skip
"""What Flower's page asks for its table of tasks."""


@contextmanager
def logged_in(machine: Machine, role: str) -> Iterator[httpx2.Client]:
    """A browser in which somebody with a token of this role has logged in."""
    token = machine.torch("token", "create", "--name", role, "--role", role).stdout.strip()
    address = json.loads((machine.state / "server.json").read_bytes())["url"]
    with httpx2.Client(base_url=address, headers={"Origin": address}, trust_env=False, timeout=30) as browser:
        done = browser.post("/login", data={"token": token, "next": "/flower/workers"})
        assert (done.status_code, done.headers["location"]) == (303, "/flower/workers")
        yield browser


@pytest.fixture(scope="module")
def viewer(machine: Machine) -> Iterator[httpx2.Client]:
    with logged_in(machine, "viewer") as browser:
        yield browser


def test_who_logged_in_sees_flower_without_its_password(viewer: httpx2.Client, worker: str, machine: Machine) -> None:
    page = viewer.get("/flower/workers")
    assert page.status_code == 200
    assert worker in page.text
    assert "set-cookie" not in page.headers
    style = viewer.get(page.text.partition('rel="stylesheet" href="')[2].partition('"')[0])
    assert style.headers["content-type"].startswith("text/css")
    table = viewer.post("/flower/tasks/datatable", data=TABLE)
    assert (table.status_code, table.json()["draw"]) == (200, 7)
    assert httpx2.get(f"{viewer.base_url}/flower/workers", trust_env=False).status_code == 401
    assert machine.state.joinpath("flower.password").read_text().strip() not in page.text


def test_the_pages_script_is_the_one_that_is_allowed(viewer: httpx2.Client, machine: Machine) -> None:
    page = viewer.get("/flower/workers")
    script = page.text.partition('<script type="text/javascript">')[2].partition("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"'sha256-{digest}'" in page.headers["content-security-policy"]


def test_who_only_looks_presses_nothing(viewer: httpx2.Client, worker: str, machine: Machine) -> None:
    machine.torch("run", "--id", "looked-at", "sleep 60")
    for path in ("task/revoke/looked-at?terminate=true", f"worker/shutdown/{urllib.parse.quote(worker)}"):
        refused = viewer.post(f"/flower/api/{path}")
        assert refused.status_code == 403
        assert "token-viewer may not do flower.press" in refused.text
    assert json.loads(machine.torch("task", "looked-at", "--json").stdout)["state"] in ("queued", "running")
    counts = json.loads(machine.torch("policy", "refusals", "--json").stdout)["counts"]
    assert counts["person:token-viewer flower.press"] == 2


def test_an_operator_presses_what_works(machine: Machine, worker: str) -> None:
    with logged_in(machine, "operator") as operator:
        refused = operator.post(f"/flower/api/worker/pool/grow/{urllib.parse.quote(worker)}?n=1")
        assert refused.status_code == 403
        assert "starts another agent" in refused.text
        assert operator.post("/flower/api/task/revoke/looked-at?terminate=true").status_code == 200
    until(
        lambda: json.loads(machine.torch("task", "looked-at", "--json").stdout)["state"] == "cancelled", "it ends", 30
    )
    noted = json.loads(machine.torch("audit", "show", "--what", "flower.press", "--json").stdout)
    assert "token-operator" in json.dumps(noted[-1])
    assert "token-operator pressed /flower/api/task/revoke/looked-at in Flower: 200" in machine.log("server")
