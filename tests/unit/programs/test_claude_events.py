"""What Claude Code's hooks report, as it reported it."""

from __future__ import annotations

from pathlib import Path

import pytest

from torch_tasks.model.agent import AgentSpec
from torch_tasks.model.task import Permissions, Question
from torch_tasks.workers.programs.claude import Claude
from torch_tasks.workers.programs.config import PermissionsConfig, kind_config
from torch_tasks.workers.programs.events import EventKind
from torch_tasks.workers.programs.questions import decide_permission


@pytest.fixture
def claude(tmp_path: Path) -> Claude:
    return Claude(kind_config("claude"), AgentSpec(id="dev-1", role="developer", kind="claude"), tmp_path, tmp_path)


def test_what_an_mcp_server_asks_is_a_question_that_no_policy_answers(claude: Claude) -> None:
    form = {"mcp_server_name": "asker", "message": "Which colour?", "mode": "form", "requested_schema": {}}
    event = claude.translate("Elicitation", form)
    assert event
    assert (event.kind, event.question) == (
        EventKind.QUESTION,
        Question(text="The MCP server asker asks: Which colour?"),
    )
    assert decide_permission(event.question, Permissions.ALLOW, PermissionsConfig(mode=Permissions.ALLOW)) is None
    link = claude.translate("Elicitation", {**form, "mode": "url", "url": "https://example.com/in"})
    assert link
    assert link.question == Question(text="The MCP server asker asks: Which colour? https://example.com/in")


def test_an_answered_question_is_over(claude: Claude) -> None:
    event = claude.translate("ElicitationResult", {"mcp_server_name": "asker", "mode": "form", "action": "cancel"})
    assert event
    assert event.kind is EventKind.RESOLVED
