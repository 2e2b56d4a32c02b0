"""What a tool asks for, as a schema that costs a model few words."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from torch_tasks.mcp.tools import KEY, TOOLS, ToolForm, tool_named
from torch_tasks.operations.operation import Access, operation_named

_KEY: Mapping[str, Any] = {
    "type": "string",
    "minLength": 1,
    "maxLength": 200,
    "description": "Any name of yours for this one act: a call whose end you did not see, repeated with the same name, "
    "is not done twice.",
}


@cache
def input_schema(name: str) -> dict[str, Any]:
    """The schema of a tool's arguments: its part of the operation's request, and the idempotency key of a writer."""
    tool = tool_named(name)
    operation = operation_named(tool.operation)
    whole = operation.request.model_json_schema()
    fields = {name: _field(whole, name, words) for name, words in tool.asks.items()}
    polls = tool.waits is not None and tool.waits.meanwhile is not None
    if polls:
        # One request of the operation waits no longer; the tool asks again.
        fields["seconds"] = {name: fields["seconds"][name] for name in ("type", "minimum", "description")}
    if operation.access is Access.WRITE and not (polls or tool.in_panes_only):
        fields[KEY] = dict(_KEY)
    required = [name for name in whole.get("required", ()) if name in fields]
    schema = {"type": "object", "properties": fields, "additionalProperties": False}
    return schema | ({"required": required} if required else {})


def tool_forms() -> dict[str, ToolForm]:
    """The form of each tool, by its name."""
    return {
        tool.name: ToolForm(input_schema(tool.name), operation_named(tool.operation).access is Access.WRITE)
        for tool in TOOLS
    }


def _field(whole: Mapping[str, Any], name: str, words: str) -> dict[str, Any]:
    field = whole["properties"][name]
    schema: dict[str, Any] = _plain(field, whole.get("$defs", {}))
    said = words or field.get("description", "")
    return schema | ({"description": said} if said else {})


def _plain(schema: Any, parts: Mapping[str, Any]) -> Any:
    """The schema without titles, descriptions, references, and what says only that a field may be left out."""
    if isinstance(schema, list):
        return [_plain(one, parts) for one in schema]
    if not isinstance(schema, Mapping):
        return schema
    if "$ref" in schema:
        schema = {**parts[schema["$ref"].rpartition("/")[2]], **schema}
        return _plain({name: value for name, value in schema.items() if name != "$ref"}, parts)
    choices = [one for one in schema.get("anyOf", ()) if one != {"type": "null"}]
    if len(choices) == 1:
        return _plain({name: value for name, value in schema.items() if name != "anyOf"} | choices[0], parts)
    if schema.get("default", ...) in (None, "", [], ()):
        schema = {name: value for name, value in schema.items() if name != "default"}
    return {name: _value(name, value, parts) for name, value in schema.items() if name not in _LEFT_OUT}


_LEFT_OUT = ("title", "description")


def _value(name: str, value: Any, parts: Mapping[str, Any]) -> Any:
    if name == "properties":
        return {field: _plain(one, parts) for field, one in value.items()}
    return value if name in ("default", "enum", "const") else _plain(value, parts)
