"""Every page of the console, in the order of its menu."""

from __future__ import annotations

from torch_tasks.server.console import accounts, agenda, agent, auditing, board, fleet, needs, reporting, task, texts
from torch_tasks.server.console.page import ConsolePage
from torch_tasks.server.console.task_changes import CHANGES
from torch_tasks.server.console.task_form import ENQUEUE

PAGES: tuple[ConsolePage, ...] = (
    needs.NEEDS,
    fleet.FLEET,
    board.BOARD,
    ENQUEUE,
    task.TASK,
    CHANGES,
    texts.TEXTS,
    agenda.AGENDA,
    agenda.CHECKIN,
    accounts.ACCOUNTS,
    reporting.REPORT,
    auditing.AUDIT,
    agent.AGENT,
    agent.ABOVE,
)
