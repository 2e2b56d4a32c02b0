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
_SENTINEL_SCHEMES = {"sentinel": "redis", "sentinels": "rediss"}
"""How the servers are reached that Sentinel watches, by the scheme of Sentinel's address."""
_SENTINEL_PORT = 26379
_SENTINEL_FORM = re.compile(r"[^;@/?#]+(;[^;@/?#]+)*")
_SENTINEL_NAME = re.compile(r"/([\w.-]+)(?:/(\d*))?")


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
    if parts.scheme in _SENTINEL_SCHEMES:
        return _standard_sentinels(url)
    if parts.scheme not in _SOCKET_SCHEMES:
        raise ValueError("must begin with redis://, rediss://, sentinel://, sentinels:// or unix://")
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


def _standard_sentinels(url: str) -> str:
    """Sentinels with one scheme before all of them, as ``sentinel://LOGIN@HOST:PORT;HOST:PORT/NAME/0``."""
    scheme = url.partition("://")[0]
    parts = urlsplit(url.replace(f";{scheme}://", ";"))
    login, at, hosts = parts.netloc.rpartition("@")
    named = _SENTINEL_NAME.fullmatch(parts.path)
    places = [_place_of(host) for host in hosts.split(";")] if _SENTINEL_FORM.fullmatch(hosts) else []
    if not places or not all(places) or not named or parts.query or parts.fragment:
        raise ValueError(
            f"must name the Sentinels and what they watch, as {scheme}://HOST:26379;HOST2:26379/NAME or …/NAME/DATABASE"
        )
    shown = ";".join(f"{host}:{port}" for host, port in filter(None, places))
    return f"{scheme}://{login}{at}{shown}/{named[1]}/{named[2] or 0}"


def file_name_of(place: str) -> str:
    """A broker's place as a part of the names of files that belong to it."""
    return re.sub(r"[^\w.-]+", "_", place)


def _place_of(host: str) -> tuple[str, int] | None:
    name, _, port = host.partition(":")
    if not name or not (port or str(_SENTINEL_PORT)).isdecimal():
        return None
    return name, int(port or _SENTINEL_PORT)


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
        parts = urlsplit(self.plain_url)
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
    def sentinels(self) -> tuple[tuple[str, int], ...]:
        """Host and port of each Sentinel that says which server is the primary; none if the address is a server's."""
        parts = urlsplit(self.url.get_secret_value())
        if parts.scheme not in _SENTINEL_SCHEMES:
            return ()
        hosts = parts.netloc.rpartition("@")[2].split(";")
        return tuple(place for place in map(_place_of, hosts) if place)

    @property
    def door(self) -> tuple[str, int]:
        """Host and port to which this machine connects first; itself for a Unix socket."""
        if self.sentinels:
            return self.sentinels[0]
        parts = urlsplit(self._text)
        return parts.hostname or "127.0.0.1", parts.port or 6379

    @property
    def watched_name(self) -> str:
        """Under which name Sentinel knows the servers."""
        return urlsplit(self.url.get_secret_value()).path.split("/")[1] if self.sentinels else ""

    @property
    def plain_url(self) -> str:
        """The address as redis-py reads it; for servers that Sentinel watches, with a name where the host would be."""
        return self.at(f"{self.watched_name}.sentinel", _SENTINEL_PORT).plain_url if self.sentinels else self._text

    @property
    def _text(self) -> str:
        return self.url.get_secret_value()

    def at(self, host: str, port: int) -> Self:
        """The address of one of the servers that Sentinel watches."""
        scheme = self._text.partition("://")[0]
        login, at, _ = urlsplit(self._text).netloc.rpartition("@")
        _, _, database = urlsplit(self._text).path.rpartition("/")
        shown = f"[{host}]" if ":" in host else host
        url = f"{_SENTINEL_SCHEMES[scheme]}://{login}{at}{shown}:{port}/{database}"
        return self.model_copy(update={"url": SecretStr(url)})

    @property
    def celery_url(self) -> str:
        """The address as Celery's ``broker_url``."""
        url = self.plain_url
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
        if self.sentinels:
            return f"{parts.netloc.rpartition('@')[2]}{parts.path}"
        where = f"{parts.hostname}:{parts.port or 6379}" if parts.hostname else ""
        return f"{where}{parts.path.rstrip('/') or '/0'}"

    @property
    def file_name(self) -> str:
        return file_name_of(self.place)

    def __str__(self) -> str:
        scheme, _, rest = self.url.get_secret_value().partition("://")
        credentials, at, where = rest.rpartition("@")
        user, colon, _ = credentials.partition(":")
        shown = f"{user}:***" if colon else credentials
        where = re.sub("(password=)[^&]*", r"\1***", where)
        return f"{scheme}://{shown}{at}{where}"
