"""Sends pushes: encrypted for one browser each, signed with this server's own key."""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import json
import logging
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property
from http.client import HTTPException
from typing import Any
from urllib.parse import quote

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from torch_tasks.errors import InvalidRequest, RequestNotTaken, TorchError
from torch_tasks.orchestration.attention import Need
from torch_tasks.server.push.addresses import CheckedConnection, read_endpoint, resolve
from torch_tasks.server.push.subscriptions import Subscription, Subscriptions
from torch_tasks.settings import Settings
from torch_tasks.state_folder import StateFolder
from torch_tasks.system.files import exclusive, make_folder, write_private

log = logging.getLogger(__name__)

_LONGEST_TEXT = 600
"""A push service takes 4096 bytes."""
_KEPT_SECONDS = 86_400
"""So long a push service keeps it for a browser that is not there."""
_SIGNED_SECONDS = 12 * 3600
_OVER = (404, 410)
_MOST_ALONE = 3
"""More needs than this, found at once, are one push."""


class PushKey:
    """The key by which push services know this server; made once, in a file for its owner alone."""

    def __init__(self, state: StateFolder) -> None:
        self._state = state

    @cached_property
    def private(self) -> ec.EllipticCurvePrivateKey:
        file = self._state.push_key
        make_folder(file.parent)
        with exclusive(self._state.push_lock):
            if not file.exists():
                made = ec.generate_private_key(ec.SECP256R1())
                form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
                write_private(file, made.private_bytes(*form).decode())
            found = serialization.load_pem_private_key(file.read_bytes(), None)
        assert isinstance(found, ec.EllipticCurvePrivateKey)
        return found

    @property
    def public(self) -> str:
        """What a browser subscribes with."""
        form = serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
        return base64.urlsafe_b64encode(self.private.public_key().public_bytes(*form)).rstrip(b"=").decode()


class PushSender:
    """Tells all browsers that subscribed here of what needs a person; another server has others."""

    at_once = 50

    def __init__(self, settings: Settings, key: PushKey, subscriptions: Subscriptions) -> None:
        self._key, self._subscriptions = key, subscriptions
        self._allowed = frozenset(settings.push_services)
        web = settings.server_public_url or ""
        self._contact = settings.push_contact or (web if web.startswith("https:") else "mailto:torch@example.com")

    @property
    def whose(self) -> str:
        """Those who subscribed with this server's key."""
        return hashlib.sha256(self._key.public.encode()).hexdigest()[:12]

    def is_open(self) -> bool:
        return bool(self._subscriptions.current()) and is_installed()

    def check(self, endpoint: str) -> None:
        """Raise :class:`InvalidRequest` for an address to which nothing is sent."""
        resolve(read_endpoint(endpoint), self._allowed)

    def tell(self, needs: Sequence[Need]) -> str:
        """Each need is a push of its own; many at once are one."""
        told = [(need.id, facts(need)) for need in needs]
        if len(needs) > _MOST_ALONE:
            together = facts_together(needs)
            told = [(together["tag"], together)]
        return "; ".join(filter(None, (self._tell(topic, values) for topic, values in told)))

    def _tell(self, topic: str, told: Mapping[str, str]) -> str:
        failures = []
        reached = 0
        for one in self._subscriptions.current():
            try:
                self._send(one, topic, told)
                reached += 1
            except (TorchError, OSError, HTTPException, ValueError) as error:
                failures.append(f"{one.person}: {error}")
        if reached:
            for failure in failures:
                log.warning("a browser was not told: %s", failure)
            return ""
        return f"no browser was told: {'; '.join(failures)[:500] or 'none is left'}"

    def _send(self, to: Subscription, topic: str, told: Mapping[str, str]) -> None:
        parts = read_endpoint(to.endpoint)
        body = encrypted(to, json.dumps(told).encode())
        headers = {
            "Content-Encoding": "aes128gcm",
            "Content-Type": "application/octet-stream",
            "TTL": str(_KEPT_SECONDS),
            "Urgency": "high",
            "Topic": hashlib.sha256(topic.encode()).hexdigest()[:32],
            **self._signed(f"https://{parts.netloc}"),
        }
        connection = CheckedConnection(parts, self._allowed)
        try:
            connection.request("POST", f"{parts.path or '/'}{'?' if parts.query else ''}{parts.query}", body, headers)
            status = connection.getresponse().status
        finally:
            connection.close()
        if status in _OVER:
            self._subscriptions.remove(to.endpoint)
            raise InvalidRequest(f"{parts.hostname} knows this browser no more; it is forgotten")
        if not 200 <= status < 300:
            raise InvalidRequest(f"{parts.hostname} answered {status}")

    def _signed(self, audience: str) -> dict[str, Any]:
        from py_vapid import Vapid02  # of the extra "push"

        claims = {"aud": audience, "sub": self._contact, "exp": int(time.time()) + _SIGNED_SECONDS}
        return dict(Vapid02(private_key=self._key.private).sign(claims))


def is_installed() -> bool:
    return importlib.util.find_spec("pywebpush") is not None


def require_installed() -> None:
    if not is_installed():
        raise RequestNotTaken("this server cannot tell browsers: pip install 'torch-tasks[push]' where it runs", 501)


def encrypted(to: Subscription, text: bytes) -> bytes:
    """The text, for this browser alone."""
    from pywebpush import WebPusher  # of the extra "push", and slow to load

    known = {"endpoint": to.endpoint, "keys": {"p256dh": to.p256dh, "auth": to.auth}}
    return bytes(WebPusher(known).encode(text, content_encoding="aes128gcm")["body"])


def facts(need: Need) -> dict[str, str]:
    """What a browser is told, and shows."""
    title = f"{need.kind.capitalize()}{f': {need.agent}' if need.agent else ''}"
    return {"title": title, "body": need.text[:_LONGEST_TEXT], "tag": need.id, "url": f"/?need={quote(need.id)}"}


def facts_together(needs: Sequence[Need]) -> dict[str, str]:
    """The same of many needs; the page that it leads to shows all of them, and says that they are seen."""
    lines = [f"{need.kind.capitalize()}{f': {need.agent}' if need.agent else ''}" for need in needs]
    body = "\n".join(f"{line} ({count})" if count > 1 else line for line, count in Counter(lines).items())
    tag = hashlib.sha256("\n".join(sorted(need.id for need in needs)).encode()).hexdigest()
    return {"title": f"{len(needs)} things need you", "body": body[:_LONGEST_TEXT], "tag": tag, "url": "/?need=all"}
