"""Carrying an operation out in this process: may the caller, is the broker there, was it done before."""

from __future__ import annotations

from torch_tasks.operations.once import once, takes_ids, with_ids
from torch_tasks.operations.operation import Access, Asked, Operation, Reply
from torch_tasks.security.decision import require


def perform_here(operation: Operation[Asked, Reply], asked: Asked, key: str | None = None) -> Reply:
    """Do what is asked for, if the caller may; with the same ``key``, a second time gets the first one's reply."""
    if key is not None and operation.access is Access.WRITE and takes_ids(asked):
        asked, key = with_ids(operation, asked, key), None  # the same id twice is done once
    about = operation.about(asked)
    require(operation.name, operation.right, about, operation.also(asked))
    if not operation.needs_broker:
        return _carry_out(operation, asked, key)
    from torch_tasks.operations.settling import settled_broker  # brings Celery, which messages and claims do without

    with settled_broker(about.task):
        return _carry_out(operation, asked, key)


def _carry_out(operation: Operation[Asked, Reply], asked: Asked, key: str | None) -> Reply:
    if key is None or operation.idempotent or operation.access is Access.READ:
        return operation.reply_to(asked)
    return once(operation, asked, key)
