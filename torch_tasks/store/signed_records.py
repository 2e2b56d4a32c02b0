"""What of a task's record is signed: how the task ended, and a spec that is another one than its message has.

An end is signed by the node that saw it, over the result's text, for the task and its state; it counts for ever. Who
reads an end that nobody signed does not believe it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch_tasks.caller import CallerKind
from torch_tasks.errors import BadSignature, SignatureRefused
from torch_tasks.model.task import TaskState
from torch_tasks.signing.enforcement import checked, doubt, seal
from torch_tasks.signing.signature import Purpose
from torch_tasks.store.task_fields import END_SIGNATURE, SPEC_SIGNATURE, fingerprint, state_of


def signed_end(task_id: str, state: TaskState, result: str) -> dict[str, str]:
    """The field that goes with the result of a task."""
    return _field(END_SIGNATURE, Purpose.END, task_id, result, state=state)


def signed_spec(task_id: str, wire: Mapping[str, Any]) -> dict[str, str]:
    """The field that goes with a spec which Torch itself changed."""
    return _field(SPEC_SIGNATURE, Purpose.SPEC, task_id, fingerprint(wire))


def why_not_ended(task_id: str, fields: Mapping[str, str]) -> str:
    """Why the end in a record is not believed; empty if it is, or if the task has not ended."""
    state = state_of(fields.get("state"))
    if state is None or not state.ended:
        return ""
    try:
        signed = checked(
            fields.get(END_SIGNATURE), Purpose.END, fields.get("result", ""), task=task_id, state=state.value
        )
        if signed and state is TaskState.SUCCEEDED and signed.signer.kind is not CallerKind.NODE:
            doubt(BadSignature(f"{signed.signer.owner} signed it, who is no node"), Purpose.END)
    except SignatureRefused as error:
        return f"task {task_id} is said to be {state}, and no node of this fleet says so: {error}"
    return ""


def signed_state(task_id: str, fields: Mapping[str, str]) -> str:
    """How the task ended as its signature says, whatever stands beside it; empty if that does not hold."""
    try:
        signed = checked(fields.get(END_SIGNATURE), Purpose.END, fields.get("result", ""), task=task_id)
    except SignatureRefused:
        return ""
    return str(signed.claims.get("state", "")) if signed else ""


def is_signed_spec(task_id: str, wire: Mapping[str, Any], signature: str | None) -> bool:
    try:
        checked(signature, Purpose.SPEC, fingerprint(wire), task=task_id)
    except SignatureRefused:
        return False
    return True


def _field(name: str, purpose: Purpose, task_id: str, text: str, **claims: Any) -> dict[str, str]:
    signature = seal(purpose, text, None, by=CallerKind.NODE, task=task_id, **claims)
    return {name: signature} if signature else {}
