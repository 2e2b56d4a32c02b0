"""Programs that speak the Agent Client Protocol, played by a fake: prompts, questions, faults, and killed processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from fakes.acp import ALLOW, ALWAYS, REJECT, FakeAcp
from nodes import Node
from waiting import until

from torch_tasks import TaskState, Torch
from torch_tasks.app import ANSWER, app
from torch_tasks.client import Task
from torch_tasks.model.agent import AgentState
from torch_tasks.model.task import FailureKind, Question
from torch_tasks.workers.tmux.pane import alive

SECONDS = 60


class Desk:
    """One agent of the kind, its fake program, and its client."""

    def __init__(self, node: Node, torch: Torch, agent_id: str, more: str = "", **start: Any) -> None:
        """``more`` goes to the end of the kind's TOML, ``start`` to the program."""
        self.fake = FakeAcp(node.folder / agent_id)
        self.fake.play(**start)
        self.torch = torch
        self._node = node
        self._agent_id = agent_id
        self._config = node.folder / f"config-{agent_id}"
        (self._config / "agents").mkdir(parents=True)
        toml = f'base = "acp"\ncommand = ["{self.fake.program}"]\n{more}'
        (self._config / "agents" / "fake.toml").write_text(toml)

    def host(self, *, is_awaited: bool = True, **environment: str) -> Desk:
        """Start a worker for it, the first or the next."""
        environment["TORCH_CONFIG_DIR"] = str(self._config)
        self.worker = self._node.agent_worker(self._agent_id, kind="fake", is_awaited=is_awaited, **environment)
        return self

    def give(self, prompt: str, **options: Any) -> Task:
        return self.torch.enqueue(prompt, agent=self._agent_id, **options)

    def received(self, task: Task) -> list[str]:
        """The prompts of this task that the program received."""
        return [prompt for prompt in self.fake.prompts() if f"[torch task {task.id} " in prompt]

    def notes(self, task: Task) -> str:
        return "\n".join(entry.note or "" for entry in task.history())

    def type(self, *keys: str) -> None:
        """A person at the keyboard of the pane."""
        self.worker.tmux("send-keys", *keys)

    def wait(self, condition: Callable[[], object], what: str) -> None:
        """Wait for the condition; if it does not come true, the failed test shows the screen."""
        until(condition, what, SECONDS, self.worker.screen)

    def sees(self, text: str) -> None:
        self.wait(lambda: text in self.worker.screen(), f"{text!r} is on the screen")

    def asks(self, task: Task) -> Question:
        """The question of the task, once there is one."""

        def asked() -> Question | None:
            record = task.record()
            return record.question if record.state is TaskState.WAITING else None

        return until(asked, "the task waits", SECONDS, self.worker.screen)

    def program(self) -> psutil.Process:
        """The agent's program, the child of the pane's."""
        [program] = psutil.Process(self.worker.pane()[1]).children()
        return program


@pytest.fixture(scope="module")
def hosted(shared_node: Node, torch: Torch) -> Desk:
    return Desk(shared_node, torch, "developer-1", 'acp.mode = "code"\n').host()


@pytest.fixture
def desk(hosted: Desk) -> Iterator[Desk]:
    """The agent of most tests; it does its tasks at once. What a failed test leaves it with is cancelled."""
    hosted.fake.play()
    yield hosted
    hosted.fake.play()
    for record in hosted.torch.tasks():
        if not record.state.ended:
            hosted.torch.task(record.spec.id).cancel()


HOSTILE = {
    "quotes": 'it\'s "quoted" `id` $(id) $HOME \\ %s {a,b} * ? [x] ; | & < > ~',
    "emoji": "é 漢字 🚒 👩\u200d🚒 ﷽",
    "slash": "/exit and /help are words here",
    "json": '{"jsonrpc": "2.0", "id": 1, "method": "session/cancel"}',
    "lines": "\n".join(f"line {number}" for number in range(300)),
    "tabs": "\tone\ttwo\n\tthree",
    "large": "0123456789 " * 20_000,
    "blanks": "  begins and ends with blanks  ",
    "marks": "> mine\n[ready] > mine\n? Allow it?\n  1. Yes",
    "x": "x",
}


def test_prompts_arrive_whole_and_once_and_are_drawn(desk: Desk) -> None:
    tasks = {name: desk.give(prompt) for name, prompt in HOSTILE.items()}
    for name, task in tasks.items():
        result = task.result(timeout=SECONDS)
        assert (name, result.answer) == (name, "It is done.")
        [received] = desk.received(task)
        assert f"{HOSTILE[name]}\n\n[torch task {task.id} " in received
        assert [step in desk.notes(task) for step in ("staged", "submitted", "accepted")] == [True] * 3
    assert len(desk.fake.prompts()) >= len(HOSTILE)
    desk.sees("[ready] >")


def test_the_mode_that_the_kind_names_is_set(desk: Desk) -> None:
    assert [given["modeId"] for given in desk.fake.received("session/set_mode")] == ["code"]


def test_the_answer_is_what_it_said_last(desk: Desk) -> None:
    desk.fake.play(
        {"say": "I will."},
        {"tool": "ls"},
        {"say": "It "},
        {"say": "is **there**."},
        {"usage": 0.25},
        {"stop": "end_turn"},
    )
    result = desk.give("look").result(timeout=SECONDS)
    assert result.answer == "It is **there**."
    assert result.evidence[0].detail.startswith("acp end_turn")
    assert result.usage
    assert (result.usage.input_tokens, result.usage.output_tokens, result.usage.cost_usd) == (5, 7, 0.25)


def test_what_the_program_sends_steers_no_terminal(desk: Desk) -> None:
    desk.fake.play({"say": "\x1b]0;owned\x07\x1b[2Jred \x1b[31m text\n"}, {"tool": "\x1b[2Jrm"})
    assert desk.give("steer").result(timeout=SECONDS).succeeded
    desk.sees("␛[2Jred ␛[31m text")
    desk.sees("✓ ␛[2Jrm")


@pytest.mark.parametrize(
    ("reply", "option"), [("1", "yes"), ("always allow", "ever"), ("deny", "no"), ("allow", "yes")]
)
def test_a_permission_is_asked_for_and_answered_by_a_person(desk: Desk, reply: str, option: str) -> None:
    desk.fake.play({"ask": [ALLOW, ALWAYS, REJECT]}, {"say": "Tried."})
    task = desk.give("touch it")
    question = desk.asks(task)
    assert (question.subject, question.choices) == ("execute(touch it)", ("Allow", "Always allow", "Reject"))
    task.answer(reply)
    assert task.result(timeout=SECONDS).answer == "Tried."
    assert desk.fake.received("answer")[-1]["outcome"] == {"outcome": "selected", "optionId": option}


@pytest.mark.parametrize(("policy", "option"), [("allow", "yes"), ("deny", "no")])
def test_a_policy_answers_for_this_one_time(desk: Desk, policy: str, option: str) -> None:
    desk.fake.play(
        {"ask": [ALWAYS, ALLOW, {**REJECT, "kind": "reject_always", "optionId": "never"}, REJECT]}, {"say": "Tried."}
    )
    task = desk.give("touch it", permissions=policy)
    assert task.result(timeout=SECONDS).answer == "Tried."
    assert desk.fake.received("answer")[-1]["outcome"]["optionId"] == option
    assert f"{'allowed' if policy == 'allow' else 'denied'} execute(touch it)" in desk.notes(task)


def test_a_policy_never_takes_what_lasts_and_a_question_without_choices_can_be_denied(desk: Desk) -> None:
    desk.fake.play({"ask": [ALWAYS]}, {"ask": []}, {"say": "Tried."})
    task = desk.give("touch it", permissions="allow")
    assert desk.asks(task).choices == ("Always allow",)
    task.answer("1")
    desk.wait(lambda: task.record().question and not task.record().question.choices, "it asks without choices")
    task.answer("deny")
    assert task.result(timeout=SECONDS).answer == "Tried."
    assert desk.fake.received("answer")[-1]["outcome"] == {"outcome": "cancelled"}


MODE = {"update": {"sessionUpdate": "current_mode_update", "currentModeId": "ask"}}


@pytest.mark.parametrize("step", [{"ask": [ALLOW, ALWAYS]}, MODE], ids=["a lasting choice", "another mode"])
def test_what_a_choice_changed_for_later_is_gone_with_its_program(desk: Desk, step: dict[str, Any]) -> None:
    assert desk.give("say where you are").result(timeout=SECONDS).succeeded  # no program is being replaced then
    before = desk.worker.pane()[1]
    desk.fake.play(step, {"say": "It is done."})
    task = desk.give("change it")
    if "ask" in step:
        assert desk.asks(task).lasting == (2,)
        desk.sees("2. Always allow [also for later]")
        task.answer("2")
    assert task.result(timeout=SECONDS).succeeded
    desk.fake.play()
    assert desk.give("and on").result(timeout=SECONDS).succeeded
    assert desk.worker.pane()[1] != before


def test_a_person_answers_in_the_pane_and_types_a_prompt(desk: Desk) -> None:
    desk.fake.play({"ask": [ALLOW, REJECT]}, {"say": "Tried."})
    task = desk.give("touch it")
    desk.asks(task)
    desk.type("2", "Enter")
    assert task.result(timeout=SECONDS).answer == "Tried."
    assert desk.fake.received("answer")[-1]["outcome"]["optionId"] == "no"
    desk.fake.play()
    desk.type("-l", "my own prómptX")
    desk.type("BSpace", "Enter")
    desk.wait(lambda: desk.fake.prompts()[-1] == "my own prómpt", "the program has the person's prompt")
    desk.type("-l", "a draft")
    assert desk.give("beside a draft").result(timeout=SECONDS).succeeded
    desk.sees("[ready] > a draft")
    desk.type("C-u")


def test_a_cancelled_task_leaves_a_free_agent(desk: Desk) -> None:
    desk.fake.play({"ask": [ALLOW]})
    asked = desk.give("ask me")
    desk.asks(asked)
    asked.cancel()
    assert asked.result(timeout=SECONDS).status is TaskState.CANCELLED
    assert desk.fake.received("answer")[-1]["outcome"] == {"outcome": "cancelled"}
    desk.fake.play({"hold": "endless"})
    endless = desk.give("endless")
    desk.wait(lambda: desk.fake.holds("endless"), "the program works")
    before = desk.program()
    endless.cancel()
    assert endless.result(timeout=SECONDS).status is TaskState.CANCELLED
    desk.fake.play()
    assert desk.give("after it").result(timeout=SECONDS).succeeded
    assert desk.program() == before


def test_a_program_that_hears_of_no_cancellation_is_ended(desk: Desk) -> None:
    desk.fake.play({"say": "I will.\n"}, {"deaf": True})
    task = desk.give("never end")
    desk.sees("I will.")
    before = desk.program()
    task.cancel()
    assert task.result(timeout=SECONDS).status is TaskState.CANCELLED
    desk.fake.play()
    assert desk.give("after it").result(timeout=SECONDS).succeeded
    desk.wait(lambda: not alive(before), "the deaf program is gone")


def test_a_person_interrupts_a_turn(desk: Desk) -> None:
    desk.fake.play({"hold": "interrupted"})
    task = desk.give("hold", max_retries=0)
    desk.wait(lambda: desk.fake.holds("interrupted"), "the program works")
    desk.type("C-c")
    error = task.result(timeout=SECONDS).error
    assert error
    assert "interrupted" in error.message


@pytest.mark.parametrize(
    ("step", "kind", "words"),
    [
        ({"stop": "refusal"}, FailureKind.AGENT_FAILED, "refuses"),
        ({"stop": "max_tokens"}, FailureKind.AGENT_FAILED, "most tokens"),
        (
            {"error": {"code": -32603, "message": "Internal error", "data": {"details": "boom"}}},
            FailureKind.AGENT_FAILED,
            "boom",
        ),
        ({"error": {"code": 529, "message": "Overloaded"}}, FailureKind.OVERLOADED, "Overloaded"),
    ],
)
def test_why_a_turn_failed_is_told(desk: Desk, step: dict[str, Any], kind: FailureKind, words: str) -> None:
    desk.fake.play(step)
    error = desk.give("fail", max_retries=0).result(timeout=SECONDS).error
    assert error
    assert (error.kind, words in error.message) == (kind, True)


def test_garbage_and_a_line_of_ten_megabytes_stop_nothing(desk: Desk) -> None:
    desk.fake.play(
        {"garbage": "42"}, {"garbage": "not \x1b[31m JSON"}, {"garbage": "[" * 100_000}, {"long": 10_000_000}
    )
    result = desk.give("shout").result(timeout=SECONDS)
    assert result.succeeded
    assert result.answer_file
    assert Path(result.answer_file).stat().st_size == 10_000_000
    assert desk.give("after it").result(timeout=SECONDS).succeeded


def test_a_killed_workers_task_goes_on_and_comes_once(desk: Desk) -> None:
    desk.fake.play({"say": "Begun, "}, {"hold": "killed"}, {"say": "and ended."})
    task = desk.give("long work")
    desk.wait(lambda: desk.fake.holds("killed"), "the program works")
    desk.worker.kill()
    desk.fake.release("killed")
    desk.host()
    assert task.result(timeout=SECONDS).answer == "Begun, and ended."
    assert len(desk.received(task)) == 1


def test_a_worker_killed_while_a_question_is_open_answers_it(desk: Desk) -> None:
    desk.fake.play({"ask": [ALLOW, REJECT]}, {"say": "Tried."})
    task = desk.give("touch it")
    desk.asks(task)
    desk.worker.kill()
    desk.host(is_awaited=False)
    desk.wait(lambda: desk.worker.info.pid == desk.worker.process.pid, "it is coming back, and hears nothing yet")
    task.answer("1")
    assert task.result(timeout=SECONDS).answer == "Tried."


def test_an_answer_that_is_passed_on_twice_is_given_once(desk: Desk) -> None:
    desk.fake.play({"ask": [ALLOW]}, {"ask": [ALLOW, ALWAYS, REJECT]}, {"say": "Tried."})
    task = desk.give("touch two")
    desk.asks(task)
    worker = f"developer-1@{task.record().node}"
    for _ in range(2):
        command = {"task_id": task.id, "reply": "1", "ticket": "the same"}
        said = app.control.broadcast(ANSWER, command, [worker], reply=True, timeout=SECONDS, limit=1)
        assert said == [{worker: {"ok": True}}]
        desk.wait(lambda: (now := task.record().question) and len(now.choices) == 3, "it asks once more")
    task.answer("3")
    assert task.result(timeout=SECONDS).answer == "Tried."
    chosen = [answer["outcome"]["optionId"] for answer in desk.fake.received("answer")[-2:]]
    assert chosen == ["yes", "no"]


@pytest.mark.parametrize("victim", ["agent", "pane"])
def test_a_program_killed_in_a_turn_is_started_again_and_goes_on_with_session_and_task(
    shared_node: Node, torch: Torch, victim: str
) -> None:
    desk = Desk(shared_node, torch, f"killed-{victim}", load=True).host()
    desk.fake.play({"hold": "begun"}, load=True)
    task = desk.give("survive")
    desk.wait(lambda: desk.fake.holds("begun"), "the program works")
    agent = desk.program()
    desk.fake.play(load=True)
    (agent if victim == "agent" else agent.parent()).kill()
    assert task.result(timeout=SECONDS).succeeded
    assert "the next one has its conversation: asked to go on" in desk.notes(task)
    prompt, further = desk.received(task)
    assert "survive" in prompt
    assert "Go on with the task where you were" in further
    assert task.record().attempts == 1
    desk.wait(lambda: not alive(agent), "nothing of the former program is left")
    [load] = desk.fake.received("session/load")
    assert load["sessionId"].startswith("session-")
    desk.sees("As I said.")


def test_a_program_that_dies_in_a_turn_says_so(desk: Desk) -> None:
    desk.fake.play({"die": 7})
    error = desk.give("die", max_retries=0).result(timeout=SECONDS).error
    assert error
    assert error.kind is FailureKind.AGENT_CRASHED
    desk.fake.play()
    assert desk.give("after it").result(timeout=SECONDS).succeeded


# ── what keeps it from starting ──────────────────────────────────────────────────────────────────────────────────


def test_another_version_is_refused_by_name(shared_node: Node, torch: Torch) -> None:
    desk = Desk(shared_node, torch, "newer", version=2).host(is_awaited=False)
    until(lambda: desk.worker.status == "exited", "the worker gives up", SECONDS)
    said = " ".join(desk.worker.logs().split())  # its pane wraps the words, where that is depends on the path
    assert "speaks version 2 of the Agent Client Protocol, and Torch speaks version 1" in said


def test_a_mode_that_is_not_there_is_refused_by_name(shared_node: Node, torch: Torch) -> None:
    desk = Desk(shared_node, torch, "moded", 'acp.mode = "yolo"\n').host(is_awaited=False)
    until(lambda: desk.worker.status == "exited", "the worker gives up", SECONDS)
    assert "fake 7.8 has no mode 'yolo'; there are: ask, code" in " ".join(desk.worker.logs().split())


def test_a_login_is_a_persons_who_chooses_how(shared_node: Node, torch: Torch) -> None:
    desk = Desk(shared_node, torch, "stranger", auth="at once", garbage=["welcome!"]).host(is_awaited=False)
    until(lambda: desk.worker.agent_state is AgentState.LOGIN, "the agent wants a login", SECONDS)
    assert desk.worker.info
    assert desk.worker.info.asks == "fake 7.8 wants a login. How?"
    desk.sees("not of the protocol: welcome!")
    desk.sees("1. Key card: Hold it to the reader")
    task = desk.give("once you are in")
    desk.type("1", "Enter")
    assert task.result(timeout=SECONDS).succeeded
    assert desk.fake.received("authenticate") == [{"methodId": "card"}]


def test_a_login_that_a_turn_wants_is_waited_for_and_the_prompt_given_again(shared_node: Node, torch: Torch) -> None:
    desk = Desk(shared_node, torch, "expired", auth="later").host()
    desk.fake.play({"login": "Your login has expired"}, {"say": "It is done."}, auth="later")
    task = desk.give("go on")
    desk.wait(lambda: desk.worker.agent_state is AgentState.LOGIN, "the agent wants a login")
    desk.sees("Your login has expired")
    desk.wait(lambda: task.record().question, "the task says what is asked")
    task.answer("1")
    assert task.result(timeout=SECONDS).answer == "It is done."
    assert len(desk.received(task)) == 2
    (desk.fake.folder / "logged-in").unlink()
    cancelled = desk.give("never mind")
    desk.wait(lambda: desk.worker.agent_state is AgentState.LOGIN, "the agent wants a login again")
    cancelled.cancel()
    assert cancelled.result(timeout=SECONDS).status is TaskState.CANCELLED


def test_a_program_that_says_nothing_is_shown_and_waited_for(shared_node: Node, torch: Torch) -> None:
    desk = Desk(shared_node, torch, "silent", silent=True)
    desk.host(is_awaited=False, TORCH_AGENT_START_SECONDS="15")
    until(lambda: desk.worker.agent_state is AgentState.WAITING, "the agent waits for a person", SECONDS)
    assert desk.worker.info
    assert desk.worker.info.asks == "the agent's program is starting (initialize)"
