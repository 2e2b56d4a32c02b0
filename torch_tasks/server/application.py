"""The application that the server serves: its paths, and what stands before them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from importlib.metadata import version

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from torch_tasks.errors import RequestNotTaken, TorchError, UnknownOperation
from torch_tasks.fleet import fleet
from torch_tasks.link.courier import couriers
from torch_tasks.machine.fleet_keys import key_loops
from torch_tasks.mcp.http import HttpDoor
from torch_tasks.model.notify_channel import PUSH
from torch_tasks.monitoring.readiness import ReadinessProbe, lacks_of_broker, lacks_of_disk
from torch_tasks.monitoring.service_manager import notice_loops
from torch_tasks.operations.performing import perform_here
from torch_tasks.orchestration.channels import senders
from torch_tasks.orchestration.notifying import Notifier
from torch_tasks.server import openapi
from torch_tasks.server.calls import Calls, listed
from torch_tasks.server.console.console import Console
from torch_tasks.server.entrance import Entrance
from torch_tasks.server.events import EventHub, events
from torch_tasks.server.flower import FlowerDoor
from torch_tasks.server.measures import fleet_measures
from torch_tasks.server.people.login import LoginDoors
from torch_tasks.server.people.provider import OpenIdProvider
from torch_tasks.server.people.sessions import Sessions
from torch_tasks.server.problems import problem
from torch_tasks.server.push.doors import PushDoors
from torch_tasks.server.push.sending import PushKey
from torch_tasks.server.push.subscriptions import Subscriptions
from torch_tasks.server.tokens import AccessTokens
from torch_tasks.settings import Settings

API = "/api/v1"


def application(settings: Settings, hub: EventHub, names: Sequence[str]) -> Starlette:
    """The whole of it: the API, the events, MCP, the console, Flower, logging in, health, metrics."""
    tokens, sessions = AccessTokens(settings.state), Sessions(settings)
    doors = LoginDoors(settings, tokens, sessions, OpenIdProvider.of(settings))
    flower = FlowerDoor(settings)
    calls = Calls(hub, settings.server_request_bytes, settings.server_slow_seconds)
    console = Console(settings, calls, sessions, hub)
    push = PushDoors(settings, calls, sessions, PushKey(settings.state), Subscriptions(settings.state, tokens))
    notifier = Notifier({PUSH: push.sender, **senders(settings)}, fleet())
    readiness = ReadinessProbe(lambda: _lacks(hub))
    loops = [notifier.loop, console.loop, *notice_loops(readiness.lacks), *key_loops(fleet()), *couriers(fleet())]
    mcp = HttpDoor(perform_here, settings.server_request_bytes)
    measured = fleet_measures()
    described: dict[str, object] = {}

    async def list_operations(_: Request) -> Response:
        return JSONResponse({"operations": await calls.in_thread(listed), "events": f"{API}/events"})

    async def describe(_: Request) -> Response:
        if not described:
            described.update(await calls.in_thread(lambda: openapi.document(version("torch-tasks"))))
        return JSONResponse(described)

    async def ready(_: Request) -> Response:
        reasons = await calls.in_thread(readiness.lacks)
        return JSONResponse({"ready": not reasons, "reasons": reasons}, 503 if reasons else 200)

    async def measures(_: Request) -> Response:
        try:
            text = await calls.in_thread(measured)
        except TorchError as error:
            return problem(error)
        return Response(text, headers={"Content-Type": CONTENT_TYPE_LATEST})

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with mcp.running(), flower.running():
            hub.open()
            for loop in loops:
                loop.start()
            yield
            for loop in loops:
                loop.stop()
            hub.close()

    routes: list[BaseRoute] = [
        Route("/healthz", _healthy),
        Route("/readyz", ready),
        Route("/metrics", measures),
        Route("/api/openapi.json", describe),
        Route(API, list_operations),
        Route(f"{API}/events", events),
        Route(f"{API}/{{name}}", calls.perform, methods=["GET", "POST"]),
        Route("/mcp", mcp.app),
        *doors.routes(),
        *flower.routes(),
        *push.routes(),
        *console.routes(),
    ]
    entrance = Middleware(Entrance, tokens=tokens, sessions=sessions, names=names, most=settings.server_requests)
    made = Starlette(
        routes=routes, middleware=[entrance], exception_handlers={404: _nothing_here, 405: _not_so}, lifespan=lifespan
    )
    made.state.hub = hub
    return made


def _lacks(hub: EventHub) -> Iterator[str]:
    """What keeps the server from serving."""
    yield from lacks_of_disk(fleet())
    yield from (away := list(lacks_of_broker(fleet())))
    if not away and hub.trouble:
        yield f"the fleet's events are not read: {hub.trouble}"


async def _healthy(_: Request) -> Response:
    return PlainTextResponse("ok\n")


async def _nothing_here(request: Request, _: Exception) -> Response:
    return problem(UnknownOperation(f"there is nothing at {request.url.path}; {API} lists what can be asked for"))


async def _not_so(request: Request, refusal: Exception) -> Response:
    headers = dict(getattr(refusal, "headers", None) or {})
    return problem(RequestNotTaken(f"{request.url.path} is not asked by {request.method}", 405), headers)
