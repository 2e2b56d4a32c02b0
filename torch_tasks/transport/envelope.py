"""What kombu and Celery write into a message, read strictly: nothing else reaches kombu, Celery, or a pool.

The transport carries JSON and no compression, so what a message unpacks to is hardly longer than the message.
"""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Any, Literal

from kombu.utils.json import loads
from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictFloat, StrictInt, StrictStr

from torch_tasks.errors import Unreadable
from torch_tasks.model.reader import LIMIT_BYTES, as_model, check_text, read_object, shortened

LOSSES = "torch-deliveries"
"""The first field of a message that was lost with its holder: how often."""
LOSSES_HEADER = "torch_deliveries"
"""The header in which a task finds that number."""

_Text = Annotated[StrictStr, Field(max_length=4096)]
_Word = Annotated[StrictStr, Field(min_length=1, max_length=512)]
_Count = Annotated[StrictInt, Field(ge=0, le=1 << 53)]
_Number = StrictInt | Annotated[StrictFloat, Field(allow_inf_nan=False)]
_Object = dict[str, Any]


class _Part(BaseModel):
    """Fields of kombu's or Celery's; those that Torch does not read may hold anything."""

    model_config = ConfigDict(extra="allow")


class _DeliveryInfo(_Part):
    exchange: _Text
    routing_key: _Text


class _Properties(_Part):
    delivery_info: _DeliveryInfo
    body_encoding: Literal["base64"] | None = None
    priority: Annotated[StrictInt, Field(ge=0, le=255)] | None = None
    correlation_id: _Text | None = None
    reply_to: _Text | None = None


class _Envelope(_Part):
    body: StrictStr
    content_type: Literal["application/json"] = Field(alias="content-type")
    content_encoding: Literal["utf-8"] = Field(alias="content-encoding")
    headers: _Object
    properties: _Properties
    losses: _Count = Field(0, alias=LOSSES)


class _Headers(_Part):
    """Those of anything but a task, such as a control command."""

    compression: Literal[""] | None = None
    clock: _Count | None = None
    expires: _Number | None = None


class _TaskHeaders(_Part):
    task: _Word
    id: _Word
    compression: Literal[""] | None = None
    root_id: _Text | None = None
    parent_id: _Text | None = None
    group: _Text | None = None
    group_index: _Count | None = None
    retries: _Count | None = None
    eta: _Text | None = None
    expires: _Text | None = None
    timelimit: Annotated[list[_Number | None], Field(min_length=2, max_length=2)] | None = None
    shadow: _Text | None = None
    argsrepr: StrictStr | None = None
    kwargsrepr: StrictStr | None = None
    origin: _Text | None = None
    ignore_result: StrictBool | None = None
    replaced_task_nesting: _Count | None = None
    stamped_headers: list[_Text] | None = None
    stamps: _Object | None = None
    torch_passed: _Count = 0


class _ReplyTo(_Part):
    exchange: _Text
    routing_key: _Text


class _Command(_Part):
    """A command to the workers that consume from a pidbox."""

    method: _Word
    arguments: _Object | None = None
    destination: list[_Text] | None = None
    pattern: _Text | None = None
    matcher: _Text | None = None
    ticket: _Text | None = None
    reply_to: _ReplyTo | None = None


class _Embed(_Part):
    callbacks: list[_Object] | None = None
    errbacks: list[_Object] | None = None
    chain: list[_Object] | None = None
    chord: _Object | None = None


def delivered(message: str, tag: str, *, limit: int = LIMIT_BYTES, is_command: bool = False) -> dict[str, Any]:
    """A message as its consumer gets it: under this tag, and marked if it was lost before.

    Raises :class:`~torch_tasks.errors.Unreadable` for a message that kombu or Celery would stumble over.
    """
    payload = read_object(message, limit=limit)
    envelope = as_model(_Envelope, payload, "message")
    headers = envelope.headers
    is_task = "task" in headers
    as_model(_TaskHeaders if is_task else _Headers, headers, "message with right headers")
    body = _body(envelope, limit)
    if is_task:
        _check_task(body)
    if is_command:
        as_model(_Command, body, "command")
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
        count = read_object(message).get(LOSSES, 0)
    except Unreadable:
        return 0
    return count if isinstance(count, int) else 0


def _body(envelope: _Envelope, limit: int) -> Any:
    """The body as kombu will read it."""
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
    if not (isinstance(body, list) and len(body) == 3):
        raise Unreadable("its body does not hold the arguments of a task")
    arguments, keywords, embed = body
    if not (isinstance(arguments, list) and isinstance(keywords, dict)):
        raise Unreadable("its body holds no list of arguments and no object of keywords")
    as_model(_Embed, {} if embed is None else embed, "canvas")
