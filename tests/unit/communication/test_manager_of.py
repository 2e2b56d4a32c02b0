"""Which manager is written to about an agent."""

from __future__ import annotations

import pytest

from torch_tasks.communication.policy import manager_of
from torch_tasks.model.agent import AgentInfo, AgentState, AgentStatus
from torch_tasks.model.fields import now

ROLE = "project-manager"


def agent(agent_id: str, role: str = ROLE, kind: str = "claude", *, online: bool = True) -> AgentInfo:
    return AgentInfo(
        agent_id=agent_id,
        role=role,
        kind=kind,
        node="n",
        host="h",
        pid=1,
        incarnation=1,
        workdir="/w",
        tmux_socket="/t",
        started_at=now(),
        state=AgentState.READY,
        status=AgentStatus.ACTIVE if online else AgentStatus.OFFLINE,
    )


@pytest.mark.parametrize(
    ("agents", "expected"),
    [
        ([], None),
        ([agent("developer-1", "developer")], None),
        ([agent("pm-2"), agent("pm-1")], "pm-1"),
        ([agent("pm-1", online=False), agent("pm-2")], "pm-2"),
        ([agent("pm-1", online=False)], "pm-1"),
        ([agent("pm-1", kind="shell")], None),
        ([agent("pm-1", kind="shell"), agent("pm-2", online=False)], "pm-2"),
        ([agent("boss")], None),
        ([agent("boss"), agent("pm-1")], "pm-1"),
    ],
)
def test_a_manager_is_another_agent_of_the_role_that_does_not_run_what_it_is_told(
    agents: list[AgentInfo], expected: str | None
) -> None:
    found = manager_of(agents, ROLE, "boss")
    assert (found.agent_id if found else None) == expected
