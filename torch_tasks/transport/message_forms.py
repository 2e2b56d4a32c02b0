"""The forms of what kombu and Celery write into a message. Apart, for who reads no message builds none of them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictFloat, StrictInt, StrictStr

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


class Envelope(_Part):
    body: StrictStr
    content_type: Literal["application/json"] = Field(alias="content-type")
    content_encoding: Literal["utf-8"] = Field(alias="content-encoding")
    headers: _Object
    properties: _Properties
    losses: _Count = Field(0, alias="torch-deliveries")


class OtherHeaders(_Part):
    """Those of anything but a task, such as a control command."""

    compression: Literal[""] | None = None
    clock: _Count | None = None
    expires: _Number | None = None


class TaskHeaders(_Part):
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
    traceparent: _Text | None = None


class _ReplyTo(_Part):
    exchange: _Text
    routing_key: _Text


class ControlCommand(_Part):
    """A command to the workers that consume from a pidbox."""

    method: _Word
    arguments: _Object | None = None
    destination: list[_Text] | None = None
    pattern: _Text | None = None
    matcher: _Text | None = None
    ticket: _Text | None = None
    reply_to: _ReplyTo | None = None


class Embed(_Part):
    callbacks: list[_Object] | None = None
    errbacks: list[_Object] | None = None
    chain: list[_Object] | None = None
    chord: _Object | None = None
