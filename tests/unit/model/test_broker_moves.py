"""What a machine knows of a broker that has moved, move by move."""

from __future__ import annotations

import json
from pathlib import Path

from torch_tasks.model.broker_address import BrokerAddress
from torch_tasks.model.broker_moves import KnownMove, former_places, is_same_broker, with_move


def address_of(host: str) -> BrokerAddress:
    return BrokerAddress(url=f"redis://{host}/0", source="TORCH_BROKER_URL")


def place_of(host: str) -> str:
    return address_of(host).place


def after(*moves: tuple[str, str]) -> dict[str, KnownMove]:
    """What is known after these moves from one host to another."""
    known: dict[str, KnownMove] = {}
    for number, (left, to) in enumerate(moves, 1):
        known = with_move(known, place_of(left), KnownMove(f"redis://{to}/0", number))
    return known


def led_to(known: dict[str, KnownMove]) -> dict[str, str]:
    return {place: one.place for place, one in known.items()}


def test_what_led_to_a_place_that_was_left_leads_on() -> None:
    known = after(("a", "b"), ("b", "c"))
    assert led_to(known) == {place_of("a"): place_of("c"), place_of("b"): place_of("c")}


def test_nothing_leads_away_from_where_the_fleet_is_again() -> None:
    known = after(("a", "b"), ("b", "a"))
    assert led_to(known) == {place_of("a"): place_of("a"), place_of("b"): place_of("a")}
    assert led_to(after(("a", "b"), ("b", "a"), ("a", "c"))) == dict.fromkeys(known, place_of("c"))


def test_what_is_heard_late_of_an_earlier_move_changes_nothing() -> None:
    known = after(("a", "b"), ("b", "c"))
    assert with_move(known, place_of("a"), KnownMove("redis://b/0", 1)) == known


def test_each_former_address_is_the_same_broker(tmp_path: Path) -> None:
    file = tmp_path / "broker-moved.json"
    assert former_places(file, address_of("c")) == []
    file.write_text(json.dumps(after(("a", "b"), ("b", "c"), ("x", "y"))))
    assert former_places(file, address_of("c")) == [place_of("a"), place_of("b")]
    assert former_places(file, address_of("a")) == []
    assert [is_same_broker(file, place_of(host), address_of("c")) for host in "abcx"] == [True, True, True, False]
