"""Heads of audit logs: each node signs how far its log is, and every node keeps the heads of all.

So a log that was cut, deleted or written anew is not what its node signed. The heads lie on the broker and in the state
folder of each node; where one has a later head than the other, the other gets it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from torch_tasks.caller import CallerKind
from torch_tasks.errors import AuditBroken, BadSignature, SignatureRefused
from torch_tasks.settings import settings
from torch_tasks.signing.keyring import keyring
from torch_tasks.signing.signature import Purpose, sign, verify
from torch_tasks.store.audit_heads import AuditHeads
from torch_tasks.system.chain import ChainedLog
from torch_tasks.system.chain_lines import Head
from torch_tasks.system.files import exclusive, write_private


@dataclass(frozen=True)
class SignedHead:
    """A head whose signature holds."""

    node: str
    head: Head
    at: datetime
    text: str


def sign_head(head: Head) -> str:
    """The head as this node signs it."""
    keys = keyring()
    claims = {"node": settings().node, "number": head.number, "hash": head.hash}
    return sign(keys, keys.identity(CallerKind.NODE), Purpose.AUDIT, b"", None, **claims)


def read_head(text: str) -> SignedHead:
    """The head in this text; :class:`SignatureRefused` unless the node that it is of has signed it."""
    signed = verify(keyring(), text, Purpose.AUDIT, b"")
    try:
        node = str(signed.claims["node"])
        head = Head(int(signed.claims["number"]), str(signed.claims["hash"]))
    except (KeyError, ValueError, TypeError) as error:
        raise BadSignature(
            f"the head of an audit that {signed.signer.owner} signed cannot be read: {error!r}"
        ) from None
    if (signed.signer.kind, signed.signer.name) != (CallerKind.NODE, node):
        raise BadSignature(f"{signed.signer.owner} has signed a head of the audit of node {node}, not its own")
    return SignedHead(node, head, signed.at, text)


def kept_here(file: Path) -> dict[str, str]:
    """The heads in this machine's state folder."""
    with suppress(OSError, ValueError):
        found = json.loads(file.read_bytes())
        return {str(node): str(text) for node, text in found.items()} if isinstance(found, dict) else {}
    return {}


def latest(*several: Mapping[str, str]) -> dict[str, str]:
    """Of each node the latest head among these; what nobody has signed as it should be is none."""
    known: dict[str, SignedHead] = {}
    for heads in several:
        for node, text in heads.items():
            with suppress(SignatureRefused):
                head = read_head(text)
                if head.node == node and (node not in known or head.head.number > known[node].head.number):
                    known[node] = head
    return {node: head.text for node, head in known.items()}


def exchange(log: ChainedLog, file: Path, store: AuditHeads | None) -> dict[str, str]:
    """Sign how far this node's log is, and bring what the broker and the file know of all nodes to the same.

    :class:`AuditBroken` if the log is not the one that was signed before: then the earlier head stays the last.
    """
    node, there = settings().node, store.all() if store else {}
    with exclusive(file.with_suffix(".lock")):
        before = kept_here(file)
        known = latest(before, there)
        head = log.head()
        last = read_head(known[node]).head if node in known else None
        is_same = last is None or log.has(last)
        if head and is_same and (last is None or head.number > last.number):
            known[node] = sign_head(head)
        if known != before:
            write_private(file, json.dumps(known))
    if store:
        store.put({one: text for one, text in known.items() if there.get(one) != text})
    if last and not is_same:
        raise AuditBroken(
            f"entry {last.number} of the audit in {log.folder} is not the one that this node signed, or is gone; "
            "'torch-tasks audit verify' names the first bad entry"
        )
    return known
