"""Every path of the server for everybody who may ask: a path without a row here fails.

There is no row for WebSockets: the server speaks none, and refuses whoever asks for one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import httpx2
import pytest
from browsers import PAGE, WEB, Browser, Site
from clients import read_settings_anew
from fakes.openid import FakeProvider

from torch_tasks.security.rights import Right
from torch_tasks.server.application import application
from torch_tasks.server.console.pages import PAGES
from torch_tasks.server.events import EventHub
from torch_tasks.server.tokens import TokenRole
from torch_tasks.settings import settings

IN, LOGIN, REFUSED = "in", "has to log in", "refused"
ROLES = ("nobody", *TokenRole)


class Row(NamedTuple):
    """What becomes of a request, by who asks; and the path with which it is tried."""

    nobody: str
    viewer: str
    program: str
    operator: str
    tried: str = ""


EVERYBODY = Row(IN, IN, IN, IN)
A_PAGE = Row(LOGIN, IN, IN, IN)
"""A person who is not logged in is led to the login."""
WITH_A_LOGIN = Row(REFUSED, IN, IN, IN)
FOR_OPERATORS = Row(REFUSED, REFUSED, REFUSED, IN)

FOR_WATCHERS = Row(LOGIN, IN, REFUSED, IN)

ROWS_OF_PAGES = {Right.LOOK: A_PAGE, Right.WATCH: FOR_WATCHERS, Right.AUDIT: Row(LOGIN, REFUSED, REFUSED, IN)}
"""By the right that a page declares."""

ROWS: dict[tuple[str, str], Row] = {
    ("GET", "/healthz"): EVERYBODY,
    ("GET", "/readyz"): EVERYBODY,
    ("GET", "/api/openapi.json"): EVERYBODY,
    ("GET", "/static/{name}"): EVERYBODY._replace(tried="/static/console.css"),
    ("GET", "/login"): EVERYBODY,
    ("POST", "/login"): EVERYBODY,
    ("GET", "/login/link"): EVERYBODY,
    ("POST", "/login/links"): Row(REFUSED, REFUSED, REFUSED, REFUSED),  # it is for who asks with a token each time
    ("GET", "/login/provider"): EVERYBODY,
    ("GET", "/login/callback"): EVERYBODY,
    ("POST", "/logout"): EVERYBODY,
    ("GET", "/me"): A_PAGE,
    ("GET", "/metrics"): A_PAGE,
    ("GET", "/api/v1"): WITH_A_LOGIN,
    ("GET", "/api/v1/events"): WITH_A_LOGIN._replace(tried="/api/v1/events?kinds=nonsense"),
    ("GET", "/api/v1/{name}"): WITH_A_LOGIN._replace(tried="/api/v1/task.list"),
    ("POST", "/api/v1/{name}"): FOR_OPERATORS._replace(tried="/api/v1/fleet.stop"),
    ("POST", "/mcp"): WITH_A_LOGIN,
    ("GET", "/flower"): A_PAGE,
    ("GET", "/flower/{rest}"): A_PAGE._replace(tried="/flower/tasks"),
    ("POST", "/flower/{rest}"): FOR_OPERATORS._replace(tried="/flower/api/worker/shutdown/w"),
    ("POST", "/do/{operation}"): FOR_OPERATORS._replace(tried="/do/fleet.stop"),
    ("GET", "/live"): WITH_A_LOGIN._replace(nobody=LOGIN, tried="/live?kinds=nonsense"),
    ("GET", "/push/key"): WITH_A_LOGIN._replace(nobody=LOGIN),
    ("POST", "/push/begin"): WITH_A_LOGIN,
    ("POST", "/push/end"): WITH_A_LOGIN,
    **{("GET", page.path): ROWS_OF_PAGES[page.right] for page in PAGES},
}


@pytest.fixture(scope="module")
def people(one_provider: FakeProvider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Browser]]:
    """One browser for each role, which logged in with a token; all at one server."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("torch_tasks.server.console.shared.SHARED_SECONDS", 60)
        site = Site(one_provider, Path(tmp_path_factory.mktemp("matrix")), patch)
        read_settings_anew()
        app = application(settings(), EventHub(), ["torch.example"])
        found = {}
        for role in ROLES:
            browser = found[role] = Browser(app)
            if role != "nobody":
                token = site.tokens.create(f"a-{role}", TokenRole(role))
                assert browser.post("/login", data={"token": token}).status_code == 303
        yield found
    read_settings_anew()


_PROOFS: dict[Browser, str] = {}


def proof_of(browser: Browser) -> str:
    """What the forms of this browser's login hold, as each page has it for its scripts; empty without a login."""
    if browser not in _PROOFS:
        found = re.search(r'name="torch-proof" content="(\w+)"', browser.get("/").text)
        _PROOFS[browser] = found[1] if found else ""
    return _PROOFS[browser]


def paths(browser: Browser) -> Iterator[tuple[str, str]]:
    """Every method and path of the application."""
    for route in browser._app.routes:
        path = re.sub(r":\w+}", "}", route.path)
        methods = getattr(route, "methods", None) or {"POST"}
        yield from ((method, path) for method in methods if method != "HEAD")


def tried(method: str, path: str) -> str:
    return ROWS[method, path].tried or re.sub(r"{\w+}", "x", path)


def ask(browser: Browser, method: str, path: str, headers: dict[str, str], proof: str | None = None) -> httpx2.Response:
    body: dict[str, object] = {}
    if method == "POST" and path.startswith(("/api/", "/push/")):
        body = {"json": {} if path.startswith("/api/") else {"proof": proof}}
    elif method == "POST":
        body = {"data": {} if proof is None else {"_proof": proof}}
    return browser._ask(method, path, headers={**PAGE, **headers}, **body)


def what_came(reply: httpx2.Response) -> str:
    if reply.status_code == 303 and reply.headers["location"].startswith("/login?next="):
        return LOGIN
    is_login_page = 'action="/login"' in reply.text  # which says why a login was refused
    return REFUSED if reply.status_code in (401, 403) and not is_login_page else IN


def test_every_path_has_a_row(people: dict[str, Browser]) -> None:
    assert set(paths(people["nobody"])) == set(ROWS)


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize(("method", "path"), ROWS, ids=lambda one: one)
def test_who_may_ask_what(people: dict[str, Browser], method: str, path: str, role: str) -> None:
    browser = people[role]
    if path == "/logout":
        browser = Browser(browser._app)  # the others go on
    kept = httpx2.Cookies(browser.cookies)
    reply = ask(browser, method, tried(method, path), {"Origin": WEB} if method == "POST" else {}, proof_of(browser))
    browser.cookies = kept
    assert what_came(reply) == getattr(ROWS[method, path], role), f"{reply.status_code} {reply.text[:300]}"


@pytest.mark.parametrize(("method", "path"), ROWS, ids=lambda one: one)
def test_a_page_of_another_site_can_ask_nothing_of_it(people: dict[str, Browser], method: str, path: str) -> None:
    browser = people["operator"]
    for headers in ({"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "cors"}):
        reply = ask(browser, method, tried(method, path), headers, proof_of(browser))
        assert (reply.status_code, reply.json()["error"]) == (400, "RequestNotTaken"), headers


@pytest.mark.parametrize(("method", "path"), [row for row in ROWS if row[0] == "POST"], ids=lambda one: one)
def test_a_login_changes_nothing_without_the_origin_of_a_page(
    people: dict[str, Browser], method: str, path: str
) -> None:
    if path in ("/login", "/logout"):
        pytest.skip("begins and ends a login, and changes nothing of the fleet")
    reply = ask(people["operator"], method, tried(method, path), {}, proof_of(people["operator"]))
    assert (reply.status_code, reply.json()["error"]) == (400, "RequestNotTaken")


@pytest.mark.parametrize("whose", ["nobody's", "a viewer's", "a guess", "none"])
def test_a_form_is_taken_with_its_own_logins_proof_alone(people: dict[str, Browser], whose: str) -> None:
    proof = {"nobody's": "", "a viewer's": proof_of(people["viewer"]), "a guess": "0" * 64, "none": None}[whose]
    reply = ask(people["operator"], "POST", "/do/fleet.stop", {"Origin": WEB}, proof)
    assert (reply.status_code, "not from a page of this login" in reply.text) == (403, True)


def test_there_are_no_websockets(people: dict[str, Browser]) -> None:
    from torch_tasks.server.serving import _configuration

    assert _configuration(settings(), EventHub(), []).ws == "none"
    assert not [route for route in people["nobody"]._app.routes if "WebSocket" in type(route).__name__]
