"""An agent prints keys, and somebody with the state folder rewrites what was noted: neither goes unseen."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from machine import TORCH_TASKS, Machine
from waiting import until

from torch_tasks import keys
from torch_tasks.broker.connection import connect
from torch_tasks.settings import Settings

pytestmark = pytest.mark.timeout(400)  # a stack comes and goes

TOKEN = "ghp_" + "a1B2c3D4e5F6" * 3
AWS = "AKIA" + "Q7X2" * 4
GONE = "[redacted: a GitHub token]"


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    machine = Machine(TORCH_AUDIT_HEAD_SECONDS="0.5")
    try:
        machine.torch("up", "--detach", "--agent", "dev-1:developer", seconds=110)
        yield machine
    finally:
        machine.close()


@pytest.fixture(scope="module")
def leak(machine: Machine) -> str:
    """The task whose prompt and output hold keys; its pane got them as they were sent."""
    script = f"key={TOKEN}; echo {AWS}; echo length ${{#key}}; echo $key; {TORCH_TASKS} audit show; echo code $?"
    shown = machine.torch("run", "--wait", "--agent", "dev-1", "--id", "leak-1", script).stdout
    assert "length 40" in shown
    assert GONE in shown
    assert "[redacted: an AWS key]" in shown
    assert "code 5" in shown  # an agent does not read the audit
    assert TOKEN not in shown
    assert AWS not in shown
    return "leak-1"


def files_below(folder: Path) -> Iterator[Path]:
    return (file for file in folder.rglob("*") if file.is_file())


def test_what_an_agent_printed_is_shown_and_kept_without_the_keys(machine: Machine, leak: str) -> None:
    for words in (["task", leak], ["task", leak, "--json"], ["tasks", "--json"], ["summary"], ["agent", "dev-1"]):
        shown = machine.torch(*words).stdout
        assert TOKEN not in shown, words
        assert AWS not in shown, words
    record = connect(Settings(state_dir=machine.state).broker()).hgetall(keys.task_record(leak))
    kept = {name: text for name, text in record.items() if name != "spec"}  # the work itself is not touched
    assert TOKEN not in str(kept)
    assert AWS not in str(kept)
    for folder in ("logs", "audit"):
        assert [file for file in files_below(machine.state / folder) if TOKEN.encode() in file.read_bytes()] == []


def audit(machine: Machine, *words: str, code: int = 0) -> str:
    return machine.torch("audit", *words, code=code).stdout


def test_what_was_done_is_noted_with_who_and_for_whom(machine: Machine, leak: str) -> None:
    noted = json.loads(audit(machine, "show", "--json"))
    acts = [(one["who"], one.get("behalf"), one["what"], one["outcome"]) for one in noted]
    for act in (
        ("node:" + noted[0]["node"], None, "node.started", "done"),
        ("node:" + noted[0]["node"], None, "agent.started", "done"),
        ("person:operator", None, "task.enqueue", "done"),
        ("agent:dev-1", "person:operator", "task.taken", "done"),
        ("agent:dev-1", "person:operator", "task.succeeded", "done"),
        ("agent:dev-1", None, "audit.show", "refused"),
    ):
        assert act in acts, f"{act} is not among {acts}"


def test_a_log_that_was_changed_or_cut_is_not_what_its_node_signed(machine: Machine, leak: str) -> None:
    def whole() -> dict[str, object] | None:
        verdict = json.loads(audit(machine, "verify", "--json"))
        return verdict if sum(head["number"] > 5 for head in verdict["heads"]) == 3 else None

    assert until(whole, "the head is on the broker, in the state folder and in beat's journal")["intact"] is True
    machine.torch("down", seconds=110)
    (file,) = (machine.state / "audit").glob("*.jsonl")
    written = file.read_bytes()
    assert audit(machine, "verify").startswith("intact: ")

    place = written.index(b"dev-1")
    file.write_bytes(written[:place] + b"D" + written[place + 1 :])
    number = written[:place].count(b"\n") + 1
    assert audit(machine, "verify", code=1).startswith(f"changed: entry {number} is not what was written")

    file.write_bytes(b"".join(written.splitlines(keepends=True)[:-2]))
    assert audit(machine, "verify", code=1).startswith("cut: the log ends after entry ")

    file.unlink()
    assert "cut: the log ends after entry 0" in audit(machine, "verify", code=1)
    file.write_bytes(written)
    assert audit(machine, "verify").startswith("intact: ")
