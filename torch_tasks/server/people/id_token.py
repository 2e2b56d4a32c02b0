"""What an OpenID provider says of a person, believed only if its keys signed it, for this server, for now."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch_tasks.errors import LoginRefused
from torch_tasks.visible_text import one_line

if TYPE_CHECKING:
    from jwt import PyJWKSet

ALGORITHMS = (
    *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    *("ES256", "ES384", "ES512", "EdDSA"),
)
"""Signatures by a key that the provider alone has; never by a secret that this server has, too."""
SKEW_SECONDS = 60
"""How far the clocks of the provider and of this machine may be apart."""


def claims_in(token: str, keys: PyJWKSet, issuer: str, client_id: str, nonce: str | None) -> dict[str, Any]:
    """What the provider says in an ID token; :class:`LoginRefused` says why it is not believed.

    ``nonce`` is what this server sent with the login; None where a login is renewed.
    """
    import jwt

    key = _key_of(token, keys)
    try:
        claims: dict[str, Any] = jwt.decode(
            token,
            key,
            algorithms=ALGORITHMS,
            audience=client_id,
            issuer=issuer,
            leeway=SKEW_SECONDS,
            options={"require": ["iss", "sub", "aud", "exp", "iat"]},
        )
    except (jwt.ExpiredSignatureError, jwt.ImmatureSignatureError) as error:
        raise LoginRefused(f"the provider's token does not count now: {error}. Compare the clocks of both") from None
    except jwt.PyJWTError as error:
        raise LoginRefused(f"the provider's token is not believed: {one_line(str(error), 200)}") from None
    _check_party(claims, client_id)
    if nonce is not None and claims.get("nonce") != nonce:
        raise LoginRefused("the provider's token is not for this login (its nonce is another one); log in again")
    return claims


def is_signed_with_one_of(keys: PyJWKSet, token: str) -> bool:
    """Whether the token names a key that is among these."""
    return len(_keys_named(token, keys)) == 1


def _key_of(token: str, keys: PyJWKSet) -> Any:
    found = _keys_named(token, keys)
    if len(found) != 1:
        raise LoginRefused("the provider's token is signed with a key that is none of the provider's")
    return found[0]


def _keys_named(token: str, keys: PyJWKSet) -> list[Any]:
    import jwt

    try:
        wanted = jwt.get_unverified_header(token).get("kid")
    except jwt.PyJWTError as error:
        raise LoginRefused(f"what the provider sent is no token: {one_line(str(error), 200)}") from None
    return [key for key in keys.keys if key.public_key_use in (None, "sig") and wanted in (None, key.key_id)]


def _check_party(claims: Mapping[str, Any], client_id: str) -> None:
    """A token for several is taken only if it says that this server asked for it."""
    audience = claims["aud"]
    party = claims.get("azp", client_id if isinstance(audience, str) or len(audience) == 1 else None)
    if party != client_id:
        raise LoginRefused("the provider's token was made for another client")
