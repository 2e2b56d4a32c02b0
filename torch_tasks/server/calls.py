"""One operation asked for by HTTP: POST with the request as JSON; those that read also by GET with its fields."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar

import anyio.to_thread
from anyio import CapacityLimiter, current_time, move_on_after
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from torch_tasks.errors import InvalidRequest, RequestNotTaken, TorchError, Unreadable
from torch_tasks.model.reader import read_object
from torch_tasks.operations.operation import Access, News, Operation, all_operations, operation_named, request_of
from torch_tasks.operations.operation import Request as RequestFields
from torch_tasks.operations.performing import perform_here
from torch_tasks.server.bodies import read_body
from torch_tasks.server.events import EventHub
from torch_tasks.server.problems import problem
from torch_tasks.visible_text import one_line

IDEMPOTENCY_KEY = "idempotency-key"
_LONGEST_KEY = 255
_AT_ONCE, _WAITING = 32, 512
"""How many requests are carried out at a time, and beside them how many that wait in a thread of their own."""
_LOOK_AGAIN_SECONDS = 5.0
"""Events may be missed while the broker is away."""
_Value = TypeVar("_Value")


class Calls:
    """Carries out what is asked for, in threads: quick requests do not queue behind those that wait."""

    def __init__(self, hub: EventHub, longest_bytes: int, slow_seconds: float) -> None:
        self._hub = hub
        self._longest = longest_bytes
        self._slow = slow_seconds
        self._quick, self._waits = CapacityLimiter(_AT_ONCE), CapacityLimiter(_WAITING)

    async def perform(self, request: Request) -> Response:
        """The reply, or the problem, of the operation that the path names."""
        try:
            name = request.path_params["name"]
            operation = await self.in_thread(lambda: operation_named(name))
            if request.method == "GET" and operation.access is not Access.READ:
                raise RequestNotTaken(f"{operation.name} changes something: ask for it with POST", 405, Allow="POST")
            fields = self._fields_of_query(operation, request) if request.method == "GET" else await self._body(request)
            asked = request_of(operation, fields)
            reply = await self._perform(operation, asked, _key_of(request))
        except TorchError as error:
            return problem(error)
        return JSONResponse(operation.reply.dump_python(reply, mode="json"))

    async def in_thread(self, act: Callable[[], _Value], *, waits: bool = False) -> _Value:
        return await anyio.to_thread.run_sync(
            act, limiter=self._waits if waits else self._quick, abandon_on_cancel=True
        )

    async def _perform(self, operation: Operation[Any, Any], asked: RequestFields, key: str | None) -> Any:
        waits = bool(getattr(asked, "seconds", 0))
        if waits and operation.news:
            return await self._await_news(operation, asked, operation.news)
        return await self.in_thread(lambda: perform_here(operation, asked, key), waits=waits)

    async def _await_news(self, operation: Operation[Any, Any], asked: Any, news: News) -> Any:
        """Ask now, and again when an event may have brought what is waited for; meanwhile no thread waits."""
        deadline = current_time() + asked.seconds
        at_once = asked.model_copy(update={"seconds": 0.0})
        with self._hub.watching(news.concerns(asked)) as happened:
            while True:
                left = deadline - current_time()
                happened.clear()
                reply = await self.in_thread(lambda: perform_here(operation, at_once))
                if left <= 0 or news.came(asked, reply):
                    return reply
                with move_on_after(min(left, _LOOK_AGAIN_SECONDS)):
                    await happened.wait()

    async def _body(self, request: Request) -> dict[str, Any]:
        body = await read_body(request, self._longest, self._slow)
        if not body:
            return {}
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            given = one_line(kind, 60) or "without a type"
            raise RequestNotTaken(f"the request must be application/json, not {given}", 415)
        try:
            return read_object(body.decode(), limit=self._longest)
        except UnicodeDecodeError:
            raise InvalidRequest("this request cannot be accepted: it is not UTF-8") from None
        except Unreadable as error:
            raise InvalidRequest(f"this request cannot be accepted: {error}") from None

    @staticmethod
    def _fields_of_query(operation: Operation[Any, Any], request: Request) -> dict[str, Any]:
        """The fields of a request from a query, where each value is a text and a list is a field that is repeated."""
        lists, fields = lists_in(operation), dict[str, Any]()
        for name in request.query_params:
            given = request.query_params.getlist(name)
            if name in lists:
                fields[name] = given
            elif len(given) > 1:
                raise InvalidRequest(
                    f"this request cannot be accepted: {one_line(name, 60)}: is given {len(given)} times"
                )
            else:
                fields[name] = given[0]
        return fields


def listed() -> list[dict[str, str]]:
    """Every operation as a client sees it."""
    return [
        {"name": one.name, "access": one.access, "right": one.right, "description": one.description}
        for one in all_operations()
    ]


def _key_of(request: Request) -> str | None:
    key = request.headers.get(IDEMPOTENCY_KEY)
    if key is not None and not (0 < len(key) <= _LONGEST_KEY and key.isascii() and key.isprintable()):
        raise InvalidRequest(f"Idempotency-Key must be 1 to {_LONGEST_KEY} printable ASCII characters")
    return key


@cache
def lists_in(operation: Operation[Any, Any]) -> frozenset[str]:
    """The fields of its request that are lists."""
    fields = operation.request.model_json_schema().get("properties", {}).items()
    forms = {name: (field, *field.get("anyOf", ())) for name, field in fields}
    return frozenset(name for name, several in forms.items() if any(form.get("type") == "array" for form in several))
