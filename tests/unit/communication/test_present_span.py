"""Under which span an agent does what it does, by what its worker keeps in its folder."""

from __future__ import annotations

from pathlib import Path

from torch_tasks.caller import Caller
from torch_tasks.model.traceparent import TraceParent
from torch_tasks.state_folder import JOURNAL, MESSAGE_SPAN
from torch_tasks.workers.folders import AgentJournal, AttemptFolder

CALLER = TraceParent("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331")
OTHER = TraceParent("1af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331")


def journal(folder: Path, attempt: AttemptFolder | None) -> None:
    current = attempt.begun_now(None) if attempt else None
    AgentJournal(agent_id="dev-1", kind="claude", current=current).write(folder / JOURNAL)


def test_an_agent_acts_under_its_task_else_under_the_message_it_works_on(tmp_path: Path) -> None:
    agent = Caller("dev-1", folder=tmp_path)
    assert agent.span is None
    journal(tmp_path, None)
    assert agent.span is None
    (tmp_path / MESSAGE_SPAN).write_text(str(OTHER))
    assert agent.span == str(OTHER)
    attempt = AttemptFolder(tmp_path / "runs", "t", 1)
    attempt.remember({"revision": "1", "trace": str(CALLER)}, None)
    journal(tmp_path, attempt)
    assert agent.span == str(CALLER.under("t"))
    assert agent.task == "t"


def test_a_task_of_a_worker_before_there_were_spans_has_none_here(tmp_path: Path) -> None:
    (tmp_path / JOURNAL).write_text('{"current": {"task_id": "t", "attempt": 1}}')
    (tmp_path / MESSAGE_SPAN).write_text(str(OTHER))
    assert Caller("dev-1", folder=tmp_path).span is None


def test_who_is_no_agent_of_this_machine_has_none() -> None:
    assert Caller().span is None
    assert Caller("dev-1").span is None
