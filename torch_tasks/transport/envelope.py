"""What kombu and Celery write into a message, read strictly: nothing else reaches kombu, Celery, or a pool.

The transport carries JSON and no compression, so what a message unpacks to is hardly longer than the message. A message
is signed over all of its text for the queue that it lies in; the signature stands in front of that text, so that it is
verified before anything is parsed, and whoever moves a message to another queue signs it anew.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import ValidationError

from torch_tasks.caller import CallerKind
from torch_tasks.errors import NotSigned, SignatureRefused, Unreadable
from torch_tasks.model.asker import Asker
from torch_tasks.model.reader import LIMIT_BYTES, as_model, check_size, check_text, read_object, shortened
from torch_tasks.signing.authority import believed, signer_as_asker
from torch_tasks.signing.enforcement import checked, seal
from torch_tasks.signing.signature import Purpose, signed_at

if TYPE_CHECKING:
    from torch_tasks.transport.message_forms import Envelope

LOSSES = "torch-deliveries"
"""The first field of a message that was lost with its holder: how often."""
LOSSES_HEADER = "torch_deliveries"
"""The header in which a task finds that number."""
SIGNATURE = "torch-signature"
"""The field of a message in front of all that is signed."""
ASKER_HEADER = "torch_asker"
"""The header that says who asked."""
SIGNER_HEADER = "torch_signer"
"""The header in which a task finds whose signature was verified; no message brings it."""
SIGNED_SECONDS = 30 * 86_400.0
"""How long a message counts after it was signed; housekeeping signs anew what has waited for a third of that."""
BROADCAST_SECONDS = 600.0
"""The same for what is sent to all that listen; more than clocks may differ."""

_FRONT = re.compile(rf'\{{(?:"{LOSSES}":(\d{{1,16}}),)?(?:"{SIGNATURE}":"([\w.-]*)",)?', re.ASCII)
_OTHER_CELERY = (
    "publish with Torch's own Celery app (from torch_tasks.app import app) on a machine that joined the fleet, as "
    "run.delay(…) does: it signs by itself; see docs/security.md"
)


class _Parts(NamedTuple):
    """A message, cut without being parsed."""

    losses: int
    signature: str | None
    text: str
    """What is signed."""


def _parts(message: str) -> _Parts:
    front = _FRONT.match(message)
    if front is None or front.end() == 1:
        return _Parts(0, None, message)
    losses, signature = front.groups()
    return _Parts(int(losses or 0), signature, "{" + message[front.end() :])


def _joined(losses: int, signature: str | None, text: str) -> str:
    front = (f'"{LOSSES}":{losses},' if losses else "") + (f'"{SIGNATURE}":"{signature}",' if signature else "")
    return f"{{{front}{text[1:]}"


def written(message: Mapping[str, Any], queue: str, *, lasts_seconds: float = SIGNED_SECONDS) -> str:
    """A message as it lies in this queue, signed by this node."""
    from kombu.utils.json import dumps

    fields = dict(message)
    losses = int(fields.pop(LOSSES, 0))
    text, headers = dumps(fields), fields.get("headers") or {}
    claims = {"queue": queue, "task": headers.get("task"), "id": headers.get("id")}
    return _joined(losses, seal(Purpose.MESSAGE, text, lasts_seconds, by=CallerKind.NODE, **claims), text)


def is_signed_long_ago(message: str) -> bool:
    """Whether it is time to sign a message anew that waits."""
    return signed_seconds_ago(message) > SIGNED_SECONDS / 3


def signed_seconds_ago(message: str) -> float:
    """The age of a message's signature; 0 if it has none."""
    signature = _parts(message).signature
    at = signed_at(signature) if signature else None
    return 0.0 if at is None else time.time() - at


def readdressed(message: str, queue: str, *, even_expired: bool = False, anew: bool = False) -> str:
    """The message as this node puts it into a queue; one whose signature does not hold is left as it is.

    With ``even_expired``, this node vouches also for one that was signed too long ago; with ``anew``, it signs also one
    that is in its queue already.
    """
    losses, signature, text = _parts(message)
    try:
        signed = checked(signature, Purpose.MESSAGE, text, even_expired=even_expired)
        if signed is None or (signed.claims.get("queue") == queue and not even_expired and not anew):
            return message
        payload = read_object(text)
        asker = asker_of(payload["headers"], signer_as_asker(signed.signer))
        payload["headers"].pop(ASKER_HEADER, None)
    except (SignatureRefused, Unreadable, KeyError, AttributeError):
        return message
    if asker:
        payload["headers"][ASKER_HEADER] = as_header(asker)
    return written({**payload, **({LOSSES: losses} if losses else {})}, queue)


def signature_of(message: str) -> str | None:
    return _parts(message).signature


def fields_of(message: str) -> dict[str, Any]:
    """The fields of a message that was delivered, as :func:`written` takes them."""
    losses, _, text = _parts(message)
    fields: dict[str, Any] = json.loads(text)
    return {**fields, **({LOSSES: losses} if losses else {})}


def as_header(asker: Asker) -> dict[str, Any]:
    return asker.model_dump(mode="json", exclude_none=True)


def asker_of(headers: Mapping[str, Any], signer: Asker | None) -> Asker | None:
    """Who asked, as the headers say, and only as far as who signed them may say that."""
    try:
        asker = Asker.model_validate(headers.get(ASKER_HEADER))
    except ValidationError:
        asker = None
    return believed(asker, signer) if signer else asker


def delivered(
    message: str, tag: str, *, limit: int = LIMIT_BYTES, is_command: bool = False, queue: str | None = None
) -> dict[str, Any]:
    """A message as its consumer gets it: under this tag, and marked if it was lost before.

    Raises :class:`~torch_tasks.errors.Unreadable` for a message that kombu or Celery would stumble over, and
    :class:`~torch_tasks.errors.SignatureRefused` for one that nobody of the fleet signed for this ``queue``.
    """
    from torch_tasks.transport.message_forms import ControlCommand, Envelope, OtherHeaders, TaskHeaders

    check_size(message, limit)
    losses, signature, text = _parts(message)
    claims: dict[str, Any] = {} if queue is None else {"queue": queue}
    try:
        signed = checked(signature, Purpose.MESSAGE, text, **claims)
    except NotSigned as error:
        raise NotSigned(f"{error}: {_OTHER_CELERY}") from None
    payload = read_object(text, limit=limit)
    if losses:
        payload[LOSSES] = losses
    envelope = as_model(Envelope, payload, "message")
    headers = envelope.headers
    is_task = "task" in headers
    as_model(TaskHeaders if is_task else OtherHeaders, headers, "message with right headers")
    body = _body(envelope, limit)
    if is_task:
        _check_task(body)
    if is_command:
        as_model(ControlCommand, body, "command")
    payload["headers"].pop(SIGNER_HEADER, None)
    if signed:
        payload["headers"][SIGNER_HEADER] = as_header(signer_as_asker(signed.signer))
    properties = payload["properties"]
    properties["delivery_tag"] = tag
    if payload.pop(LOSSES, 0):
        payload["headers"].update({LOSSES_HEADER: envelope.losses, "redelivered": True})
        properties["delivery_info"]["redelivered"] = True
    return payload


def message_id(message: str) -> str | None:
    """The id of the task in a message, if the message holds a task."""
    try:
        name = read_object(message)["headers"]["id"]
    except (Unreadable, KeyError, TypeError):
        return None
    return name if isinstance(name, str) and 0 < len(name) <= 512 else None


def losses(message: str) -> int:
    """How often a message was lost with its holder so far."""
    try:
        count = _parts(message).losses or read_object(message).get(LOSSES, 0)
    except Unreadable:
        return 0
    return count if isinstance(count, int) else 0


def _body(envelope: Envelope, limit: int) -> Any:
    """The body as kombu will read it."""
    from kombu.utils.json import loads

    text = envelope.body
    if envelope.properties.body_encoding:
        try:
            text = base64.b64decode(text, validate=True).decode()
        except (binascii.Error, ValueError) as error:
            raise Unreadable(f"its body is no text in base64: {error}") from None
    check_text(text, limit=limit)
    try:
        return loads(text)
    except Exception as error:  # besides JSON's own errors those of kombu's decoders of dates, numbers and so on
        raise Unreadable(f"its body is not JSON as kombu writes it: {shortened(repr(error))}") from None


def _check_task(body: Any) -> None:
    from torch_tasks.transport.message_forms import Embed

    if not (isinstance(body, list) and len(body) == 3):
        raise Unreadable("its body does not hold the arguments of a task")
    arguments, keywords, embed = body
    if not (isinstance(arguments, list) and isinstance(keywords, dict)):
        raise Unreadable("its body holds no list of arguments and no object of keywords")
    as_model(Embed, {} if embed is None else embed, "canvas")
