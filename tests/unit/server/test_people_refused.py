"""Logins that are forged, changed, replayed or too late let nobody in."""

from __future__ import annotations

import httpx2
import pytest
from browsers import FROM_ELSEWHERE, Browser, Site
from fakes.openid import CLIENT, SECRET, FakeProvider, new_key

from torch_tasks.server.tokens import TokenRole

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


def test_who_is_refused_at_the_provider_tries_again_for_the_page_that_was_asked_for(
    site: Site, provider: FakeProvider
) -> None:
    browser = site.browser()
    back = browser.at_provider("/fleet?state=ready")
    provider.codes.clear()
    assert "/login/provider?next=/fleet%3Fstate%3Dready" in browser.get(back, FROM_ELSEWHERE).text
    site.set(OIDC_ISSUER="http://127.0.0.1:1/realm")
    away = site.browser().get("/login/provider?next=/time")
    assert (away.status_code, "/login/provider?next=/time" in away.text) == (503, True)


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


def test_what_fails_in_an_unforeseen_way_is_a_page_for_a_browser_and_a_document_for_a_program(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("of the inside")

    browser = site.browser()
    browser.log_in()
    monkeypatch.setattr("torch_tasks.server.console.console._needed", fail)
    page = browser.get("/", {"Accept": "text/html,*/*"})
    assert (page.status_code, page.headers["content-type"].partition(";")[0]) == (500, "text/html")
    assert "The server failed" in page.text
    script = browser.get("/", {"Accept": "*/*", "X-Torch-Console": "script"})
    assert (script.status_code, script.json()["error"]) == (500, "InternalFault")
    assert "of the inside" not in page.text + script.text
