"""The fields of a model as the options of a command.

A field's ``description`` is the option's help; name and type follow from the field, unless it has an :class:`Option`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import click
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from torch_tasks.model.near import did_you_mean


@dataclass(frozen=True)
class Option:
    """What does not follow from the field's name and type."""

    name: str | None = None
    metavar: str | None = None
    type: type | None = None
    """The type on the command line; the model converts it."""
    meaning: Any = None
    """If set, the option is a flag that means this value."""


class OneOf(click.Choice[str]):
    """One of a few words; the error for a mistyped one names those that are near."""

    def __init__(self, words: Iterable[object]) -> None:
        super().__init__([str(word) for word in words])

    def get_invalid_choice_message(self, value: Any, ctx: click.Context | None) -> str:
        words = ", ".join(self.choices)
        return f"{value!r} is none of {words}; {did_you_mean(str(value), self.choices, 'use one of them')}"


class FieldOptions:
    """The fields of one model as the options of one command, except those that the command takes in another way."""

    def __init__(
        self,
        model: type[BaseModel],
        *,
        without: Collection[str] = (),
        types: Mapping[str, click.ParamType[Any]] | None = None,
        prefix: str = "",
    ) -> None:
        """``types`` replace those of the fields; ``prefix`` begins the names of the Python parameters."""
        self._fields = {
            name: _FieldOption(name, field, prefix + name, (types or {}).get(name))
            for name, field in model.model_fields.items()
            if name not in without
        }

    @property
    def names(self) -> frozenset[str]:
        return frozenset(self._fields)

    def parameters(self) -> list[click.Parameter]:
        return [field.option() for field in self._fields.values()]

    def take(self, parameters: dict[str, Any]) -> dict[str, Any]:
        """Remove these options from a command's parameters; returns the fields that were given."""
        given = {name: field.read(parameters.pop(field.parameter, None)) for name, field in self._fields.items()}
        return {name: value for name, value in given.items() if value is not None}

    def words(self, value: BaseModel) -> list[str]:
        """The command line for all fields of this value that are not the default."""
        return [word for name, field in self._fields.items() for word in field.words(getattr(value, name))]


class _FieldOption:
    def __init__(self, name: str, field: FieldInfo, parameter: str, kind: click.ParamType[Any] | None) -> None:
        if not field.description:
            raise TypeError(f"the field {name} has no description, which would be the help of its option")
        own = next((item for item in field.metadata if isinstance(item, Option)), Option())
        self.parameter = parameter
        self._field = field
        self._own = own
        self._flag = own.name or f"--{name.replace('_', '-')}"
        self._no = self._flag.replace("--", "--no-", 1)
        self._plain = own.type or _plain(field.annotation)
        self._type = kind

    def option(self) -> click.Option:
        help_text, default = self._field.description, self._field.default
        if self._own.meaning is not None:
            return click.Option([self._flag, self.parameter], is_flag=True, help=help_text)
        if self._plain is bool and default is None:
            return click.Option([f"{self._flag}/{self._no}", self.parameter], default=None, help=help_text)
        if self._plain is bool:
            return click.Option([self._flag, self.parameter], is_flag=True, help=help_text)
        if self._plain is tuple:
            return click.Option(
                [self._flag, self.parameter], type=self._type, metavar=self._own.metavar, multiple=True, help=help_text
            )
        shown: dict[str, Any] = {"default": str(default), "show_default": True} if isinstance(default, str) else {}
        return click.Option(
            [self._flag, self.parameter], type=self._click_type(), metavar=self._own.metavar, help=help_text, **shown
        )

    def _click_type(self) -> Any:
        if self._type is None and issubclass(self._plain, Enum):
            return OneOf(self._plain)
        return self._type or self._plain

    def read(self, given: Any) -> Any:
        if self._own.meaning is not None:
            return self._own.meaning if given else None
        return given

    def words(self, value: Any) -> list[str]:
        if value == self._field.default:
            return []
        if self._own.meaning is not None:
            return [self._flag]
        if self._plain is bool:
            return [self._flag if value else self._no]
        values = value if self._plain is tuple else [value]
        return [word for one in values for word in (self._flag, str(one))]


def _plain(annotation: Any) -> type:
    """The type behind ``Annotated[…]`` and ``… | None``; ``tuple`` for what may be given more than once."""
    if get_origin(annotation) is Annotated:
        return _plain(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        (one,) = (each for each in get_args(annotation) if each is not NoneType)
        return _plain(one)
    plain: type = get_origin(annotation) or annotation
    return plain
