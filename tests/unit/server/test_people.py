"""People log in at a provider, or with a token: who gets in, as whom, and for how long."""

from __future__ import annotations

import time
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest
from browsers import FROM_ELSEWHERE, WEB, Browser, Site
from fakes.openid import FakeProvider, new_key

from torch_tasks.security.audit import records
from torch_tasks.server.people import login
from torch_tasks.server.people.login import LINKS, local
from torch_tasks.server.tokens import TokenRole

FOREIGN = new_key()

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


def test_a_wrong_token_leaves_the_person_on_the_way_to_where_they_wanted_to_go(site: Site) -> None:
    refused = site.browser().post("/login", data={"token": "wrong", "next": "/fleet?role=qa"})
    assert '<input type="hidden" name="next" value="/fleet?role=qa">' in refused.text


def link_of(browser: Browser, token: str, then: str = "/") -> str:
    """A link for the bearer of the token, as a command asks for it."""
    reply = browser.post(LINKS, None, {"Authorization": f"Bearer {token}"}, data={"next": then})
    assert reply.status_code == 200, reply.text
    return str(reply.json()["url"]).removeprefix(WEB)


def test_a_link_logs_one_browser_in_as_who_asked_for_it(site: Site) -> None:
    first = site.browser()
    second = Browser(first._app)
    link = link_of(first, site.tokens.create("laptop", TokenRole.VIEWER), "/fleet?state=ready")
    assert first.get(link).headers["location"] == "/fleet?state=ready"
    assert "token-laptop" in first.who()
    again = second.get(link)
    assert (again.status_code, "this link has been used" in again.text) == (403, True)
    assert second.who().startswith("303 /login")
    site.tokens.revoke("laptop")
    assert first.who().startswith("303 /login")


def test_a_link_is_for_a_minute_and_leads_nowhere_else(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    browser, token = site.browser(), site.tokens.create("laptop", TokenRole.VIEWER)
    assert browser.get(link_of(browser, token, "https://evil.example")).headers["location"] == "/"
    late, begun = link_of(browser, token), time.monotonic()
    monkeypatch.setattr(login.time, "monotonic", lambda: begun + 61)
    assert browser.get(late).status_code == 403


def test_a_link_is_made_for_who_has_a_token(site: Site) -> None:
    browser = site.browser()
    assert browser.post(LINKS).status_code == 401
    browser.log_in()
    assert browser.post(LINKS).status_code == 403
    refused = site.browser().post(LINKS, None, {"Authorization": "Bearer torch_x_y"})
    assert refused.status_code == 401


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
    assert browser.get("/me", FROM_ELSEWHERE).status_code == 200
    assert browser.get("/api/v1", FROM_ELSEWHERE).status_code == 400
    assert browser.get("/me", {**FROM_ELSEWHERE, "Sec-Fetch-Dest": "iframe"}).status_code == 400
    assert browser.get("/me", {**FROM_ELSEWHERE, "Sec-Fetch-Mode": "no-cors"}).status_code == 400


# ── pages ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_pages_run_no_script_and_stand_in_no_frame(site: Site) -> None:
    browser = site.browser()
    page = browser.get("/login?next=%22%3E%3Cscript%3E")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "frame-ancestors 'none'" in page.headers["content-security-policy"]
    assert "<script" not in page.text
    assert '<a class="button main" href="/login/provider?next=' in page.text  # a form may not be redirected elsewhere
    assert browser.get("/static/console.css").headers["content-type"].startswith("text/css")


@pytest.mark.parametrize(
    "path",
    ["//evil.example", "https://evil.example", "/\\evil.example", "evil", "", "/\t/evil.example", None, "javascript:x"],
)
def test_nobody_is_sent_elsewhere_after_a_login(path: str | None) -> None:
    assert local(path) == "/"
    assert local("/flower/tasks?state=a&b=//c") == "/flower/tasks?state=a&b=//c"


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
