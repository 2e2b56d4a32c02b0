"""The one reader of what lies on the broker: whatever the text, it answers or raises Unreadable."""

from __future__ import annotations

import contextlib
import json
import random
import time

import pytest

from torch_tasks.errors import Unreadable
from torch_tasks.model.message import Message
from torch_tasks.model.reader import DEPTH, depth_of, read_json, read_model, read_object

HOSTILE = {
    "not JSON": "not json",
    "nothing": "",
    "200 kB of brackets": "[" * 200_000,
    "200 kB of objects": '{"a":' * 200_000,
    "brackets after a string that does not end": '"' + "[" * 200_000,
    "one level too deep": "[" * (DEPTH + 1) + "]" * (DEPTH + 1),
    "a number of 10,000 digits": "9" * 10_000,
    "NaN": '{"at": NaN}',
    "Infinity": "[-Infinity]",
    "half a character": '["\\ud800"]',
    "two values": "{} {}",
    "a NUL": "\0",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_cannot_be_read_is_refused_by_name_and_at_once(name: str) -> None:
    begun = time.monotonic()
    with pytest.raises(Unreadable, match=r"^it (is|has)|^lists and objects go deeper"):
        read_json(HOSTILE[name])
    assert time.monotonic() - begun < 1


def test_what_is_too_long_is_not_parsed() -> None:
    with pytest.raises(Unreadable, match="it has 40,000,002 bytes, more than 16,777,216"):
        read_json('"' + "x" * 40_000_000 + '"')
    with pytest.raises(Unreadable, match="it has 22 bytes, more than 20"):
        read_json('"' + "ö" * 10 + '"', limit=20)


def test_brackets_in_strings_are_no_depth() -> None:
    text = json.dumps({"screen": '[{"\\' * 1000})
    assert read_object(text) == json.loads(text)
    assert read_json("[" * DEPTH + "]" * DEPTH)
    assert read_json(json.dumps("\U0001f600")) == "\U0001f600"


def test_only_an_object_is_an_object() -> None:
    with pytest.raises(Unreadable, match="no JSON object, but a list"):
        read_object("[]")
    with pytest.raises(Unreadable, match="no JSON object, but null"):
        read_object("null")


def test_a_model_has_its_fields() -> None:
    with pytest.raises(Unreadable, match="it is no Message: sender: is missing"):
        read_model(Message, '{"target": "qa-1", "message": "hello"}')
    with pytest.raises(Unreadable, match="it is no Message: message"):
        read_model(Message, '{"sender": "operator", "target": "qa-1", "message": {"a": 1}}')


@pytest.mark.parametrize(("value", "depth"), [(1, 0), ([], 1), ({"a": 1}, 1), ([[], {"a": [1]}], 3), ([[[[]]]], 4)])
def test_depth(value: object, depth: int) -> None:
    assert depth_of(value) == depth


def test_whatever_is_done_to_a_text_it_is_read_or_refused() -> None:
    chance = random.Random(7)
    good = Message.build(sender="operator", target="qa-1", message='say "[{\\"').model_dump_json()
    for _ in range(5_000):
        text = list(good)
        for _ in range(chance.randint(1, 6)):
            text[chance.randrange(len(text))] = chance.choice('{}[]",:\\\0\ud7ffé0e9-N')
        with contextlib.suppress(Unreadable):
            read_model(Message, "".join(text))
