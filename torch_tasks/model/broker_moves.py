"""Where brokers have moved that this machine once knew, as its state folder keeps it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from pydantic import SecretStr

from torch_tasks.model.broker_address import BrokerAddress
from torch_tasks.model.broker_users import read_logins


class KnownMove(NamedTuple):
    """Where what was at one place is by now."""

    to: str
    """The address, without a login."""
    number: int
    """Of two moves the later one has the higher number."""

    @property
    def address(self) -> BrokerAddress:
        return BrokerAddress(url=SecretStr(self.to), source="TORCH_BROKER_URL")

    @property
    def place(self) -> str:
        return self.address.place


def known_moves(file: Path) -> dict[str, KnownMove]:
    """What is kept, by the place that a fleet has left."""
    try:
        kept = json.loads(file.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return {}
    return {str(place): KnownMove(str(to), int(number)) for place, (to, number) in kept.items()}


def with_move(known: Mapping[str, KnownMove], left: str, move: KnownMove) -> dict[str, KnownMove]:
    """What is known once the fleet has left a place: all that led there leads on.

    Nothing leads away from where the fleet is by a move of before.
    """
    places = {left, *(place for place, one in known.items() if left == one.place or place == move.place)}
    later = {place for place in places if place not in known or known[place].number < move.number}
    return {**known, **dict.fromkeys(later, move)}


def former_places(file: Path, address: BrokerAddress) -> list[str]:
    """The places from which the fleet came to this one."""
    return [place for place, one in known_moves(file).items() if place != address.place == one.place]


def is_same_broker(file: Path, place: str, address: BrokerAddress) -> bool:
    """Whether what was at this place is at that address now."""
    return place == address.place or place in former_places(file, address)


def without_made_login(given: BrokerAddress, logins: Path, moves: Path) -> BrokerAddress:
    """The address without the login in it, where Torch has made users for this machine."""
    kept = read_logins(logins)
    has_users = kept and kept.are_made and is_same_broker(moves, kept.place, given)
    return given.with_login(None) if has_users else given
