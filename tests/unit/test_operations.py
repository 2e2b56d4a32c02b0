"""Every operation is declared whole: a door needs nothing else to offer it."""

from __future__ import annotations

import pytest

from torch_tasks import errors
from torch_tasks.caller import Caller, CallerKind, acting_as, caller
from torch_tasks.errors import InvalidRequest, UnknownOperation
from torch_tasks.link.raised import error_named
from torch_tasks.operations.operation import Access, all_operations, operation_named, request_of

OPERATIONS = {one.name: one for one in all_operations()}


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_describes_itself_its_request_and_its_reply(name: str) -> None:
    declared = OPERATIONS[name]
    assert declared.description.endswith("."), "the first line of its docstring is what every door shows"
    assert len(declared.description) <= 120
    assert declared.request.model_json_schema()["type"] == "object"
    assert declared.reply.json_schema(mode="serialization") is not None
    assert declared is operation_named(name)


def test_an_unknown_operation_is_named_with_the_near_ones() -> None:
    with pytest.raises(UnknownOperation, match=r"'task\.enqeue'.*task\.enqueue"):
        operation_named("task.enqeue")
    with pytest.raises(UnknownOperation, match="'tsk'"):
        operation_named("tsk")


def test_an_unknown_field_of_a_request_is_named() -> None:
    with pytest.raises(InvalidRequest, match="task_idd: is not a field that exists"):
        request_of(operation_named("task.cancel"), {"task_id": "a", "task_idd": "b"})


def test_reading_operations_change_nothing_and_writing_ones_say_so() -> None:
    assert OPERATIONS["task.get"].access is Access.READ
    assert OPERATIONS["task.enqueue"].access is Access.WRITE


def test_every_error_arrives_as_itself_on_the_other_side_of_a_door() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.TorchError)]
    for kind in kinds:
        error = error_named(kind.__name__, "what happened")
        assert (type(error), str(error), error.exit_code) == (kind, "what happened", kind.exit_code)
    assert str(error_named("ZeroDivisionError", "it")) == "ZeroDivisionError: it"


def test_a_door_says_who_acts_whatever_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_AGENT_ID", "developer-1")
    assert (caller().name, caller().kind) == ("developer-1", CallerKind.AGENT)
    with acting_as(Caller(agent="qa-1")):
        assert caller().name == "qa-1"
    assert caller().name == "developer-1"
