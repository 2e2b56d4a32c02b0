"""What a person does on a page: each form asks for one operation, at ``/do/OPERATION``."""

from __future__ import annotations

import hmac
import re
from dataclasses import dataclass, field
from typing import NamedTuple
from urllib.parse import parse_qsl

from starlette.requests import Request

from torch_tasks.errors import InvalidRequest, RequestNotTaken
from torch_tasks.operations.operation import Access, operation_named, request_of
from torch_tasks.operations.performing import perform_here
from torch_tasks.server.calls import lists_in
from torch_tasks.server.console.typed_fields import typed
from torch_tasks.server.console.words import place_of, said_of

PROOF, ONCE, THEN = "_proof", "_once", "_then"
"""The fields of a form that are about the form: that this server made it, for this login; one press of its button;
where the person goes from there."""

WORDS = "[]"
"""What the name of a text field ends with that holds a list: its words, with commas or spaces between them."""
_WORD = re.compile(r"[^\s,]+")


class DoneForm(NamedTuple):
    """What came of a form."""

    said: str
    then: str | None
    """Where its person goes, if not back."""


@dataclass(frozen=True)
class FilledForm:
    """A form as its person sent it."""

    operation: str
    fields: dict[str, list[str]] = field(default_factory=dict)
    proof: str = ""
    once: str | None = None
    then: str = "/"

    @classmethod
    def read(cls, operation: str, body: bytes) -> FilledForm:
        """From what the browser sends; a field that was left empty counts as not given."""
        try:
            pairs = parse_qsl(body.decode(), keep_blank_values=False, max_num_fields=1000)
        except ValueError as error:
            raise InvalidRequest(f"this form cannot be read: {error}") from None
        fields: dict[str, list[str]] = {}
        for name, value in pairs:
            plain = name.removesuffix(WORDS)
            values = _WORD.findall(value) if plain != name else [value.replace("\r\n", "\n")]
            fields.setdefault(plain, []).extend(values)
        proof, once, then = (fields.pop(name, [""])[-1] for name in (PROOF, ONCE, THEN))
        return cls(operation, fields, proof, once or None, then or "/")

    def require_proof(self, expected: str) -> None:
        """Raise :class:`RequestNotTaken` if no page of this login holds such a form."""
        if not hmac.compare_digest(self.proof.encode(), expected.encode()):
            raise RequestNotTaken("this form is not from a page of this login; load the page again", 403)

    def perform(self) -> DoneForm:
        """Ask for the operation, as the caller."""
        operation = operation_named(self.operation)
        if operation.access is not Access.WRITE:
            raise RequestNotTaken(f"{operation.name} changes nothing: a form has no use for it", 405)
        lists = lists_in(operation)
        given = {
            name: values if name in lists else typed(operation, name, _only(name, values))
            for name, values in self.fields.items()
        }
        asked = request_of(operation, given)
        reply = perform_here(operation, asked, self.once)
        return DoneForm(said_of(operation.name, asked, reply), place_of(operation.name, asked, reply, self.then))

    @property
    def as_typed(self) -> dict[str, str]:
        """What its person typed into each field."""
        return {name: " ".join(values) for name, values in self.fields.items()}


def _only(name: str, values: list[str]) -> str:
    if len(values) > 1:
        raise InvalidRequest(f"this form cannot be read: {name[:60]!r} is given {len(values)} times")
    return values[0]


def wants_no_page(request: Request) -> bool:
    """Whether a script of the console asks, which shows the outcome on the page that is open."""
    return request.headers.get("x-torch-console") == "script"
