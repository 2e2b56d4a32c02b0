"""The resources: what a client may read by an address and show to its model or its person."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from urllib.parse import unquote

from torch_tasks.errors import UnknownOperation


@dataclass(frozen=True)
class Resource:
    """What an operation that reads returns, at an address of its own."""

    address: str
    """``{field}`` stands for a field of the operation's request."""
    name: str
    operation: str
    says: str

    @cached_property
    def is_template(self) -> bool:
        return "{" in self.address

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        parts = re.split(r"\{(\w+)\}", self.address)
        return re.compile("".join(f"(?P<{part}>[^/]+)" if n % 2 else re.escape(part) for n, part in enumerate(parts)))

    def fields(self, address: str) -> dict[str, str] | None:
        """The fields of the request for this address; None if it is another resource's."""
        found = self._pattern.fullmatch(address)
        return {name: unquote(value) for name, value in found.groupdict().items()} if found else None


RESOURCES = (
    Resource("torch://task/{task_id}", "task", "task.get", "A task's whole record."),
    Resource("torch://fleet/health", "health", "fleet.health", "How the fleet is."),
    Resource("torch://agent/{agent_id}", "agent", "agent.get", "What an agent can do and is doing."),
    Resource("torch://agent/{agent_id}/screen", "screen", "agent.screen", "What an agent's terminal shows now."),
    Resource("torch://task/{task_id}/history", "task_history", "task.history", "What became of a task, oldest first."),
)


def resource_at(address: str) -> tuple[Resource, dict[str, str]]:
    """The resource of this address and the fields to ask for, or :class:`UnknownOperation`."""
    for resource in RESOURCES:
        fields = resource.fields(address)
        if fields is not None:
            return resource, fields
    raise UnknownOperation(f"there is no resource {address!r}; there are: {', '.join(_addresses())}")


def _addresses() -> Iterator[str]:
    return (resource.address for resource in RESOURCES)
