"""Of all that may lie in a queue, only what kombu and Celery write reaches them."""

from __future__ import annotations

import json

import pytest
from hostile import NO_JSON, WRONG, task_message

from torch_tasks.errors import Unreadable
from torch_tasks.settings import settings
from torch_tasks.signing import enforcement
from torch_tasks.transport.envelope import LOSSES, LOSSES_HEADER, delivered, losses, message_id

TAG = "tag:work"


@pytest.fixture(autouse=True)
def whoever_wrote_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a signature says is not looked at here, nor who would have signed such things."""
    unsigned = settings().model_copy(update={"signing": "off"})
    monkeypatch.setattr(enforcement, "settings", lambda: unsigned)


@pytest.mark.parametrize("name", WRONG)
def test_what_kombu_and_celery_would_stumble_over_is_refused(name: str) -> None:
    text = json.dumps(WRONG[name])
    with pytest.raises(Unreadable, match=r"^(it|lists)"):
        delivered(text, TAG)
    assert losses(text) in (0, 42) or name == "losses of the wrong type"
    assert message_id(text) in (None, "t1")


@pytest.mark.parametrize("text", NO_JSON.values(), ids=NO_JSON)
def test_what_is_no_json_is_refused(text: str) -> None:
    with pytest.raises(Unreadable):
        delivered(text, TAG)
    assert (losses(text), message_id(text)) == (0, None)


def test_what_celery_writes_is_delivered_as_it_is() -> None:
    expected = task_message(properties__delivery_tag=TAG)
    assert delivered(json.dumps(task_message()), TAG) == expected


def test_a_message_that_was_lost_says_how_often() -> None:
    found = delivered(json.dumps({LOSSES: 2, **task_message()}), TAG)
    assert found["headers"][LOSSES_HEADER] == 2
    assert found["properties"]["delivery_info"]["redelivered"] is True
    assert LOSSES not in found
    assert losses(json.dumps({LOSSES: 2, **task_message()})) == 2


def test_a_long_message_is_not_parsed() -> None:
    with pytest.raises(Unreadable, match="more than 1,000"):
        delivered(json.dumps(task_message(body="A" * 2_000)), TAG, limit=1_000)
