"""The OpenID provider at which people log in: authorization code with PKCE, and the same again to renew a login."""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote_plus, urlencode, urlsplit

from pydantic import SecretStr

from torch_tasks.errors import InvalidSettings, LoginRefused, ProviderAway
from torch_tasks.server.people.id_token import claims_in, is_signed_with_one_of
from torch_tasks.server.people.roles import RoleRules
from torch_tasks.settings import Settings
from torch_tasks.visible_text import one_line

if TYPE_CHECKING:
    import httpx2
    from jwt import PyJWKSet

_DISCOVERY = "/.well-known/openid-configuration"
_SECONDS = 10.0
_FRESH_SECONDS = 3600.0
"""So long what the provider says of itself counts without being read again."""
_KEYS_PAUSE_SECONDS = 10.0
"""Its keys are read no more often for tokens with unknown ones."""


@dataclass(frozen=True)
class Vouched:
    """What the provider says of a person, and what it can be asked again with."""

    claims: Mapping[str, Any]
    refresh_token: SecretStr | None


class OpenIdProvider:
    """One provider, as one client of it."""

    def __init__(
        self, issuer: str, client_id: str, secret: SecretStr | None, scopes: tuple[str, ...], roles: RoleRules
    ):
        self.issuer = issuer
        self.roles = roles
        self._client_id, self._secret = client_id, secret
        self._scopes = " ".join(dict.fromkeys(("openid", *scopes)))
        self._known: dict[str, Any] = {}
        self._known_at = self._keys_at = -_FRESH_SECONDS
        self._keys: PyJWKSet | None = None

    @classmethod
    def of(cls, settings: Settings) -> OpenIdProvider | None:
        """The provider that the settings name; None if they name none."""
        if settings.oidc_issuer is None:
            return None
        if not settings.oidc_client_id:
            raise InvalidSettings("TORCH_OIDC_ISSUER needs TORCH_OIDC_CLIENT_ID: what the provider calls this server")
        if not _is_safe(settings.oidc_issuer):
            raise InvalidSettings(f"TORCH_OIDC_ISSUER must be an https address, not {settings.oidc_issuer}")
        secret = _secret_of(settings)
        return cls(settings.oidc_issuer, settings.oidc_client_id, secret, settings.oidc_scopes, RoleRules.of(settings))

    async def address(self, back_to: str, state: str, nonce: str, verifier: str) -> str:
        """Where a browser goes to log in."""
        digest = hashlib.sha256(verifier.encode()).digest()
        asked = {
            "response_type": "code",
            "client_id": self._client_id,
            "redirect_uri": back_to,
            "scope": self._scopes,
            "state": state,
            "nonce": nonce,
            "code_challenge": base64.urlsafe_b64encode(digest).rstrip(b"=").decode(),
            "code_challenge_method": "S256",
        }
        async with _client() as client:
            endpoint = (await self._metadata(client))["authorization_endpoint"]
        return f"{endpoint}{'&' if urlsplit(endpoint).query else '?'}{urlencode(asked)}"

    async def redeem(self, code: str, back_to: str, verifier: str, nonce: str) -> Vouched:
        """What the provider says of the person who came back with this code."""
        asked = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": back_to,
            "code_verifier": verifier,
        }
        async with _client() as client:
            given = await self._tokens(client, asked)
            if "id_token" not in given:
                raise LoginRefused(f"{self.issuer} vouches for nobody: its reply has no ID token")
            claims = await self._claims(client, given["id_token"], nonce)
            return Vouched(await self._with_role(client, claims, given), _refresh_token_in(given))

    async def renew(self, before: Vouched) -> Vouched:
        """What it says of the person now; :class:`LoginRefused` if it does not vouch for them any more."""
        if before.refresh_token is None:
            raise LoginRefused(f"{self.issuer} gave nothing to ask again with")
        asked = {"grant_type": "refresh_token", "refresh_token": before.refresh_token.get_secret_value()}
        async with _client() as client:
            given = await self._tokens(client, asked)
            kept = {name: before.claims[name] for name in ("iss", "sub")}
            claims = await self._claims(client, given["id_token"], None) if "id_token" in given else kept
            if claims["sub"] != before.claims["sub"]:
                raise LoginRefused(f"{self.issuer} vouches for somebody else now")
            claims = await self._with_role(client, claims, given)
        names = {name: before.claims[name] for name in before.claims if name not in claims and name in _NAMES}
        return Vouched({**names, **claims}, _refresh_token_in(given) or before.refresh_token)

    # ── what is asked of it ──────────────────────────────────────────────────────────────────────────────────────

    async def _claims(self, client: httpx2.AsyncClient, token: Any, nonce: str | None) -> dict[str, Any]:
        text, keys = str(token), await self._key_set(client)
        if not is_signed_with_one_of(keys, text) and time.monotonic() - self._keys_at >= _KEYS_PAUSE_SECONDS:
            self._keys = None  # it may have new ones
            keys = await self._key_set(client)
        return claims_in(text, keys, self.issuer, self._client_id, nonce)

    async def _with_role(
        self, client: httpx2.AsyncClient, claims: dict[str, Any], given: Mapping[str, Any]
    ) -> dict[str, Any]:
        """The claims, with what the provider says elsewhere if they say nothing of a role."""
        endpoint = (await self._metadata(client)).get("userinfo_endpoint")
        if self.roles.is_in(claims) or not endpoint or "access_token" not in given:
            return claims
        headers = {"Authorization": f"Bearer {given['access_token']}"}
        more = await self._asked(client, "GET", endpoint, headers=headers)
        if more.get("sub") != claims["sub"]:
            raise LoginRefused(f"{self.issuer} says at {endpoint} something of somebody else")
        return {**more, **claims}

    async def _tokens(self, client: httpx2.AsyncClient, asked: dict[str, str]) -> dict[str, Any]:
        known = await self._metadata(client)
        if self._secret is None:
            return await self._asked(
                client, "POST", known["token_endpoint"], data={**asked, "client_id": self._client_id}
            )
        secret = self._secret.get_secret_value()
        if "client_secret_basic" in known.get("token_endpoint_auth_methods_supported", ["client_secret_basic"]):
            own = (quote_plus(self._client_id), quote_plus(secret))
            return await self._asked(client, "POST", known["token_endpoint"], data=asked, auth=own)
        asked = {**asked, "client_id": self._client_id, "client_secret": secret}
        return await self._asked(client, "POST", known["token_endpoint"], data=asked)

    async def _key_set(self, client: httpx2.AsyncClient) -> PyJWKSet:
        from jwt import PyJWKSet, PyJWTError

        known = await self._metadata(client)
        if self._keys is None:
            read = await self._asked(client, "GET", known["jwks_uri"])
            self._keys_at = time.monotonic()
            try:
                self._keys = PyJWKSet.from_dict(read)
            except (PyJWTError, ValueError) as error:
                raise ProviderAway(f"the keys at {known['jwks_uri']} cannot be used: {error}") from None
        return self._keys

    async def _metadata(self, client: httpx2.AsyncClient) -> dict[str, Any]:
        """What the provider says of itself."""
        if time.monotonic() - self._known_at < _FRESH_SECONDS:
            return self._known
        address = self.issuer.rstrip("/") + _DISCOVERY
        known = await self._asked(client, "GET", address)
        if known.get("issuer") != self.issuer:
            raise ProviderAway(
                f"{address} is the page of {one_line(str(known.get('issuer')), 100)}, not of {self.issuer}; "
                "set TORCH_OIDC_ISSUER exactly so"
            )
        for name in ("authorization_endpoint", "token_endpoint", "jwks_uri"):
            if not _is_safe(str(known.get(name, ""))):
                raise ProviderAway(f"{address} names no https address as {name}")
        self._known, self._known_at, self._keys = known, time.monotonic(), None
        return known

    async def _asked(self, client: httpx2.AsyncClient, method: str, address: str, **how: Any) -> dict[str, Any]:
        import httpx2

        try:
            reply = await client.request(method, address, **how)
            found = reply.json() if reply.content else {}
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            why = one_line(str(error), 200) or type(error).__name__
            raise ProviderAway(f"the provider cannot be asked at {address}: {why}") from None
        except ValueError:
            found = {}
        if reply.is_success and isinstance(found, dict):
            return found
        said = found.get("error_description") or found.get("error") or "" if isinstance(found, dict) else ""
        words = f"{address} answered {reply.status_code}" + (f": {one_line(str(said), 200)}" if said else "")
        if method == "POST" and 400 <= reply.status_code < 500 and reply.status_code != 429:
            raise LoginRefused(f"the provider refuses: {words}")
        raise ProviderAway(f"the provider cannot be asked: {words}")


_NAMES = ("preferred_username", "email", "name")


def _client() -> httpx2.AsyncClient:
    import httpx2

    return httpx2.AsyncClient(timeout=_SECONDS)


def _refresh_token_in(given: Mapping[str, Any]) -> SecretStr | None:
    found = given.get("refresh_token")
    return SecretStr(found) if isinstance(found, str) and found else None


def _secret_of(settings: Settings) -> SecretStr | None:
    file = settings.oidc_client_secret_file
    if file is None:
        return settings.oidc_client_secret
    try:
        return SecretStr(file.read_text().strip())
    except (OSError, ValueError) as error:
        raise InvalidSettings(f"cannot read TORCH_OIDC_CLIENT_SECRET_FILE, {file}: {error}") from None


def _is_safe(address: str) -> bool:
    """Whether nobody on the way can read or change what is said there."""
    parts = urlsplit(address)
    return parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in ("localhost", "127.0.0.1", "::1"))
