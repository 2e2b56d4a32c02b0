"""Accounts with the providers of models, shared by all agents: closed by a limit or failures, tried again by one."""

from __future__ import annotations

import pytest
import redis
from nodes import Broker
from waiting import until

from torch_tasks import keys
from torch_tasks.settings import Settings
from torch_tasks.store.accounts import Account


@pytest.fixture
def client(broker: Broker) -> redis.Redis:
    broker.empty()
    return redis.Redis.from_url(broker.url, protocol=2)


def account(client: redis.Redis, name: str = "claude", pause: float = 60) -> Account:
    """The account as one agent's worker sees it."""
    return Account(name, client, Settings(account_failures=3, account_pause_seconds=pause))


def test_a_new_account_is_open(client: redis.Redis) -> None:
    assert account(client).closed_for("developer-1") == 0


def test_a_limit_closes_the_account_for_all_until_it_ends(client: redis.Redis) -> None:
    assert account(client).limited(600) == 600
    assert 590 < account(client).closed_for("developer-1") <= 600
    assert account(client, "codex").closed_for("developer-1") == 0


def test_a_limit_that_does_not_say_when_it_ends_lasts_for_the_usual_pause(client: redis.Redis) -> None:
    assert account(client, pause=60).limited(None) == 60


def test_after_a_limit_one_agent_tries_first_and_the_others_follow_when_it_was_served(client: redis.Redis) -> None:
    account(client).limited(1)
    until(lambda: not client.exists(keys.account("claude", "limit")), "the limit has ended")
    assert account(client).closed_for("developer-1") == 0
    assert account(client).closed_for("developer-1") == 0  # it may ask twice
    assert account(client).closed_for("developer-2") > 0
    account(client).served()
    assert account(client).closed_for("developer-2") == 0


def test_the_first_one_to_try_meets_the_limit_again(client: redis.Redis) -> None:
    account(client).limited(1)
    until(lambda: account(client).closed_for("developer-1") == 0, "the limit has ended")
    account(client).limited(600)
    assert account(client).closed_for("developer-1") > 590


def test_overloads_in_a_row_close_the_account(client: redis.Redis) -> None:
    for _ in range(2):
        account(client).overloaded()
    assert account(client).closed_for("developer-1") == 0
    account(client).overloaded()
    assert 50 < account(client).closed_for("developer-1") <= 60


def test_an_answer_in_between_starts_the_count_anew(client: redis.Redis) -> None:
    for _ in range(4):
        account(client).overloaded()
        account(client).overloaded()
        account(client).served()
    assert account(client).closed_for("developer-1") == 0


def test_after_a_pause_one_agent_tries_and_closes_it_again_or_opens_it_for_all(client: redis.Redis) -> None:
    for _ in range(3):
        account(client, pause=0.5).overloaded()
    until(lambda: account(client, pause=0.5).closed_for("developer-1") == 0, "the pause is over")
    assert account(client, pause=0.5).closed_for("developer-2") > 0
    account(client).overloaded()
    assert account(client).closed_for("developer-1") > 0
    until(lambda: account(client, pause=0.5).closed_for("developer-2") == 0, "the second pause is over")
    account(client).served()
    assert account(client).closed_for("developer-1") == 0
