"""A message counts where and as it was signed, on behalf of whom its signer may speak."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from hostile import task_message

from torch_tasks.caller import CallerKind
from torch_tasks.errors import BadSignature, KeyRevoked, NotSigned, SignatureExpired, SignatureRefused
from torch_tasks.model.asker import Asker
from torch_tasks.settings import settings
from torch_tasks.signing.ed25519 import new_key, public_key_of
from torch_tasks.signing.keyring import Keyring, keyring
from torch_tasks.signing.signature import Purpose, sign
from torch_tasks.tasks.recorded_asker import asker_in
from torch_tasks.transport.envelope import (
    ASKER_HEADER,
    LOSSES_HEADER,
    SIGNED_SECONDS,
    SIGNER_HEADER,
    as_header,
    delivered,
    fields_of,
    is_signed_long_ago,
    losses,
    message_id,
    readdressed,
    written,
)

QUEUE, OTHER = "torch.any.any", "torch.agent.dev-1"
AGENT = Asker(kind=CallerKind.AGENT, name="dev-7")


pytestmark = pytest.mark.usefixtures("enforced")


def _message(**changes: Any) -> dict[str, Any]:
    return task_message(headers__torch_asker=as_header(AGENT), **changes)


def _take(text: str, queue: str = QUEUE) -> dict[str, Any]:
    return dict(delivered(text, "tag:work", queue=queue))


def test_what_is_written_is_delivered_with_its_signer() -> None:
    text = written(_message(), QUEUE)
    found = _take(text)
    signer = found["headers"].pop(SIGNER_HEADER)
    assert (signer["kind"], signer["name"]) == ("node", settings().node)
    assert found == _message(properties__delivery_tag="tag:work")
    assert (message_id(text), losses(text), fields_of(text)) == ("t1", 0, _message())


def _lost(text: str) -> str:
    """As the broker's script writes it."""
    return '{"torch-deliveries":3,' + text[1:]


KEPT: dict[str, Callable[[str], tuple[str, str]]] = {
    "given back, or taken up again": lambda text: (text, QUEUE),
    "lost with its worker": lambda text: (_lost(text), QUEUE),
    "forwarded, or handed over": lambda text: (readdressed(text, OTHER), OTHER),
    "forwarded after it was lost": lambda text: (readdressed(_lost(text), OTHER), OTHER),
    "forwarded and back": lambda text: (readdressed(readdressed(text, OTHER), QUEUE), QUEUE),
    "parked before another try": lambda text: (written(fields_of(text), OTHER), OTHER),
}


@pytest.mark.parametrize("way", KEPT)
def test_what_torch_moves_is_delivered_where_it_lies_for_who_asked(way: str) -> None:
    text, queue = KEPT[way](written(_message(), QUEUE))
    found = _take(text, queue)
    assert asker_in(found["headers"]) == AGENT
    assert found["headers"].get(LOSSES_HEADER, 0) == losses(text) == (3 if "lost" in way else 0)


def _changed(old: str, new: str) -> Callable[[str], str]:
    def change(text: str) -> str:
        assert old in text
        return text.replace(old, new)

    return change


REFUSED: dict[str, tuple[Callable[[str], str], type[SignatureRefused], str]] = {
    "not signed": (lambda _: json.dumps(_message()), NotSigned, "Torch's own Celery app"),
    "under another id": (_changed('"id": "t1"', '"id": "t2"'), BadSignature, "changed afterwards"),
    "as another task": (_changed("torch.run", "torch.retire"), BadSignature, "changed afterwards"),
    "with another asker": (_changed("dev-7", "dev-8"), BadSignature, "changed afterwards"),
    "with other callbacks": (_changed('"body": "', '"body": "W10='), BadSignature, "changed afterwards"),
    "of higher priority": (_changed('"priority": 6', '"priority": 0'), BadSignature, "changed afterwards"),
    "with a field in front": (lambda text: '{"body":"x",' + text[1:], NotSigned, "not signed"),
    "with a signature cut short": (lambda text: text[:60] + text[64:], BadSignature, "certificate|signature"),
}  # fmt: skip


@pytest.mark.parametrize("how", REFUSED)
def test_what_was_changed_or_never_signed_is_refused(how: str) -> None:
    change, error, words = REFUSED[how]
    with pytest.raises(error, match=words):
        _take(change(written(_message(), QUEUE)))


def test_a_message_copied_into_another_queue_is_refused() -> None:
    with pytest.raises(BadSignature, match=f"signed it for the queue '{QUEUE}', and it came as '{OTHER}'"):
        _take(written(_message(), QUEUE), OTHER)


def test_one_that_does_not_hold_is_not_signed_anew_by_who_moves_it() -> None:
    for change, *_ in REFUSED.values():
        text = change(written(_message(), QUEUE))
        assert readdressed(text, OTHER) == text


def test_an_expired_one_is_refused_but_a_person_may_have_it_replayed(monkeypatch: pytest.MonkeyPatch) -> None:
    text = written(_message(), QUEUE)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + SIGNED_SECONDS + 1)
    with pytest.raises(SignatureExpired):
        _take(text)
    assert readdressed(text, QUEUE) == text
    assert _take(readdressed(text, QUEUE, even_expired=True))["headers"]["id"] == "t1"


def test_one_by_a_key_that_was_revoked_since_is_refused_and_not_replayed() -> None:
    text = written(_message(), QUEUE)
    keyring().revoke(keyring().identity(CallerKind.NODE).certificate.serial)
    with pytest.raises(KeyRevoked):
        _take(text)
    assert readdressed(text, QUEUE, even_expired=True) == text


def test_the_size_is_looked_at_before_the_signature_and_the_signature_before_json() -> None:
    with pytest.raises(SignatureRefused):
        _take("[" * 200)
    with pytest.raises(Exception, match="more than 10"):
        delivered("x" * 11, "tag", limit=10)


def _signed_by(kind: CallerKind, message: dict[str, Any], role: str | None = None) -> str:
    keys: Keyring = keyring()
    private = new_key()
    keys.keep(private, keys.issue(kind, "ci", public_key_of(private), role=role))
    identity = next(one for one in keys.identities() if one.certificate.name == "ci")
    text = json.dumps(message)
    signature = sign(keys, identity, Purpose.MESSAGE, text.encode(), 60, queue=QUEUE)
    return f'{{"torch-signature":"{signature}",{text[1:]}'


WHO = [
    (CallerKind.NODE, None, AGENT),
    (CallerKind.PROGRAM, "viewer", Asker(kind=CallerKind.PROGRAM, name="ci", role="viewer")),
    (CallerKind.PERSON, None, Asker(kind=CallerKind.PERSON, name="ci")),
]


@pytest.mark.parametrize(("kind", "role", "asker"), WHO)
def test_only_a_node_speaks_for_others(kind: CallerKind, role: str | None, asker: Asker) -> None:
    forged = {SIGNER_HEADER: {"kind": "node", "name": "any"}}
    message = _message()
    message["headers"] |= forged
    text = _signed_by(kind, message, role)
    assert asker_in(_take(text)["headers"]) == asker
    moved = readdressed(text, OTHER)
    assert asker_in(_take(moved, OTHER)["headers"]) == asker
    assert fields_of(moved)["headers"][ASKER_HEADER] == as_header(asker)


def test_a_message_that_waits_is_signed_anew_long_before_it_expires(monkeypatch: pytest.MonkeyPatch) -> None:
    text = written(_message(), QUEUE)
    assert not is_signed_long_ago(text)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + SIGNED_SECONDS / 2)
    assert is_signed_long_ago(text)
    anew = readdressed(text, QUEUE, anew=True)
    assert not is_signed_long_ago(anew)
    monkeypatch.setattr(time, "time", lambda: now + SIGNED_SECONDS + 1)
    assert asker_in(_take(anew)["headers"]) == AGENT
    assert readdressed(text, QUEUE, anew=True) == text  # too late: nobody vouches for it
