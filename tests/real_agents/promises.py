"""What every coding agent of the fleet keeps, whatever its CLI; what its model received is what is asserted.

The tests of a CLI are a class that inherits these, and adds or overrides what is special there. All of a class share
one agent.
"""

from __future__ import annotations

import json
from typing import Any, ClassVar

from hosted import SANDBOX, Hosted
from nodes import AgentWorker
from prompts import ANSWER, check_odd_prompts

from torch_tasks import TaskState
from torch_tasks.client import Task
from torch_tasks.model.agent import AgentState
from torch_tasks.model.task import FailureKind
from torch_tasks.workers.certify.fake_model.steps import Await, Call, Fail, Text
from torch_tasks.workers.certify.home import Home
from torch_tasks.workers.sandbox.ability import why_not


class Promises:
    """What holds for all."""

    home: ClassVar[type[Home]]
    """Whose agent it is."""
    briefed_in: ClassVar[str]
    """The field of its requests that holds the briefing."""
    odd_answer: ClassVar[str] = ANSWER
    counts: ClassVar[bool] = True
    """It reports the model's own counts of tokens."""

    def kept(self, words: str) -> str:
        """The words of a prompt as the CLI keeps them."""
        return words

    def test_it_starts_through_its_dialogs_and_knows_its_briefing(self, agent: Hosted) -> None:
        assert agent.do("hello", id="hello").succeeded
        briefing = json.dumps(agent.requests("hello")[0].body[self.briefed_in])
        assert "torch-tasks done" in briefing
        assert "torch-tasks progress" in briefing

    def test_it_runs_in_a_box_where_this_machine_has_one(self, agent: Hosted) -> None:
        assert agent.is_boxed == (SANDBOX != "never" and why_not() is None)

    def test_odd_prompts_arrive_exactly_once_and_nothing_runs_locally(self, agent: Hosted) -> None:
        check_odd_prompts(agent, self.kept, self.odd_answer, counts=self.counts)

    def test_a_refused_request_is_tried_again(self, agent: Hosted) -> None:
        agent.llm.on("soon", Text("at last"))
        agent.llm.on("soon", Fail("rate_limit", retry_after=1), Text("at last"), times=1)
        assert agent.do("soon").answer == "at last"

    def test_a_cancelled_task_is_interrupted_and_leaves_a_free_agent(self, agent: Hosted) -> None:
        agent.llm.on("endless", Await("endless"))
        task = agent.give("endless")
        agent.wait(lambda: agent.llm.holding("endless"), "the model works")
        task.cancel()
        result = task.result(timeout=120)
        assert result.status is TaskState.CANCELLED
        assert result.error
        assert result.error.kind is FailureKind.CANCELLED
        agent.wait(lambda: not agent.llm.holding("endless"), "the CLI has let go")
        assert agent.do("after it", id="after-it").answer.startswith("You said: after it")
        [received] = agent.received("after-it")
        assert "endless" not in received

    def test_a_fresh_task_begins_in_its_folder_and_knows_nothing_of_the_last(self, agent: Hosted) -> None:
        folder = agent.home.folder / "elsewhere"
        folder.mkdir()
        assert agent.do("remember the kitchen", id="known").succeeded
        assert agent.do("go elsewhere", id="fresh", fresh=True, workdir=str(folder)).succeeded
        assert agent.worker.tmux("display-message", "-p", "#{pane_current_path}").strip() == str(folder)
        assert agent.do("come home", id="home").succeeded
        assert agent.worker.tmux("display-message", "-p", "#{pane_current_path}").strip() == str(agent.home.work)
        said = [json.dumps(agent.requests(task)[0].body) for task in ("known", "fresh", "home")]
        assert ["remember the kitchen" in one for one in said] == [True, False, False]
        assert ["go elsewhere" in one for one in said] == [False, True, False]

    def test_a_killed_workers_answer_comes_once(self, agent: Hosted) -> None:
        agent.llm.on("long work", Text("Begun, "), Await("killed"), Text("and ended."))
        task = agent.give("long work")
        agent.wait(lambda: agent.llm.holding("killed"), "the model works")
        agent.worker.kill()
        agent.llm.release("killed")
        agent.host()
        assert task.result(timeout=120).answer == "Begun, and ended."
        assert len(agent.received(task.id)) == 1
        assert agent.do("and the next").succeeded

    def test_killed_in_the_middle_of_a_turn_it_goes_on_in_its_conversation(self, agent: Hosted) -> None:
        agent.llm.on("cut off in the middle", Text("Begun.\n\nAnd "), Await("cut-off"))
        agent.llm.on("Go on with the task", Text("and gone on."))
        task = agent.give("cut off in the middle")
        agent.wait(lambda: agent.llm.holding("cut-off"), "the model works")
        agent.wait(lambda: "Begun." in agent.worker.screen(), "its answer is seen")
        agent.kill_machine()
        agent.llm.release("cut-off")
        agent.host()
        result = task.result(timeout=120)
        assert (result.answer, result.attempts) == ("and gone on.", 1)
        first, second = agent.received(task.id)
        assert first.startswith("cut off in the middle")
        assert "Go on with the task" in second
        assert "cut off in the middle" in json.dumps(agent.requests(task.id)[-1].body)
        assert agent.do("and the next").succeeded


class WithTorchTools:
    """What holds for those whose model gets Torch's tools."""

    home: ClassVar[type[Home]]
    torch_tool: ClassVar[str]
    """What its model calls a tool of Torch's, by the tool's name."""

    def calling(self, tool: str, **arguments: Any) -> Call:
        """The model's call of this tool."""
        return Call(self.torch_tool.format(tool), arguments)

    def test_its_model_gives_the_fleet_a_task_and_nobody_is_asked(self, agent: Hosted) -> None:
        asked = {"prompt": "true", "role": "nobody", "title": f"delegated by {self.home.cli}"}
        agent.llm.on("delegate it", self.calling("enqueue", **asked), self.calling("tasks", limit=2), Text("Done."))
        assert agent.do("delegate it", id="delegates").answer == "Done."
        [given] = [record for record in agent.torch.tasks(100) if record.spec.title == asked["title"]]
        enqueued, listed = agent.requests("delegates")[-1].tool_results[-2:]
        assert given.spec.id in enqueued
        assert "delegates" in listed
        assert TaskState.WAITING not in {entry.state for entry in agent.torch.task("delegates").history()}
        agent.torch.task(given.spec.id).cancel()

    def test_its_model_reads_what_is_wrong_and_goes_on(self, agent: Hosted) -> None:
        agent.llm.on("look it up", self.calling("task", task_id="no-such"), Text("It is not there."))
        assert agent.do("look it up", id="looks").answer == "It is not there."
        assert "there is no record of task no-such" in agent.requests("looks")[-1].tool_results[-1]

    def test_its_model_reports_on_its_task(self, agent: Hosted) -> None:
        agent.llm.on(
            "a long one",
            self.calling("progress", task_id="long", text="half of it"),
            self.calling("done", task_id="long", text="All of it."),
            Text("And that was it."),
        )
        result = agent.do("a long one", id="long")
        assert result.answer == "All of it."
        assert {"done"} <= {evidence.kind for evidence in result.evidence}
        assert "half of it" in " ".join(agent.notes(agent.torch.task("long")))

    def test_its_model_hands_its_task_over(self, agent: Hosted, shell: AgentWorker) -> None:
        given = {"task_id": "over", "to": "finisher", "note": "the rest is yours"}
        agent.llm.on("echo finished by a shell", self.calling("handoff", **given), Text("Handed over."))
        result = agent.do("echo finished by a shell", id="over")
        assert (result.agent, result.answer) == ("finisher-1", "finished by a shell\n")
        handover = agent.torch.task("over").record().handover
        assert handover
        assert (handover.by, handover.owner, handover.note) == ("developer-1", "developer-1", "the rest is yours")
        assert agent.do("and the next").succeeded


class WithTools(Promises):
    """What holds for those that run commands and whose composer takes any prompt."""

    shell_tool: ClassVar[str]
    """What its shell tool is called in questions."""
    allow_choice: ClassVar[str]
    """The first answer to a question for permission."""
    large_lines: ClassVar[int] = 2000

    def large_prompt(self) -> str:
        """A prompt of so many lines of a hundred characters."""
        return "\n".join(f"{number}: " + "0123456789 " * 9 for number in range(self.large_lines))

    def making(self, agent: Hosted, name: str) -> Call:
        """The call of a tool that makes this file; the CLI asks before it."""
        return agent.home.shell(f"touch {name}")

    def leave(self, agent: Hosted) -> None:
        """Leave the CLI as its person does."""
        agent.worker.tmux("send-keys", *agent.home.exit_keys)

    def check_denied(self, agent: Hosted, task: Task) -> None:
        """What became of a task whose one tool call the policy denied; the model then said "Tried."."""
        raise NotImplementedError

    def test_a_large_prompt_is_pasted_whole(self, agent: Hosted) -> None:
        prompt = self.large_prompt()
        assert agent.do(prompt, id="large").succeeded
        [received] = agent.received("large")
        assert received.startswith(prompt)

    def test_long_answers_are_complete_and_counted_and_leave_the_composer_free(self, agent: Hosted) -> None:
        answer = "# Heading\n\n" + "\n".join(f"- row *{number}*" for number in range(120))
        agent.llm.on("tell it", Text(answer, chunk=40, pause=0.002))
        assert agent.do("tell it first").succeeded
        result = agent.do("tell it again\n" + "of many lines\n" * 30)
        assert result.answer == answer
        assert result.usage
        assert result.usage.input_tokens > 1000
        assert result.usage.output_tokens > 100

    def test_a_permission_is_asked_for_and_given(self, agent: Hosted) -> None:
        agent.llm.on("make one", Text("I will."), agent.home.shell("touch one"), Text("It is **there**."))
        task = agent.give("make one")
        agent.wait(lambda: (asked := task.record().question) and asked.choices, "the task waits for the permission")
        question = task.record().question
        assert question
        assert question.subject == f"{self.shell_tool}(touch one)"
        assert question.choices[0] == self.allow_choice
        agent.wait(lambda: agent.worker.agent_state is AgentState.WAITING, "the fleet knows that it waits")
        assert not (agent.home.work / "one").exists()
        task.answer("1")
        assert task.result(timeout=120).answer == "It is **there**."
        assert (agent.home.work / "one").exists()

    def test_a_policy_allows_and_denies_without_anybody(self, agent: Hosted) -> None:
        agent.llm.on("make two", self.making(agent, "two"), Text("Tried."))
        agent.llm.on("policy does not allow", Text("Tried."))
        denied = agent.give("make two, may not", permissions="deny", max_retries=0)
        self.check_denied(agent, denied)
        assert not (agent.home.work / "two").exists()
        allowed = agent.give("make two, may", permissions="allow")
        assert allowed.result(timeout=120).answer == "Tried."
        assert (agent.home.work / "two").exists()
        assert any("allowed " in note and "two)" in note for note in agent.notes(allowed)), agent.notes(allowed)

    def test_a_person_in_the_pane_is_left_alone(self, agent: Hosted) -> None:
        agent.worker.tmux("send-keys", "my own words")
        agent.wait(lambda: "my own words" in agent.worker.screen(), "the person's words are drawn")
        task = agent.give("wait for me")
        agent.wait(lambda: task.status is TaskState.WAITING, "the task waits")
        assert "typing" in agent.notes(task)[-1]
        assert "my own words" in agent.worker.screen()
        agent.type_until(lambda: "my own words" not in agent.worker.screen(), "C-u")
        assert task.result(timeout=120).succeeded
        [received] = agent.received(task.id)
        assert received.startswith("wait for me")

    def test_its_person_leaves_it_and_it_comes_back(self, agent: Hosted) -> None:
        before = agent.worker.pane()
        self.leave(agent)
        agent.await_new_program(before)
        assert agent.do("back again").succeeded


class WithAccounts(WithTools):
    """What holds for the CLIs that give up soon and say why."""

    def test_an_overload_ends_the_try(self, agent: Hosted) -> None:
        agent.llm.on("crowded", *[Fail("overloaded")] * 9)
        result = agent.do("crowded", max_retries=0)
        assert result.error
        assert result.error.kind is FailureKind.OVERLOADED

    def test_a_rate_limit_parks_the_task_which_is_done_afterwards(self, agent: Hosted) -> None:
        agent.llm.on("at its limit", Text("Now it works."))
        agent.llm.on("at its limit", *[Fail("rate_limit", retry_after=1)] * 4, times=1)
        task = agent.give("at its limit")
        assert task.result(timeout=120).answer == "Now it works."
        assert TaskState.PARKED in [entry.state for entry in task.history()]
        assert len(agent.received(task.id)) == 2
