"""What a task is called, and the name that this gives to branches and tags."""

from __future__ import annotations

import pytest

from torch_tasks.errors import InvalidTask
from torch_tasks.model.fields import slug_of
from torch_tasks.model.task import DiffStat, TaskSpec


def test_the_title_is_the_first_line_of_the_prompt_unless_it_is_given() -> None:
    made = TaskSpec.build(prompt="\n  Fix the login\nand its tests", id="t")
    assert (made.title, made.wire()) == ("Fix the login", {"id": "t", "prompt": "\n  Fix the login\nand its tests"})
    given = TaskSpec.build(prompt="Fix the login", title=" Login ", id="t")
    assert (given.title, given.wire()["title"]) == ("Login", "Login")
    assert TaskSpec.build(**given.wire()) == given
    assert len(TaskSpec.build(prompt="x" * 500).title) == 60


@pytest.mark.parametrize("title", ["", "  ", "two\nlines", "\x1b[31mred", "x" * 101])
def test_a_title_is_one_printable_line(title: str) -> None:
    with pytest.raises(InvalidTask, match="title: must be one line of at most 100 printable characters"):
        TaskSpec.build(prompt="x", title=title)


def test_a_missing_prompt_is_named_alone() -> None:
    with pytest.raises(InvalidTask) as raised:
        TaskSpec.build()
    assert str(raised.value) == "this task cannot be accepted: prompt: is missing"


@pytest.mark.parametrize(
    ("text", "slug"),
    [
        ("Fix the login redirect", "fix-the-login-redirect"),
        ("Übersicht: 3 new /pages!", "ubersicht-3-new-pages"),
        ("日本語", ""),
        ("one two three four five six seven eight nine ten", "one-two-three-four-five-six-seven-eight"),
        ("x" * 50, ""),
        ("../..", ""),
    ],
)
def test_a_slug_holds_whole_words_that_git_accepts(text: str, slug: str) -> None:
    assert slug_of(text) == slug


def test_changes_are_said_in_a_few_words() -> None:
    assert str(DiffStat(files=1, added=2)) == "1 file +2 -0"
    assert str(DiffStat(files=3, added=40, removed=2)) == "3 files +40 -2"
