"""What Torch keeps and shows of texts with secrets in them: records, replies, log lines, commits."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import NamedTuple

import pytest

from torch_tasks.model.broker_address import BrokerAddress
from torch_tasks.model.fields import title_of
from torch_tasks.model.handover import Handoff
from torch_tasks.model.task import Evidence, Failure, FailureKind, TaskRecord, TaskResult, TaskSpec, TaskState
from torch_tasks.operations.messages import await_reply, inbox, read
from torch_tasks.operations.operation import Operation, all_operations
from torch_tasks.operations.shown import shown
from torch_tasks.system.terminal import LogLine
from torch_tasks.workers.git.exclusions import CommitFilter
from torch_tasks.workers.git.policy import RolePolicy

TOKEN = "ghp_" + "a1B2c3D4e5F6" * 3
GONE = "[redacted: a GitHub token]"


def test_what_a_pane_showed_is_kept_without_secrets() -> None:
    result = TaskResult(
        task_id="t",
        status=TaskState.FAILED,
        answer=f"it is {TOKEN}",
        evidence=(Evidence(kind="check", detail=f"echo {TOKEN}", passed=False),),
        error=Failure(kind=FailureKind.CHECK_FAILED, message=f"no {TOKEN}"),
    )
    handoff = Handoff(agent="a", node="n", noted_at=datetime.now(UTC), screen=f"$ {TOKEN}", diff=f"+{TOKEN}")
    assert TOKEN not in result.model_dump_json() + handoff.model_dump_json() + result.summary
    assert result.answer == f"it is {GONE}"


def test_a_prompt_reaches_the_agent_as_it_is_and_is_shown_without_secrets() -> None:
    spec = TaskSpec(prompt=f"log in with {TOKEN}", context={"keys": [TOKEN]})
    assert spec.wire()["prompt"] == f"log in with {TOKEN}"
    assert title_of(spec.prompt) == spec.title == f"log in with {GONE}"
    record = TaskRecord(spec=spec, state=TaskState.QUEUED, queue="q", created_at=datetime.now(UTC))
    seen = shown(record)
    assert (seen.spec.prompt, seen.spec.context) == (f"log in with {GONE}", {"keys": [GONE]})
    assert record.spec.prompt == f"log in with {TOKEN}"


class Pair(NamedTuple):
    text: str
    number: int


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (f"a {TOKEN}", f"a {GONE}"),
        ([1, None, f"a {TOKEN}"], [1, None, f"a {GONE}"]),
        ({"a": {"b": (TOKEN,)}}, {"a": {"b": (GONE,)}}),
        (Pair(TOKEN, 3), Pair(GONE, 3)),
    ],
)
def test_every_text_of_a_reply_is_shown_without_secrets(value: object, expected: object) -> None:
    assert shown(value) == expected


def test_a_reply_without_secrets_is_the_same_object() -> None:
    value = {"a": [TaskState.QUEUED, Pair("x", 1), 3.5, datetime.now(UTC)]}
    assert shown(value) is value


def test_only_a_message_for_its_receiver_is_shown_word_for_word() -> None:
    verbatim = {one.name for one in all_operations() if one.verbatim}
    assert verbatim == {"message.ask", "message.await_reply", "message.inbox", "message.read", "message.listen"}
    assert all(isinstance(one, Operation) for one in (await_reply, inbox, read))


def test_a_log_line_holds_no_secret() -> None:
    record = logging.LogRecord("x", logging.INFO, "", 0, "took %s", (f"redis://user:n0tAW0rd!@h and {TOKEN}",), None)
    assert LogLine(logging.Formatter("%(message)s")).format(record) == (
        f"took redis://user:[redacted: a password in an address]@h and {GONE}"
    )


def test_the_brokers_password_is_known_by_its_value() -> None:
    BrokerAddress.model_validate({"url": "redis://:q8-broker-pw-71@127.0.0.1:6379/0", "source": "TORCH_BROKER_URL"})
    assert shown("AUTH q8-broker-pw-71") == "AUTH [redacted: the broker's password]"


def test_a_commit_leaves_out_a_file_with_a_new_secret_only() -> None:
    judge = CommitFilter(RolePolicy(enabled=True, secret_texts=(r"internal-\d{4}",)))
    text = f"x = '{TOKEN}'\n".encode()
    assert judge.reason_by_text(text, bytes) == "it holds a GitHub token"
    assert judge.reason_by_text(text + b"more", lambda: text) is None
    assert judge.reason_by_text(b"internal-0815 \xff", bytes) == r"it holds a text that git.toml names (internal-\d{4})"
    assert judge.reason_by_text(b"\x00\xff ordinary", bytes) is None
