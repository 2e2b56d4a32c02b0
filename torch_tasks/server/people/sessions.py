"""Who is logged in, in which browser. Kept in this process alone: when the server ends, all logins do."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets
import time
from abc import ABC, abstractmethod
from http.cookies import CookieError, SimpleCookie

from starlette.datastructures import Headers
from starlette.responses import Response

from torch_tasks.caller import Caller
from torch_tasks.errors import LoginRefused, NotAuthenticated, ProviderAway
from torch_tasks.server.people.provider import OpenIdProvider, Vouched
from torch_tasks.server.people.roles import person
from torch_tasks.server.tokens import AccessTokens
from torch_tasks.settings import Settings

_MOST = 10_000
"""So many logins are kept, the latest."""
_AGAIN_SECONDS = 5.0
"""A provider that is away is asked again no sooner."""


class Visitor(ABC):
    """Somebody who has logged in."""

    @property
    @abstractmethod
    def caller(self) -> Caller:
        """Who asks; :class:`NotAuthenticated` once they may not any more."""

    async def confirm(self) -> None:  # noqa: B027 - most have nothing to ask
        """Ask again whether they still may, if it is time for that."""


class TokenHolder(Visitor):
    """Somebody who has shown a token; what becomes of the token counts at once."""

    def __init__(self, tokens: AccessTokens, text: str) -> None:
        self._tokens, self._text = tokens, text

    @property
    def caller(self) -> Caller:
        return self._tokens.bearer_of(self._text)


class VouchedPerson(Visitor):
    """Somebody for whom a provider vouches, which is asked again from time to time."""

    def __init__(self, provider: OpenIdProvider, vouched: Vouched, refresh_seconds: float) -> None:
        role = provider.roles.role_of(vouched.claims)
        if role is None:
            raise LoginRefused(
                f"{provider.issuer} knows you, and what it says of you as {provider.roles.claim!r} gives you no role "
                "here; whoever runs this server says which values do, in TORCH_OIDC_VIEWERS and TORCH_OIDC_OPERATORS, "
                f"and of which claim, in TORCH_OIDC_ROLE_CLAIM; there are {', '.join(sorted(map(str, vouched.claims)))}"
            )
        self._provider, self._vouched = provider, vouched
        self._caller = person(vouched.claims, role)
        self._every = refresh_seconds
        self._due = time.monotonic() + refresh_seconds
        self._away_until, self._away = 0.0, ProviderAway("")
        self._over = ""
        self._asking = asyncio.Lock()

    @property
    def caller(self) -> Caller:
        if self._over or time.monotonic() >= self._due:
            raise NotAuthenticated(f"this login is over: {self._over or 'the provider has to be asked again'}")
        return self._caller

    async def confirm(self) -> None:
        async with self._asking:
            now = time.monotonic()
            if self._over or now < self._due:
                return
            if now < self._away_until:
                raise self._away
            try:
                vouched = await self._provider.renew(self._vouched)
                role = self._provider.roles.role_of(vouched.claims)
                if role is None:
                    raise LoginRefused(f"{self._provider.issuer} gives you no role here any more")
            except LoginRefused as error:
                self._over = str(error)
            except ProviderAway as error:
                self._away_until, self._away = time.monotonic() + _AGAIN_SECONDS, error
                raise
            else:
                self._vouched, self._caller = vouched, person(vouched.claims, role)
                self._due = time.monotonic() + self._every


class Sessions:
    """The logins of all browsers, each found by the cookie that its browser has."""

    def __init__(self, settings: Settings) -> None:
        own = hashlib.sha256(bytes(settings.state_dir)).hexdigest()[:8]
        """Cookies know no ports: another server of this machine must not take this one's."""
        public = settings.server_public_url or ""
        self.is_encrypted = settings.server_certificate is not None or public.startswith("https:")
        self.cookie = f"__Host-torch-{own}" if self.is_encrypted else f"torch-{own}"
        self._seconds = settings.server_session_seconds
        self._secret = secrets.token_bytes(32)
        self._kept: dict[str, tuple[float, Visitor]] = {}

    def begin(self, visitor: Visitor, response: Response) -> None:
        """Keep the login, and give the browser what shows that it is the one."""
        now, value = time.monotonic(), secrets.token_urlsafe(32)
        for key in [key for key, (ends, _) in self._kept.items() if ends <= now]:
            del self._kept[key]
        while len(self._kept) >= _MOST:
            del self._kept[next(iter(self._kept))]
        self._kept[_key_of(value)] = (now + self._seconds, visitor)
        set_cookie(response, self.cookie, value, self.is_encrypted, int(self._seconds))

    def end(self, headers: Headers, response: Response) -> None:
        """Forget the browser's login."""
        if value := cookie_in(headers, self.cookie):
            self._kept.pop(_key_of(value), None)
        set_cookie(response, self.cookie, "", self.is_encrypted, 0)

    def of(self, headers: Headers) -> Visitor | None:
        """Whose browser this is; None if nobody is logged in there."""
        value = cookie_in(headers, self.cookie)
        ends, visitor = self._kept.get(_key_of(value or ""), (0.0, None))
        return visitor if time.monotonic() < ends else None

    def proof(self, headers: Headers) -> str:
        """What a form of this login holds, and no other page can know; empty without a login."""
        value = cookie_in(headers, self.cookie)
        return hmac.new(self._secret, value.encode(errors="replace"), hashlib.sha256).hexdigest() if value else ""


def set_cookie(response: Response, name: str, value: str, is_encrypted: bool, seconds: int, path: str = "/") -> None:
    """A cookie that no script reads, and that pages of other sites do not have the browser send along."""
    response.set_cookie(name, value, max_age=seconds, path=path, httponly=True, samesite="lax", secure=is_encrypted)


def cookie_in(headers: Headers, name: str) -> str | None:
    for line in headers.getlist("cookie"):
        try:
            found = SimpleCookie(line).get(name)
        except CookieError:
            continue
        if found is not None:
            return found.value
    return None


def _key_of(value: str) -> str:
    return hashlib.sha256(value.encode(errors="replace")).hexdigest()
