"""What clients of the server's events get of what happens in the fleet."""

from __future__ import annotations

from torch_tasks.monitoring.flow import FlowEvent, FlowKind, FlowPlace, PlacedEvent
from torch_tasks.server.events import _published


def placed(number: int, kind: FlowKind = FlowKind.TASKS) -> PlacedEvent:
    return PlacedEvent(FlowEvent(kind=kind, what="queued", id=f"t-{number}"), FlowPlace((number, 0, 0), (0, 0, 0)))


def ids(events: list[PlacedEvent]) -> list[bool]:
    """Whether each event has an id from which a client may go on."""
    return [one.text.startswith(b"id: ") for one in _published(events)]


def test_of_several_events_at_one_place_only_the_last_has_an_id() -> None:
    assert ids([placed(1), placed(1), placed(2)]) == [False, True, True]


def test_where_nothing_but_messages_happened_there_is_nothing_to_publish() -> None:
    assert ids([placed(1, FlowKind.MESSAGES)]) == []
    assert ids([]) == []
