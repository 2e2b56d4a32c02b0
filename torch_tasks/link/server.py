"""The link of a process elsewhere: it asks a server (``torch-tasks serve``) by HTTP."""

from __future__ import annotations

import json
import os
import time
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit

import httpx2
from pydantic import ValidationError

from torch_tasks.config_files import glance
from torch_tasks.errors import (
    InternalFault,
    InvalidSettings,
    NotAuthenticated,
    ServerBusy,
    ServerUnreachable,
    StillBeingDone,
    TorchError,
)
from torch_tasks.link.raised import error_named
from torch_tasks.machine.own_server import own_token_for
from torch_tasks.settings import settings

if TYPE_CHECKING:
    from torch_tasks.operations.operation import Asked, Operation, Reply

_REPLY_SECONDS = 60.0
"""The longest that one request waits at the server is half of it."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 1.0
_NOT_TRUSTED = "CERTIFICATE_VERIFY_FAILED"
_ON_THE_WAY = (502, 503, 504)
"""What a proxy says of a server that it cannot reach."""


class ServerLink:
    """Asks one server, as the bearer of a token.

    While it cannot be reached, a request is repeated with the same key: nothing is done twice.
    """

    def __init__(self, url: str, token: str | None = None) -> None:
        self.url = _checked(url)
        self._token = token
        self._is_own = False
        """Whether it was this machine's own server, which took its owner's token: it may be starting again."""
        self._client = httpx2.Client(
            timeout=httpx2.Timeout(_REPLY_SECONDS, connect=5.0),
            trust_env=not _is_of_this_machine(self.url),
            verify=httpx2.create_ssl_context() if self.url.startswith("https:") else True,
        )

    def perform(self, operation: Operation[Asked, Reply], asked: Asked, key: str | None = None) -> Reply:
        made = {"id"} - asked.model_fields_set  # an id that was not chosen follows from the key, at the server
        reply = self.call(operation.name, asked.model_dump(mode="json", exclude=made), key)
        try:
            return operation.reply.validate_python(reply)
        except ValidationError as error:
            raise ServerUnreachable(
                f"the server at {self.url} replies to {operation.name} in a form that this version of Torch does not "
                f"know ({error.error_count()} differences); have both run the same release"
            ) from None

    def call(self, operation: str, fields: dict[str, Any], key: str | None = None) -> Any:
        """The reply to a request as JSON has it; raises the errors of the operation.

        :class:`ServerUnreachable` if the server does not answer for ``TORCH_BROKER_CONNECT_SECONDS``.
        """
        body = json.dumps(fields).encode()
        headers = {"Content-Type": "application/json", "Idempotency-Key": key or os.urandom(16).hex()}
        away_since, pause = None, _FIRST_PAUSE
        while True:
            try:
                return self._ask(f"{self.url}/api/v1/{operation}", body, {**self._authorization(), **headers})
            except ServerUnreachable as error:
                problem: TorchError = error
            except ServerBusy as error:
                problem = error
            except StillBeingDone as error:
                if away_since is None:
                    raise
                problem = error  # what this very request began before its connection broke
            away_since = away_since or time.monotonic()
            if time.monotonic() - away_since >= settings().broker_connect_seconds:
                raise problem
            time.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    def login_link(self, then: str) -> str:
        """A link with which a browser logs in as the token's bearer, once, within a minute, to be at ``then``."""
        headers = {**self._authorization(), "Content-Type": "application/x-www-form-urlencoded"}
        return str(self._ask(f"{self.url}/login/links", urlencode({"next": then}).encode(), headers)["url"])

    def _ask(self, address: str, body: bytes, headers: dict[str, str]) -> Any:
        try:
            answer = self._client.post(address, content=body, headers=headers)
        except httpx2.HTTPError as error:
            why = str(error) or type(error).__name__
            if _NOT_TRUSTED in why:
                raise InvalidSettings(
                    f"the certificate of the server at {self.url} is not trusted here: {why}. SSL_CERT_FILE names the "
                    "file of the authority that issued it"
                ) from None
            raise ServerUnreachable(
                f"the server at {self.url} does not answer: {why}. Is 'torch-tasks serve' running there? --server or "
                "TORCH_SERVER names it"
            ) from None
        try:
            content = answer.json()
        except ValueError:
            content = None
        if answer.status_code == httpx2.codes.OK:
            return content
        if isinstance(content, dict) and {"error", "detail"} <= content.keys():
            raise error_named(str(content["error"]), str(content["detail"]))
        words = f"what answers at {self.url} is no server of Torch, or stands before one: status {answer.status_code}"
        raise (ServerUnreachable if answer.status_code in _ON_THE_WAY else InternalFault)(words)

    def _authorization(self) -> dict[str, str]:
        token = self._token or _token_in_file()
        if not token and (token := own_token_for(settings().state, self.url)):
            self._is_own = True
        if not token and self._is_own:
            raise ServerUnreachable(f"this machine's own server at {self.url} has ended; 'torch-tasks serve' starts it")
        if not token:
            raise NotAuthenticated(
                f"there is no token for the server at {self.url}: TORCH_TOKEN_FILE names the file that holds it; where "
                "the server runs, 'torch-tasks token create' makes one"
            )
        return {"Authorization": f"Bearer {token}"}


@cache
def kept_link(url: str) -> ServerLink:
    """This process's link to the server that its settings name, kept over all its requests."""
    return ServerLink(url)


os.register_at_fork(after_in_child=kept_link.cache_clear)  # two processes must not speak on one connection


def _token_in_file() -> str | None:
    file = glance("token_file")
    return token_in(Path(file).expanduser(), "TORCH_TOKEN_FILE") if file else None


def token_in(file: Path, setting: str) -> str:
    """The token in a file that this setting names."""
    try:
        token = file.read_text().strip()
    except (OSError, ValueError) as error:
        raise InvalidSettings(f"cannot read the token in {file} ({setting}): {error}") from None
    if not token or not token.isascii() or not token.isprintable():
        raise InvalidSettings(f"{file} ({setting}) holds no token: one line, as 'torch-tasks token create' prints")
    return token


def _checked(url: str) -> str:
    try:
        parts = urlsplit(url)
        fits = parts.scheme in ("http", "https") and parts.hostname and not parts.query and parts.port != 0
    except ValueError:
        fits = False
    if not fits or "@" in parts.netloc:
        raise InvalidSettings(
            f"{url!r} is no address of a server; write it as https://torch.example or http://127.0.0.1:5556"
        )
    return url.rstrip("/")


def _is_of_this_machine(url: str) -> bool:
    """Whether it is reached on loopback, where no proxy stands in between."""
    return urlsplit(url).hostname in ("localhost", "127.0.0.1", "::1")
