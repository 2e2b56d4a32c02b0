"""Where a broker is. Users, redis-py and Celery write the address of a socket differently; it is translated here."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal, Self
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from pydantic import BaseModel, ConfigDict, SecretStr

from torch_tasks.model.broker_users import DEFAULT_USER, BrokerLogin
from torch_tasks.redaction import protect
from torch_tasks.started_by_name import LOGIN_PROVIDER

OWN_PLACE = "this machine's own"
_SOCKET_SCHEMES = {"unix", "redis+socket"}
_TCP_SCHEMES = {"redis", "rediss"}


def standard_url(url: str) -> str:
    """The address as Torch and redis-py write it, with Celery's ``redis+socket://`` as ``unix://``.

    :class:`ValueError` says, without the address, what is wrong with it.
    """
    parts = urlsplit(url)
    if parts.scheme in _TCP_SCHEMES:
        try:
            parts.port  # noqa: B018 - reading it checks it
        except ValueError:
            raise ValueError("has no port that can be: it must be a number from 0 to 65535") from None
        return url
    if parts.scheme not in _SOCKET_SCHEMES:
        raise ValueError("must begin with redis://, rediss:// or unix://")
    login, _, host = parts.netloc.rpartition("@")
    if host or not parts.path.strip("/"):
        raise ValueError("must have the socket's whole path, as unix:///run/valkey/valkey.sock")
    query = dict(parse_qsl(parts.query))
    database = query.pop("virtual_host", query.pop("db", "0")).strip("/") or "0"
    if password := query.pop("password", ""):
        login = f":{quote(password, safe='')}"
    if query or parts.fragment or not database.isdecimal():
        raise ValueError("may have only ?db=NUMBER after the socket's path")
    return f"unix://{login}{'@' if login else ''}{parts.path}{'' if database == '0' else f'?db={database}'}"


class BrokerAddress(BaseModel):
    """Where the broker is, and what says so; its text never shows the password."""

    model_config = ConfigDict(frozen=True)

    url: SecretStr
    """As :func:`standard_url` makes it."""
    source: Literal["TORCH_BROKER_URL", "torch-tasks up", "nothing", "the Celery app"]
    """``nothing``: no broker was named and none runs here; this is where one would."""

    def model_post_init(self, _: object) -> None:
        if password := urlsplit(self.url.get_secret_value()).password:
            protect(password, unquote(password), what="the broker's password")

    @classmethod
    def of_socket(cls, path: Path, source: Literal["torch-tasks up", "nothing"]) -> Self:
        # Flower takes the path as it is written, so only what would end it is quoted.
        quoted = re.sub("[%?#;]", lambda found: quote(found[0]), str(path))
        return cls(url=SecretStr(f"unix://{quoted}"), source=source)

    @property
    def database(self) -> int:
        """The number of the database on the broker."""
        parts = urlsplit(self.url.get_secret_value())
        named = dict(parse_qsl(parts.query)).get("db", "") if self.socket else parts.path.strip("/")
        return int(named) if named.isdecimal() else 0

    @property
    def login(self) -> BrokerLogin | None:
        """The user and the password that stand in the address itself."""
        parts = urlsplit(self.url.get_secret_value())
        if parts.username is None and parts.password is None:
            return None
        return BrokerLogin(user=unquote(parts.username or "") or DEFAULT_USER, password=unquote(parts.password or ""))

    def with_login(self, login: BrokerLogin | None) -> Self:
        """The same broker, with this user and password in the address, or with none."""
        scheme, _, rest = self.url.get_secret_value().partition("://")
        authority, slash, place = rest.partition("/")
        words = f"{quote(login.user, safe='')}:{quote(login.password, safe='')}@" if login else ""
        url = f"{scheme}://{words}{authority.rpartition('@')[2]}{slash}{place}"
        return self.model_copy(update={"url": SecretStr(url)})

    @property
    def runs(self) -> bool:
        """Whether a broker was named, or runs here."""
        return self.source != "nothing"

    @property
    def socket(self) -> Path | None:
        """The path of the broker's Unix socket; None if it listens on a port."""
        parts = urlsplit(self.url.get_secret_value())
        return Path(unquote(parts.path)) if parts.scheme == "unix" else None

    @property
    def celery_url(self) -> str:
        """The address as Celery's ``broker_url``."""
        url = self.url.get_secret_value()
        if self.socket is not None:
            url = url.replace("unix://", "redis+socket://", 1).replace("?db=", "?virtual_host=")
        if self.login is None:  # each new connection asks for the login of that moment
            url += f"{'&' if '?' in url else '?'}credential_provider={LOGIN_PROVIDER}"
        return url

    @property
    def results_url(self) -> str:
        """The address as Celery's ``result_backend``."""
        return f"torch_tasks.broker.results:Results+{self.celery_url.removeprefix('redis+')}"

    @property
    def place(self) -> str:
        """Identifies the broker, without its password."""
        if self.source in {"torch-tasks up", "nothing"}:
            return OWN_PLACE
        parts = urlsplit(self.url.get_secret_value())
        if parts.scheme == "unix":
            return parts.path + parts.query.replace("db=", "/")
        where = f"{parts.hostname}:{parts.port or 6379}" if parts.hostname else ""
        return f"{where}{parts.path.rstrip('/') or '/0'}"

    @property
    def file_name(self) -> str:
        """The same as a part of the names of files that belong to it."""
        return re.sub(r"[^\w.-]+", "_", self.place)

    def __str__(self) -> str:
        scheme, _, rest = self.url.get_secret_value().partition("://")
        credentials, at, where = rest.rpartition("@")
        user, colon, _ = credentials.partition(":")
        shown = f"{user}:***" if colon else credentials
        where = re.sub("(password=)[^&]*", r"\1***", where)
        return f"{scheme}://{shown}{at}{where}"
