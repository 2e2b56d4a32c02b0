"""What Torch promises of every program, each tried on one agent in the order in which they stand here.

The model's log is the witness: what it received, how often, and what its tool calls returned.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch_tasks.errors import PromiseBroken
from torch_tasks.model.agent import AgentState
from torch_tasks.model.task import FailureKind, Permissions
from torch_tasks.workers.certify.agent import TriedAgent, TriedTask
from torch_tasks.workers.certify.fake_model.steps import Await, Fail, Text
from torch_tasks.workers.certify.prompts import HOSTILE_PROMPTS, RAN_LOCALLY
from torch_tasks.workers.programs.config import KindConfig
from torch_tasks.workers.programs.kind import Hindrance

_ANSWER = "The answer is *forty-two*,\n\nand that is all."
_UNTOUCHED_SECONDS = 2.0
"""How long a person's draft is watched."""
_PRESS_SECONDS = 1.0
"""How long a person waits before they press the same key again."""
_MANY = 9
"""More failures of the model than any program tries again."""


@dataclass(frozen=True)
class Promise:
    """One promise, and what shows whether it holds: it returns what was seen, or raises :class:`PromiseBroken`."""

    name: str
    check: Callable[[TriedAgent], str]
    is_needed: bool = False
    """Without it, nothing after it can be tried."""


def _require(holds: object, otherwise: str) -> None:
    if not holds:
        raise PromiseBroken(otherwise)


# ── the start ────────────────────────────────────────────────────────────────────────────────────────────────────────


def first_run(agent: TriedAgent) -> str:
    """A newcomer's program gets through its dialogs to its prompt, and the model has the agent's briefing."""
    agent.start()
    task = agent.do("hello")
    briefing = json.dumps(task.requests()[0].body)
    agent.save_screen("ready")
    _require("torch-tasks done" in briefing, "its model's briefing does not say how to report to Torch")
    return "started from an empty home, briefed"


def new_folder(agent: TriedAgent) -> str:
    """A program that is started in a folder that is not trusted yet takes a task there."""
    folder = agent.home.folder / "never-seen"
    folder.mkdir()
    agent.start(folder)
    agent.do("hello from here")
    look = agent.pane.look()
    _require(look and Path(look.cwd) == folder, f"it works in {look.cwd if look else 'no folder'}, not in {folder}")
    agent.start()
    return "started in a folder that is not trusted yet"


# ── prompts and answers ──────────────────────────────────────────────────────────────────────────────────────────────


def prompts(agent: TriedAgent) -> str:
    """Each hostile prompt reaches the model byte for byte and once, nothing of it runs, and the answer comes back."""
    before = len(agent.llm.prompts(agent.home.key))
    rule = agent.llm.on("torch task certify-hostile-", Text(_ANSWER))
    for hostile in HOSTILE_PROMPTS:
        task = agent.do(hostile.prompt, name=f"hostile-{hostile.name}")
        task.require_exact(agent.home.kept(hostile.arrives))
        _require(task.answer == _ANSWER, f"the answer to {hostile.name} came back as {task.answer[:80]!r}")
    agent.llm.off(rule)
    came = len(agent.llm.prompts(agent.home.key)) - before
    _require(came == len(HOSTILE_PROMPTS), f"the model received {came} prompts, {len(HOSTILE_PROMPTS)} were given")
    _require(not (agent.home.work / RAN_LOCALLY).exists(), "it ran a prompt as a command of its own")
    return f"{len(HOSTILE_PROMPTS)} arrived exactly, once"


# ── questions ────────────────────────────────────────────────────────────────────────────────────────────────────────


def permission_answered(agent: TriedAgent) -> str:
    """What it asks for is not done before a person has allowed it, and then it is."""
    agent.llm.on("make the first", *agent.home.creates("first.txt"))
    task = agent.give("make the first")
    question = task.await_question()
    agent.save_screen("permission")
    _require(question.subject, f"it asks {question.text!r}, and nothing shows for what")
    made = agent.home.work / "first.txt"
    _require(not made.exists(), f"it did {question.subject} before it was allowed to")
    once = next((one for one in range(1, len(question.choices) + 1) if one not in question.lasting), 1)
    task.reply(question, str(once))
    task.await_success()
    _require(made.exists(), f"it was allowed {question.subject} and did not do it")
    return f"{question.subject}, allowed by a person"


def permission_allowed(agent: TriedAgent) -> str:
    """What the policy allows is done without a person."""
    agent.llm.on("make the second", *agent.home.creates("second.txt"))
    task = agent.do("make the second", permissions=Permissions.ALLOW)
    _require((agent.home.work / "second.txt").exists(), "it was allowed to make a file and did not make it")
    return _by_policy(task, "allowed ")


def permission_denied(agent: TriedAgent) -> str:
    """What the policy denies is not done, and the turn ends."""
    agent.llm.on("make the third", *agent.home.creates("third.txt"))
    task = agent.give("make the third", permissions=Permissions.DENY)
    task.await_end()
    _require(not (agent.home.work / "third.txt").exists(), "it made a file that it was denied")
    return _by_policy(task, "denied ")


def _by_policy(task: TriedTask, word: str) -> str:
    found = next((note for note in task.news if note.startswith(word)), "")
    _require(found, f"nothing was {word.strip()} by the policy")
    return found


def question(agent: TriedAgent) -> str:
    """A question with choices reaches a person, and the model gets the choice."""
    colours = ("crimson", "turquoise")
    agent.llm.on("paint the wall", agent.home.choosing("Which colour?", *colours), Text("Painted."))
    task = agent.give("paint the wall")
    asked = task.await_question(about=colours[0])
    agent.save_screen("question")
    task.reply(asked, colours[1])
    task.await_success()
    results = task.requests()[-1].tool_results[-1:]
    _require(results and colours[1] in results[0], f"the model got {results} as the choice, not {colours[1]}")
    return f"{asked.text}: {colours[1]}"


# ── the model's troubles ─────────────────────────────────────────────────────────────────────────────────────────────


def usage_limit(agent: TriedAgent) -> str:
    """A used-up limit is seen as such, and the next prompt after it is answered."""
    rule = agent.llm.on("use it up", *[Fail("usage_limit", resets_in=7200)] * _MANY)
    task = agent.give("use it up")
    until = task.await_state(AgentState.LIMITED).reading.until
    agent.save_screen("limited")
    agent.llm.off(rule)
    if agent.home.gives_up:
        agent.start()
    else:
        agent.stop(task)
    agent.do("after the limit")
    return f"seen, {'with its end' if until else 'without its end'}"


def overload(agent: TriedAgent) -> str:
    """An overloaded model ends the try as such, or the program itself tries again until it is answered."""
    if agent.home.gives_up:
        agent.llm.on("crowded", *[Fail("overloaded")] * _MANY)
        failure = agent.give("crowded").await_end().failure
        _require(failure, "the try counts as done, though the model never answered")
        assert failure
        _require(failure.kind is FailureKind.OVERLOADED, f"it counts as {failure.kind}: {failure.message}")
        return failure.message
    agent.llm.on("crowded", Text("at last"))
    agent.llm.on("crowded", Fail("overloaded"), Text("at last"), times=1)
    task = agent.do("crowded")
    _require(task.answer.strip() == "at last", f"it was answered {task.answer!r}")
    return "it tries again by itself"


def compaction(agent: TriedAgent) -> str:
    """A conversation that is made shorter loses no prompt."""
    agent.llm.on("much more", Text("It fits now."))
    if command := agent.home.compact_command:
        agent.await_free()
        agent.pane.press(command)
        time.sleep(_PRESS_SECONDS)
        agent.pane.press("Enter")
        agent.wait(lambda: "compaction" in _sides(agent), f"{command} has it ask its model for a summary")
    else:
        agent.llm.on("much more", Fail("too_long"), times=1)
    task = agent.do("much more")
    _require(task.answer.strip() == "It fits now.", f"it was answered {task.answer!r}")
    _require("compaction" in _sides(agent), "it never asked its model for a summary")
    return "waited for"


def _sides(agent: TriedAgent) -> set[str | None]:
    """What the program has asked its model on its own."""
    return {request.side for request in agent.llm.requests(agent.home.key)}


# ── people, signals, workers ─────────────────────────────────────────────────────────────────────────────────────────


def interrupt(agent: TriedAgent) -> str:
    """An interrupted task lets go of the model and leaves a free agent, with nothing of it in the next prompt."""
    begin = [] if agent.home.shows_silent_work else [Text("I begin.")]
    agent.llm.on("endless", *begin, Await("endless"))
    task = agent.give("endless")
    _await_held(agent, task, "endless")
    agent.stop(task)
    agent.wait(lambda: not agent.llm.holding("endless"), "it has let go of the model")
    after = agent.do("what comes next")
    after.require_exact("what comes next")
    return "stopped, and free for the next"


def draft(agent: TriedAgent) -> str:
    """What a person has typed stays as it is, and is never part of a task's prompt."""
    agent.await_free()
    words = "my own words"
    agent.pane.press(words)
    agent.wait(lambda: words in agent.pane.screen(), "a person's words are drawn")
    agent.save_screen("draft")
    if agent.home.leaves_composer_alone:
        task = agent.do("beside a draft")
        _require(words in agent.pane.screen(), "a person's draft is gone from the screen")
        agent.pane.press("C-u")
    else:
        _require_untouched(agent, words)
        while words in agent.pane.screen():
            agent.pane.press("C-u")
            time.sleep(_PRESS_SECONDS)
        task = agent.do("beside a draft")
    task.require_exact("beside a draft")
    return "left alone"


def _require_untouched(agent: TriedAgent, words: str) -> None:
    end = time.monotonic() + _UNTOUCHED_SECONDS
    while time.monotonic() < end:
        agent.kind.clear_input(agent.pane)
        why = agent.kind.hindrance(agent.pane)
        _require(not agent.kind.is_free(agent.pane), "it counts as free while a person's draft is in its composer")
        _require(why is Hindrance.PERSON, f"a person's draft is taken for something else: {why}")
        _require(words in agent.pane.screen(), "a person's draft is gone from the screen")
        agent.bell.wait(0.2)


def killed_worker(agent: TriedAgent) -> str:
    """A worker that is gone in mid-turn costs nothing: the next one has the whole answer, of one prompt."""
    agent.llm.on("long work", Text("Begun, "), Await("killed"), Text("and ended."))
    task = agent.give("long work")
    _await_held(agent, task, "killed")
    agent.replace_worker()
    agent.llm.release("killed")
    task.await_success()
    _require(task.answer == "Begun, and ended.", f"the next worker has the answer {task.answer!r}")
    task.require_exact("long work")
    return "its successor has the answer"


def _await_held(agent: TriedAgent, task: TriedTask, name: str) -> None:
    """Wait until the model works on the task's prompt, and Torch knows that the program has it."""
    task.watch_until(lambda _: agent.llm.holding(name), "its model works on it")
    task.watch_until(lambda _: any(note.startswith("accepted") for note in task.news), "Torch knew that it has it")


def resumed(agent: TriedAgent) -> str:
    """A program that was killed goes on with its conversation: the model hears again what was said in it."""
    agent.do("remember the lighthouse")
    agent.wait(agent.home.is_resumable, "it is able to go on with its conversation")
    conversation = agent.kind.conversation
    _require(conversation and agent.kind.is_kept(conversation), "nothing is left by which its conversation is found")
    agent.kill()
    agent.start(resumes=conversation)
    task = agent.do("what did I ask you to remember?")
    said = json.dumps(task.requests()[0].body)
    _require("remember the lighthouse" in said, "its model knows nothing of the conversation before it was killed")
    return "killed, and back in its conversation"


def leaving(agent: TriedAgent) -> str:
    """A person leaves the program by its keys; Torch sees that, starts it anew, and it takes a task."""
    agent.await_free()
    deadline = time.monotonic() + 60
    while agent.terminal.is_alive:
        _require(time.monotonic() < deadline, f"{' '.join(agent.home.exit_keys)} do not end it")
        agent.home.leave(agent.pane)
        end = time.monotonic() + 8
        while agent.terminal.is_alive and time.monotonic() < end:
            agent.bell.wait(0.2)
    agent.start()
    agent.do("back again")
    return "left by its keys, and back"


PROMISES = (
    Promise("first run", first_run, is_needed=True),
    Promise("new folder", new_folder),
    Promise("prompts", prompts),
    Promise("permission answered", permission_answered),
    Promise("permission allowed", permission_allowed),
    Promise("permission denied", permission_denied),
    Promise("question", question),
    Promise("interrupt", interrupt),
    Promise("draft", draft),
    Promise("killed worker", killed_worker),
    Promise("session resumed", resumed),
    Promise("compaction", compaction),
    Promise("overload", overload),
    Promise("usage limit", usage_limit),
    Promise("exit", leaving),
)

NOT_APPLICABLE: Mapping[str, Mapping[str, str]] = {
    "codex": {"question": "it asks such questions only in its plan mode"},
    "acp": {
        "question": "the protocol knows permissions and no questions",
        "compaction": "the protocol does not tell of it",
    },
    "aider": {
        "question": "its model has no tools, so it asks only for permission",
        "usage limit": "it tells a used-up limit and an overload in the same words",
        "compaction": "it makes its history shorter by itself, unseen",
    },
}
"""By the program's name, or the way in which it is driven, and the promise's: what cannot be done, and why."""

_WITHOUT_TOOL = "its file names no tool before which it asks: [certify.tool]"
_BEGINS_ANEW = "its file names no way to go on with a conversation: [conversation]"
_OWN_ALWAYS = {
    "question": "only Torch's own kinds say how their models ask",
    "compaction": "nothing says how it compacts",
}


def not_applicable(home: str, config: KindConfig) -> Mapping[str, str]:
    """What does not apply to a program: by the table, or to a user's own by its file."""
    own = config.certify
    if own is None:
        return NOT_APPLICABLE.get(home, {})
    asks = ("permission answered", "permission allowed", "permission denied")
    without_tool = {} if own.tool else dict.fromkeys(asks, _WITHOUT_TOOL)
    begins_anew = {} if config.conversation.resume else {"session resumed": _BEGINS_ANEW}
    return {**_OWN_ALWAYS, **without_tool, **begins_anew, **own.not_applicable}
