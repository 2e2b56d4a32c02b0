"""What is paused and stopped, as the fleet knows it: every statement that reads or writes it."""

from __future__ import annotations

from collections.abc import Mapping

import redis

from torch_tasks import keys
from torch_tasks.caller import caller
from torch_tasks.errors import NotHeld
from torch_tasks.model.fields import now
from torch_tasks.model.hold import STOP, Hold, LatestHolds
from torch_tasks.store import hold_scripts as scripts


def new_hold(reason: str = "", by: str | None = None, *, lifted: bool = False, interrupt: bool = False) -> Hold:
    """What somebody says now: the agent whose pane this is, else the operator."""
    return Hold(by=by or caller().name, reason=reason, at=now(), lifted=lifted, interrupt=interrupt)


class Holds:
    """The holds of one broker's fleet."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self._say = client.register_script(scripts.SAY)
        self._recall = client.register_script(scripts.RECALL)

    def latest(self) -> LatestHolds:
        """The latest hold on each scope."""
        return LatestHolds.of({str(scope): str(text) for scope, text in self._client.hgetall(keys.HOLDS).items()})

    def put(self, scope: str, hold: Hold) -> Hold:
        """Hold a scope, or lift what holds it; returns it with its revision. :class:`NotHeld` if there is nothing."""
        wire = hold.model_dump_json(exclude={"revision", "fleet"})
        said = self._say(keys=[keys.HOLDS], args=[scope, wire, int(hold.lifted)])
        if not said:
            what = "the fleet is not stopped" if scope == STOP else f"nothing has paused {scope}"
            raise NotHeld(f"{what}; 'torch-tasks doctor' tells what is paused and stopped")
        return Hold.model_validate_json(said)

    def restore(self, later: Mapping[str, Hold]) -> None:
        """Tell a broker that has forgotten."""
        if later:
            args = [part for scope, hold in later.items() for part in (scope, hold.model_dump_json(), hold.revision)]
            self._recall(keys=[keys.HOLDS], args=args)
