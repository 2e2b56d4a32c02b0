"""Whoever adds a key decides what becomes of it in a backup."""

from __future__ import annotations

import inspect

import pytest

from torch_tasks import keys
from torch_tasks.store.key_families import Fate, fate_of

NAMES = sorted(
    value
    for value in vars(keys).values()
    if isinstance(value, str) and value.startswith(keys.PREFIX) and value != keys.PREFIX
)


def _made() -> dict[str, str]:
    """A name that each function of ``keys`` makes, by the function."""
    found = {}
    for name, function in inspect.getmembers(keys, inspect.isfunction):
        if function.__module__ != keys.__name__ or name in ("task_queue", "is_task_queue", "queue_demand"):
            continue
        values = {"slot_ms": 7}
        made = function(*(values.get(one, "thing") for one in inspect.signature(function).parameters))
        found |= {f"{name} {number}": one for number, one in enumerate([made] if isinstance(made, str) else made)}
    return found


@pytest.mark.parametrize("name", NAMES)
def test_every_name_has_a_fate_of_its_own(name: str) -> None:
    assert fate_of(name) is not None, f"say in store/key_families.py what becomes of {name} in a backup"


@pytest.mark.parametrize(("function", "name"), _made().items())
def test_every_name_that_is_made_has_one(function: str, name: str) -> None:
    assert fate_of(name) is not None, f"say in store/key_families.py what becomes of keys.{function.split()[0]}(…)"


def test_a_new_family_has_none() -> None:
    assert fate_of(f"{keys.PREFIX}something_new") is None
    assert fate_of("somebody:elses") is None


@pytest.mark.parametrize(
    ("name", "fate"),
    [
        (keys.task_queue("developer", ["go"]), Fate.KEPT),
        (keys.task_queue("developer", ["go"]) + "\x06\x163", Fate.KEPT),
        (keys.agent_queue("developer-1"), Fate.KEPT),
        ("celery", Fate.KEPT),
        ("_kombu.binding.torch.any.any", Fate.KEPT),
        (f"{keys.CELERY_RESULTS}celery-task-meta-1", Fate.KEPT),
        (keys.inbox("developer-1", "urgent"), Fate.KEPT),
        (keys.AGENT_INCARNATION, Fate.RAISED),
        (keys.RECONCILED, Fate.EPHEMERAL),
        (keys.bell("torch.any.any"), Fate.EPHEMERAL),
        ("celeryev.1234", Fate.EPHEMERAL),
        ("developer-1@host.celery.pidbox", Fate.EPHEMERAL),
        ("1234.reply.celery.pidbox", Fate.EPHEMERAL),
    ],
)
def test_the_fate_of(name: str, fate: Fate) -> None:
    assert fate_of(name) is fate
