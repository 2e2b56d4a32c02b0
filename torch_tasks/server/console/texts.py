"""The texts of a task as they were written, whole."""

from __future__ import annotations

from typing import Any

from torch_tasks.errors import UnknownOperation
from torch_tasks.model.task import TaskRecord
from torch_tasks.server.console.page import ConsolePage, Visit


def gather(visit: Visit) -> dict[str, Any]:
    task_id, name = visit.path["task_id"], visit.path["text"]
    record: TaskRecord = visit.ask("task.get", task_id=task_id)
    texts = texts_of(record)
    if name not in texts:
        raise UnknownOperation(f"task {task_id} has no text {name[:60]!r}; it has {', '.join(texts)}")
    return {"task": record, "name": name, "written": texts[name], "heading": f"{name.title()} of {record.spec.title}"}


def texts_of(record: TaskRecord) -> dict[str, str]:
    """What a task's page shows the beginning of."""
    texts = {"prompt": record.spec.prompt}
    if record.result:
        texts["answer"] = record.result.answer
        texts["evidence"] = "\n\n".join(f"{one.kind}: {one.detail}" for one in record.result.evidence)
    if record.handoff:
        texts["screen"], texts["changes"] = record.handoff.screen, record.handoff.diff or ""
    return texts


TEXTS = ConsolePage("text", "/tasks/{task_id}/{text}", "Text of a task", gather, news="", under="board")
