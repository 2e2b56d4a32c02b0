"""A graph of tasks, drawn in layers: what comes first stands left, and each arrow leads to the right."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from torch_tasks.model.task_graph import GraphNode, TaskGraph
from torch_tasks.visible_text import one_line

BOX_WIDTH, BOX_HEIGHT = 190, 46
_GAP_X, _GAP_Y, _EDGE = 56, 16, 6
_TITLE = 22
_SWEEPS = 4


@dataclass(frozen=True)
class PlacedNode:
    """A task as a box."""

    node: GraphNode
    x: int
    y: int
    is_asked: bool
    """It is the task whose graph this is."""

    @property
    def title(self) -> str:
        return one_line(self.node.title or self.node.id, _TITLE)

    @property
    def state(self) -> str:
        if self.node.state is None:
            return "not known any more"
        return f"{self.node.state} (not believed)" if self.node.forged else str(self.node.state)


@dataclass(frozen=True)
class GraphDrawing:
    """A graph with a place for each of its tasks."""

    nodes: tuple[PlacedNode, ...]
    arrows: tuple[str, ...]
    """The way of each arrow, as SVG writes it."""
    width: int
    height: int


def draw(graph: TaskGraph) -> GraphDrawing:
    layers = _ordered(_layers([one.id for one in graph.nodes], graph.edges), graph.edges)
    tallest = max(len(layer) for layer in layers)
    places: dict[str, tuple[int, int]] = {}
    for column, layer in enumerate(layers):
        down = (tallest - len(layer)) * (BOX_HEIGHT + _GAP_Y) // 2
        for row, one in enumerate(layer):
            places[one] = (_EDGE + column * (BOX_WIDTH + _GAP_X), _EDGE + down + row * (BOX_HEIGHT + _GAP_Y))
    return GraphDrawing(
        nodes=tuple(PlacedNode(one, *places[one.id], one.id == graph.task_id) for one in graph.nodes),
        arrows=tuple(_arrow(places[first], places[then]) for first, then in graph.edges),
        width=2 * _EDGE + len(layers) * (BOX_WIDTH + _GAP_X) - _GAP_X,
        height=2 * _EDGE + tallest * (BOX_HEIGHT + _GAP_Y) - _GAP_Y,
    )


def _layers(ids: Iterable[str], edges: Collection[tuple[str, str]]) -> list[list[str]]:
    """Each task in the layer after the last of those that it waits for."""
    left = list(ids)
    before: dict[str, set[str]] = {one: {first for first, then in edges if then == one} for one in left}
    layers: list[list[str]] = []
    done: set[str] = set()
    while left:
        layer = [one for one in left if before[one] <= done] or left[:1]  # a circle, which Torch makes none of
        layers.append(layer)
        done |= set(layer)
        left = [one for one in left if one not in done]
    return layers


def _ordered(layers: list[list[str]], edges: Collection[tuple[str, str]]) -> list[list[str]]:
    """Each layer in an order in which its tasks stand beside those that they belong to, so that few arrows cross."""
    beside: dict[str, list[str]] = {one: [] for layer in layers for one in layer}
    for first, then in edges:
        beside[first].append(then)
        beside[then].append(first)
    for sweep in range(_SWEEPS):
        for layer in layers if sweep % 2 == 0 else reversed(layers):
            rows = {one: row / len(each) for each in layers for row, one in enumerate(each)}
            layer.sort(key=lambda one, rows=rows: _middle(one, beside, rows))  # type: ignore[misc]
    return layers


def _middle(one: str, beside: Mapping[str, list[str]], rows: Mapping[str, float]) -> float:
    near = [rows[other] for other in beside[one]] or [rows[one]]
    return sum(near) / len(near)


def _arrow(start: tuple[int, int], end: tuple[int, int]) -> str:
    x, y = start[0] + BOX_WIDTH, start[1] + BOX_HEIGHT // 2
    to_x, to_y = end[0], end[1] + BOX_HEIGHT // 2
    bend = _GAP_X // 2
    return f"M{x} {y}C{x + bend} {y} {to_x - bend} {to_y} {to_x - 5} {to_y}"
