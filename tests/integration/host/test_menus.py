"""Whatever form a menu has, only the wanted choice is taken; what it changes for later ends with its task."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_kind import FakeKind
from fakes.cli.scenario import Faults, Looks, Scenario, Turn
from fakes.cli.steps import Permission, Say, Step
from nodes import AgentWorker, Node
from waiting import until

from torch_tasks import TaskState, Torch
from torch_tasks.client import Task

MANY = ("No", "Yes, always", *(f"Yes, as guest {number}" for number in range(1, 8)), "Yes", "Not today")
MODES = Looks(modes=("manual", "edit", "auto"))


class Asked:
    """An agent whose program asks for permission as it is told."""

    def __init__(self, fake: FakeKind, worker: AgentWorker, torch: Torch) -> None:
        self.fake, self.worker, self._torch = fake, worker, torch

    def give(
        self, *steps: Step, looks: Looks = MODES, faults: Faults | None = None, permissions: str = "allow"
    ) -> Task:
        """A task in which the program does these steps."""
        self.fake.cli.play(Scenario(Turn((*steps, Say("Done."))), looks=looks, faults=faults or Faults()))
        return self._torch.enqueue("touch a file", permissions=permissions, agent="developer-1")

    def chosen(self) -> list[str]:
        return [str(record["text"]) for record in self.fake.cli.records("chosen")]

    def starts(self) -> int:
        """How often the program was started."""
        return len(self.fake.cli.records("started"))


@pytest.fixture(scope="module")
def asked(shared_node: Node, torch: Torch) -> Asked:
    fake = FakeKind(shared_node, scenario=Scenario(looks=MODES))
    return Asked(fake, fake.worker(TORCH_STALLED_SECONDS="0"), torch)


@pytest.mark.parametrize(
    "permission",
    [
        Permission(choices=("No", "Yes", "Yes, always")),
        Permission(choices=("No", "Yes", "Yes, always"), default=2),
        Permission(choices=("No", "Yes"), numbered=False),
        Permission(choices=("No", "Yes, always", "Yes"), style="radio", numbered=False),
        Permission(choices=("No", "Yes, always", "Yes"), style="colours", numbered=False),
        Permission(choices=MANY, window=4),
        Permission(choices=MANY, window=3, default=10, numbered=False),
        Permission(choices=("Yes", "No", "All"), style="inline", default=1),
    ],
    ids=["moved", "other default", "no numbers", "radio", "colours", "scrolled", "scrolled up", "inline"],
)
def test_the_wanted_choice_is_taken_in_every_form(asked: Asked, permission: Permission) -> None:
    before = len(asked.chosen())
    assert asked.give(permission).result(timeout=60).answer.endswith("Done.")
    assert asked.chosen()[before:] == ["Yes"]


def test_a_program_that_draws_late_gets_the_same_answer(asked: Asked) -> None:
    before = len(asked.chosen())
    late = asked.give(Permission(choices=("No", "Not today", "Yes")), faults=Faults(draw_after=1.3))
    assert late.result(timeout=60).answer.endswith("Done.")
    assert asked.chosen()[before:] == ["Yes"]


@pytest.mark.parametrize("numbered", [True, False])
def test_a_program_that_ignores_what_comes_at_once_is_answered_all_the_same(asked: Asked, numbered: bool) -> None:
    before = len(asked.chosen())
    rounds = (("Yes", "No"), ("Yes", "Not today"))
    permissions = [Permission(choices=choices, numbered=numbered) for choices in rounds]
    deaf = asked.give(*permissions, faults=Faults(deaf_dialogs=1.0), permissions="ask")
    for choices in rounds:
        until(lambda choices=choices: (now := deaf.record().question) and now.choices == choices, "it asks")
        deaf.answer("Yes")
    assert deaf.result(timeout=60).answer.endswith("Done.")
    assert asked.chosen()[before:] == ["Yes", "Yes"]


def lasting(asked: Asked, choices: tuple[str, ...], answer: str) -> Task:
    """A task whose question a person answered with a lasting choice."""
    task = asked.give(Permission(choices=choices), permissions="ask")
    until(lambda: (now := task.record().question) is not None and now.choices == choices, "it asks")
    task.answer(answer)
    assert task.result(timeout=30).succeeded
    return task


@pytest.mark.parametrize("choice", ["Yes, always", "Yes, always in this project", "Yes, and use auto mode"])
def test_what_a_choice_changed_ends_with_its_task(asked: Asked, choice: str) -> None:
    starts = asked.starts()
    lasting(asked, ("Yes", choice, "No"), "2")
    until(lambda: asked.starts() > starts, "a new program begins")
    assert not (Path(str(asked.fake.cli.records("started")[-1]["cwd"])) / "rules.local").exists()
    again = asked.give(Permission(choices=("Yes", "No")), permissions="ask")
    until(lambda: again.status is TaskState.WAITING, "it asks again")
    again.answer("Yes")
    assert again.result(timeout=30).succeeded


def test_a_mode_that_a_person_changed_in_the_pane_is_changed_back(asked: Asked) -> None:
    assert asked.give().result(timeout=30).succeeded
    starts = asked.starts()
    asked.worker.tmux("send-keys", "BTab", "BTab")
    until(lambda: "auto on" in asked.worker.screen(), "it is in another mode")
    task = asked.give(Permission(choices=("Yes", "No")), permissions="ask")
    until(lambda: task.status is TaskState.WAITING, "it asks")
    assert "manual on" in asked.worker.screen() or "Do you want to proceed?" in asked.worker.screen()
    task.answer("1")
    assert task.result(timeout=30).succeeded
    assert asked.starts() == starts
