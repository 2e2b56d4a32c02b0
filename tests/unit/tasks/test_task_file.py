"""Files of tasks: what they may hold, and how each mistake is named with its file and line."""

from __future__ import annotations

from pathlib import Path

import pytest

from torch_tasks.errors import InvalidTask
from torch_tasks.model.task import Priority, TaskSpec
from torch_tasks.tasks.task_file import in_order, read_tasks


def written(folder: Path, text: str, name: str = "tasks.yaml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(InvalidTask) as caught:
        read_tasks(path, {})
    return str(caught.value)


def test_each_line_of_a_text_is_a_prompt(tmp_path: Path) -> None:
    path = written(tmp_path, "# tonight\nmake test\n\n  echo 'a # b'  \n", "tasks.txt")
    specs = read_tasks(path, {"role": "developer", "skills": ("python",)})
    assert [spec.prompt for spec in specs] == ["make test", "echo 'a # b'"]
    assert {(spec.role, spec.skills) for spec in specs} == {("developer", ("python",))}


def test_an_item_of_a_list_has_every_field_of_a_task(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        "- make test\n"
        "- id: build\n  prompt: |\n    make\n    make check\n  role: qa\n  kind: claude\n  skills: python\n"
        "  timeout: 30m\n  priority: high\n  deadline: 2030-01-01T00:00:00Z\n  after: other\n"
        "  context: {issue: 7}\n  check: 'true'\n",
    )
    plain, build = read_tasks(path, {"role": "developer"})
    assert (plain.prompt, plain.role) == ("make test", "developer")
    assert build.prompt == "make\nmake check\n"
    assert (build.id, build.role, build.skills, build.after) == ("build", "qa", ("claude", "python"), ("other",))
    assert (build.timeout, build.priority, build.context, build.check) == (1800, Priority.HIGH, {"issue": 7}, "true")
    assert build.deadline is not None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("- prompt: a\n- role: qa\n", ":2: prompt: is missing"),
        ("- a\n- prompt: b\n  colour: red\n", ":2: colour: is not a field that exists"),
        ("- prompt: a\n  timeout: soon\n", ":1: timeout: Input should be a valid number"),
        ("- prompt: a\n  timeout: [1]\n", ":1: timeout: Input should be a valid number"),
        ("- prompt: a\n  skills: {a: b}\n", ":1: skills: "),
        ("- id: x\n  prompt: a\n- id: x\n  prompt: b\n", ":3: id: x is that of line 1, too"),
        ("- prompt: a\n  prompt: b\n", ":2: prompt: is there twice"),
        ("- prompt: a\n- [b]\n", ":2: ['b'] is no task; write '- prompt: …'"),
        ("- prompt: a\n  id: x\n  after: [x]\n", ":1: after: task x would wait for itself"),
        ("prompt: a\n", ":1: a file of tasks is a list"),
        ("- prompt: 'a\n", ":2: found unexpected end of stream"),
        ("- prompt: !!python/object:os.system a\n", ":1: could not determine a constructor"),
        ("- &a [*a]\n", ":1: "),
        ("", ":1: a file of tasks is a list"),
        ("[]", "holds no task"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(tmp_path: Path, text: str, words: str) -> None:
    path = written(tmp_path, text)
    assert f"{path}{words}" in refusal(path).replace(" holds", "holds")


def test_all_mistakes_are_named_at_once(tmp_path: Path) -> None:
    path = written(tmp_path, "- role: qa\n- prompt: fine\n- prompt: b\n  max_retries: -1\n")
    assert [line.partition(":")[2].partition(":")[0] for line in refusal(path).splitlines()[:2]] == ["1", "3"]
    assert refusal(path).endswith("nothing was enqueued")


@pytest.mark.parametrize("name", ["tasks.toml", "tasks", "tasks.json"])
def test_other_files_are_refused(tmp_path: Path, name: str) -> None:
    assert "a file of tasks is named ….txt" in refusal(written(tmp_path, "a", name))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    assert "gone.txt cannot be read" in refusal(tmp_path / "gone.txt")


def spec(task_id: str, *after: str) -> TaskSpec:
    return TaskSpec(id=task_id, prompt="x", after=after)


def test_a_task_stands_behind_those_that_it_waits_for() -> None:
    specs = [spec("c", "b", "known"), spec("a"), spec("b", "a"), spec("d", "c", "a")]
    assert [one.id for one in in_order(specs)] == ["a", "b", "c", "d"]


def test_a_long_chain_is_no_problem() -> None:
    specs = [spec(f"t{n}", f"t{n + 1}") for n in range(3000)] + [spec("t3000")]
    assert [one.id for one in in_order(specs)] == [f"t{n}" for n in range(3000, -1, -1)]


def test_a_circle_is_named() -> None:
    with pytest.raises(InvalidTask, match="wait for each other: a after b after c after a"):
        in_order([spec("z"), spec("a", "z", "b"), spec("b", "c"), spec("c", "a")])
