"""Messages from their senders into the panes, once and in order."""

from __future__ import annotations

import pytest
from nodes import AgentWorker, Node
from waiting import until

from torch_tasks import Torch
from torch_tasks.communication import MessageState, NovaOrchestrator

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def nova(torch: Torch) -> NovaOrchestrator:
    """A person at the command line."""
    return NovaOrchestrator()


@pytest.fixture(scope="module")
def shell(shared_node: Node) -> AgentWorker:
    """A shell agent."""
    return shared_node.agent_worker("qa-1", "qa")


def test_a_message_is_a_command_line_in_a_shell(nova: NovaOrchestrator, shell: AgentWorker, shared_node: Node) -> None:
    file = shared_node.work / "said"
    sent = nova.send_message("qa-1", f"echo 'it is' \"$TORCH_AGENT_ID\" > {file}")
    assert (sent.state, sent.transport) == (MessageState.ACCEPTED, "broker")
    record = nova.await_delivery(sent.id, 20)
    until(file.exists, "the command ran")
    assert file.read_text() == "it is qa-1\n"
    until(lambda: nova.message(sent.id).state is MessageState.ACKNOWLEDGED, "it is acknowledged")
    assert record.staged_at
    assert record.accepted_at
    assert record.accepted_at <= record.staged_at
