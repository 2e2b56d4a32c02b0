"""The server as a part of ``torch-tasks up``."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from machine import Machine
from waiting import until

UP = ("up", "--detach", "--no-flower", "--no-beat", "--agent", "dev-1:developer")


@pytest.fixture
def machine() -> Iterator[Machine]:
    machine = Machine(TORCH_SERVE="true", TORCH_SERVER_PORT="0")
    yield machine
    machine.close()


def test_up_runs_the_server_and_down_ends_it(machine: Machine) -> None:
    said = machine.torch(*UP, seconds=120).stdout
    found = re.search(rf"^server  (http://127\.0\.0\.1:\d+)  your own token is in {machine.state}/", said, re.MULTILINE)
    assert found, said
    answer = machine.torch("--server", found[1], "run", "--agent", "dev-1", "--wait", "echo through the server")
    assert answer.stdout == "through the server\n"

    former = machine.living("server")
    former.kill()
    until(lambda: (now := machine.process("server")) and now.pid != former.pid, "the supervisor starts it again")
    assert machine.torch("down").stdout == "ended: up, server, node, pane of dev-1, broker\n"
    assert machine.is_clean()
