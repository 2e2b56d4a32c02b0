"""What is accepted, what is refused and in which words, and along which states a task moves."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from torch_tasks.errors import InvalidTask, TaskFailed
from torch_tasks.keys import RESERVED_WORDS
from torch_tasks.model.agent import AgentInfo, AgentSpec
from torch_tasks.model.fields import now
from torch_tasks.model.task import (
    ENDED,
    HELD,
    PRIORITY_STEPS,
    TRANSITIONS,
    Failure,
    FailureKind,
    Priority,
    TaskResult,
    TaskSpec,
    TaskState,
)

LIMIT = 1000


def build(**fields: Any) -> TaskSpec:
    """A spec as the client makes it, with a prompt that is good."""
    return TaskSpec.build(**{"prompt": "make test", **fields}).within(LIMIT, 4 * LIMIT)


def refusal(**fields: Any) -> str:
    """The words in which a spec is refused."""
    with pytest.raises(InvalidTask) as caught:
        build(**fields)
    return str(caught.value)


# ── what is refused ──────────────────────────────────────────────────────────────────────────────────────────────

EMPTY = "prompt: is empty; say what the agent shall do"
NAME_RULE = "must begin with a letter or digit and hold only letters, digits, '-' and '_'"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"colour": "red"}, "colour: is not a field that exists"),
        ({"prompt": ""}, EMPTY),
        ({"prompt": " \t\n\x1f"}, EMPTY),
        ({"prompt": "a\0b"}, "prompt: holds a NUL character; remove it"),
        ({"prompt": "a\ud800b"}, "prompt: is not valid Unicode text"),
        ({"prompt": 3}, "prompt: Input should be a valid string"),
        ({"prompt": None}, "prompt: Input should be a valid string"),
        ({"role": "code review"}, "role: 'code review' holds a space; use one word, such as 'code-review'"),
        ({"role": ""}, f"role: '' {NAME_RULE}"),
        ({"role": "größe"}, f"role: 'größe' {NAME_RULE}"),
        ({"role": "a.b"}, f"role: 'a.b' {NAME_RULE}"),
        ({"role": "x" * 49}, "role: Value should have at most 48 items"),
        ({"role": 3}, "role: Input should be a valid string"),
        ({"agent": "qa 1"}, "agent: 'qa 1' holds a space; use one word, such as 'qa-1'"),
        ({"agent": "-qa"}, f"agent: '-qa' {NAME_RULE}"),
        ({"skills": ["py thon"]}, "skills.0: 'py thon' holds a space; use one word, such as 'py-thon'"),
        ({"skills": ["python", "a+b"]}, "skills.1: 'a+b' must begin with a letter or digit"),
        ({"skills": [1]}, "skills.0: Input should be a valid string"),
        ({"skills": "python"}, "skills: Input should be a valid tuple"),
        ({"priority": "soon"}, "priority: Input should be 'urgent', 'high', 'normal' or 'low'"),
        ({"timeout": 0}, "timeout: Input should be greater than 0"),
        ({"timeout": -1.5}, "timeout: Input should be greater than 0"),
        ({"timeout": "3"}, "timeout: Input should be a valid number"),
        ({"timeout": True}, "timeout: Input should be a valid number"),
        ({"timeout": float("inf")}, "timeout: Input should be"),
        ({"timeout": float("nan")}, "timeout: Input should be a finite number"),
        ({"timeout": 366 * 86400 + 1}, "timeout: Input should be less than or equal to 31622400"),
        ({"deadline": datetime(2030, 1, 1)}, "deadline: Input should have timezone info"),  # that is the point
        ({"deadline": "2030-01-01T00:00:00"}, "deadline: Input should have timezone info"),
        ({"deadline": "soon"}, "deadline: Input should be a valid datetime"),
        ({"check": ""}, "check: is empty"),
        ({"max_retries": -1}, "max_retries: Input should be greater than or equal to 0"),
        ({"max_retries": 1.5}, "max_retries: Input should be a valid integer"),
        ({"max_retries": "2"}, "max_retries: Input should be a valid integer"),
        ({"id": "../etc"}, "id: '../etc' must begin with a letter or digit"),
        ({"id": "a/b"}, "id: 'a/b' must begin with a letter or digit"),
        ({"id": "x\n"}, "id: 'x\\n' must begin with a letter or digit"),
        ({"id": "x" * 129}, "id: String should have at most 128 characters"),
        ({"context": {"a": object()}}, "context.a: input was not a valid JSON value"),
        ({"context": {1: "a"}}, "context.1.[key]: Input should be a valid string"),
        ({"metadata": []}, "metadata: Input should be a valid dictionary"),
    ],
)
def test_what_is_wrong_is_named_and_explained(fields: dict[str, Any], words: str) -> None:
    said = refusal(**fields)
    assert said.startswith("this task cannot be accepted: ")
    assert words in said


@pytest.mark.parametrize("role", sorted(RESERVED_WORDS))
def test_words_of_queue_names_are_no_roles(role: str) -> None:
    words = f"role: {role!r} is a word that queue names use; choose another name"
    assert words in refusal(role=role)
    assert words in refusal(role=f" {role.upper()} ")


def test_a_prompt_that_is_too_long_is_told_both_numbers_and_a_way_out() -> None:
    said = refusal(prompt="é" * 600)
    assert "prompt has 1,200 bytes, the limit is 1,000 (TORCH_PROMPT_LIMIT_BYTES)" in said
    assert "put the bulk into a file" in said


def test_a_prompt_as_long_as_the_limit_is_accepted() -> None:
    assert build(prompt="x" * LIMIT).prompt == "x" * LIMIT


def test_a_missing_prompt_is_told() -> None:
    with pytest.raises(InvalidTask, match="prompt: is missing"):
        TaskSpec.build(prompt_limit=LIMIT)


def test_all_mistakes_are_told_at_once() -> None:
    assert refusal(role="any", timeout=0, colour=1).count("; ") >= 2


@pytest.mark.parametrize("field", ["check", "workdir"])
def test_nul_is_refused_wherever_the_system_cannot_take_it(field: str) -> None:
    assert field in refusal(**{field: "a\0b"})


def test_what_json_cannot_hold_is_refused() -> None:
    assert "context" in refusal(context={"a": float("nan")})


# ── what is accepted ─────────────────────────────────────────────────────────────────────────────────────────────


def test_names_are_folded_to_small_letters_without_blanks_around() -> None:
    spec = build(role=" Developer ", agent="QA-1", skills=["PyThon"])
    assert (spec.role, spec.agent, spec.skills) == ("developer", "qa-1", ("python",))


def test_skills_are_sorted_and_distinct() -> None:
    assert build(skills=["python", "Git", "bash", "git"]).skills == ("bash", "git", "python")
    assert build(skills=["c#", "node.js"]).skills == ("c#", "node.js")


def test_a_workdir_is_absolute_whoever_reads_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/srv/me")
    assert build(workdir="src").workdir == f"{tmp_path}/src"
    assert build(workdir="~/src").workdir == "/srv/me/src"


@pytest.mark.parametrize("prompt", ["x", " indented\n\n", "a\r\nb\tc", "\x1b[31m", "日本語 🔥", "a\u2028"])
def test_a_prompt_stays_as_it_is(prompt: str) -> None:
    assert build(prompt=prompt).prompt == prompt


def test_each_spec_has_an_id_of_its_own() -> None:
    assert len({build().id for _ in range(100)}) == 100


def test_a_spec_does_not_change() -> None:
    with pytest.raises(ValueError, match="frozen"):
        build().prompt = "another"  # type: ignore[misc]


# ── the wire ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "spec",
    [
        build(),
        build(id="my-id.1", role="qa", skills=["b", "a"], agent="qa-1", priority="urgent", workdir="/srv"),
        build(timeout=2.5, deadline=datetime(2030, 1, 1, tzinfo=UTC), check="true", max_retries=0),
        build(prompt="日本語\r\n\x1b", context={"a": [1, None, {"b": True}]}, metadata={"x": 1.5}),
    ],
    ids=["plain", "names", "limits", "contents"],
)
def test_the_wire_form_comes_back_as_the_same_spec(spec: TaskSpec) -> None:
    assert TaskSpec.build(**spec.wire()) == spec


def test_the_wire_form_holds_nothing_that_is_only_default() -> None:
    assert build(id="x").wire() == {"id": "x", "prompt": "make test"}


@pytest.mark.parametrize(
    ("prompt", "title"),
    [
        ("make test", "make test"),
        ("first line\nsecond", "first line"),
        ("\n\n  indented", "indented"),
        ("a\r\nb", "a"),
        ("\x1b[2J\x07red", " [2J red"),
        ("safe\u202etxt.exe", "safe txt.exe"),
        ("tab\there", "tab here"),
        ("x" * 60, "x" * 60),
        ("x" * 61, "x" * 59 + "…"),
        ("日本語", "日本語"),
    ],
)
def test_a_title_is_one_short_line_that_harms_no_terminal(prompt: str, title: str) -> None:
    assert build(prompt=prompt).title == title
    assert title.isprintable()


# ── states ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_every_state_has_its_successors_written_down() -> None:
    assert set(TRANSITIONS) == set(TaskState)


def test_what_has_ended_stays_ended_but_for_a_replay_of_the_dead() -> None:
    assert {state: TRANSITIONS[state] for state in ENDED} == {
        TaskState.SUCCEEDED: frozenset(),
        TaskState.FAILED: frozenset(),
        TaskState.CANCELLED: frozenset(),
        TaskState.DEAD: frozenset({TaskState.QUEUED}),
    }
    assert {state for state in TaskState if state.ended} == ENDED


def test_every_state_can_be_reached_from_pending() -> None:
    reached, fresh = set(), {TaskState.PENDING}
    while fresh:
        reached |= fresh
        fresh = set().union(*(TRANSITIONS[state] for state in fresh)) - reached
    assert reached == set(TaskState)


def test_every_living_state_can_come_to_an_end_and_be_cancelled() -> None:
    for state in set(TaskState) - ENDED:
        assert {TaskState.FAILED, TaskState.CANCELLED} <= TRANSITIONS[state], state


def test_only_what_an_agents_next_worker_may_have_to_say_again_follows_itself() -> None:
    again = {state for state in TaskState if state in TRANSITIONS[state]}
    assert again == {TaskState.RUNNING, TaskState.WAITING}


def test_sources_are_the_inverse_of_transitions() -> None:
    for before in TaskState:
        for after in TaskState:
            assert (before in after.sources) == (after in TRANSITIONS[before]), (before, after)


def test_only_an_agent_that_holds_a_task_makes_it_succeed() -> None:
    assert TaskState.SUCCEEDED.sources == HELD


def test_only_the_blameless_are_tried_again() -> None:
    assert {kind for kind in FailureKind if kind.worth_retrying} == {
        FailureKind.AGENT_CRASHED,
        FailureKind.OUT_OF_MEMORY,
        FailureKind.AGENT_UNAVAILABLE,
        FailureKind.OVERLOADED,
        FailureKind.LOOPING,
    }


def test_priorities_are_taken_in_the_order_of_their_urgency() -> None:
    steps = [Priority(name).step for name in ("urgent", "high", "normal", "low")]
    assert steps == sorted(set(steps)) == list(PRIORITY_STEPS)
    assert steps[0] == 0


# ── results ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_success_passes_raise_for_status() -> None:
    result = TaskResult(task_id="t", status=TaskState.SUCCEEDED)
    assert result.raise_for_status() is result


@pytest.mark.parametrize("state", sorted(set(TaskState) - {TaskState.SUCCEEDED}))
def test_anything_else_raises_and_says_what_happened_where(state: TaskState) -> None:
    error = Failure(kind=FailureKind.EXIT_CODE, message="exit code 3")
    result = TaskResult(task_id="t", status=state, agent="qa-1", error=error)
    with pytest.raises(TaskFailed, match=rf"^task t {state} on qa-1: exit code 3$"):
        result.raise_for_status()


def test_a_failure_without_an_agent_has_words_too() -> None:
    with pytest.raises(TaskFailed, match=r"^task t dead$"):
        TaskResult(task_id="t", status=TaskState.DEAD).raise_for_status()


# ── agents ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "short"),
    [
        ("dev-1:developer", "dev-1:developer::shell"),
        ("dev-1:developer:", "dev-1:developer::shell"),
        ("dev-1:developer::", "dev-1:developer::shell"),
        ("dev-1:developer:python", "dev-1:developer:python:shell"),
        ("Dev-1:Developer:python,Git,,git:Shell", "dev-1:developer:git,python:shell"),
        ("dev-1:developer::claude", "dev-1:developer::claude"),
    ],
)
def test_the_short_form_of_an_agent_comes_back_as_the_same_agent(text: str, short: str) -> None:
    agent = AgentSpec.parse(text)
    assert agent.short() == short
    assert AgentSpec.parse(short) == agent


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("dev-1", "agent 'dev-1' is not of the form id:role[:skill,skill[:kind]]"),
        ("", "agent '' is not of the form"),
        ("a:b:c:d:e", "agent 'a:b:c:d:e' is not of the form"),
        (":b", "agent ':b' cannot be used: id: is missing"),
        ("a:", "agent 'a:' cannot be used: role: is missing"),
        ("a b:c", "id: 'a b' holds a space; use one word, such as 'a-b'"),
        ("a:any", "role: 'any' is a word that queue names use"),
        ("a:b:c d", "skills.0: 'c d' holds a space"),
        ("a:b:c:../d", f"kind: '../d' {NAME_RULE}"),
    ],
)
def test_a_wrong_short_form_is_refused_in_words(text: str, words: str) -> None:
    with pytest.raises(InvalidTask) as caught:
        AgentSpec.parse(text)
    assert words in str(caught.value)


def agent_info(**fields: Any) -> AgentInfo:
    """An agent as the registry has it."""
    known = {"agent_id": "dev-1", "role": "developer", "skills": ("git", "python"), "kind": "shell", "node": "n"}
    known |= {"pid": 1, "host": "h", "incarnation": 1, "workdir": "/", "tmux_socket": "/t", "started_at": now()}
    return AgentInfo.model_validate(known | fields)


@pytest.mark.parametrize(
    ("role", "skills", "able"),
    [
        (None, (), True),
        ("developer", (), True),
        ("qa", (), False),
        (None, ("python",), True),
        ("developer", ("python", "git"), True),
        ("developer", ("python", "rust"), False),
        ("qa", ("python",), False),
    ],
)
def test_an_agent_serves_its_role_and_any_part_of_its_skills(role: str | None, skills: Any, able: bool) -> None:
    assert agent_info().serves(role, skills) is able
