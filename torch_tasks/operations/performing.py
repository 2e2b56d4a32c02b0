"""Carrying an operation out in this process: may the caller, is the broker there, was it done before; and noting it."""

from __future__ import annotations

from torch_tasks.errors import TorchError
from torch_tasks.fleet import fleet
from torch_tasks.machine.fleet_keys import require_own_fleet
from torch_tasks.model.audit_record import AuditOutcome
from torch_tasks.operations.once import once, takes_ids, with_ids
from torch_tasks.operations.operation import Access, Asked, Operation, Reply
from torch_tasks.security.audit import WEIGHTY, is_noted, note_operation
from torch_tasks.security.decision import require
from torch_tasks.security.rights import Subject


def perform_here(operation: Operation[Asked, Reply], asked: Asked, key: str | None = None) -> Reply:
    """Do what is asked for, if the caller may; with the same ``key``, a second time gets the first one's reply.

    The audit has it before this returns; what weighs more, before it is done.
    """
    if key is not None and operation.access is Access.WRITE and takes_ids(asked):
        asked, key = with_ids(operation, asked, key), None  # the same id twice is done once
    require_own_fleet(fleet())
    about, also = operation.about(asked), operation.also(asked)
    rule = require(operation.name, operation.right, about, also)
    if not is_noted(writes=operation.access is Access.WRITE):
        return _perform(operation, asked, key, about)
    right = also if also in WEIGHTY else operation.right
    if right in WEIGHTY and operation.access is Access.WRITE:
        note_operation(operation.name, right, asked, rule, AuditOutcome.BEGUN)
    try:
        reply = _perform(operation, asked, key, about)
    except TorchError as error:
        note_operation(operation.name, right, asked, rule, AuditOutcome.FAILED, f"{type(error).__name__}: {error}")
        raise
    note_operation(operation.name, right, asked, rule, AuditOutcome.DONE)
    return reply


def _perform(operation: Operation[Asked, Reply], asked: Asked, key: str | None, about: Subject) -> Reply:
    if not operation.needs_broker:
        return _carry_out(operation, asked, key)
    from torch_tasks.operations.settling import settled_broker  # brings Celery, which messages and claims do without

    with settled_broker(about.task):
        return _carry_out(operation, asked, key)


def _carry_out(operation: Operation[Asked, Reply], asked: Asked, key: str | None) -> Reply:
    if key is None or operation.idempotent or operation.access is Access.READ:
        return operation.reply_to(asked)
    return once(operation, asked, key)
