"""The form for a new task."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch_tasks.model.agent import AgentInfo
from torch_tasks.model.task import Permissions, Priority, TaskSpec
from torch_tasks.server.console.page import NAMES_SECONDS, ConsolePage, Visit

_COPIED = ("prompt", "role", "agent", "priority", "workdir", "timeout", "check", "check_rounds", "permissions")
_COPIED_TOO = ("max_retries", "fresh")


def gather(visit: Visit) -> dict[str, Any]:
    agents: list[AgentInfo] = visit.ask_together("agent.list", NAMES_SECONDS)
    copied = visit.query.get("copy", "")
    typed = {name: visit.query[name] for name in visit.query if name != "copy"}
    filled = typed or (_filled(visit.ask("task.get", task_id=copied).spec) if copied else {})
    return {
        "filled": {name: str(value) for name, value in filled.items()},
        "copied": copied,
        "roles": _all(one.role for one in agents),
        "skills": _all(skill for one in agents for skill in one.skills),
        "kinds": _all(one.kind for one in agents),
        "ids": _all(one.agent_id for one in agents),
        "priorities": tuple(Priority),
        "permissions": tuple(Permissions),
        "has_more": bool(filled.keys() - {"prompt", "role", "agent", "priority"}),
        "trouble": visit.trouble,
    }


def _filled(spec: TaskSpec) -> dict[str, Any]:
    values = {name: getattr(spec, name) for name in (*_COPIED, *_COPIED_TOO)}
    filled = {name: value for name, value in values.items() if value is not None}
    if spec.fresh is not None:
        filled["fresh"] = str(spec.fresh).lower()
    lists = {"skills": " ".join(spec.skills), "after": " ".join(spec.after)}
    return filled | {"title": spec.title} | {name: value for name, value in lists.items() if value}


def _all(words: Iterable[str]) -> list[str]:
    return sorted(set(words))


ENQUEUE = ConsolePage("enqueue", "/enqueue", "New task", gather, news="", under="board", form_of="task.enqueue")
