"""Reading what a client sends: no more, and for no longer, than the server is willing to."""

from __future__ import annotations

from anyio import move_on_after
from starlette.requests import ClientDisconnect, Request

from torch_tasks.errors import RequestNotTaken


async def read_body(request: Request, longest: int, slow_seconds: float) -> bytes:
    """The whole body; :class:`RequestNotTaken` if it is too long, or comes too slowly."""
    announced = request.headers.get("content-length", "0")
    too_long = RequestNotTaken(f"the request has more than {longest:,} bytes (TORCH_SERVER_REQUEST_BYTES)", 413)
    if announced.isdecimal() and int(announced) > longest:
        raise too_long
    body = bytearray()
    try:
        with move_on_after(slow_seconds) as patience:
            async for piece in request.stream():
                body += piece
                if len(body) > longest:
                    raise too_long
    except ClientDisconnect:
        raise RequestNotTaken("the request was cut off before its end; nothing was done") from None
    if patience.cancelled_caught:
        late = f"the request was not whole after {slow_seconds:g} s (TORCH_SERVER_SLOW_SECONDS)"
        raise RequestNotTaken(late, 408, Connection="close")
    return bytes(body)
