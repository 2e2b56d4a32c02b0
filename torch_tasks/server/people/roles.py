"""Which role a person has, and what they are called, by what their provider says of them."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch_tasks.caller import PERSON, Caller, CallerKind
from torch_tasks.server.tokens import TokenRole
from torch_tasks.settings import Settings

_LONGEST_NAME = 48
"""So that messages can carry it."""
_DIGITS = 12
_EMAIL = "email"


@dataclass(frozen=True)
class RoleRules:
    """Which claim gives a role, and which of its values which one. An account alone gives none."""

    claim: str
    viewers: frozenset[str]
    operators: frozenset[str]

    @classmethod
    def of(cls, settings: Settings) -> RoleRules:
        return cls(settings.oidc_role_claim, frozenset(settings.oidc_viewers), frozenset(settings.oidc_operators))

    def is_in(self, claims: Mapping[str, Any]) -> bool:
        """Whether the provider says anything of what gives a role."""
        return _found(claims, self.claim) is not None

    def role_of(self, claims: Mapping[str, Any]) -> TokenRole | None:
        """The greater role of those that the values give; None if they give none."""
        if self.claim == _EMAIL and claims.get("email_verified") is not True:
            return None  # anybody may write any address into an account
        found = _found(claims, self.claim)
        values = {found} if isinstance(found, str) else {one for one in _listed(found) if isinstance(one, str)}
        if values & self.operators:
            return TokenRole.OPERATOR
        return TokenRole.VIEWER if values & self.viewers else None


def person(claims: Mapping[str, Any], role: TokenRole) -> Caller:
    """The caller that a person is, under a name that nobody else has, whatever they call themselves."""
    return Caller(other=CallerKind.PERSON, role=role, own_name=_name_of(claims))


def _name_of(claims: Mapping[str, Any]) -> str:
    """What people can read, which a person may choose, and behind it what only this account can have."""
    account = hashlib.sha256(f"{claims['iss']}\n{claims['sub']}".encode()).hexdigest()[:_DIGITS]
    called = next((str(claims[one]) for one in ("preferred_username", _EMAIL, "name") if claims.get(one)), "")
    plain = unicodedata.normalize("NFKD", called.partition("@")[0]).encode("ascii", "ignore").decode().lower()
    readable = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[: _LONGEST_NAME - len(PERSON) - _DIGITS - 1].strip("-")
    return PERSON + "-".join(filter(None, (readable, account)))


def _found(claims: Mapping[str, Any], claim: str) -> Any:
    """What stands at the name, or at the path that it is with dots between its parts."""
    if claim in claims:
        return claims[claim]
    found: Any = claims
    for part in claim.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
