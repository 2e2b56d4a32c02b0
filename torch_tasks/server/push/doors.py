"""Where a page of the console says that its browser wants to be told, or no more."""

from __future__ import annotations

import hmac
import json
from collections.abc import Awaitable, Callable
from typing import Any

from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from torch_tasks.caller import caller
from torch_tasks.errors import InvalidRequest, RequestNotTaken, TorchError
from torch_tasks.model.fields import readable
from torch_tasks.security.decision import require
from torch_tasks.security.rights import Right, Subject
from torch_tasks.server.bodies import read_body
from torch_tasks.server.calls import Calls
from torch_tasks.server.people.sessions import Sessions
from torch_tasks.server.problems import problem
from torch_tasks.server.push.sending import PushKey, PushSender, require_installed
from torch_tasks.server.push.subscriptions import Subscription, Subscriptions
from torch_tasks.settings import Settings

_LONGEST = 8 << 10


class PushDoors:
    """For whoever is logged in and may look: they are told what they could see."""

    def __init__(
        self, settings: Settings, calls: Calls, sessions: Sessions, key: PushKey, subscriptions: Subscriptions
    ) -> None:
        self._calls, self._sessions, self._slow = calls, sessions, settings.server_slow_seconds
        self._key, self._subscriptions = key, subscriptions
        self.sender = PushSender(settings, key, subscriptions)

    def routes(self) -> list[BaseRoute]:
        return [
            Route("/push/key", self._or_problem(self.key)),
            Route("/push/begin", self._or_problem(self.begin), methods=["POST"]),
            Route("/push/end", self._or_problem(self.end), methods=["POST"]),
        ]

    async def key(self, _: Request) -> Response:
        """What a browser subscribes with."""
        require("push.begin", Right.LOOK, Subject())
        require_installed()
        return JSONResponse({"key": await self._calls.in_thread(lambda: self._key.public)})

    async def begin(self, request: Request) -> Response:
        """Tell this browser from now on."""
        require("push.begin", Right.LOOK, Subject())
        given, who = await self._given(request), caller().name
        require_installed()
        try:
            keys = given["keys"]
            new = Subscription(endpoint=given["endpoint"], p256dh=keys["p256dh"], auth=keys["auth"], person=who)
        except ValidationError as error:
            raise InvalidRequest(f"this is no subscription of a browser: {readable(error)}") from None
        except (KeyError, TypeError):
            raise InvalidRequest("this is no subscription of a browser: endpoint, keys.p256dh, keys.auth") from None
        await self._calls.in_thread(lambda: self.sender.check(new.endpoint))
        await self._calls.in_thread(lambda: self._subscriptions.add(new))
        return JSONResponse({"said": "This browser is told of what needs you."})

    async def end(self, request: Request) -> Response:
        """Tell it no more."""
        given, who = await self._given(request), caller().name
        await self._calls.in_thread(lambda: self._subscriptions.remove(str(given.get("endpoint")), who))
        return JSONResponse({"said": "This browser is not told any more."})

    async def _given(self, request: Request) -> dict[str, Any]:
        """What a page of this login sends, and no other page can."""
        body = await read_body(request, _LONGEST, self._slow)
        try:
            given = json.loads(body)
        except ValueError:
            given = None
        proof = self._sessions.proof(request.headers)
        shown = str(given.get("proof", "")) if isinstance(given, dict) else ""
        if not proof or not hmac.compare_digest(proof.encode(), shown.encode(errors="replace")):
            raise RequestNotTaken("this is not asked by a page of this login; load the page again", 403)
        assert isinstance(given, dict)
        return given

    @staticmethod
    def _or_problem(act: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
        async def acted(request: Request) -> Response:
            try:
                return await act(request)
            except TorchError as error:
                return problem(error)

        return acted
