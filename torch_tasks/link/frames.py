"""What travels between an agent's desk and those who ask there: one JSON object in each frame.

A frame begins with the version of its form and the length of its text. Light to import.
"""

from __future__ import annotations

import json
import struct
from typing import Any

from torch_tasks.errors import FrameRefused

VERSION = 1
HEAD = struct.Struct("!BI")
REQUEST_BYTES = 20 << 20
"""The longest request: the largest message of a task, and what is around it."""
REPLY_BYTES = 64 << 20
"""The longest answer."""


def frame(content: Any) -> bytes:
    """The frame of this object."""
    try:
        text = json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:
        raise FrameRefused("what is to be sent is not valid Unicode text") from None
    return HEAD.pack(VERSION, len(text)) + text


def size_of(head: bytes, limit: int) -> int:
    """How many bytes follow this head, or :class:`FrameRefused`."""
    version, size = HEAD.unpack(head)
    if version != VERSION:
        raise FrameRefused(f"this is no frame of version {VERSION}, the one that is spoken here, but of {version}")
    if size > limit:
        raise FrameRefused(f"a frame of {size:,} bytes is longer than the {limit:,} that are read; ask for less")
    return int(size)
