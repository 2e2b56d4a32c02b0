"""An OpenID provider on a port of its own: strict about what it is asked, and as false as a test wants it to be."""

from __future__ import annotations

import base64
import hashlib
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote_plus, urlencode

import jwt
import uvicorn
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from jwt.algorithms import RSAAlgorithm
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route
from waiting import until

CLIENT, SECRET = "torch", "a secret/with+odd signs"


def new_key() -> RSAPrivateKey:
    return generate_private_key(public_exponent=65537, key_size=2048)


@dataclass
class Asked:
    """What a code was given for."""

    back_to: str
    challenge: str
    nonce: str


@dataclass
class FakeProvider:
    """Whoever comes is the person that a test put there."""

    issuer: str
    person: dict[str, Any] = field(
        default_factory=lambda: {"sub": "17", "preferred_username": "Ada", "groups": ["ops"]}
    )
    key: RSAPrivateKey = field(default_factory=new_key)
    kid: str = "first"
    shown: dict[str, RSAPrivateKey] = field(default_factory=dict)
    """The keys that it shows; those that it signs with if there are none."""
    changed: dict[str, Any] = field(default_factory=dict)
    """What an ID token says besides, or instead."""
    in_token: bool = True
    """Whether the groups stand in the ID token, or at the endpoint for what it knows of a person alone."""
    refreshes: bool = True
    skew: float = 0.0
    """How far its clock is ahead."""
    refuses: bool = False
    asked: list[str] = field(default_factory=list)
    """The paths that were asked."""
    codes: dict[str, Asked] = field(default_factory=dict)
    refresh: str = ""

    def token(self, nonce: str | None) -> str:
        """An ID token as it stands."""
        now = int(time.time() + self.skew)
        person = {name: value for name, value in self.person.items() if self.in_token or name != "groups"}
        claims = {"iss": self.issuer, "aud": CLIENT, "iat": now, "exp": now + 300, **person}
        claims |= {"nonce": nonce} if nonce else {}
        claims = {name: value for name, value in {**claims, **self.changed}.items() if value is not None}
        return jwt.encode(claims, self.key, "RS256", {"kid": self.kid})

    # ── endpoints ────────────────────────────────────────────────────────────────────────────────────────────────

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/.well-known/openid-configuration", self._configuration),
                Route("/authorize", self._authorize),
                Route("/token", self._token, methods=["POST"]),
                Route("/userinfo", self._userinfo),
                Route("/keys", self._keys),
            ]
        )

    async def _configuration(self, request: Request) -> Response:
        self.asked.append(request.url.path)
        ends = {"authorization_endpoint": "authorize", "token_endpoint": "token", "jwks_uri": "keys"}
        ends["userinfo_endpoint"] = "userinfo"
        return JSONResponse({"issuer": self.issuer, **{name: f"{self.issuer}/{end}" for name, end in ends.items()}})

    async def _authorize(self, request: Request) -> Response:
        asked = dict(request.query_params)
        if asked["client_id"] != CLIENT or not asked["redirect_uri"].endswith("/login/callback"):
            return JSONResponse({"error": "unauthorized_client"}, 400)
        assert asked["response_type"] == "code"
        assert asked["code_challenge_method"] == "S256"
        assert "openid" in asked["scope"].split()
        came_back = {"state": asked["state"], "iss": self.issuer}
        if self.refuses:
            came_back |= {"error": "access_denied", "error_description": "<b>not you</b>"}
        else:
            came_back["code"] = secrets.token_hex(8)
            self.codes[came_back["code"]] = Asked(asked["redirect_uri"], asked["code_challenge"], asked["nonce"])
        return RedirectResponse(f"{asked['redirect_uri']}?{urlencode(came_back)}", 302)

    async def _token(self, request: Request) -> Response:
        self.asked.append(request.url.path)
        given = base64.b64decode(request.headers.get("authorization", "").removeprefix("Basic ")).decode()
        if [unquote_plus(part) for part in given.split(":")] != [CLIENT, SECRET]:
            return JSONResponse({"error": "invalid_client"}, 401)
        fields = {name: values[0] for name, values in parse_qs((await request.body()).decode()).items()}
        if fields["grant_type"] == "refresh_token":
            if not self.refresh or fields["refresh_token"] != self.refresh:
                return JSONResponse({"error": "invalid_grant"}, 400)
            return self._given(None)
        code = self.codes.pop(fields["code"], None)
        digest = hashlib.sha256(fields["code_verifier"].encode()).digest()
        proof = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        if code is None or code.back_to != fields["redirect_uri"] or code.challenge != proof:
            return JSONResponse({"error": "invalid_grant"}, 400)
        return self._given(code.nonce)

    def _given(self, nonce: str | None) -> Response:
        self.refresh = secrets.token_hex(8) if self.refreshes else ""
        given = {"access_token": "access", "token_type": "Bearer", "id_token": self.token(nonce)}
        return JSONResponse(given | ({"refresh_token": self.refresh} if self.refreshes else {}))

    async def _userinfo(self, request: Request) -> Response:
        self.asked.append(request.url.path)
        if request.headers.get("authorization") != "Bearer access":
            return JSONResponse({}, 401)
        return JSONResponse(self.person)

    async def _keys(self, request: Request) -> Response:
        self.asked.append(request.url.path)
        shown = self.shown or {self.kid: self.key}
        keys = [RSAAlgorithm.to_jwk(key.public_key(), as_dict=True) | {"kid": kid} for kid, key in shown.items()]
        return JSONResponse({"keys": keys})


@contextmanager
def provided() -> Iterator[FakeProvider]:
    """A provider, for as long as it is needed."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        provider = FakeProvider(f"http://127.0.0.1:{listener.getsockname()[1]}")
        server = uvicorn.Server(uvicorn.Config(provider.app(), log_config=None, lifespan="off"))
        thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
        thread.start()
        until(lambda: server.started, "the provider listens")
        try:
            yield provider
        finally:
            server.should_exit = True
            thread.join(10)
