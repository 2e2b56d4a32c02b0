"""The description of the HTTP API, made of the operations' declarations."""

from __future__ import annotations

from typing import Any

from torch_tasks.operations.operation import Access, Operation, all_operations
from torch_tasks.server.problems import MEDIA_TYPE

_REFS = "#/components/schemas/{model}"
_PROBLEM = {
    "type": "object",
    "required": ["type", "title", "status", "detail", "error", "exit_code"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "What happened, to what, and what to do."},
        "error": {"type": "string", "description": "The name of the error's class in Torch."},
        "exit_code": {"type": "integer", "description": "What the command `torch-tasks` exits with."},
    },
}
_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "schema": {"type": "string", "maxLength": 255},
    "description": "A second request with the same key gets the first one's reply; nothing is done again.",
}


def document(version: str) -> dict[str, Any]:
    """The OpenAPI document of every operation."""
    operations = list(all_operations())
    paths, schemas = {}, {"Problem": _PROBLEM}
    for one in operations:
        paths[f"/api/v1/{one.name}"] = _methods(one, schemas)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Torch", "version": version, "description": "What can be asked of the fleet."},
        "paths": {**paths, "/api/v1/events": {"get": _events()}},
        "components": {
            "schemas": schemas,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"token": []}],
    }


def _methods(operation: Operation[Any, Any], schemas: dict[str, Any]) -> dict[str, Any]:
    request = _taken_over(operation.request.model_json_schema(ref_template=_REFS), schemas)
    reply = _taken_over(operation.reply.json_schema(mode="serialization", ref_template=_REFS), schemas)
    noun = operation.name.partition(".")[0]
    common: dict[str, Any] = {
        "summary": operation.description,
        "tags": [noun],
        "x-right": operation.right,
        "responses": {
            "200": {"description": "Done.", "content": {"application/json": {"schema": reply}}},
            "default": {"description": "Refused.", "content": {MEDIA_TYPE: {"schema": {"$ref": _ref("Problem")}}}},
        },
    }
    body = {"required": bool(request.get("required")), "content": {"application/json": {"schema": request}}}
    methods: dict[str, Any] = {"post": {**common, "operationId": operation.name, "requestBody": body}}
    if operation.access is Access.READ:
        methods["get"] = {**common, "operationId": f"{operation.name}.get", "parameters": _parameters(request)}
    else:
        methods["post"]["parameters"] = [_KEY]
    return methods


def _taken_over(schema: dict[str, Any], schemas: dict[str, Any]) -> dict[str, Any]:
    """The schema, with what it defines moved to those that all operations share."""
    schemas.update(schema.pop("$defs", {}))
    return schema


def _parameters(request: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "query", "required": name in request.get("required", ()), "schema": schema}
        for name, schema in request.get("properties", {}).items()
    ]


def _events() -> dict[str, Any]:
    def text(name: str, description: str) -> dict[str, Any]:
        return {"name": name, "in": "query", "schema": {"type": "string"}, "description": description}

    last = {"name": "Last-Event-ID", "in": "header", "schema": {"type": "string"}}
    return {
        "summary": "What happens in the fleet, as server-sent events.",
        "operationId": "events",
        "tags": ["events"],
        "parameters": [
            text("kinds", "`tasks`, `agents`, `questions`, with commas between them; all by default."),
            text("task", "Only of this task."),
            text("agent", "Only of this agent."),
            {**last, "description": "Go on after this event."},
        ],
        "responses": {
            "200": {"description": "The stream.", "content": {"text/event-stream": {"schema": {"type": "string"}}}},
            "default": {"description": "Refused.", "content": {MEDIA_TYPE: {"schema": {"$ref": _ref("Problem")}}}},
        },
    }


def _ref(name: str) -> str:
    return _REFS.format(model=name)
