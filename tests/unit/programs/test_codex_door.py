"""What Codex's server lists and asks, as Torch's own events, questions and decisions."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from torch_tasks.workers.programs.codex.door import open_approval, turn_events
from torch_tasks.workers.programs.codex.program import with_server
from torch_tasks.workers.programs.events import EventKind

BEGUN = 1_795_953_118_069
"""Milliseconds, as the server counts them."""


def said(text: str = "do it", at: int = BEGUN) -> dict[str, Any]:
    content = [{"type": "text", "text": text, "text_elements": []}]
    return {"type": "userMessage", "clientId": "m-1", "content": content, "startedAtMs": at, "completedAtMs": at}


def answered(text: str, at: int = BEGUN + 500) -> dict[str, Any]:
    return {"type": "agentMessage", "text": text, "startedAtMs": at, "completedAtMs": at}


def turn(status: str, *items: dict[str, Any], **more: Any) -> dict[str, Any]:
    ended = {"completedAt": BEGUN // 1000, "durationMs": 700} if status != "inProgress" else {}
    return {"id": "t", "status": status, "items": list(items), "error": None, **ended, **more}


def ms(at: datetime) -> int:
    return round(at.timestamp() * 1000)


class TestTurns:
    def test_there_may_be_none_yet(self) -> None:
        assert turn_events([]) == []

    def test_a_turn_that_goes_on_is_accepted_and_no_more(self) -> None:
        [event] = turn_events([turn("inProgress", said("do it\nnow"))])
        assert (event.kind, event.text, ms(event.at)) == (EventKind.ACCEPTED, "do it\nnow", BEGUN)

    def test_a_completed_turn_has_its_last_answer_and_ends_after_what_it_brought(self) -> None:
        accepted, stopped = turn_events([turn("completed", said(), answered("first"), answered("last"))])
        assert (stopped.kind, stopped.text) == (EventKind.STOPPED, "last")
        assert ms(stopped.at) == BEGUN + 700
        assert stopped.at > accepted.at

    def test_an_interrupted_turn_ends_after_its_prompt_although_seconds_are_cut_off(self) -> None:
        _, end = turn_events([turn("interrupted", said(), durationMs=None)])
        assert (end.kind, end.text) == (EventKind.INTERRUPTED, "")
        assert ms(end.at) >= BEGUN

    def test_a_turn_that_is_listed_as_interrupted_before_its_end_is_known_goes_on(self) -> None:
        [event] = turn_events([turn("interrupted", said(), completedAt=None, durationMs=None)])
        assert event.kind is EventKind.ACCEPTED

    def test_a_turn_ends_before_the_next_one_begins(self) -> None:
        following = BEGUN + 650
        events = turn_events([turn("interrupted", said()), turn("inProgress", said(at=following))])
        assert [event.kind for event in events] == [EventKind.ACCEPTED, EventKind.INTERRUPTED, EventKind.ACCEPTED]
        assert [ms(event.at) for event in events] == [BEGUN, following, following]

    def test_a_compaction_is_no_turn_of_a_prompt(self) -> None:
        compaction = {"type": "contextCompaction", "startedAtMs": BEGUN, "completedAtMs": BEGUN}
        assert turn_events([turn("completed", compaction), turn("completed")]) == []

    @pytest.mark.parametrize(
        ("info", "kind"),
        [
            ("usageLimitExceeded", "limit"),
            ({"responseTooManyFailedAttempts": {"httpStatusCode": 429}}, "limit"),
            ("serverOverloaded", "overloaded"),
            ({"responseStreamDisconnected": {"httpStatusCode": None}}, "overloaded"),
            ({"httpConnectionFailed": {"httpStatusCode": 401}}, "login"),
            ("unauthorized", "login"),
            ("badRequest", "other"),
            (None, "other"),
        ],
    )
    def test_a_failure_is_known_by_its_reason(self, info: object, kind: str) -> None:
        error = {"message": "It failed.", "codexErrorInfo": info}
        _, failed = turn_events([turn("failed", said(), error=error)])
        assert (failed.kind, failed.text, failed.error) == (EventKind.FAILED, "It failed.", kind)

    def test_a_login_that_is_renewed_in_the_middle_of_a_turn_is_no_failure_of_the_task(self) -> None:
        message = "Fatal error: application network permission was revoked"
        _, failed = turn_events([turn("failed", said(), error={"message": message, "codexErrorInfo": "other"})])
        assert failed.error == "overloaded"

    def test_a_limit_says_when_it_ends(self) -> None:
        end = datetime.now(UTC).astimezone() + timedelta(hours=2)
        message = f"You’ve hit your usage limit. Upgrade to Pro or try again at {end:%I:%M %p}."
        _, failed = turn_events(
            [turn("failed", said(), error={"message": message, "codexErrorInfo": "usageLimitExceeded"})]
        )
        assert failed.until
        assert failed.until == end.replace(second=0, microsecond=0)


AMENDMENT = {"acceptWithExecpolicyAmendment": {"execpolicy_amendment": ["touch", "one"]}}


def asks(method: str, **params: Any) -> dict[str, Any]:
    return {"id": 0, "method": method, "params": {"threadId": "c", **params}}


class TestApprovals:
    def test_a_commands_choices_are_those_of_the_programs_dialog(self) -> None:
        request = asks(
            "item/commandExecution/requestApproval",
            command="/bin/bash -lc 'touch one'",
            commandActions=[{"type": "unknown", "command": "touch one"}],
            reason="The test wants it",
            availableDecisions=["accept", AMENDMENT, "cancel"],
        )
        approval = open_approval([request])
        assert approval
        assert approval.question.subject == "Bash(touch one)"
        assert approval.question.text.endswith("Bash(touch one): The test wants it")
        assert approval.question.choices == (
            "Yes, proceed",
            "Yes, and don't ask again for commands that start with `touch one`",
            "No, and tell Codex what to do differently",
        )
        assert approval.decisions == ("accept", AMENDMENT, "cancel")

    def test_a_decision_that_is_not_known_is_not_offered(self) -> None:
        decisions = ["accept", {"applyNetworkPolicyAmendment": {}}, "somethingNew", "cancel"]
        request = asks("item/commandExecution/requestApproval", command="ls", availableDecisions=decisions)
        approval = open_approval([request])
        assert approval
        assert approval.decisions == ("accept", "cancel")

    def test_edits_are_asked_for_without_their_words(self) -> None:
        approval = open_approval([asks("item/fileChange/requestApproval", reason=None)])
        assert approval
        assert approval.question.subject == "apply_patch"
        assert approval.decisions == ("accept", "acceptForSession", "cancel")

    def test_what_is_asked_in_another_form_is_left_to_the_screen(self) -> None:
        requests = [asks("item/commandExecution/requestApproval"), asks("mcpServer/elicitation/request"), {"id": 3}]
        assert open_approval(requests) is None


class TestCommand:
    WORDS = ("codex", "--no-daemon", "--ask-for-approval", "never", "-c", "a=1", "--config=b=2", "--enable", "x")

    def test_the_server_takes_the_settings_and_what_the_program_may_do(self) -> None:
        both = with_server([*self.WORDS, "--model", "m"], resumes=False)
        assert both
        server, program = both
        assert server == [
            *("codex", "app-server", "-c", 'approval_policy="never"', "-c", "a=1", "--config", "b=2", "--enable", "x")
        ]
        assert program == [
            *("codex", "--ask-for-approval", "never", "-c", "a=1", "--config", "b=2", "--enable", "x", "--model", "m")
        ]

    def test_a_program_that_goes_on_with_a_conversation_does_not_say_what_it_may_do(self) -> None:
        both = with_server([*self.WORDS, "-s", "read-only"], resumes=True)
        assert both
        server, program = both
        assert server[-2:] == ["-c", 'sandbox_mode="read-only"']
        assert program == ["codex", "-c", "a=1", "--config", "b=2", "--enable", "x"]

    @pytest.mark.parametrize("words", [["--profile", "mine"], ["exec"], ["--sandbox=read-only", "--oss"]])
    def test_a_command_line_of_which_no_server_is_known_has_none(self, words: list[str]) -> None:
        assert with_server(["codex", *words], resumes=False) is None
