"""A browser is told of what needs a person: by its push service, once, and the next channel if nobody has looked."""

from __future__ import annotations

import base64
import json
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import http_ece
import pytest
from chromium import Chromium, Window, logged_in
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from issued import Authority
from nodes import Broker, Node
from playwright.sync_api import expect
from py_vapid import Vapid02
from served import Served, served
from waiting import until

from torch_tasks import Torch
from torch_tasks.fleet import fleet
from torch_tasks.model.budget import Charge

PATIENCE = 3.0
"""Seconds; a test that looks has to look sooner."""


def text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


class PushService:
    """A push service with one browser, whose keys it has so that the test reads what only the browser could."""

    def __init__(self, folder: Path) -> None:
        self.key, self.auth = ec.generate_private_key(ec.SECP256R1()), b"0123456789abcdef"
        self.status = 201
        self.told: list[dict[str, Any]] = []
        self.signed_by: list[str] = []
        service = self

        class Endpoint(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                service.take(body, self.headers)
                self.send_response(service.status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Endpoint)
        issuer = Authority(folder, "issuer")
        self.authority = issuer.file
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(issuer.issue("push"))
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.place = f"127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def take(self, body: bytes, headers: Any) -> None:
        assert headers["Content-Encoding"] == "aes128gcm"
        scheme, _, signed = headers["Authorization"].partition(" ")
        assert scheme == "vapid"
        assert Vapid02.verify(headers["Authorization"])
        self.signed_by.append(signed.partition("k=")[2])
        plain = http_ece.decrypt(body, private_key=self.key, auth_secret=self.auth, version="aes128gcm")
        self.told.append(json.loads(plain))

    @property
    def subscription(self) -> dict[str, Any]:
        form = serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
        keys = {"p256dh": text(self.key.public_key().public_bytes(*form)), "auth": text(self.auth)}
        return {"endpoint": f"https://{self.place}/send/1", "keys": keys}

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PushService]:
    service = PushService(tmp_path_factory.mktemp("push"))
    yield service
    service.close()


@pytest.fixture(scope="module")
def later(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the channel after the browsers was told."""
    return tmp_path_factory.mktemp("later") / "told"


@pytest.fixture(scope="module")
def server(broker: Broker, torch: Torch, service: PushService, later: Path) -> Iterator[Served]:
    channels = [
        {"push": True, "patience_seconds": PATIENCE},
        {"command": f'echo "$TORCH_NOTIFY_KIND $TORCH_NOTIFY_ACCOUNT" >> {later}'},
    ]
    environment = {
        "TORCH_NOTIFY": json.dumps(channels),
        "TORCH_PUSH_SERVICES": json.dumps([service.place]),
        "SSL_CERT_FILE": str(service.authority),
    }
    with served(broker, **environment) as server:
        yield server


@pytest.fixture
def window(browser: Chromium, server: Served, service: PushService) -> Iterator[Window]:
    """A browser whose push service is the test's: Chromium's own is not reached from here."""
    with logged_in(browser, server, permissions=["notifications"]) as window:
        window.page.add_init_script(
            f"const made = {{ toJSON: () => ({json.dumps(service.subscription)}), endpoint: "
            f"{json.dumps(service.subscription['endpoint'])}, unsubscribe: async () => true }};"
            "let kept = sessionStorage.getItem('kept') ? made : null;"
            "PushManager.prototype.getSubscription = async () => kept;"
            "PushManager.prototype.subscribe = async function (how) { "
            "if (how.applicationServerKey.length !== 65) throw new Error('no key'); "
            "sessionStorage.setItem('kept', '1'); return (kept = made); };"
        )
        yield window


def rest(account: str) -> str:
    """An account rests: that needs no agent to be seen. The id of what a person should know."""
    fleet().budgets.spend(account, {}, Charge(calls=1))
    fleet().account(account).limited(3600)
    return f"limited {account}"


def subscribe(window: Window) -> None:
    window.page.goto("/")
    window.page.get_by_role("button", name="Tell me here").click()
    expect(window.page.get_by_text("This browser is told of what needs you.")).to_be_visible()


def test_the_button_shows_only_once_a_click_on_it_counts(window: Window) -> None:
    window.page.context.route("**/static/push.js", lambda route: route.abort())
    window.page.goto("/", wait_until="load")
    expect(window.page.locator("#push")).to_be_hidden()
    window.errors.clear()  # that its script did not come


def test_a_push_reaches_the_browser_and_who_opens_it_has_seen_it(
    window: Window, server: Served, service: PushService, later: Path
) -> None:
    subscribe(window)
    need = rest("acme")
    told = until(lambda: next((one for one in service.told if one["tag"] == need), None), "the browser is told")
    assert told["title"] == "Limited"
    assert "account acme" in told["body"]
    page = window.page
    talk = page.context.new_cdp_session(page)
    found: dict[str, dict[str, Any]] = {}  # also those of windows that were closed
    talk.on(
        "ServiceWorker.workerRegistrationUpdated",
        lambda event: found.update({one["registrationId"]: one for one in event["registrations"]}),
    )
    talk.send("ServiceWorker.enable")

    def known() -> list[str]:
        page.evaluate("1")  # meanwhile the events come
        return [number for number, one in found.items() if one["scopeURL"] == f"{server.url}/" and not one["isDeleted"]]

    for number in until(known, "the service worker is known"):
        push = {"origin": server.url, "registrationId": number, "data": json.dumps(told)}
        talk.send("ServiceWorker.deliverPushMessage", push)
    shown = (
        "async () => { const worker = await navigator.serviceWorker.ready;"
        "return (await worker.getNotifications()).map((one) => [one.title, one.tag, one.data.url]); }"
    )
    until(lambda: page.evaluate(shown) == [["Limited", need, f"/?need={need.replace(' ', '%20')}"]], "it is shown")
    with page.expect_response("**/do/fleet.seen") as seen:
        page.goto(told["url"])
    assert seen.value.ok
    assert page.url == f"{server.url}/", "going back does not say it again"
    # Nothing else is told of it while another need, of which nobody looks, goes on to the next channel.
    rest("other")
    until(lambda: later.exists() and "limited other" in later.read_text(), "the next channel is told")
    assert "acme" not in later.read_text()
    assert [one["tag"] for one in service.told].count(need) == 1


def test_it_is_told_once_whoever_else_serves_and_whoever_is_started_anew(
    window: Window, server: Served, service: PushService, broker: Broker
) -> None:
    subscribe(window)
    key = service.signed_by[-1:] or [None]
    names = ("TORCH_STATE_DIR", "TORCH_NOTIFY", "TORCH_PUSH_SERVICES", "SSL_CERT_FILE")
    with served(broker, **{name: server.env[name] for name in names}):
        first = rest("twice")
        until(lambda: first in [one["tag"] for one in service.told], "it is told")
        window.page.goto("/login")  # which follows no events: its login ends with the server
        server.end()
        server.start()
        second = rest("again")
        until(lambda: second in [one["tag"] for one in service.told], "the next one is told")
    tags = [one["tag"] for one in service.told]
    assert (tags.count(first), tags.count(second)) == (1, 1)
    assert key[0] in (None, service.signed_by[-1]), "the server's key is the same after a new start"


@pytest.fixture
def other(broker: Broker, server: Served) -> Iterator[Served]:
    """Another server of the fleet, as on another machine: nothing but the broker is the same."""
    names = ("TORCH_NOTIFY", "TORCH_PUSH_SERVICES", "SSL_CERT_FILE")
    with served(broker, **{name: server.env[name] for name in names}) as other:
        yield other


def test_two_servers_of_a_fleet_are_one_to_its_people(
    other: Served, window: Window, server: Served, service: PushService, shared_node: Node
) -> None:
    agent, page = shared_node.agent_worker("dev-1").agent_id, window.page
    subscribe(window)
    first = rest("both")
    until(lambda: first in [one["tag"] for one in service.told], "the one that the browser knows tells it")
    form = {"token": other.token("colleague", "operator")}
    page.context.request.post(f"{other.url}/login", form=form, headers={"Origin": other.url}, max_redirects=0)
    page.goto(f"{server.url}/agents/{agent}")
    page.get_by_role("button", name="Take over").click()
    expect(page.locator("#mine")).to_be_visible()
    page.goto(f"{other.url}/agents/{agent}")
    expect(page.locator("#hold")).to_contain_text("taken over by operator")
    expect(page.locator("#pane")).to_contain_text(f"{agent}>")
    expect(page.get_by_role("button", name="Take over")).to_have_count(0)
    page.goto(f"{server.url}/agents/{agent}")  # the login there still holds
    page.get_by_role("button", name="Give back").click()
    page.goto(f"{other.url}/agents/{agent}")
    page.get_by_role("button", name="Take over").click()
    expect(page.locator("#mine")).to_be_visible()
    page.get_by_role("button", name="Give back").click()
    expect(page.locator("#mine")).to_have_count(0)
    second = rest("both again")
    until(lambda: second in [one["tag"] for one in service.told], "the next one is told")
    tags = [one["tag"] for one in service.told]
    assert (tags.count(first), tags.count(second)) == (1, 1)


def test_a_browser_that_is_no_more_is_forgotten(window: Window, server: Served, service: PushService) -> None:
    subscribe(window)
    service.status = 410
    try:
        rest("gone")
        kept = server.state / "push.json"
        until(lambda: json.loads(kept.read_text())["subscriptions"] == [], "it is forgotten")
    finally:
        service.status = 201


def test_an_address_inside_is_refused(window: Window, server: Served) -> None:
    window.page.goto("/")
    asked = """async (endpoint) => {
      const proof = document.querySelector('meta[name="torch-proof"]').content;
      const body = JSON.stringify({ proof, endpoint, keys: { p256dh: "BA", auth: "ab" } });
      return (await (await fetch("/push/begin", { method: "POST", body })).json()).detail;
    }"""
    port = server.url.rpartition(":")[2]
    assert "is no push service of the internet" in window.page.evaluate(asked, f"https://127.0.0.1:{port}/")
    assert "is no address of a push service" in window.page.evaluate(asked, f"{server.url}/")
    window.errors.clear()  # the browser notes each refused request
