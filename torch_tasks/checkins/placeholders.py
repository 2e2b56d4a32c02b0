"""What stands in braces in a check-in's note, filled in when it is delivered."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from torch_tasks.models import AgentInfo, TaskRecord

PLACEHOLDERS: dict[str, str] = {
    "agent": "the id of the agent that gets it",
    "role": "the agent's role",
    "project": "the folder the agent works in",
    "task": "the id of the task it has, or 'none'",
    "task_title": "the first line of that task's prompt, or 'nothing'",
    "task_state": "how far that task is, or 'none'",
    "task_age": "how long ago it began with it, such as '25 min'",
    "waiting": "how many tasks it holds or has waiting for it alone",
    "slot": "when the check-in was to come, in UTC",
    "late": "how much later it comes, such as '2 h 5 min', or 'on time'",
    "sender": "who asked for the check-in",
    "checkin": "the check-in's own id",
}
"""All there are; other words in braces stay as they are."""

_WORD = re.compile(r"\{(\w+)\}")
_UNITS = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def filled(note: str, values: Mapping[str, str]) -> str:
    """The note with what is known in place of the words in braces."""
    return _WORD.sub(lambda found: values.get(found[1], found[0]), note)


def of_agent(info: AgentInfo, task: TaskRecord | None) -> dict[str, str]:
    """What is known of an agent and of the task it has."""
    begun = task and (task.started_at or task.assigned_at)
    return {
        "agent": info.agent_id,
        "role": info.role,
        "project": info.workdir,
        "task": task.spec.id if task else "none",
        "task_title": task.spec.title if task else "nothing",
        "task_state": str(task.state) if task else "none",
        "task_age": duration((datetime.now(UTC) - begun).total_seconds()) if begun else "none",
        "waiting": str(info.load),
    }


def of_slot(checkin_id: str, sender: str, slot: datetime, late: float) -> dict[str, str]:
    """What is known of the fire itself; it is ``late`` by so many seconds, 0 if it is on time."""
    return {
        "checkin": checkin_id,
        "sender": sender,
        "slot": f"{slot.astimezone(UTC):%Y-%m-%d %H:%M:%S}",
        "late": duration(late) if late else "on time",
    }


def duration(seconds: float) -> str:
    """A length of time as people say it, in its two largest units."""
    left, parts = timedelta(seconds=max(round(seconds), 0)) // timedelta(seconds=1), []
    for size, unit in _UNITS:
        count, left = divmod(left, size)
        if count:
            parts.append(f"{count} {unit}")
        elif parts:
            break
    return " ".join(parts[:2]) or "0 s"
