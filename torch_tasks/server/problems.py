"""Errors as HTTP has them: a status, and a document that says which error it is (RFC 9457)."""

from __future__ import annotations

from starlette.responses import JSONResponse

from torch_tasks import errors
from torch_tasks.errors import TorchError

MEDIA_TYPE = "application/problem+json"

STATUSES: dict[type[TorchError], int] = {
    TorchError: 409,
    errors.WrongUsage: 400,
    errors.InvalidRequest: 422,
    errors.UnknownOperation: 404,
    errors.NotAuthenticated: 401,
    errors.LoginRefused: 403,
    errors.NotAllowed: 403,
    errors.TaskNotFound: 404,
    errors.AgentNotFound: 404,
    errors.MessageNotFound: 404,
    errors.CheckinNotFound: 404,
    errors.NodeNotFound: 404,
    errors.BrokerAway: 503,
    errors.LedgerUnusable: 503,
    errors.TimeOver: 504,
    errors.InternalFault: 500,
}
"""The status of each error, and of those that are a kind of it."""
_RETRY_AFTER = {"Retry-After": "1"}


def status_of(error: TorchError) -> int:
    if isinstance(error, errors.RequestNotTaken):
        return error.status
    return next(STATUSES[kind] for kind in type(error).__mro__ if kind in STATUSES)


def problem(error: TorchError, headers: dict[str, str] | None = None) -> JSONResponse:
    """The error with its class's name, its text and its exit code; ``link/server.py`` makes the same error of it."""
    status = status_of(error)
    name = type(error).__name__
    body = {
        "type": f"urn:torch:error:{name}",
        "title": (type(error).__doc__ or name).splitlines()[0],
        "status": status,
        "detail": str(error),
        "error": name,
        "exit_code": error.exit_code,
    }
    extra = {"WWW-Authenticate": "Bearer"} if status == 401 else _RETRY_AFTER if status == 503 else {}
    own = error.headers if isinstance(error, errors.RequestNotTaken) else {}
    return JSONResponse(body, status, {**extra, **own, **(headers or {})}, MEDIA_TYPE)
