"""The types of the fields of values, and the texts of what is wrong with one."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    StringConstraints,
    TypeAdapter,
    ValidationError,
)

from torch_tasks.caller import BEARER, OPERATOR, PERSON
from torch_tasks.keys import RESERVED_WORDS
from torch_tasks.redaction import redacted

_NAME = r"[a-z0-9][a-z0-9_-]*"
_LONGEST_TITLE, _MADE_TITLE, _LONGEST_SLUG = 100, 60, 40


def _word(value: object) -> object:
    """A name as people type it: in any case, with spaces around it."""
    if not isinstance(value, str):
        return value
    value = value.strip().lower()
    if " " in value:
        raise ValueError(f"{value!r} holds a space; use one word, such as {value.replace(' ', '-')!r}")
    return value


def _not_reserved(name: str) -> str:
    if name in RESERVED_WORDS:
        raise ValueError(f"{name!r} is a word that queue names use; choose another name")
    return name


def _of_no_other_caller(name: str) -> str:
    if name == OPERATOR or name.startswith((BEARER, PERSON)):
        raise ValueError(f"{name!r} is what people, or the bearers of tokens, are called; choose another name")
    return name


def _text(value: str) -> str:
    """Refuse text that no file or command line can hold."""
    if "\0" in value:
        raise ValueError("holds a NUL character; remove it")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError("is not valid Unicode text") from None
    return value


def _absolute(value: str) -> str:
    try:
        return str(Path(value).expanduser().absolute())
    except RuntimeError as error:  # ~user, and there is no such user
        raise ValueError(str(error)) from None


def _json(value: dict[str, JsonValue]) -> dict[str, JsonValue]:
    json.dumps(value, allow_nan=False)
    return value


def is_role(name: str) -> bool:
    """Whether an agent can have a role of this name, written exactly so."""
    try:
        return TypeAdapter(Role).validate_python(name) == name
    except ValidationError:
        return False


def not_blank(hint: str) -> AfterValidator:
    """Refuses a text of spaces alone; the hint says what to write."""

    def check(value: str) -> str:
        if not value.strip():
            raise ValueError(f"is empty; {hint}")
        return value

    return AfterValidator(check)


def title_of(text: str) -> str:
    """The first line of a text, short enough for a table, and without secrets."""
    first = redacted(text.strip().splitlines()[0])
    line = first if first.isprintable() else "".join(char if char.isprintable() else " " for char in first)
    return line if len(line) <= _MADE_TITLE else line[: _MADE_TITLE - 1] + "…"


def _title(text: str) -> str:
    if not text.strip() or not text.isprintable() or len(text) > _LONGEST_TITLE:
        raise ValueError(f"must be one line of at most {_LONGEST_TITLE} printable characters")
    return text.strip()


def is_made_id(text: str) -> bool:
    """Whether it has the form of an id that Torch made, not one that a user chose."""
    return re.fullmatch(r"[0-9a-f]{32}", text) is not None


def slug_of(text: str) -> str:
    """The words of a text in a form that a branch's or a tag's name may hold; empty if it has no such words."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    slug = ""
    for word in re.findall(r"[a-z0-9]+", plain):
        if len(slug) + len(word) > _LONGEST_SLUG:
            break
        slug += f"-{word}" if slug else word
    return slug


Text = Annotated[str, AfterValidator(_text)]
KeptText = Annotated[str, AfterValidator(redacted)]
"""What an agent or its terminal showed, or a person noted: it is kept and shown without the secrets in it."""
Title = Annotated[str, AfterValidator(_title)]
JsonObject = Annotated[dict[str, JsonValue], AfterValidator(_json)]
AgentId = Annotated[str, BeforeValidator(_word), StringConstraints(pattern=rf"^{_NAME}$", max_length=48)]
HostedId = Annotated[AgentId, AfterValidator(_of_no_other_caller)]
"""The id of an agent that is to be there: no other caller is called so."""
Role = Annotated[AgentId, AfterValidator(_not_reserved)]
Skill = Annotated[
    str,
    BeforeValidator(_word),
    StringConstraints(pattern=r"^[a-z0-9][a-z0-9_.#-]*$", max_length=48),
    AfterValidator(_not_reserved),
]
Skills = Annotated[tuple[Skill, ...], AfterValidator(lambda skills: tuple(sorted(set(skills))))]
TaskId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=128)]
TaskIds = Annotated[tuple[TaskId, ...], AfterValidator(lambda ids: tuple(dict.fromkeys(ids)))]
AbsolutePath = Annotated[Text, AfterValidator(_absolute)]
Seconds = Annotated[float, Field(gt=0, le=366 * 86400, allow_inf_nan=False, strict=True)]

_MESSAGES = {
    "extra_forbidden": "is not a field that exists",
    "missing": "is missing",
    "too_short": "is empty",
    "string_pattern_mismatch": (
        "{input!r} must begin with a letter or digit and hold only letters, digits, '-' and '_' "
        "(skills and the ids of tasks also '.')"
    ),
}


def readable(error: ValidationError, prefix: str = "") -> str:
    """A validation error as one line for people."""
    texts = []
    for loc, message in faults(error):
        place = ".".join(map(str, loc))
        place = prefix + place.upper() if prefix else place
        texts.append(f"{place}: {message}" if place else message)
    return "; ".join(texts)


def faults(error: ValidationError) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Each fault of a validation error: where it is, and what is wrong there, for people."""
    for item in error.errors(include_url=False):
        if item["type"] == "default_factory_not_called":  # it follows from another fault
            continue
        message = _MESSAGES.get(item["type"], item["msg"]).format(input=item["input"])
        yield item["loc"], message.removeprefix("Value error, ")


class Model(BaseModel):
    """A value that cannot change and refuses unknown fields."""

    # Built when it is first used: a command loads a hundred of these and uses ten.
    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


def now() -> datetime:
    """This machine's time: only for what people read, as clocks differ."""
    return datetime.now(UTC)
