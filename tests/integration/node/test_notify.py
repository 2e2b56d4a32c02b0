"""A person hears of what needs one, by a command of their own: once, whoever runs it, and again if it fails."""

from __future__ import annotations

from pathlib import Path

import pytest
from nodes import Broker, Node
from waiting import until

from torch_tasks import TaskState, Torch
from torch_tasks.fleet import fleet
from torch_tasks.model.agent import AgentInfo, AgentState
from torch_tasks.model.budget import Charge
from torch_tasks.model.fields import now
from torch_tasks.model.task import Question, TaskSpec
from torch_tasks.orchestration.notifying import marks
from torch_tasks.store.task_outcomes import NewTask

pytestmark = pytest.mark.slow

TELL = 'echo "$TORCH_NOTIFY_KIND|$TORCH_NOTIFY_AGENT|$TORCH_NOTIFY_TASK|$TORCH_NOTIFY_ACCOUNT|$TORCH_NOTIFY_DO" >> {}'


def enter(agent_id: str, state: AgentState) -> AgentInfo:
    """An agent is there and does this."""
    known = {"agent_id": agent_id, "role": "developer", "kind": "claude", "node": "n", "pid": 1, "host": "h"}
    known |= {"incarnation": 0, "workdir": "/w", "tmux_socket": "/t", "started_at": now(), "state": state}
    return fleet().registry.register(AgentInfo.model_validate(known), holder_is_gone=True)


def ask(agent: AgentInfo, task_id: str, text: str) -> None:
    """The agent's task waits for a decision."""
    question = Question(text=text, choices=("yes", "no")).model_dump_json()
    fleet().records.move(task_id, TaskState.WAITING, by=agent, question=question, note=text)
    fleet().registry.heartbeat(agent.model_copy(update={"current_task": task_id, "state": AgentState.WAITING}))


def begin(agent: AgentInfo, task_id: str) -> None:
    """The agent has begun with the task."""
    records, spec = fleet().records, TaskSpec(id=task_id, prompt="push it", agent=agent.agent_id)
    records.accept(NewTask(task_id, spec.model_dump(mode="json"), f"torch.agent.{agent.agent_id}"))
    records.take(task_id, agent)
    records.move(task_id, TaskState.RUNNING, by=agent)


def test_each_need_is_told_once(shared_node: Node, broker: Broker, torch: Torch, tmp_path: Path) -> None:
    told = tmp_path / "told"
    pace = {"TORCH_NOTIFY_COMMAND": TELL.format(told), "TORCH_OFFLINE_SECONDS": "3600"}
    other = Node("node-other", broker, torch)
    try:
        workers = [node.node_worker(**pace) for node in (shared_node, other)]
        enter("out-1", AgentState.LOGIN)
        asks = enter("asks-1", AgentState.WORKING)
        begin(asks, "push-1")
        ask(asks, "push-1", "May I push?")
        fleet().budgets.spend("acme", {}, Charge(calls=1))
        fleet().account("acme").limited(3600)
        shared_node.agent_worker("qa-1", "qa")
        task = torch.enqueue("kill -9 $PPID $$", id="kills-1", agent="qa-1", max_retries=1)
        assert task.result(timeout=60).status is TaskState.DEAD

        def lines() -> list[str]:
            return sorted(told.read_text().splitlines()) if told.exists() else []

        torch.enqueue("true", skills=["cobol"])
        expected = [
            "dead||kills-1||torch-tasks dead show kills-1",
            "limited|||acme|torch-tasks agents",
            "login|out-1|||torch-tasks attach out-1",
            "unroutable||||torch-tasks tasks --state queued",
            "question|asks-1|push-1||torch-tasks answer push-1 CHOICE",
        ]
        until(lambda: len(lines()) >= len(expected), "all five are told")
        assert lines() == sorted(expected)
        # The same task asks something else: another matter, and the only one that is new.
        fleet().records.move("push-1", TaskState.RUNNING, by=asks)
        ask(asks, "push-1", "May I push by force?")
        until(lambda: len(lines()) > len(expected), "the second question is told")
        assert lines() == sorted([*expected, expected[-1]])
        # Who logs in and is logged out again needs a person again.
        registry = fleet().registry
        registry.heartbeat(enter("out-1", AgentState.READY))
        until(lambda: "login out-1" not in marks(fleet()), "the login is no need any more")
        enter("out-1", AgentState.LOGIN)
        until(lambda: len(lines()) > len(expected) + 1, "the second login is told")
        assert lines() == sorted([*expected, expected[-1], expected[2]])
        assert all("notifier: " not in worker.logs() for worker in workers)
    finally:
        shared_node.end_workers()
        other.close()


def test_a_command_that_fails_is_run_again(shared_node: Node, torch: Torch, tmp_path: Path) -> None:
    told = tmp_path / "told"
    # The first time it fails.
    command = f"echo no signal >&2; test -e {told}.tried && {TELL.format(told)} || {{ touch {told}.tried; exit 7; }}"
    node = shared_node.node_worker(
        TORCH_NOTIFY_COMMAND=command, TORCH_OFFLINE_SECONDS="3600", TORCH_HEARTBEAT_SECONDS="0.2"
    )
    enter("out-2", AgentState.LOGIN)
    until(lambda: "ended with exit code 7" in node.logs(), "its failure is logged")
    until(lambda: "Not notified by command: out-2 (claude on n) wants a login" in node.logs(), "of what, too")
    assert "Its output: no signal; again in " in node.logs()
    until(told.exists, "it was run again")
    assert told.read_text() == "login|out-2|||torch-tasks attach out-2\n"
