"""Who connects to the broker under which name, and what each may do there."""

from __future__ import annotations

from fnmatch import fnmatch

import pytest

from torch_tasks import keys
from torch_tasks.model.broker_users import BrokerLogin, BrokerLogins, BrokerRole, Family, joiners_rules, role_of, rules

CELERY = "/v/lib/python3.11/site-packages/celery/__main__.py"
TORCH = "/v/lib/python3.11/site-packages/torch_tasks/cli/__main__.py"


@pytest.mark.parametrize(
    ("argv", "role"),
    [
        ([TORCH, "supervise"], BrokerRole.NODE),
        (["/v/bin/torch-tasks", "node"], BrokerRole.NODE),
        ([TORCH, "node", "--agent", "a:b"], BrokerRole.NODE),
        ([TORCH, "node", "list"], BrokerRole.PROGRAM),
        ([TORCH, "worker", "--agent-id", "a"], BrokerRole.NODE),
        ([TORCH, "serve", "--port=1"], BrokerRole.SERVER),
        ([CELERY, "-A", "torch_tasks", "beat", "--loglevel", "INFO"], BrokerRole.BEAT),
        (["/v/bin/celery", "-A", "torch_tasks", "beat"], BrokerRole.BEAT),
        ([CELERY, "-A", "torch_tasks", "flower", "--port=1"], BrokerRole.VIEWER),
        ([CELERY, "-A", "torch_tasks", "worker"], BrokerRole.NODE),
        ([CELERY, "-A", "torch_tasks", "inspect", "ping"], BrokerRole.PROGRAM),
        (["/v/bin/torch-tasks", "run", "node"], BrokerRole.PROGRAM),
        (["/v/bin/torch-tasks"], BrokerRole.PROGRAM),
        (["my/worker.py", "worker"], BrokerRole.PROGRAM),
        (["-c"], BrokerRole.PROGRAM),
        ([], BrokerRole.PROGRAM),
    ],
)
def test_every_process_connects_as_what_it_is(argv: list[str], role: BrokerRole) -> None:
    assert role_of(argv) is role


def reaches(role: BrokerRole, key: str, prefix: str = "~") -> bool:
    """Whether a user of this role may write the key; with the prefix ``%R~``, whether it may only read it."""
    return any(fnmatch(key, rule.removeprefix(prefix)) for rule in rules(role, "valkey") if rule.startswith(prefix))


@pytest.mark.parametrize("role", [role for role in BrokerRole if role is not BrokerRole.VIEWER])
def test_who_works_writes_torchs_keys_and_no_others(role: BrokerRole) -> None:
    for key in (keys.LEASES, keys.task_record("1"), keys.SYSTEM_QUEUE, keys.agent_queue("a"), "celeryev.1"):
        assert reaches(role, key)
    for key in ("secret", "session:1", "nova:other", "other.reply.pidbox"):
        assert not reaches(role, key)


def test_a_viewer_reads_what_others_write_and_writes_only_where_its_answers_go() -> None:
    for key in (keys.LEASES, keys.DELIVERIES, keys.task_record("1"), keys.SYSTEM_QUEUE, keys.DEAD_LETTERS, "celery"):
        assert not reaches(BrokerRole.VIEWER, key)
        assert reaches(BrokerRole.VIEWER, key, "%R~")
    assert reaches(BrokerRole.VIEWER, "0a.reply.celery.pidbox")


@pytest.mark.parametrize("family", ["valkey", "dragonfly"])
@pytest.mark.parametrize("role", BrokerRole)
def test_no_user_has_what_an_administrator_has(role: BrokerRole, family: str) -> None:
    given = rules(role, family)  # type: ignore[arg-type]
    assert given.index("+@all") < given.index("-@admin") < given.index("-@dangerous")
    assert [rule for rule in given[given.index("-@dangerous") :] if rule.startswith("+")] == (
        ["+info", "+script|load", "+script|exists"] if family == "valkey" else ["+info"]
    )


def test_another_database_has_channels_of_its_own_and_must_be_chosen() -> None:
    assert {"&/3.celery.pidbox", "+select"} <= set(rules(BrokerRole.NODE, "valkey", 3))
    assert "-select" in rules(BrokerRole.NODE, "valkey", 0)


def test_each_role_of_each_node_is_a_user_of_its_own_with_a_password_of_its_own() -> None:
    one, other = BrokerLogins.new("here", "a"), BrokerLogins.new("here", "b")
    every = [*one.logins.values(), *other.logins.values()]
    assert one.logins[BrokerRole.NODE].user == "torch-node-a"
    assert len({login.user for login in every}) == len({login.password for login in every}) == 2 * len(BrokerRole)
    renewed = one.renewed()
    assert [login.user for login in renewed.logins.values()] == [login.user for login in one.logins.values()]
    assert not {login.password for login in renewed.logins.values()} & {login.password for login in every}


def test_no_text_of_a_login_shows_its_password() -> None:
    logins = BrokerLogins.one_for_all("here", BrokerLogin(user="me", password="s3cret"))
    assert not logins.are_made
    login = logins.logins[BrokerRole.NODE]
    assert "s3cret" not in f"{logins} {logins!r} {login} {login!r} {[login]}"


@pytest.mark.parametrize("family", ["valkey", "dragonfly"])
def test_who_has_a_token_and_no_more_reaches_what_joining_takes(family: Family) -> None:
    words = joiners_rules(family)
    patterns = [word.rpartition("~")[2] for word in words if "~" in word]
    for key in (keys.FLEET_KEYS, keys.JOIN_REQUESTS, keys.key_answer("x")):
        assert any(fnmatch(key, pattern) for pattern in patterns)
    for key in (keys.CERTIFICATE_REQUESTS, keys.LEASES, keys.AUDIT_HEADS, keys.task_record("1"), keys.SYSTEM_QUEUE):
        assert not any(fnmatch(key, pattern) for pattern in patterns)
    assert f"~{keys.FLEET_KEYS}" not in words  # it may only be read
    assert not {"+@all", "+select", "+publish", "+scan"}.intersection(words)
    assert "+select" in joiners_rules(family, database=1)
