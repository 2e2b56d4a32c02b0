"""What operations take and return, in words and tables, as people read it."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from pydantic import BaseModel

from torch_tasks.operations.operation import Operation

_SCALARS = {"string": "text", "integer": "number", "number": "number", "boolean": "boolean", "null": "null"}
_FORMATS = {"date-time": "time", "duration": "length of time", "path": "path", "uri": "address"}


@dataclass(frozen=True)
class FieldRow:
    """One field of a request or of a value."""

    name: str
    type: str
    default: str
    meaning: str


@dataclass
class Shapes:
    """The fields of what operations take and return; the values that they share are collected by their names."""

    values: dict[str, list[FieldRow]] = field(default_factory=dict)

    def of_request(self, operation: Operation[Any, Any]) -> list[FieldRow]:
        return self._rows(operation.request.model_json_schema(), operation.request)

    def of_reply(self, operation: Operation[Any, Any]) -> str:
        """What the operation returns, in a few words; its values are among :attr:`values`."""
        schema = operation.reply.json_schema(mode="serialization")
        models = {model.__name__: model for model in _models_in(operation.reply._type)}
        name = schema.get("title")
        if name and "properties" in schema:
            self._note(name, schema, schema.get("$defs", {}), models)
            return str(name)
        return self._words(schema, schema.get("$defs", {}), models)

    def _rows(self, schema: Mapping[str, Any], model: type[BaseModel] | None) -> list[FieldRow]:
        models = {one.__name__: one for one in _models_in(model)} if model else {}
        return self._fields(schema, schema.get("$defs", {}), models, model)

    def _fields(
        self,
        schema: Mapping[str, Any],
        definitions: Mapping[str, Any],
        models: Mapping[str, type[BaseModel]],
        model: type[BaseModel] | None,
    ) -> list[FieldRow]:
        required, said = schema.get("required", ()), _docstrings(model) if model else {}
        return [
            FieldRow(
                name,
                self._words(one, definitions, models),
                "required" if name in required and "default" not in one else _default(one),
                one.get("description") or said.get(name, ""),
            )
            for name, one in schema.get("properties", {}).items()
        ]

    def _note(
        self,
        name: str,
        schema: Mapping[str, Any],
        definitions: Mapping[str, Any],
        models: Mapping[str, type[BaseModel]],
    ) -> None:
        if name not in self.values:
            self.values[name] = []  # a value may hold others of its kind
            self.values[name] = self._fields(schema, definitions, models, models.get(name))

    def _words(
        self, schema: Mapping[str, Any], definitions: Mapping[str, Any], models: Mapping[str, type[BaseModel]]
    ) -> str:
        def words(one: Mapping[str, Any]) -> str:
            return self._words(one, definitions, models)

        if name := str(schema.get("$ref", "")).rpartition("/")[2]:
            named = definitions[name]
            if "properties" not in named:
                return words(named)
            self._note(name, named, definitions, models)
            return name
        if "const" in schema or "enum" in schema:
            return " or ".join(f"`{one}`" for one in schema.get("enum", [schema.get("const")]))
        if "allOf" in schema:
            return ", ".join(map(words, schema["allOf"]))
        if choices := schema.get("anyOf") or schema.get("oneOf"):
            return " or ".join(dict.fromkeys(map(words, choices)))
        return _container(schema, words)


def _container(schema: Mapping[str, Any], words: Any) -> str:
    kind = schema.get("type")
    if kind == "array":
        if inner := schema.get("prefixItems"):
            return f"({', '.join(map(words, inner))})"
        return f"list of {words(schema.get('items', {})).replace(' or ', ', ')}"
    if kind == "object":
        inner = schema.get("additionalProperties")
        return f"{words(inner)} by name" if isinstance(inner, dict) and inner else "object"
    return _FORMATS.get(schema.get("format", ""), _SCALARS.get(str(kind), "anything"))


def _default(schema: Mapping[str, Any]) -> str:
    default = schema.get("default")
    if default in (None, "", []) or isinstance(default, dict):
        return ""
    return (
        str(default).lower() if isinstance(default, bool) else f"{default:g}" if _is_number(default) else str(default)
    )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float)


def _models_in(given: Any, seen: set[type] | None = None) -> Iterator[type[BaseModel]]:
    """Every model that a type is made of."""
    seen = set() if seen is None else seen
    if inspect.isclass(given) and issubclass(given, BaseModel):
        if given in seen:
            return
        seen.add(given)
        yield given
        for one in given.model_fields.values():
            yield from _models_in(one.annotation, seen)
    for inner in getattr(given, "__args__", ()):
        yield from _models_in(inner, seen)


@cache
def _docstrings(model: type[BaseModel]) -> dict[str, str]:
    """What stands below the fields of a model and of those that it is made from, in one line each."""
    found: dict[str, str] = {}
    for one in reversed(model.__mro__):
        if issubclass(one, BaseModel) and one is not BaseModel:
            body = ast.parse(textwrap.dedent(inspect.getsource(one))).body[0]
            assert isinstance(body, ast.ClassDef)
            found |= dict(_documented(body))
    return found


def _documented(model: ast.ClassDef) -> Iterator[tuple[str, str]]:
    for before, after in zip(model.body, model.body[1:], strict=False):
        if isinstance(before, ast.AnnAssign) and isinstance(before.target, ast.Name):
            text = after.value if isinstance(after, ast.Expr) else None
            if isinstance(text, ast.Constant) and isinstance(text.value, str):
                yield before.target.id, " ".join(text.value.split())
