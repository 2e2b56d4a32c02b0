"""The holds: every statement on what is paused and stopped."""

from __future__ import annotations

from collections.abc import Mapping

import redis

from torch_tasks import keys
from torch_tasks.broker.refused import RefusedLetters
from torch_tasks.broker.scripts import Scripts
from torch_tasks.caller import caller
from torch_tasks.errors import NotHeld
from torch_tasks.model.asker import Asker
from torch_tasks.model.fields import now
from torch_tasks.model.hold import STOP, Hold, LatestHolds
from torch_tasks.model.reader import read_model
from torch_tasks.settings import settings

SCRIPTS = Scripts(__file__)


def new_hold(reason: str = "", *, lifted: bool = False, interrupt: bool = False) -> Hold:
    """A hold from now on, by who asks at this moment."""
    by, task = Asker.now(settings().node), caller().task
    return Hold(by=by, task=task, reason=reason, at=now(), lifted=lifted, interrupt=interrupt)


class Holds:
    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self._refused = RefusedLetters(client)

    def latest(self) -> LatestHolds:
        fields = {str(scope): str(text) for scope, text in self._client.hgetall(keys.HOLDS).items()}
        return LatestHolds(self._refused.readable(keys.HOLDS, fields, lambda _, text: read_model(Hold, text)))

    def put(self, scope: str, hold: Hold) -> Hold:
        """Hold a scope, or lift its hold; returns the hold with its revision. :class:`NotHeld` if none is to lift."""
        text = hold.model_dump_json(exclude={"revision", "fleet"})
        revision = int(SCRIPTS["put"](self._client, holds=keys.HOLDS, scope=scope, hold=text))
        if not revision:
            what = "the fleet is not stopped" if scope == STOP else f"nothing has paused {scope}"
            raise NotHeld(f"{what}; 'torch-tasks doctor' shows what is paused and stopped")
        return Hold.model_validate_json(text).model_copy(update={"revision": revision})

    def replace(self, scope: str, former: Hold, hold: Hold) -> Hold | None:
        """Put this hold in the place of that one, if it is still there; returns it with its revision."""
        text = hold.model_dump_json(exclude={"revision", "fleet"})
        revision = SCRIPTS["replace"](self._client, holds=keys.HOLDS, scope=scope, revision=former.revision, hold=text)
        return hold.model_copy(update={"revision": int(revision)}) if revision else None

    def restore(self, later: Mapping[str, Hold]) -> None:
        """Put back these holds where the broker knows no later ones."""
        if later:
            texts = {scope: hold.model_dump_json() for scope, hold in later.items()}
            SCRIPTS["restore"](self._client, holds=keys.HOLDS, scopes_and_holds=texts)
