"""Of what Celery keeps of results, what a node signed for this task, group and place counts, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from celery.exceptions import ChordError

from torch_tasks.app import app
from torch_tasks.broker import results
from torch_tasks.broker.results import Results
from torch_tasks.broker.signed_results import FIELD
from torch_tasks.caller import CallerKind
from torch_tasks.signing.ed25519 import new_key, public_key_of
from torch_tasks.signing.keyring import keyring
from torch_tasks.signing.signature import Purpose, sign

META = {"status": "SUCCESS", "result": {"answer": "42"}, "task_id": "t1"}
PENDING = {"status": "PENDING", "result": None}


class Kept(Results):
    """The backend with a dictionary in the place of the broker."""

    def __init__(self) -> None:
        super().__init__(app=app, url="redis://nowhere")
        self.kept: dict[str, Any] = {}
        self.refused: list[str] = []

    def get(self, key: Any) -> Any:
        return self.kept.get(bytes(key).decode())

    def mget(self, keys: Any) -> list[Any]:
        return [self.get(key) for key in keys]

    def _refuse(self, place: str, error: Any) -> None:
        self.refused.append(f"{place}: {error}")


pytestmark = pytest.mark.usefixtures("enforced")


@pytest.fixture
def backend() -> Kept:
    return Kept()


def _keep(backend: Kept, text: str, task_id: str = "t1") -> None:
    backend.kept[backend.get_key_for_task(task_id).decode()] = text.encode()


def test_a_result_that_a_node_signed_is_read_and_stays_readable_for_others(backend: Kept) -> None:
    text = backend.encode(META)
    _keep(backend, text)
    assert backend.get_task_meta("t1", cache=False) == META
    assert json.loads(backend.meta_text("t1") or "") == META
    plain = json.loads(text)
    assert plain.pop(FIELD)
    assert plain == META
    assert dict(backend.get_many(["t1"])) == {"t1": META}
    assert not backend.refused


def _of_a_person(text: str) -> str:
    keys, bare = keyring(), "{" + text.partition('",')[2]
    person = keys.identity(CallerKind.PERSON)
    return f'{{"{FIELD}":"{sign(keys, person, Purpose.RESULT, bare.encode(), None)}",{bare[1:]}'


def _by_a_revoked_key(text: str) -> str:
    keys, bare, private = keyring(), "{" + text.partition('",')[2], new_key()
    keys.keep(private, keys.issue(CallerKind.NODE, "stolen", public_key_of(private)))
    thief = next(one for one in keys.identities() if one.certificate.name == "stolen")
    signature = sign(keys, thief, Purpose.RESULT, bare.encode(), None)
    keys.revoke(thief.certificate.serial)
    return f'{{"{FIELD}":"{signature}",{bare[1:]}'


FORGERIES: dict[str, tuple[Callable[[str], str], str]] = {
    "not signed": (lambda text: json.dumps(META), "it is not signed"),
    "another answer": (lambda text: text.replace('"42"', '"43"'), "changed afterwards"),
    "with a name twice": (lambda text: text[:-1] + ', "status": "SUCCESS"}', "changed afterwards"),
    "signed by a person": (_of_a_person, "who is no node"),
    "by a key that was revoked": (_by_a_revoked_key, "was revoked"),
    "what says how large a chord is": (lambda text: Kept().encode({"group": "t1", "size": 1}), "no result of a task"),
}


@pytest.mark.parametrize("how", FORGERIES)
def test_a_result_that_no_node_signed_is_none(how: str, backend: Kept) -> None:
    forge, why = FORGERIES[how]
    _keep(backend, forge(backend.encode(META)))
    assert backend.get_task_meta("t1", cache=False) == PENDING
    assert backend.meta_text("t1") is None
    assert why in backend.refused[0]


def test_the_result_of_one_task_is_none_of_another(backend: Kept) -> None:
    _keep(backend, backend.encode(META), "t2")
    assert backend.get_task_meta("t2", cache=False) == PENDING
    assert "it is the one of task t1" in backend.refused[0]
    assert backend._mget_to_results(backend.mget([backend.get_key_for_task("t2")]), ["t2"]) == {}
    assert backend.meta_text("t2") is None


def test_the_tasks_of_one_group_are_not_those_of_another(backend: Kept) -> None:
    group = app.GroupResult("g1", [])
    text = backend.encode({"result": group.as_tuple()})
    for name, kept in (("g1", text), ("g2", text), ("g3", json.dumps({"result": group.as_tuple()}))):
        backend.kept[backend.get_key_for_group(name).decode()] = kept.encode()
    assert backend.restore_group("g1").id == "g1"
    assert backend.restore_group("g2") is None
    assert backend.restore_group("g3") is None
    assert len(backend.refused) == 2


def _part(backend: Kept, group: str = "g1", index: int = 0) -> str:
    with results._part_of(results._Chord(group, index)):
        return str(backend.encode([1, f"t{index}", "SUCCESS", index]))


def _read(backend: Kept, *parts: str) -> list[Any]:
    """As Celery reads the parts of a chord of two before it sends the body."""
    with results._part_of(results._Chord("g1", 1)):
        found = [backend._unpack_chord_result(part, backend.decode) for part in parts]
        backend._chord_publish_claim_expires(5, SimpleNamespace(options={}))
        return found


@pytest.fixture
def of_two(backend: Kept) -> Kept:
    """The backend knows a chord of two."""
    backend.kept[backend.get_key_for_group("g1", ".size").decode()] = backend.encode({"group": "g1", "size": 2})
    return backend


def test_a_chord_that_is_complete_is_read(of_two: Kept) -> None:
    assert _read(of_two, _part(of_two), _part(of_two, index=1)) == [0, 1]


INCOMPLETE: dict[str, tuple[Callable[[Kept], list[str]], str]] = {
    "one is missing": (lambda backend: [_part(backend)], "1 of its parts were signed"),
    "all are missing": (lambda backend: [], "0 of its parts were signed"),
    "one counts twice": (lambda backend: [_part(backend)] * 2, "1 of its parts were signed"),
    "one is forged": (
        lambda backend: [_part(backend), '{"part": [1, "t1", "SUCCESS", 1]}'],
        "written by hand: it is not signed",
    ),
    "one is of another chord": (
        lambda backend: [_part(backend), _part(backend, group="g2", index=1)],
        "signed it for the group 'g2'",
    ),
    "one is a task's result": (lambda backend: [_part(backend), backend.encode(META)], "signed it for the group None"),
}


@pytest.mark.parametrize("how", INCOMPLETE)
def test_a_chord_of_which_not_all_was_signed_is_not_read(how: str, of_two: Kept) -> None:
    parts, why = INCOMPLETE[how]
    with pytest.raises(ChordError, match=why):
        _read(of_two, *parts(of_two))


def test_a_chord_whose_size_nobody_signed_is_not_read(backend: Kept) -> None:
    backend.kept[backend.get_key_for_group("g1", ".size").decode()] = '{"group": "g1", "size": 1}'
    with pytest.raises(ChordError, match="no number was announced"):
        _read(backend, _part(backend))
