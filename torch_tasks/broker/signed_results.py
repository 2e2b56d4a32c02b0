"""What Celery keeps of results, signed by who stores it: a task's result, a group, a part of a chord, a chord's size.

Each is a JSON object with the signature as its first field, so whatever else reads Celery's results reads these, too.
"""

from __future__ import annotations

import re
from typing import Any

from torch_tasks.caller import CallerKind
from torch_tasks.errors import BadSignature
from torch_tasks.signing.enforcement import checked, doubt, seal
from torch_tasks.signing.signature import Purpose, Signed

FIELD = "torch-signature"
_FRONT = re.compile(rf'\{{"{FIELD}":"([\w.-]*)",', re.ASCII)


def signed_text(text: str, **claims: Any) -> str:
    """This object with its signature; it counts as long as it is kept."""
    signature = seal(Purpose.RESULT, text, None, by=CallerKind.NODE, **claims)
    return f'{{"{FIELD}":"{signature}",{text[1:]}' if signature else text


def believed_text(text: str, **claims: Any) -> tuple[str, Signed | None]:
    """The object without its signature, and what that says; :class:`SignatureRefused` if it does not hold."""
    front = _FRONT.match(text)
    signature, bare = (front[1], "{" + text[front.end() :]) if front else (None, text)
    return bare, checked(signature, Purpose.RESULT, bare, **claims)


def require_node(signed: Signed | None) -> None:
    """Only a node says how a task ended."""
    if signed and signed.signer.kind is not CallerKind.NODE:
        doubt(BadSignature(f"{signed.signer.owner} signed it, who is no node"), Purpose.RESULT)
