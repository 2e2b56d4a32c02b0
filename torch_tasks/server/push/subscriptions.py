"""Which browsers want to be told, and whose they are: a private file of the state folder."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from pydantic import AwareDatetime, Field, ValidationError

from torch_tasks.caller import BEARER, PERSON
from torch_tasks.errors import StateFolderUnusable
from torch_tasks.model.fields import Model, now
from torch_tasks.server.tokens import AccessTokens
from torch_tasks.state_folder import StateFolder
from torch_tasks.system.files import exclusive, write_private

MOST_OF_ONE, MOST = 8, 500
"""So many browsers of one person, and of all: the latest."""
KEPT_DAYS = 30
"""A browser that nobody opened for so long is not told any more: pages renew what they have."""
_Key = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+={0,2}$", max_length=128)]


class Subscription(Model):
    """One browser, and the keys with which only it reads what it is sent."""

    endpoint: str
    p256dh: _Key
    auth: _Key
    person: str = ""
    renewed_at: AwareDatetime = Field(default_factory=now)


class _SubscriptionFile(Model):
    subscriptions: tuple[Subscription, ...] = ()


class Subscriptions:
    """Those of one state folder."""

    def __init__(self, state: StateFolder, tokens: AccessTokens) -> None:
        self._file, self._lock, self._tokens = state.push_subscriptions, state.push_lock, tokens

    def add(self, new: Subscription) -> None:
        """Keep it; a browser is one person's, the one who asked last."""
        with exclusive(self._lock):
            others = [one for one in self._all() if one.endpoint != new.endpoint]
            own = [one for one in others if one.person == new.person]
            dropped = set(map(id, own[: max(0, len(own) - MOST_OF_ONE + 1)]))
            self._write([*(one for one in others if id(one) not in dropped), new][-MOST:])

    def remove(self, endpoint: str, person: str | None = None) -> None:
        """Forget it; with a ``person``, only if it is theirs."""
        with exclusive(self._lock):
            known = self._all()
            kept = [one for one in known if one.endpoint != endpoint or person not in (None, one.person)]
            if len(kept) < len(known):
                self._write(kept)

    def current(self) -> list[Subscription]:
        """Those of people who may still come in, and have not been away for too long."""
        since = now() - timedelta(days=KEPT_DAYS)
        names = {one.bearer.name for one in self._tokens.all() if not one.expired}
        return [one for one in self._all() if one.renewed_at > since and _may_come(one.person, names)]

    def _all(self) -> list[Subscription]:
        try:
            return list(_SubscriptionFile.model_validate_json(self._file.read_bytes()).subscriptions)
        except FileNotFoundError:
            return []
        except (OSError, ValidationError) as error:
            raise StateFolderUnusable(f"cannot read the browsers in {self._file}: {error}") from None

    def _write(self, kept: list[Subscription]) -> None:
        write_private(self._file, _SubscriptionFile(subscriptions=tuple(kept)).model_dump_json(indent=1))


def _may_come(person: str, tokens: set[str]) -> bool:
    """Whether a token of that name is still good. A provider's person is asked for by their pages (KEPT_DAYS)."""
    return person in tokens if person.startswith(BEARER) and not person.startswith(PERSON) else True
