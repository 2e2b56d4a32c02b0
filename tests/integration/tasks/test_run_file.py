"""``torch-tasks run --file``: all tasks of a file, or none."""

from __future__ import annotations

import os
from pathlib import Path

import forked
import pytest
from clients import start_client
from machine import TORCH_TASKS
from nodes import Broker, Node
from waiting import until

from torch_tasks import TaskSpec, TaskState, Torch
from torch_tasks.errors import TaskIdTaken
from torch_tasks.fleet import fleet
from torch_tasks.tasks import recovery

NIGHT = """
- id: report
  prompt: cat {folder}/order
  after: [test, docs]
- id: test
  prompt: echo test >> {folder}/order
  after: build
- id: build
  prompt: sleep 0.3; echo build >> {folder}/order
- id: docs
  prompt: sleep 0.1; true
"""


def command(*words: str, code: int = 0) -> str:
    done = forked.run([TORCH_TASKS, *words], seconds=90)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_the_tasks_of_a_file_run_in_the_order_that_they_ask_for(node: Node, torch: Torch, tmp_path: Path) -> None:
    node.agent_worker("developer-1")
    node.agent_worker("developer-2")
    night = tmp_path / "night.yaml"
    night.write_text(NIGHT.format(folder=tmp_path))
    ended = command("run", "--file", str(night), "--wait", "--wait-timeout", "60")
    assert [line.split()[1:3] for line in ended.splitlines()] == [
        [one, "succeeded"] for one in ("report", "test", "build", "docs")
    ]
    assert torch.task("report").result(timeout=1).answer == "build\ntest\n"


def test_one_that_fails_is_the_exit_code(node: Node, torch: Torch, tmp_path: Path) -> None:
    node.agent_worker("developer-1")
    (tmp_path / "tasks.txt").write_text("true\nexit 3\n")
    assert "exit code 3" in command("run", "--file", str(tmp_path / "tasks.txt"), "--wait", code=1)


def test_ids_are_printed_in_the_order_of_the_file(torch: Torch, empty: None, tmp_path: Path) -> None:
    (tmp_path / "tasks.txt").write_text("echo one\necho two\n")
    printed = command("run", "--file", str(tmp_path / "tasks.txt"), "--role", "qa", "--priority", "high").split()
    assert [torch.task(one).record().spec.prompt for one in printed] == ["echo one", "echo two"]
    assert {torch.task(one).record().spec.role for one in printed} == {"qa"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("- prompt: fine\n- promt: a\n", ":2: "),
        ("- prompt: fine\n- {prompt: a, id: a, after: b}\n- {prompt: b, id: b, after: a}\n", "a after b after a"),
        ("- prompt: fine\n- {prompt: a, after: nonesuch}\n", "after nonesuch, and there is no such task"),
        ("- prompt: fine\n- {prompt: a, id: known}\n", "task known was accepted before with another spec"),
    ],
)
def test_of_a_file_with_a_mistake_nothing_is_enqueued(
    torch: Torch, empty: None, tmp_path: Path, text: str, words: str
) -> None:
    torch.enqueue("other", id="known", agent="nobody")
    (tmp_path / "tasks.yaml").write_text(text)
    assert words in command("run", "--file", str(tmp_path / "tasks.yaml"), code=2)
    assert [record.spec.id for record in torch.tasks()] == ["known"]
    assert fleet().ledger.summary().open == 1


@pytest.mark.parametrize("words", [["a prompt"], ["--id", "x"]])
def test_a_file_takes_no_prompt_and_no_id_beside_it(tmp_path: Path, words: list[str]) -> None:
    assert "--file takes neither" in command("run", "--file", "tasks.txt", *words, code=2)
    assert "Missing argument 'PROMPT" in command("run", code=2)


ALL, NONE = True, False
DEATHS = {
    "before anything is noted": (NONE, "Ledger.write_all = at(0)"),
    "in the middle of the ledger's transaction": (NONE, "Ledger._write = at(2, Ledger._write)"),
    "when all are noted": (ALL, "batch.Batch._send_all = at(0)"),
    "before the first is sent": (ALL, "TaskRecords.accept_all = at(0)"),
    "between two round trips": (ALL, "TaskRecords.accept_all = at(1, TaskRecords.accept_all)"),
    "when the last is sent": (ALL, "TaskRecords.accept_all = after(2, TaskRecords.accept_all)"),
    "when some are noted as sent": (ALL, "batch.Batch._note = after(1, batch.Batch._note)"),
    "when all are noted as sent": (ALL, "batch.Batch._release_early = at(0)"),
    "never": (ALL, ""),
}


@pytest.mark.parametrize("death", DEATHS)
def test_an_enqueuer_killed_between_any_two_steps_has_enqueued_all_or_none(
    torch: Torch, empty: None, death: str
) -> None:
    is_noted, where = DEATHS[death]
    client = start_client(
        "import os, signal\n"
        "from torch_tasks.store.ledger import Ledger\n"
        "from torch_tasks.store.tasks import TaskRecords\n"
        "from torch_tasks.tasks import batch\n"
        "batch.CHUNK, count = 2, [0]\n"
        "def die(): os.kill(os.getpid(), signal.SIGKILL)\n"
        "def at(number, do=None):\n"
        "    def step(*args, **options):\n"
        "        if count[0] == number: die()\n"
        "        count[0] += 1\n"
        "        return do(*args, **options)\n"
        "    return step\n"
        "def after(number, do):\n"
        "    def step(*args, **options):\n"
        "        done = do(*args, **options)\n"
        "        count[0] += 1\n"
        "        return die() if count[0] == number else done\n"
        "    return step\n"
        f"{where}\n"
        "def asked(n): return {'id': f't{n}', 'prompt': 'true', 'agent': 'nobody', 'after': [f't{n + 1}'] * (n < 3)}\n"
        "torch.enqueue_many(map(asked, range(4)))\n"
    )
    client.communicate(timeout=60)
    assert client.returncode == (0 if death == "never" else -9)

    expected = {"t3": "queued", **dict.fromkeys(("t0", "t1", "t2"), "pending")} if is_noted else {}

    def is_sent() -> bool:
        recovery.settle()
        states = {record.spec.id: str(record.state) for record in torch.tasks()}
        return states == expected and len(fleet().deliveries.set_aside()) == max(len(expected) - 1, 0)

    until(is_sent, "what was in the ledger is sent", 20)
    assert len(fleet().deliveries.waiting("torch.agent.nobody")) == bool(expected)
    assert sorted(fleet().deliveries.set_aside()) == sorted(expected.keys() - {"t3"})


def test_the_same_tasks_again_are_the_same_tasks(torch: Torch, empty: None) -> None:
    specs = [TaskSpec(id="one", prompt="true", agent="nobody"), TaskSpec(id="two", prompt="true", after=["one"])]
    assert [task.id for task in torch.enqueue_many(specs)] == [task.id for task in torch.enqueue_many(specs)]
    assert {record.spec.id: record.state for record in torch.tasks()} == {
        "one": TaskState.QUEUED,
        "two": TaskState.PENDING,
    }
    with pytest.raises(TaskIdTaken, match="task two"):
        torch.enqueue_many([TaskSpec(id="new", prompt="true"), TaskSpec(id="two", prompt="false")])
    assert fleet().records.find("new") is None


def test_a_file_can_be_spooled(torch: Torch, own_broker: Broker, tmp_path: Path) -> None:
    folder = tmp_path / "state"
    away = {**os.environ, "TORCH_BROKER_URL": own_broker.url, "TORCH_STATE_DIR": str(folder)}
    (tmp_path / "tasks.yaml").write_text("- {id: a, prompt: x, after: b}\n- {id: b, prompt: x}\n")
    own_broker.stop()
    words = [TORCH_TASKS, "run", "--file", str(tmp_path / "tasks.yaml")]
    refused = forked.run(words, away)
    assert refused.returncode == 4
    spooled = forked.run([*words, "--spool"], away)
    assert (spooled.returncode, spooled.stdout) == (0, "a\nb\n"), spooled.stderr
    own_broker.start()
    listed = forked.run([TORCH_TASKS, "tasks"], away)
    assert "pending" in listed.stdout
    assert "queued" in listed.stdout
