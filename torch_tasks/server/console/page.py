"""What a page of the console is, and what it asks of the fleet: operations, as the person who looks at it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch_tasks.caller import caller
from torch_tasks.model.task import TaskRecord
from torch_tasks.operations.operation import Access, Operation, operation_named, request_of
from torch_tasks.operations.performing import perform_here
from torch_tasks.operations.tasks import MOST_AT_ONCE
from torch_tasks.orchestration.attention import Need
from torch_tasks.security.decision import decide
from torch_tasks.security.rights import Right, Subject
from torch_tasks.server.console.shared import SHARED_SECONDS, SharedReplies

NAMES_SECONDS = 5.0
"""So old may the names be that a form offers to choose from."""


@dataclass(frozen=True)
class Visit:
    """One request for a page, by one person."""

    shared: SharedReplies
    path: Mapping[str, str] = field(default_factory=dict)
    """The parts of its path that the page's path names."""
    query: Mapping[str, str] = field(default_factory=dict)
    trouble: str = ""
    """Why the form that was typed here was refused."""

    def ask(self, name: str, **fields: Any) -> Any:
        """The reply of an operation that reads."""
        operation, asked = self._reading(name, fields)
        return perform_here(operation, asked)

    def ask_together(self, name: str, oldest: float = SHARED_SECONDS, /, **fields: Any) -> Any:
        """The same, of an operation whose reply does not depend on who asks: it may be ``oldest`` seconds old."""
        return self.shared.reply(*self._reading(name, fields), oldest)

    def needed(self, oldest: float = SHARED_SECONDS) -> list[Need]:
        """What waits for a person."""
        needs: list[Need] = self.ask_together("fleet.needs", oldest)
        return needs

    def tasks(self, ids: Iterable[str | None]) -> dict[str, TaskRecord]:
        """The records of these tasks by their ids, of those that the person may see; empty ids are passed over."""
        wanted = sorted(set(filter(None, ids)))
        parts = [wanted[start : start + MOST_AT_ONCE] for start in range(0, len(wanted), MOST_AT_ONCE)]
        return {one.spec.id: one for part in parts for one in self.ask("task.records", task_ids=part)}

    def may(self, name: str, **about: str) -> bool:
        """Whether the person may ask for the operation, so that a page offers nothing that would be refused.

        ``about`` names the task, the agent or the party that it would be about.
        """
        return decide(caller(), operation_named(name).right, Subject(**about)).allowed

    def has(self, right: Right) -> bool:
        """Whether the person has the right for anything at all."""
        return decide(caller(), right, Subject()).allowed

    @staticmethod
    def _reading(name: str, fields: Mapping[str, Any]) -> tuple[Operation[Any, Any], Any]:
        operation = operation_named(name)
        assert operation.access is Access.READ, f"a page only reads; {name} is for a form"
        return operation, request_of(operation, fields)


@dataclass(frozen=True)
class ConsolePage:
    """One page. Its template has the page's name, and gets what ``gather`` returns."""

    name: str
    path: str
    title: str
    gather: Callable[[Visit], Mapping[str, Any]]
    """Asks the fleet, in a thread of its own and as the person who looks."""
    right: Right = Right.LOOK
    """Who has it finds the page in the menu; what the page shows is decided for each question that it asks."""
    news: str = "tasks,agents,questions"
    """The kinds of events after which an open page asks for its content again; empty: it never does."""
    in_menu: bool = False
    under: str = ""
    """The page of the menu from which people come to it, and to which they go back."""
    form_of: str = ""
    """The operation whose form the page is: if that is refused, the page shows why, with what was typed."""
