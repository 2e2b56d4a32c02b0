"""Browsers of people, and a server for them that listens nowhere."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx2
import pytest
from clients import read_settings_anew
from fakes.openid import CLIENT, SECRET, FakeProvider
from starlette.applications import Starlette

from torch_tasks.server.application import application
from torch_tasks.server.events import EventHub
from torch_tasks.server.tokens import AccessTokens
from torch_tasks.settings import settings
from torch_tasks.state_folder import StateFolder

WEB = "http://127.0.0.1:5556"
PAGE = {
    "Accept": "text/html",
    "Sec-Fetch-Site": "same-origin",
    "Sec-Fetch-Mode": "navigate",
    "Sec-Fetch-Dest": "document",
}
FROM_ELSEWHERE = {**PAGE, "Sec-Fetch-Site": "cross-site"}


class Browser:
    """Asks an application that listens nowhere, keeps its cookies, and follows nothing by itself."""

    def __init__(self, app: Starlette, web: str = WEB) -> None:
        self._app, self._web = app, web
        self.cookies = httpx2.Cookies()

    def get(self, path: str, headers: dict[str, str] = PAGE) -> httpx2.Response:
        return self._ask("GET", path, headers=headers)

    def post(
        self, path: str, origin: str | None = "", headers: Mapping[str, str] | None = None, **how: Any
    ) -> httpx2.Response:
        own = {} if origin is None else {"Origin": origin or self._web}
        return self._ask("POST", path, headers={**PAGE, **own, **(headers or {})}, **how)

    def _ask(self, method: str, path: str, **how: Any) -> httpx2.Response:
        async def ask() -> httpx2.Response:
            transport = httpx2.ASGITransport(self._app)
            async with httpx2.AsyncClient(transport=transport, base_url=self._web, cookies=self.cookies) as client:
                reply = await client.request(method, path, **how)
                self.cookies = client.cookies
                return reply

        return asyncio.run(ask())

    def at_provider(self, then: str = "/") -> str:
        """Begin a login; what the provider sends the browser back with."""
        to_provider = self.get(f"/login/provider?next={then}")
        assert to_provider.status_code == 303, to_provider.text
        back = httpx2.get(to_provider.headers["location"], trust_env=False)
        assert back.status_code == 302, back.text
        return back.headers["location"]

    def log_in(self, then: str = "/") -> httpx2.Response:
        return self.get(self.at_provider(then), FROM_ELSEWHERE)

    def who(self) -> str:
        """Whom the server takes it for."""
        reply = self.get("/me")
        return reply.text if reply.status_code == 200 else f"{reply.status_code} {reply.headers.get('location')}"


class Site:
    """A server before a broker that is away, with a provider for people."""

    def __init__(self, provider: FakeProvider, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self._patch = patch
        self.tokens = AccessTokens(StateFolder(folder / "state"))
        secret = folder / "secret"
        secret.write_text(f"{SECRET}\n")
        self.set(
            BROKER_URL="redis://127.0.0.1:1/0", STATE_DIR=folder / "state", BROKER_CONNECT_SECONDS=0.1,
            OIDC_ISSUER=provider.issuer, OIDC_CLIENT_ID=CLIENT, OIDC_CLIENT_SECRET_FILE=secret,
            OIDC_OPERATORS='["ops"]', OIDC_VIEWERS='["staff"]',
        )  # fmt: skip

    def set(self, **given: object) -> None:
        for name, value in given.items():
            self._patch.setenv(f"TORCH_{name}", str(value))

    def browser(self, web: str = WEB) -> Browser:
        """A browser at a server with these settings."""
        read_settings_anew()
        return Browser(application(settings(), EventHub(), ["torch.example"]), web)
