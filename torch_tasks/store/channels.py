"""The channels on which every message to a role is heard, by other services too."""

from __future__ import annotations

import json
from collections.abc import Iterator

import redis
from pydantic import ValidationError

from torch_tasks import keys
from torch_tasks.model.message import Message

CHANNELS = {
    "orchestrator": f"{keys.PREFIX}orchestrator",
    "project-manager": f"{keys.PREFIX}pms",
    "developer": f"{keys.PREFIX}devs",
    "specialist": f"{keys.PREFIX}specialists",
}
_SAME = {"pm": "project-manager", "project_manager": "project-manager", "dev": "developer"}


def role_named(word: str) -> str:
    """A role as people and older programs write it: in the plural, in short, with an underscore."""
    word = word.strip().lower()
    for name in (word, word.removesuffix("s")):
        if name in _SAME or name in CHANNELS:
            return _SAME.get(name, name)
    return word


def channel_of(role: str | None) -> str:
    """The channel of a role; who is none of the others is a specialist."""
    return CHANNELS.get(role_named(role or ""), CHANNELS["specialist"])


def listen(client: redis.Redis, role: str) -> Iterator[Message | None]:
    """Every message to this role from now on; None about once a second while there is none.

    Who listens after a message was sent has missed it: the inboxes are the truth, the channels a wake-up.
    """
    with client.pubsub(ignore_subscribe_messages=True) as channel:  # type: ignore[no-untyped-call]
        channel.subscribe(channel_of(role))
        while True:
            heard = channel.get_message(timeout=1.0)
            yield _parsed(heard["data"]) if heard else None


def _parsed(text: str) -> Message | None:
    try:
        return Message.model_validate(json.loads(text))
    except (ValidationError, ValueError):  # somebody else's
        return None
