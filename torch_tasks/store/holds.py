"""The holds: every statement on what is paused and stopped."""

from __future__ import annotations

import json
from collections.abc import Mapping

import redis

from torch_tasks import keys
from torch_tasks.broker.refused import RefusedLetters
from torch_tasks.broker.scripts import Scripts
from torch_tasks.caller import CallerKind, caller
from torch_tasks.errors import BadSignature, NotHeld, SignatureRefused
from torch_tasks.model.asker import Asker
from torch_tasks.model.fields import now
from torch_tasks.model.hold import STOP, Hold, LatestHolds
from torch_tasks.model.reader import read_model
from torch_tasks.settings import settings
from torch_tasks.signing.authority import signer_as_asker
from torch_tasks.signing.enforcement import checked, doubt, seal
from torch_tasks.signing.signature import CLOCK_SKEW_SECONDS, Purpose

SCRIPTS = Scripts(__file__)


def new_hold(reason: str = "", *, lifted: bool = False, interrupt: bool = False) -> Hold:
    """A hold from now on, by who asks at this moment."""
    by, task = Asker.now(settings().node), caller().task
    return Hold(by=by, task=task, reason=reason, at=now(), lifted=lifted, interrupt=interrupt)


def signed_hold(scope: str, hold: Hold) -> Hold:
    """The hold with the signature of this process; a node signs for others who order it."""
    by = None if hold.by.name == caller().name else CallerKind.NODE
    return hold.model_copy(update={"signature": seal(Purpose.HOLD, _signed_text(scope, hold), None, by=by)})


def require_signed(scope: str, hold: Hold) -> None:
    """Raise :class:`SignatureRefused` unless the hold is as it was signed, by one who may speak for who ordered it."""
    found = checked(hold.signature, Purpose.HOLD, _signed_text(scope, hold))
    if found is None:
        return
    ordered_by = hold.by.model_copy(update={"node": None})
    try:
        if abs(hold.revision / 1000 - found.at.timestamp()) > CLOCK_SKEW_SECONDS:
            raise BadSignature(f"{found.signer.owner} signed it at {found.at}: it is an old one")
        if found.signer.kind is not CallerKind.NODE and ordered_by != signer_as_asker(found.signer):
            raise BadSignature(f"{found.signer.owner} signed it, who may not speak for {hold.by.kind} {hold.by.name}")
    except SignatureRefused as error:
        doubt(error, Purpose.HOLD)


def _signed_text(scope: str, hold: Hold) -> str:
    fields = hold.model_dump(mode="json", exclude={"revision", "fleet", "signature"})
    return json.dumps([scope, fields], sort_keys=True)


class Holds:
    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self._refused = RefusedLetters(client)

    def latest(self) -> LatestHolds:
        fields = {str(scope): str(text) for scope, text in self._client.hgetall(keys.HOLDS).items()}
        return LatestHolds(self._refused.readable(keys.HOLDS, fields, lambda _, text: read_model(Hold, text)))

    def put(self, scope: str, hold: Hold) -> Hold:
        """Hold a scope, or lift its hold; returns the hold with its revision. :class:`NotHeld` if none is to lift."""
        text = signed_hold(scope, hold).model_dump_json(exclude={"revision", "fleet"})
        revision = int(SCRIPTS["put"](self._client, holds=keys.HOLDS, scope=scope, hold=text))
        if not revision:
            what = "the fleet is not stopped" if scope == STOP else f"nothing has paused {scope}"
            raise NotHeld(f"{what}; 'torch-tasks doctor' shows what is paused and stopped")
        return Hold.model_validate_json(text).model_copy(update={"revision": revision})

    def replace(self, scope: str, former: Hold, hold: Hold) -> Hold | None:
        """Put this hold in the place of that one, if it is still there; returns it with its revision."""
        hold = signed_hold(scope, hold)
        text = hold.model_dump_json(exclude={"revision", "fleet"})
        revision = SCRIPTS["replace"](self._client, holds=keys.HOLDS, scope=scope, revision=former.revision, hold=text)
        return hold.model_copy(update={"revision": int(revision)}) if revision else None

    def restore(self, later: Mapping[str, Hold]) -> None:
        """Put back these holds where the broker knows no later ones."""
        if later:
            texts = {scope: hold.model_dump_json() for scope, hold in later.items()}
            SCRIPTS["restore"](self._client, holds=keys.HOLDS, scopes_and_holds=texts)
