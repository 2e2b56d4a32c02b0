"""The graph of tasks: each stands right of what it waits for, and no two stand in one place."""

from __future__ import annotations

import random

import pytest

from torch_tasks.model.task import TaskState
from torch_tasks.model.task_graph import GraphNode, TaskGraph
from torch_tasks.server.console.graph import draw


def graph_of(*edges: tuple[str, str]) -> TaskGraph:
    ids = dict.fromkeys(one for edge in edges for one in edge) or {"a": None}
    nodes = tuple(GraphNode(id=one, title=one, state=TaskState.QUEUED) for one in ids)
    return TaskGraph(task_id="a", nodes=nodes, edges=edges)


def many(count: int) -> list[tuple[str, str]]:
    dice = random.Random(count)
    return [(f"t{dice.randrange(n)}", f"t{n}") for n in range(1, count) for _ in range(2)]


@pytest.mark.parametrize(
    "edges",
    [[], [("a", "b")], [("a", "b"), ("b", "c"), ("a", "c")], [("b", "a"), ("c", "a"), ("a", "d")], many(100)],
)
def test_each_task_stands_right_of_what_it_waits_for(edges: list[tuple[str, str]]) -> None:
    drawing = draw(graph_of(*edges))
    places = {one.node.id: (one.x, one.y) for one in drawing.nodes}
    assert len(set(places.values())) == len(places)
    assert all(places[first][0] < places[then][0] for first, then in edges)
    assert all(0 <= x < drawing.width and 0 <= y < drawing.height for x, y in places.values())
    assert len(drawing.arrows) == len(edges)


def test_a_circle_that_somebody_wrote_is_drawn_all_the_same() -> None:
    assert len(draw(graph_of(("a", "b"), ("b", "a"))).nodes) == 2


def test_few_arrows_cross() -> None:
    drawing = draw(graph_of(("a", "x"), ("b", "y"), ("c", "z"), ("z", "end"), ("x", "end"), ("y", "end")))
    rows = {one.node.id: one.y for one in drawing.nodes}
    assert sorted("abc", key=rows.__getitem__) == [
        {"x": "a", "y": "b", "z": "c"}[one] for one in sorted("xyz", key=rows.__getitem__)
    ]


def test_a_hostile_title_is_one_visible_line() -> None:
    node = GraphNode(id="a", title="<b>\n\x1b[31m\u202e" + "x" * 1000)
    (one,) = draw(TaskGraph(task_id="a", nodes=(node,), edges=())).nodes
    assert (one.state, "\u202e" in one.title, len(one.title) < 60) == ("not known any more", False, True)
