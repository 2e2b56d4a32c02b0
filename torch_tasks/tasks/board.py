"""The board of all tasks: what of it somebody sees."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence

from torch_tasks.fleet import fleet
from torch_tasks.model.agent import AgentInfo
from torch_tasks.model.board import Board, BoardEntry, BoardFilter, BoardPlace, BoardRow
from torch_tasks.model.routing import Prospects
from torch_tasks.model.task import TaskRecord, TaskState
from torch_tasks.tasks.requests import with_prospects
from torch_tasks.visible_text import one_line

_NOTE_LENGTH = 300


def look(wanted: BoardFilter, states: Collection[TaskState], before: BoardPlace | None, limit: int) -> Board:
    """The page of the board that comes before this place, in time."""
    entries = fleet().task_index.entries()
    chosen = wanted.chosen(entries)
    page, has_older = page_of(chosen, states, before, limit)
    agents = fleet().registry.agents()
    return Board(
        rows=tuple(_rows(page, agents)),
        counts=dict(Counter(one.state for one in chosen)),
        older=str(page[-1].place) if has_older else None,
        roles=tuple(sorted({one.role for one in entries if one.role})),
        agents=tuple(info.agent_id for info in agents),
    )


def page_of(
    entries: Sequence[BoardEntry], states: Collection[TaskState], before: BoardPlace | None, limit: int
) -> tuple[list[BoardEntry], bool]:
    """The next entries after this place, and whether more come after them; ``entries`` are the latest first."""
    found: list[BoardEntry] = []
    for one in entries:
        if (states and one.state not in states) or (before and one.place >= before):
            continue
        if len(found) == limit:
            return found, True
        found.append(one)
    return found, False


def _rows(page: Iterable[BoardEntry], agents: Collection[AgentInfo]) -> Iterable[BoardRow]:
    prospects = Prospects(agents)
    records = fleet().records.find_all(one.id for one in page)
    return [_row(with_prospects(record, prospects)) for record in records if record]


def _row(record: TaskRecord) -> BoardRow:
    spec = record.spec
    return BoardRow(
        id=spec.id,
        title=spec.title,
        state=record.state,
        forged=record.forged,
        role=spec.role,
        agent=record.agent,
        wanted=spec.agent,
        priority=spec.priority,
        created_at=record.created_at,
        started_at=record.started_at,
        finished_at=record.finished_at,
        attempts=record.attempts,
        unroutable=record.unroutable,
        cancel_requested=record.cancel_requested,
        note=one_line(_note(record), _NOTE_LENGTH),
    )


def _note(record: TaskRecord) -> str:
    if record.forged:
        return record.forged
    if record.question:
        return record.question.in_words
    if record.state.ended:
        return record.result.error.message if record.result and record.result.error else ""
    return record.waits or record.note or ""
