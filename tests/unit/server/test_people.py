"""People log in at a provider, or with a token: who gets in, as whom, for how long, and who does not."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest
from clients import read_settings_anew
from fakes.openid import CLIENT, SECRET, FakeProvider, new_key, provided
from starlette.applications import Starlette

from torch_tasks.security.audit import records
from torch_tasks.server.application import application
from torch_tasks.server.events import EventHub
from torch_tasks.server.people.login import _local
from torch_tasks.server.tokens import AccessTokens, TokenRole
from torch_tasks.settings import settings
from torch_tasks.state_folder import StateFolder

WEB = "http://127.0.0.1:5556"
PAGE = {
    "Accept": "text/html",
    "Sec-Fetch-Site": "same-origin",
    "Sec-Fetch-Mode": "navigate",
    "Sec-Fetch-Dest": "document",
}
FROM_ELSEWHERE = {**PAGE, "Sec-Fetch-Site": "cross-site"}


class Browser:
    """Asks an application that listens nowhere, keeps its cookies, and follows nothing by itself."""

    def __init__(self, app: Starlette, web: str = WEB) -> None:
        self._app, self._web = app, web
        self.cookies = httpx2.Cookies()

    def get(self, path: str, headers: dict[str, str] = PAGE) -> httpx2.Response:
        return self._ask("GET", path, headers=headers)

    def post(self, path: str, origin: str | None = "", **how: Any) -> httpx2.Response:
        headers = {} if origin is None else {"Origin": origin or self._web}
        return self._ask("POST", path, headers={**PAGE, **headers}, **how)

    def _ask(self, method: str, path: str, **how: Any) -> httpx2.Response:
        async def ask() -> httpx2.Response:
            transport = httpx2.ASGITransport(self._app)
            async with httpx2.AsyncClient(transport=transport, base_url=self._web, cookies=self.cookies) as client:
                reply = await client.request(method, path, **how)
                self.cookies = client.cookies
                return reply

        return asyncio.run(ask())

    def at_provider(self, then: str = "/") -> str:
        """Begin a login; what the provider sends the browser back with."""
        to_provider = self.get(f"/login/provider?next={then}")
        assert to_provider.status_code == 303, to_provider.text
        back = httpx2.get(to_provider.headers["location"], trust_env=False)
        assert back.status_code == 302, back.text
        return back.headers["location"]

    def log_in(self, then: str = "/") -> httpx2.Response:
        return self.get(self.at_provider(then), FROM_ELSEWHERE)

    def who(self) -> str:
        """Whom the server takes it for."""
        reply = self.get("/")
        return reply.text if reply.status_code == 200 else f"{reply.status_code} {reply.headers.get('location')}"


@pytest.fixture(scope="module")
def one_provider() -> Iterator[FakeProvider]:
    with provided() as provider:
        yield provider


@pytest.fixture
def provider(one_provider: FakeProvider) -> FakeProvider:
    """The provider, as honest as it was in the beginning."""
    honest = vars(FakeProvider(one_provider.issuer, key=one_provider.key))
    vars(one_provider).clear()
    vars(one_provider).update(honest)
    return one_provider


class Site:
    """A server before a broker that is away, with a provider for people."""

    def __init__(self, provider: FakeProvider, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self._patch = patch
        self.tokens = AccessTokens(StateFolder(folder / "state"))
        secret = folder / "secret"
        secret.write_text(f"{SECRET}\n")
        self.set(
            BROKER_URL="redis://127.0.0.1:1/0", STATE_DIR=folder / "state", BROKER_CONNECT_SECONDS=0.1,
            OIDC_ISSUER=provider.issuer, OIDC_CLIENT_ID=CLIENT, OIDC_CLIENT_SECRET_FILE=secret,
            OIDC_OPERATORS='["ops"]', OIDC_VIEWERS='["staff"]',
        )  # fmt: skip

    def set(self, **given: object) -> None:
        for name, value in given.items():
            self._patch.setenv(f"TORCH_{name}", str(value))

    def browser(self, web: str = WEB) -> Browser:
        """A browser at a server with these settings."""
        read_settings_anew()
        return Browser(application(settings(), EventHub(), ["torch.example"]), web)


@pytest.fixture
def site(provider: FakeProvider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    yield Site(provider, tmp_path, monkeypatch)
    monkeypatch.undo()
    read_settings_anew()


# ── a good login ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_person_with_a_role_gets_in_and_where_they_wanted_to_go(site: Site) -> None:
    browser = site.browser()
    to_login = browser.get("/flower/tasks?state=FAILURE")
    assert to_login.status_code == 303
    wanted = parse_qs(urlsplit(to_login.headers["location"]).query)["next"]
    assert wanted == ["/flower/tasks?state=FAILURE"]
    assert browser.log_in("/api/v1").headers["location"] == "/api/v1"
    assert browser.get("/api/v1").status_code == 200
    assert "person-ada-" in browser.who()
    assert "<dd>operator</dd>" in browser.who()


def test_the_cookie_is_for_this_server_and_for_no_script(site: Site) -> None:
    browser = site.browser()
    cookie = next(one for one in browser.log_in().headers.get_list("set-cookie") if "-login" not in one)
    assert cookie.startswith("torch-")
    assert {"HttpOnly", "Path=/", "SameSite=lax"} <= set(cookie.split("; "))
    assert "secure" not in cookie.lower()
    site.set(SERVER_PUBLIC_URL="https://torch.example")
    behind_proxy = site.browser("https://torch.example")
    cookies = behind_proxy.log_in().headers.get_list("set-cookie")
    assert all("; Secure" in one for one in cookies)
    assert any(one.startswith("__Host-torch-") and "Domain" not in one for one in cookies)
    assert "person-ada-" in behind_proxy.who()


def test_a_login_comes_back_to_the_public_address_alone(site: Site) -> None:
    site.set(SERVER_PUBLIC_URL="https://torch.example")
    assert site.browser().get("/login/provider").headers["location"] == "https://torch.example/login"
    sent_to = site.browser("https://torch.example").get("/login/provider").headers["location"]
    assert parse_qs(urlsplit(sent_to).query)["redirect_uri"] == ["https://torch.example/login/callback"]


def test_what_the_id_token_does_not_say_is_asked_for(site: Site, provider: FakeProvider) -> None:
    provider.in_token = False
    browser = site.browser()
    browser.log_in()
    assert "<dd>operator</dd>" in browser.who()
    assert "/userinfo" in provider.asked


def test_new_keys_of_the_provider_are_found(
    site: Site, provider: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch_tasks.server.people.provider._KEYS_PAUSE_SECONDS", 0)
    browser = site.browser()
    browser.log_in()
    provider.key, provider.kid = new_key(), "second"
    assert browser.log_in().status_code == 303


def test_logging_out_ends_the_session(site: Site) -> None:
    browser = site.browser()
    browser.log_in()
    kept = httpx2.Cookies(browser.cookies)
    assert browser.post("/logout").headers["location"] == "/login"
    assert browser.who().startswith("303 /login")
    browser.cookies = kept
    assert browser.who().startswith("303 /login")


def test_who_logged_in_and_whom_the_provider_gives_no_role_is_in_the_audit(site: Site, provider: FakeProvider) -> None:
    site.browser().log_in()
    provider.person = {"sub": "18", "groups": ["guests"]}
    site.browser().log_in()
    noted = [(record.who, record.on, str(record.outcome)) for _, record in records() if record.what == "person.login"]
    (ada, *first), (_, *second) = noted
    assert ada.startswith("person:person-ada-")
    assert first == [f"account 17 of {provider.issuer}", "done"]
    assert second == [f"account 18 of {provider.issuer}", "refused"]


# ── who does not get in ──────────────────────────────────────────────────────────────────────────────────────────

FOREIGN = new_key()
FALSE = {
    "for another audience": ({"changed": {"aud": "another"}}, "Audience"),
    "for several, asked for by another": ({"changed": {"aud": [CLIENT, "b"], "azp": "b"}}, "for another client"),
    "for several, asked for by nobody": ({"changed": {"aud": [CLIENT, "b"]}}, "for another client"),
    "of another issuer": ({"changed": {"iss": "https://evil.example"}}, "issuer"),
    "expired": ({"skew": -400.0}, "Compare the clocks"),
    "of the future": ({"skew": 90.0}, "Compare the clocks"),
    "without an end": ({"changed": {"exp": None}}, "exp"),
    "of nobody": ({"changed": {"sub": None}}, "sub"),
    "for another login": ({"changed": {"nonce": "another"}}, "nonce"),
    "without a nonce": ({"changed": {"nonce": None}}, "nonce"),
    "signed by somebody else": ({"shown": {"first": FOREIGN}}, "Signature"),
    "signed with a key that nobody shows": ({"kid": "unknown", "shown": {"first": FOREIGN}}, "none of the provider"),
    "no token": ({"token": lambda nonce: "nonsense"}, "no token"),
    "of an unknown group": ({"person": {"sub": "18", "groups": ["guests", "OPS"]}}, "gives you no role"),
    "of no group": ({"person": {"sub": "18"}}, "gives you no role"),
    "of groups that are no list of words": ({"person": {"sub": "18", "groups": {"ops": True}}}, "gives you no role"),
    "refused by the provider": ({"refuses": True}, "&lt;b&gt;not you"),
}


@pytest.mark.parametrize("case", FALSE)
def test_what_is_false_lets_nobody_in(case: str, site: Site, provider: FakeProvider) -> None:
    changes, words = FALSE[case]
    vars(provider).update(changes)
    browser = site.browser()
    reply = browser.log_in()
    assert reply.status_code == 403
    assert words in reply.text
    assert browser.who().startswith("303 /login")


@pytest.mark.parametrize("skew", [-50.0, 50.0])
def test_clocks_may_differ_a_little(site: Site, provider: FakeProvider, skew: float) -> None:
    provider.skew = skew
    assert site.browser().log_in().status_code == 303


@pytest.mark.parametrize("algorithm", ["none", "HS256"])
def test_a_signature_that_this_server_could_make_itself_is_none(
    site: Site, provider: FakeProvider, algorithm: str
) -> None:
    import jwt

    honest = FakeProvider.token

    def forged(nonce: str | None) -> str:
        claims = jwt.decode(honest(provider, nonce), options={"verify_signature": False})
        return jwt.encode(claims, None if algorithm == "none" else SECRET * 2, algorithm, {"kid": provider.kid})

    vars(provider)["token"] = forged
    reply = site.browser().log_in()
    assert reply.status_code == 403
    assert "is not believed" in reply.text


def test_a_code_counts_once_and_only_in_the_browser_that_asked(site: Site) -> None:
    browser = site.browser()
    back = browser.at_provider()
    stranger = site.browser()
    assert "has begun no such login" in stranger.get(back, FROM_ELSEWHERE).text
    victim = Browser(browser._app)
    assert victim.get(back, FROM_ELSEWHERE).status_code == 403
    assert browser.get(back, FROM_ELSEWHERE).status_code == 303
    again = browser.get(back, FROM_ELSEWHERE)
    assert again.status_code == 403
    assert "has begun no such login" in again.text


def test_a_code_that_was_used_elsewhere_is_refused_by_the_provider(site: Site, provider: FakeProvider) -> None:
    browser = site.browser()
    back = browser.at_provider()
    provider.codes.clear()
    reply = browser.get(back, FROM_ELSEWHERE)
    assert reply.status_code == 403
    assert "invalid_grant" in reply.text


@pytest.mark.parametrize("changed", [{"state": "other"}, {"state": ""}, {"iss": "https://evil.example"}], ids=str)
def test_what_comes_back_changed_is_refused(site: Site, changed: dict[str, str]) -> None:
    browser = site.browser()
    back = httpx2.URL(browser.at_provider()).copy_merge_params(changed)
    reply = browser.get(str(back), FROM_ELSEWHERE)
    assert reply.status_code == 403
    assert browser.get(str(back), FROM_ELSEWHERE).status_code == 403


def test_a_provider_that_is_away_is_named_and_others_are_served(site: Site) -> None:
    site.set(OIDC_ISSUER="http://127.0.0.1:1/realm")
    browser = site.browser()
    reply = browser.get("/login/provider")
    assert reply.status_code == 503
    assert "http://127.0.0.1:1/realm/.well-known/openid-configuration" in reply.text
    token = site.tokens.create("ci", TokenRole.VIEWER)
    assert browser.get("/api/v1", {"Authorization": f"Bearer {token}"}).status_code == 200


def test_a_page_of_another_issuer_is_none(site: Site, provider: FakeProvider) -> None:
    site.set(OIDC_ISSUER=f"{provider.issuer}/")
    reply = site.browser().get("/login/provider")
    assert reply.status_code == 503
    assert "set TORCH_OIDC_ISSUER exactly so" in reply.text


# ── how long ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_role_that_was_taken_away_is_gone_when_the_provider_is_asked_next(site: Site, provider: FakeProvider) -> None:
    site.set(OIDC_REFRESH_SECONDS=0.001)
    browser = site.browser()
    browser.log_in()
    assert "<dd>operator</dd>" in browser.who()
    provider.person["groups"] = ["staff"]
    assert "<dd>viewer</dd>" in browser.who()
    provider.person["groups"] = []
    assert browser.who().startswith("303 /login")
    provider.person["groups"] = ["ops"]
    assert browser.who().startswith("303 /login")


ENDED = {
    "the provider forgot the login": {"refresh": ""},
    "somebody else now": {"person": {"sub": "99", "groups": ["ops"]}},
    "signed by somebody else now": {"shown": {"first": FOREIGN}, "kid": "other"},
}


@pytest.mark.parametrize("case", ENDED)
def test_a_login_that_is_not_confirmed_is_over(case: str, site: Site, provider: FakeProvider) -> None:
    site.set(OIDC_REFRESH_SECONDS=0.001)
    browser = site.browser()
    browser.log_in()
    vars(provider).update(ENDED[case])
    assert browser.who().startswith("303 /login")
    api = browser.get("/api/v1", {})
    assert (api.status_code, api.json()["error"]) == (401, "NotAuthenticated")
    assert "this login is over" in api.json()["detail"]


def test_a_provider_without_renewal_is_asked_anew_by_the_person(site: Site, provider: FakeProvider) -> None:
    provider.refreshes = False
    site.set(OIDC_REFRESH_SECONDS=0.001)
    browser = site.browser()
    browser.log_in()
    assert browser.who().startswith("303 /login")


def test_a_login_waits_for_a_provider_that_went_away(site: Site, provider: FakeProvider) -> None:
    site.set(OIDC_REFRESH_SECONDS=0.001)
    browser = site.browser()
    browser.log_in()
    vars(provider)["_token"] = None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("torch_tasks.server.people.sessions._AGAIN_SECONDS", 0)
        patch.setattr("torch_tasks.server.people.provider.OpenIdProvider._tokens", _away)
        reply = browser.get("/")
    assert (reply.status_code, reply.json()["error"]) == (503, "ProviderAway")
    assert "person-ada-" in browser.who()


async def _away(*_: object) -> dict[str, Any]:
    from torch_tasks.errors import ProviderAway

    raise ProviderAway("gone")


def test_a_session_ends_by_itself(site: Site) -> None:
    site.set(SERVER_SESSION_SECONDS=0.001)
    browser = site.browser()
    browser.log_in()
    assert browser.who().startswith("303 /login")


# ── a token instead ──────────────────────────────────────────────────────────────────────────────────────────────


def test_a_token_that_is_shown_once_is_as_good_until_it_is_revoked(site: Site) -> None:
    browser = site.browser()
    token = site.tokens.create("laptop", TokenRole.VIEWER)
    assert browser.post("/login", data={"token": token, "next": "/flower/"}).headers["location"] == "/flower/"
    assert "token-laptop" in browser.who()
    site.tokens.revoke("laptop")
    assert browser.who().startswith("303 /login")


def test_a_wrong_token_is_said_on_the_page(site: Site) -> None:
    reply = site.browser().post("/login", data={"token": "torch_x_<script>"})
    assert reply.status_code == 401
    assert "knows no such token" in reply.text
    assert "<script>" not in reply.text


def test_a_form_of_another_site_logs_nobody_in(site: Site) -> None:
    token = site.tokens.create("mallory", TokenRole.OPERATOR)
    reply = site.browser().post("/login", "https://evil.example", data={"token": token})
    assert (reply.status_code, reply.json()["error"]) == (400, "RequestNotTaken")


def test_with_a_login_only_the_servers_own_pages_change_something(site: Site) -> None:
    browser = site.browser()
    browser.log_in()
    cancel = {"json": {"task_id": "a"}}
    for origin in (None, "https://evil.example", "null"):
        refused = browser.post("/api/v1/task.cancel", origin, **cancel)
        assert (refused.status_code, refused.json()["error"]) == (400, "RequestNotTaken")
    assert browser.post("/api/v1/task.cancel", **cancel).json()["error"] == "BrokerUnreachable"


def test_pages_are_reached_by_links_elsewhere_and_nothing_else_is(site: Site) -> None:
    browser = site.browser()
    browser.log_in()
    assert browser.get("/", FROM_ELSEWHERE).status_code == 200
    assert browser.get("/api/v1", FROM_ELSEWHERE).status_code == 400
    assert browser.get("/", {**FROM_ELSEWHERE, "Sec-Fetch-Dest": "iframe"}).status_code == 400
    assert browser.get("/", {**FROM_ELSEWHERE, "Sec-Fetch-Mode": "no-cors"}).status_code == 400


# ── pages ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_pages_run_no_script_and_stand_in_no_frame(site: Site) -> None:
    browser = site.browser()
    page = browser.get("/login?next=%22%3E%3Cscript%3E")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "frame-ancestors 'none'" in page.headers["content-security-policy"]
    assert "<script" not in page.text
    assert '<a class="button" href="/login/provider?next=' in page.text  # a form may not be redirected elsewhere
    assert browser.get("/login/style.css").headers["content-type"].startswith("text/css")


@pytest.mark.parametrize(
    "path",
    ["//evil.example", "https://evil.example", "/\\evil.example", "evil", "", "/\t/evil.example", None, "javascript:x"],
)
def test_nobody_is_sent_elsewhere_after_a_login(path: str | None) -> None:
    assert _local(path) == "/"
    assert _local("/flower/tasks?state=a&b=//c") == "/flower/tasks?state=a&b=//c"


BUTTONS = {
    "a task": ("/flower/api/task/revoke/t1?terminate=true", "'change'"),
    "a worker": ("/flower/api/worker/shutdown/dev-1", "'hold'"),
    "a new task": ("/flower/api/task/async-apply/torch.run", "'enqueue'"),
    "a path that is written otherwise": ("/flower/api/task/revo%6be/t1", "'hold'"),
    "the table of tasks, nearly": ("/flower/tasks/datatable/", "'hold'"),
}


@pytest.mark.parametrize("button", BUTTONS)
def test_flowers_buttons_are_not_for_who_only_looks(button: str, site: Site) -> None:
    path, right = BUTTONS[button]
    browser = site.browser()
    browser.post("/login", data={"token": site.tokens.create("watcher", TokenRole.VIEWER)})
    reply = browser.post(path)
    assert reply.status_code == 403
    assert f"token-watcher may not do flower.press: it takes the right {right}" in reply.text
