"""Which role and which name a person has; settings that cannot be used."""

from __future__ import annotations

import pytest

from torch_tasks.errors import InvalidSettings, InvalidTask
from torch_tasks.model.spawn import SpawnRequest
from torch_tasks.server.people.provider import OpenIdProvider
from torch_tasks.server.people.roles import RoleRules, person
from torch_tasks.server.tokens import TokenRole
from torch_tasks.settings import Settings

RULES = {
    "a list": ("groups", {"groups": ["a", "staff"]}, TokenRole.VIEWER),
    "the greater one": ("groups", {"groups": ["staff", "ops"]}, TokenRole.OPERATOR),
    "one word": ("role", {"role": "ops"}, TokenRole.OPERATOR),
    "deeper": ("realm_access.roles", {"realm_access": {"roles": ["ops"]}}, TokenRole.OPERATOR),
    "a name with dots": ("https://a.example/roles", {"https://a.example/roles": ["ops"]}, TokenRole.OPERATOR),
    "nothing": ("groups", {}, None),
    "a part of a word": ("groups", {"groups": "ops-friends"}, None),
    "a number": ("groups", {"groups": [1, None, ["ops"]]}, None),
    "through no table": ("groups.roles", {"groups": ["ops"]}, None),
    "an address": ("email", {"email": "ops", "email_verified": True}, TokenRole.OPERATOR),
    "an address that nobody checked": ("email", {"email": "ops"}, None),
    "an address that is said to be checked": ("email", {"email": "ops", "email_verified": "true"}, None),
}


@pytest.mark.parametrize("case", RULES)
def test_a_role_follows_from_what_the_provider_says(case: str) -> None:
    claim, claims, role = RULES[case]
    assert RoleRules(claim, frozenset({"staff"}), frozenset({"ops"})).role_of(claims) == role


def test_by_default_nobody_has_a_role() -> None:
    rules = RoleRules.of(Settings(oidc_issuer="https://a.example"))
    assert rules.role_of({"groups": ["admin", "", "*"], "sub": "1"}) is None


def test_nobody_is_called_like_somebody_else() -> None:
    def name(**claims: str) -> str:
        return person({"iss": "https://a.example", "sub": "1", **claims}, TokenRole.VIEWER).name

    names = [name(), name(sub="2"), name(iss="https://b.example"), name(preferred_username="operator")]
    names += [name(sub="3", preferred_username="ada"), name(sub="4", preferred_username="Ada"), name(email="ä" * 99)]
    assert len(set(names)) == len(names)
    assert name(preferred_username="Ada Lovelace").startswith("person-ada-lovelace-")
    assert all(one.startswith("person-") and len(one) <= 48 for one in names)
    with pytest.raises(InvalidTask, match="choose another name"):
        SpawnRequest.build(role="developer", agent_id=name())


WRONG = {
    "no client": {"oidc_issuer": "https://a.example"},
    "not encrypted": {"oidc_issuer": "http://a.example", "oidc_client_id": "torch"},
    "no such file": {
        "oidc_issuer": "https://a.example", "oidc_client_id": "a", "oidc_client_secret_file": "/none/such",
    },
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_settings_that_cannot_be_used_are_named(case: str) -> None:
    with pytest.raises(InvalidSettings, match="TORCH_OIDC_"):
        OpenIdProvider.of(Settings(**WRONG[case]))


def test_the_secret_is_in_no_representation() -> None:
    given = Settings(oidc_issuer="https://a.example", oidc_client_id="a", oidc_client_secret="hush-hush")
    assert "hush-hush" not in repr(given) + str(given) + repr(OpenIdProvider.of(given))
