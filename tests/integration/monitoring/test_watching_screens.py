"""An agent's screen, watched on its own machine and from another one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import forked
import pytest
from machine import TORCH_TASKS
from nodes import AgentWorker, Broker, Node
from waiting import until

from torch_tasks import Torch, keys
from torch_tasks.monitoring.screens import WATCHED_SECONDS

pytestmark = pytest.mark.slow
ELSEWHERE = ("unshare", "--uts", "sh", "-c", 'hostname far-away && exec "$@"', "sh")


class FarNode(Node):
    """A machine of another name."""

    def _argv(
        self, agent_id: str, role: str, skills: Sequence[str] = (), kind: str = "shell", workdir: Path | None = None
    ) -> list[str]:
        return [*ELSEWHERE, *super()._argv(agent_id, role, skills, kind, workdir)]


@pytest.fixture
def far(broker: Broker, torch: Torch) -> Iterator[AgentWorker]:
    """An agent on another machine."""
    if subprocess.run([*ELSEWHERE, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this user cannot make a namespace in which the machine has another name")
    broker.empty()
    node = FarNode("node-b", broker, torch)
    yield node.agent_worker("dev-2")
    node.close()


class Watcher:
    """``torch-tasks screen -f``, and what it has printed."""

    def __init__(self, agent_id: str, folder: Path) -> None:
        self._file = folder / "watched"
        with self._file.open("wb") as output:
            self.process = subprocess.Popen([TORCH_TASKS, "screen", "-f", agent_id], stdout=output, stderr=output)

    @property
    def seen(self) -> str:
        return self._file.read_text()

    def end(self) -> int:
        """As Ctrl-C does."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(10)


@pytest.fixture
def watch(tmp_path: Path) -> Iterator[Callable[[str], Watcher]]:
    watchers: list[Watcher] = []

    def begin(agent_id: str) -> Watcher:
        watchers.append(Watcher(agent_id, tmp_path))
        return watchers[-1]

    yield begin
    for watcher in watchers:
        if watcher.process.poll() is None:
            watcher.process.kill()
        watcher.process.wait()


def follows(watcher: Watcher, torch: Torch, agent: str) -> None:
    """The watcher sees what the agent's pane shows, as it changes."""
    until(lambda: f"{agent}>" in watcher.seen, "the screen is shown")
    for number in (1, 2):
        assert torch.enqueue(f"echo change-$(({number} * 111))", agent=agent).result(timeout=30).succeeded
        until(lambda: f"change-{number * 111}" in watcher.seen, "the change is shown", 5)  # noqa: B023
    assert watcher.seen.count("── ") >= 3
    assert watcher.end() == 0


def test_a_screen_of_this_machine_is_followed(node: Node, torch: Torch, watch: Callable[[str], Watcher]) -> None:
    node.agent_worker("dev-1")
    follows(watch("dev-1"), torch, "dev-1")


def test_a_screen_of_another_machine_is_followed_for_longer_than_one_asking_lasts(
    far: AgentWorker, torch: Torch, broker: Broker, watch: Callable[[str], Watcher]
) -> None:
    watcher = watch("dev-2")
    until(lambda: "dev-2>" in watcher.seen, "the screen is shown")
    begun = time.monotonic()
    until(lambda: time.monotonic() - begun > WATCHED_SECONDS + 1, "it would have ended", 30)
    follows(watcher, torch, "dev-2")
    channel = keys.screen("dev-2")
    until(lambda: broker.client.pubsub_numsub(channel)[0][1] == 0, "nobody listens any more")
    assert [key for key in broker.client.scan_iter() if key == channel] == []


def test_one_look_at_a_screen_of_another_machine(far: AgentWorker) -> None:
    done = forked.run([TORCH_TASKS, "screen", "dev-2"], seconds=30, check=True)
    assert done.stdout.endswith("dev-2>\n")


def test_to_attach_there_says_how(far: AgentWorker) -> None:
    done = forked.run([TORCH_TASKS, "attach", "dev-2"], seconds=30)
    assert done.returncode == 1
    assert "lives on node node-b (far-away), not here" in done.stderr
    assert "ssh -t far-away torch-tasks attach dev-2" in done.stderr


def test_what_is_above_a_screen_of_another_machine_and_what_its_worker_makes_of_it(
    far: AgentWorker, torch: Torch
) -> None:
    assert torch.enqueue("seq 1 200", agent="dev-2").result(timeout=30).succeeded
    command = [TORCH_TASKS, "screen", "dev-2"]
    above = forked.run([*command, "--history", "30"], seconds=30, check=True)
    alone = forked.run(command, seconds=30, check=True)
    first = next(int(line) for line in alone.stdout.splitlines() if line.isdigit())
    assert above.stdout.splitlines()[:30] == [str(number) for number in range(first - 30, first)]
    explained = forked.run([*command, "--explain"], seconds=30, check=True)
    assert explained.stdout == "foreground process:ready (the shell)\n"


def test_the_watcher_is_told_when_the_worker_is_gone(far: AgentWorker, watch: Callable[[str], Watcher]) -> None:
    watcher = watch("dev-2")
    until(lambda: "dev-2>" in watcher.seen, "the screen is shown")
    far.kill()
    assert watcher.process.wait(30) == 1
    assert "the worker of dev-2 on node-b does not answer" in watcher.seen


def test_a_worker_that_is_coming_back_is_asked_until_it_hears(
    far: AgentWorker, broker: Broker, watch: Callable[[str], Watcher], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_OFFLINE_SECONDS", "60")  # the watcher takes the agent for online all the while
    far.kill()
    watcher = watch("dev-2")
    until(lambda: broker.client.pubsub_numsub(keys.screen("dev-2"))[0][1] == 1, "it asks, and nobody hears", 30)
    far.start()
    until(lambda: "dev-2>" in watcher.seen, "the screen is shown", 30)
    assert watcher.end() == 0


def test_what_the_pane_shows_does_not_steer_the_watchers_terminal(far: AgentWorker, torch: Torch) -> None:
    client = Path(sys.executable)
    program = (
        "from torch_tasks.fleet import fleet; from torch_tasks import keys\n"
        "fleet().client.publish(keys.screen('dev-2'), 'a\\x1b[2Jb\\u202ec')"
    )
    watcher = subprocess.Popen([TORCH_TASKS, "screen", "-f", "dev-2"], stdout=subprocess.PIPE, text=True)
    try:
        assert watcher.stdout
        line = watcher.stdout.readline()
        while "dev-2>" not in line:
            line = watcher.stdout.readline()
        subprocess.run([client, "-c", program], env=dict(os.environ), check=True, timeout=30)
        while "a" not in (line := watcher.stdout.readline()) or "b" not in line:
            pass
        assert line == "a␛[2Jb⟨U+202E⟩c\n"
    finally:
        watcher.kill()
        watcher.wait()
