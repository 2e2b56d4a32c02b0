"""Which tasks a task waits for, and which wait for it, however far away."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from torch_tasks.fleet import fleet
from torch_tasks.model.task import TaskRecord
from torch_tasks.model.task_graph import GraphNode, TaskGraph
from torch_tasks.store.task_fields import followers

MOST = 100
"""So many tasks are shown, the nearest first."""


def graph_around(task_id: str, may_see: Callable[[str], bool]) -> TaskGraph:
    """The graph of those that the caller may see; the task itself is one."""
    found: dict[str, TaskRecord | None] = {}
    edges: set[tuple[str, str]] = set()
    _read(found, [task_id])
    is_whole = True
    for next_to in (_before, _after):
        to_do = [task_id]
        while to_do:
            steps = next_to(to_do, found)
            known = [one for pair in steps for one in pair if may_see(one)]
            new = list(dict.fromkeys(one for one in known if one not in found))
            is_whole = is_whole and len(found) + len(new) <= MOST
            new = new[: MOST - len(found)]
            _read(found, new)
            edges |= {pair for pair in steps if found.keys() >= set(pair)}
            to_do = new
    nodes = tuple(_node(one, record) for one, record in found.items())
    return TaskGraph(task_id=task_id, nodes=nodes, edges=tuple(sorted(edges)), left_out=not is_whole)


def _read(found: dict[str, TaskRecord | None], ids: Iterable[str]) -> None:
    ids = list(ids)
    found.update(zip(ids, fleet().records.find_all(ids), strict=True))


def _before(ids: Iterable[str], found: Mapping[str, TaskRecord | None]) -> list[tuple[str, str]]:
    return [(awaited, one) for one in ids if (record := found[one]) for awaited in record.spec.after]


def _after(ids: Iterable[str], found: Mapping[str, TaskRecord | None]) -> list[tuple[str, str]]:
    ids = list(ids)
    accounts = fleet().records.accounts(ids)
    return [(one, later) for one, account in zip(ids, accounts, strict=True) for later in followers(account)]


def _node(task_id: str, record: TaskRecord | None) -> GraphNode:
    if record is None:
        return GraphNode(id=task_id)
    return GraphNode(id=task_id, title=record.spec.title, state=record.state, forged=record.forged is not None)
