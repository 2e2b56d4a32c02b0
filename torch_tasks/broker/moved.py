"""Where a broker has moved: what the former server says of it, and what this machine keeps of that."""

from __future__ import annotations

import json

from pydantic import BaseModel, ConfigDict, ValidationError
from redis.exceptions import ConnectionError as NoConnection

from torch_tasks.caller import CallerKind
from torch_tasks.errors import BadSignature, SignatureRefused
from torch_tasks.model.broker_address import BrokerAddress
from torch_tasks.model.broker_moves import KnownMove, known_moves, with_move
from torch_tasks.settings import settings
from torch_tasks.signing.enforcement import checked, doubt, seal
from torch_tasks.signing.keyring import FLEET_FILE
from torch_tasks.signing.signature import Purpose
from torch_tasks.system.files import exclusive, make_folder, write_private

LONGEST_NOTE = 16_384
"""So many bytes of a note are read."""


class BrokerMoving(NoConnection):
    """The broker takes nothing: it is being moved, or has moved where this process cannot follow."""


class BrokerMoved(NoConnection):
    """The fleet has another server by now, which this machine knows from here on."""


class MoveNote(BaseModel):
    """What the former server says, to each process that connects."""

    model_config = ConfigDict(frozen=True)

    to: str
    """The new address, without a login."""
    number: int
    """Of two moves the later one has the higher number."""
    is_over: bool = False
    """The new server is the fleet's; until then it is being filled, and nobody may write to either."""
    signature: str | None = None

    def signed(self) -> MoveNote:
        return self.model_copy(update={"signature": seal(Purpose.MOVE, self._text(), None)})

    def require_signed(self) -> None:
        """Raise :class:`SignatureRefused` unless a person or a node of this fleet has written it."""
        found = checked(self.signature, Purpose.MOVE, self._text())
        if found and found.signer.kind not in (CallerKind.PERSON, CallerKind.NODE):
            doubt(BadSignature(f"{found.signer.owner} signed it, who may move no broker"), Purpose.MOVE)

    def _text(self) -> str:
        return json.dumps([self.to, self.number, self.is_over])


def obey(text: str, follows: BrokerAddress, via: BrokerAddress) -> None:
    """Raise what follows from a note at the server of this broker that was found by way of that address.

    Nothing, if the fleet did not write it, or has come back to that server since.
    """
    try:
        note = MoveNote.model_validate_json(text)
        _require_keys(note)
        note.require_signed()
    except (ValidationError, SignatureRefused):
        return
    known = known_moves(settings().state.broker_moved).get(follows.place)
    if known and note.number <= known.number:
        if known.place == via.place:
            return
        raise BrokerMoved(f"the broker has moved to {known.to}")
    if not note.is_over:
        raise BrokerMoving(f"it is being moved to {note.to}. Try again when that is over")
    keep(via, KnownMove(note.to, note.number))
    raise BrokerMoved(f"the broker has moved to {note.to}")


def _require_keys(note: MoveNote) -> None:
    """Only a machine of the fleet can tell who wrote a note; looking for its keys must not make it one of its own."""
    if settings().signing != "off" and not (settings().keys_folder / FLEET_FILE).exists():
        raise BrokerMoving(
            f"it has moved to {note.to}, says a note there that this machine cannot check, for it has no keys of the "
            "fleet. Have it invited anew: 'torch-tasks node invite'"
        )


def keep(left: BrokerAddress, move: KnownMove) -> None:
    """Have the processes of this machine that go to this address go to another one from now on."""
    file = settings().state.broker_moved
    make_folder(file.parent)
    with exclusive(file.with_suffix(".lock")):
        known = known_moves(file)
        if (moves := with_move(known, left.place, move)) != known:
            write_private(file, json.dumps(moves))


def latest(follows: BrokerAddress) -> BrokerAddress:
    """Where the broker of this address is by now, as far as this machine knows, with the same login."""
    known = known_moves(settings().state.broker_moved).get(follows.place)
    return known.address.with_login(follows.login) if known else follows
