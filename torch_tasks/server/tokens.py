"""Who may ask a server: bearer tokens, each with a name and a role.

They lie in the state folder of the machine that serves, not on the broker: what reaches the broker could write one,
and a broker that is restarted may have forgotten the last. The file has only hashes. A token has 256 random bits, so
one round of SHA-256 keeps it: there is nothing to guess that a slower hash would protect.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from contextlib import suppress
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated

from pydantic import AwareDatetime, Field, ValidationError

from torch_tasks.caller import BEARER, Caller, CallerKind
from torch_tasks.errors import InvalidToken, NotAuthenticated, StateFolderUnusable, TokenNotFound
from torch_tasks.model.fields import AgentId, Model, now, readable
from torch_tasks.state_folder import StateFolder
from torch_tasks.system.files import exclusive, make_folder, write_private

_PREFIX = "torch"
_LONGEST_NAME = 48 - len(BEARER)
"""So that messages can carry the name of its bearer."""


class TokenRole(StrEnum):
    """What the bearer of a token is; the rights of each are the policy's."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    PROGRAM = "program"

    @property
    def kind(self) -> CallerKind:
        return CallerKind.PROGRAM if self is TokenRole.PROGRAM else CallerKind.PERSON


class AccessToken(Model):
    """What the server keeps of a token: not the token itself."""

    name: Annotated[AgentId, Field(max_length=_LONGEST_NAME)]
    role: TokenRole
    key: str
    """The part of the token by which it is found."""
    sha256: str
    created_at: AwareDatetime
    expires_at: AwareDatetime | None = None

    @property
    def expired(self) -> bool:
        return self.expires_at is not None and self.expires_at <= now()

    def is_made_of(self, text: str) -> bool:
        return hmac.compare_digest(self.sha256, _hash(text))

    @property
    def bearer(self) -> Caller:
        return Caller(other=self.role.kind, role=self.role, own_name=f"{BEARER}{self.name}")


class _TokenFile(Model):
    tokens: tuple[AccessToken, ...] = ()


class AccessTokens:
    """The tokens of one state folder; a change counts from the next request on."""

    def __init__(self, state: StateFolder) -> None:
        self._state = state
        self._known: tuple[AccessToken, ...] = ()
        self._seen: tuple[int, ...] = ()

    def create(self, name: str, role: TokenRole, lasts_seconds: float | None = None) -> str:
        """Make a token and return it: nothing keeps it in a readable form."""
        key, made = secrets.token_hex(4), now()
        text = f"{_PREFIX}_{key}_{secrets.token_urlsafe(32)}"
        try:
            expires = None if lasts_seconds is None else made + timedelta(seconds=lasts_seconds)
            token = AccessToken(name=name, role=role, key=key, sha256=_hash(text), created_at=made, expires_at=expires)
        except ValidationError as error:
            raise InvalidToken(f"this token cannot be made: {readable(error)}") from None
        except OverflowError:
            raise InvalidToken("a token cannot last that long; leave --expires out for one without an end") from None
        with exclusive(self._state.tokens_lock):
            if any(one.name == token.name for one in self.all()):
                raise InvalidToken(f"there is a token {token.name!r} already; revoke it first, or take another name")
            self._write((*self.all(), token))
        return text

    def revoke(self, name: str) -> None:
        with exclusive(self._state.tokens_lock):
            left = tuple(one for one in self.all() if one.name != name)
            if left == self.all():
                known = ", ".join(one.name for one in left) or "none"
                raise TokenNotFound(f"there is no token {name!r}; there are: {known}")
            self._write(left)

    def all(self) -> tuple[AccessToken, ...]:
        """All tokens, also those that have expired; read again when the file has changed."""
        file = self._state.tokens
        try:
            seen = _fingerprint(file)
            if seen != self._seen:
                self._known = _TokenFile.model_validate_json(file.read_bytes()).tokens
                self._seen = seen
        except FileNotFoundError:
            self._known, self._seen = (), ()
        except (OSError, ValidationError) as error:
            self._known, self._seen = (), ()
            raise StateFolderUnusable(f"cannot read the tokens in {file}: {error}") from None
        return self._known

    def bearer_of(self, text: str) -> Caller:
        """Who asks with this token; :class:`NotAuthenticated` if it is none, or no more."""
        if self._is_own(text):
            return Caller(role=TokenRole.OPERATOR)
        key = text.split("_")[1] if text.count("_") > 1 else ""
        found = next((one for one in self.all() if one.key == key), None)
        if found is None or not found.is_made_of(text):
            raise NotAuthenticated("the server knows no such token; 'torch-tasks token create' makes one")
        if found.expired:
            raise NotAuthenticated(
                f"the token {found.name!r} has expired; 'torch-tasks token create' makes another one"
            )
        return found.bearer

    def own_token(self) -> Path:
        """The file of the token with which this folder's owner asks; made if it is missing."""
        file = self._state.server_token
        make_folder(file.parent)
        with exclusive(self._state.tokens_lock):
            if not file.exists():
                write_private(file, f"{_PREFIX}_own_{secrets.token_urlsafe(32)}\n")
        return file

    def _is_own(self, text: str) -> bool:
        with suppress(OSError):
            return hmac.compare_digest(_hash(self._state.server_token.read_text().strip()), _hash(text))
        return False

    def _write(self, tokens: tuple[AccessToken, ...]) -> None:
        make_folder(self._state.path)
        write_private(self._state.tokens, _TokenFile(tokens=tokens).model_dump_json(indent=1))


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode(errors="replace")).hexdigest()


def _fingerprint(file: Path) -> tuple[int, ...]:
    found = file.stat()
    return found.st_ino, found.st_mtime_ns, found.st_size
