"""Messages from their senders into the panes: once, in order, word for word, and the way back."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_kind import FakeKind, words
from fakes.cli.scenario import Scenario, Turn
from fakes.cli.steps import Permission, Run, Say, Work
from machine import TORCH_TASKS
from nodes import AgentWorker, Node
from waiting import until

from torch_tasks import Torch
from torch_tasks.communication import MessageState, NovaOrchestrator
from torch_tasks.errors import NoReply
from torch_tasks.model.agent import AgentState
from torch_tasks.model.task import TaskState

pytestmark = pytest.mark.slow
SECONDS = 30


@pytest.fixture(scope="module")
def nova(torch: Torch) -> NovaOrchestrator:
    """A person at the command line."""
    return NovaOrchestrator()


@pytest.fixture(scope="module")
def shells(shared_node: Node) -> dict[str, AgentWorker]:
    """Two shells."""
    return {name: shared_node.agent_worker(name, "qa") for name in ("qa-1", "qa-2")}


@pytest.fixture(scope="module")
def fake(shared_node: Node, torch: Torch) -> FakeKind:
    """A coding agent that takes texts while it works, and was briefed."""
    fake = FakeKind(shared_node, listens=True)
    fake.worker()
    assert torch.enqueue("get ready", agent="developer-1").result(timeout=60).succeeded
    return fake


@pytest.fixture
def heard(fake: FakeKind) -> Iterator[list[str]]:
    """The words that the agent's model has received since the test began."""
    before = len(fake.prompts())

    class Heard(list[str]):
        def __iter__(self) -> Iterator[str]:
            return iter([words(text) for text in fake.prompts()[before:]])

    fake.cli.play(Scenario())
    yield Heard()
    assert not fake.cli.local()


# ── a shell ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.usefixtures("shells")
def test_a_message_is_a_command_line_in_a_shell(nova: NovaOrchestrator, shared_node: Node) -> None:
    file = shared_node.work / "said"
    sent = nova.send_message("qa-1", f"echo 'it is' \"$TORCH_AGENT_ID\" > {file}")
    assert (sent.state, sent.transport) == (MessageState.ACCEPTED, "broker")
    nova.await_delivery(sent.id, SECONDS)
    until(file.exists, "the command ran")
    until(lambda: nova.message(sent.id).state is MessageState.ACKNOWLEDGED, "it is acknowledged")
    record = nova.message(sent.id)
    moments = [record.accepted_at, record.staged_at, record.delivered_at, record.acknowledged_at]
    assert all(moments)
    assert moments == sorted(moments, key=str)
    assert file.read_text() == "it is qa-1\n"


LINES = {
    "begins with a dash": "-n() { echo it ran; }\n-n",
    "history": 'echo "no history! !! !$"',
    "quotes": """printf '%s\\n' "it's" '"$HOME"' '`x`' "$((1 + 1))" """,
    "a tab": "printf '%s|' 'a\tb'",
    "wide": "echo '日本 ✻ 🎉 é'",
    "many lines": "for n in 1 2 3; do\n  echo line $n\ndone",
    "long": "echo " + "0123456789" * 1200,
    "a name of a key": "echo Enter",
    "semicolon": "echo one; echo two;",
}


@pytest.mark.usefixtures("shells")
@pytest.mark.parametrize("name", LINES)
def test_a_shell_runs_the_very_line(nova: NovaOrchestrator, shared_node: Node, tmp_path: Path, name: str) -> None:
    wanted = subprocess.run(["bash"], input=LINES[name].encode(), capture_output=True, check=False).stdout
    out = tmp_path / "out"
    sent = nova.send_message("qa-1", f"{{ {LINES[name]}\n}} >{out} 2>&1; echo over >>{out}.over")
    nova.await_delivery(sent.id, SECONDS)
    until(Path(f"{out}.over").exists, "it ran")
    assert out.read_bytes() == wanted
    assert Path(f"{out}.over").read_text() == "over\n"


@pytest.mark.usefixtures("shells")
def test_one_shell_asks_the_other(nova: NovaOrchestrator, shared_node: Node) -> None:
    file = shared_node.work / "told"
    ask = f"{TORCH_TASKS} ask qa-2 --timeout 30 '{TORCH_TASKS} reply pong from $TORCH_AGENT_ID' > {file}.new"
    sent = nova.send_message("qa-1", f"{ask}; mv {file}.new {file}")
    until(file.exists, "the reply came", SECONDS)
    assert file.read_text() == "pong from qa-2\n"
    until(lambda: nova.message(sent.id).state is MessageState.ACKNOWLEDGED, "the first message is settled")
    question, reply = [record for record in nova.history("qa-2") if "pong" in record.message.message][-2:]
    assert (question.message.sender, question.state, question.reply) == ("qa-1", MessageState.READ, reply.message.id)
    assert (reply.message.target, reply.state) == ("qa-1", MessageState.READ)
    assert reply.message.correlation_id == question.message.correlation_id
    # What was read by the command that asked is not typed into its pane as well.
    assert nova.send_message("qa-1", f"touch {file}.later")
    until(Path(f"{file}.later").exists, "the pane goes on")
    until(lambda: nova.inbox("qa-1") == [], "nothing waits any more")


@pytest.mark.usefixtures("shells")
def test_a_busy_shell_gets_its_messages_afterwards_in_their_order(
    nova: NovaOrchestrator, torch: Torch, shared_node: Node
) -> None:
    file = shared_node.work / "order"
    task = torch.enqueue(f"until [ -e {file}.go ]; do sleep 0.05; done; echo task >> {file}", agent="qa-1")
    until(lambda: task.status is TaskState.RUNNING, "the task runs")
    sent = [nova.send_message("qa-1", f"echo {number} >> {file}") for number in range(5)]
    urgent = nova.send_message("qa-1", f"echo urgent >> {file}", priority="emergency")
    assert nova.message(sent[0].id).state is MessageState.ACCEPTED
    Path(f"{file}.go").touch()
    nova.await_delivery(sent[-1].id, SECONDS)
    until(lambda: file.read_text().endswith("4\n"), "all ran")
    assert file.read_text().split() == ["task", "urgent", "0", "1", "2", "3", "4"]
    assert task.result(timeout=SECONDS).answer == ""
    assert nova.message(urgent.id).state is MessageState.ACKNOWLEDGED


@pytest.mark.usefixtures("shells")
def test_two_senders_at_once_never_interleave(nova: NovaOrchestrator, torch: Torch, shared_node: Node) -> None:
    file = shared_node.work / "mixed"
    program = (
        "import sys\nfrom torch_tasks.communication import NovaOrchestrator\n"
        "me = NovaOrchestrator(sys.argv[1])\n"
        f"for n in range(8): me.send_message('qa-2', f'echo {{sys.argv[1]}} {{n}} >> {file}')"
    )
    senders = [subprocess.Popen([sys.executable, "-c", program, name]) for name in ("ann", "ben")]
    assert [sender.wait(SECONDS) for sender in senders] == [0, 0]
    until(lambda: file.exists() and len(file.read_text().splitlines()) >= 16, "all ran", SECONDS)
    lines = file.read_text().splitlines()
    for name in ("ann", "ben"):
        assert [line for line in lines if line.startswith(name)] == [f"{name} {n}" for n in range(8)]
    assert len(lines) == 16


def command(*words: str, code: int = 0) -> str:
    """What a command prints, which must end with this exit code."""
    program = Path(sys.executable).with_name(words[0])
    done = subprocess.run([program, *words[1:]], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.usefixtures("shells")
def test_the_commands_say_what_became_of_a_message(shared_node: Node) -> None:
    file = shared_node.work / "commanded"
    told = command(
        "torch-tasks", "send", "qa-1", "--id", "by-hand", "--when", "now", "--wait", "30", f"touch -- {file}"
    )
    assert told == "message by-hand to qa-1: acknowledged\n"
    until(file.exists, "it ran")
    assert "state:        acknowledged" in command("torch-tasks", "messages", "by-hand")
    assert "touch --" in command("torch-tasks", "messages", "--with", "qa-1")
    assert "did you mean qa-" in command("torch-tasks", "send", "qa-9", "hello", code=2)
    assert "has not replied" in command("torch-tasks", "ask", "qa-1", "--timeout", "0.5", "true", code=124)
    question = "torch-tasks reply -- -v is '$TORCH_AGENT_ID' $TORCH_AGENT_ID"
    assert command("torch-tasks", "ask", "qa-1", "--timeout", "30", question) == "-v is $TORCH_AGENT_ID qa-1\n"


@pytest.mark.usefixtures("shells")
def test_the_old_tool_reaches_an_agent(shared_node: Node) -> None:
    file = shared_node.work / "old"
    line = f"touch {file}"
    assert command("send-claude-message.sh", "qa-1", *line.split()) == f"Message sent to qa-1: {line}\n"
    until(file.exists, "it ran")


# ── a coding agent ───────────────────────────────────────────────────────────────────────────────────────────────


def test_an_idle_agent_gets_a_prompt_and_its_answer_is_the_reply(
    nova: NovaOrchestrator, torch: Torch, heard: list[str]
) -> None:
    reply = nova.ask("developer-1", "where are you?", SECONDS)
    assert reply.message.message.startswith("You said: where are you?")
    assert list(heard) == ["where are you?"]
    until(lambda: torch.agent("developer-1").state is AgentState.READY, "the fleet knows that it is idle again")


def test_an_agent_replies_with_the_command(nova: NovaOrchestrator, fake: FakeKind) -> None:
    command = "id=$(grep -o -- '--to [^ ]*' | tail -n 1); torch-tasks reply $id it is green"
    fake.cli.play(Scenario(Turn((Run(command), Say("I told them.")))))
    assert nova.ask("developer-1", "how is the build?", SECONDS).message.message == "it is green"


HOSTILE = {
    "commands of its own": "!rm -rf x",
    "slash": "/quit now",
    "backslash": "ends so \\",
    "control": "a\x1b[201~b\x07",
    "long": "\n".join(f"{number}: " + "0123456789 " * 9 for number in range(200)),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_words_reach_the_model_and_nothing_runs(nova: NovaOrchestrator, heard: list[str], name: str) -> None:
    sent = nova.send_message("developer-1", HOSTILE[name])
    nova.await_delivery(sent.id, SECONDS)
    guard = "A message, word for word:\n" if name in ("commands of its own", "slash") else ""
    shown = HOSTILE[name].replace("\x1b", "␛").replace("\x07", "␇")
    assert list(heard) == [guard + shown]


def test_a_task_and_a_message_do_not_touch_each_other(
    nova: NovaOrchestrator, torch: Torch, fake: FakeKind, heard: list[str]
) -> None:
    fake.cli.play(Scenario(turns=(Turn((Work(2.0), Say("The task is done.")), match="the task"),)))
    task = torch.enqueue("do the task", agent="developer-1")
    until(lambda: "do the task" in list(heard), "the model has the task", SECONDS)
    later = nova.send_message("developer-1", "when you are idle")
    now = nova.send_message("developer-1", "while you work", when="now")
    result = task.result(timeout=SECONDS)
    assert (result.succeeded, result.answer) == (True, "The task is done.")
    for sent in (later, now):
        nova.await_delivery(sent.id, SECONDS)
    # The same sender said the other one first: it came first, too.
    until(lambda: list(heard) == ["do the task", "when you are idle", "while you work"], "both came", SECONDS)


def test_an_interruption_does_not_lose_the_task(
    nova: NovaOrchestrator, torch: Torch, fake: FakeKind, heard: list[str]
) -> None:
    stop = Turn((Say("I stopped, and have it now."),), match="stop that")
    fake.cli.play(Scenario(turns=(stop, Turn((Work(60), Say("Never.")), match="the long one"))))
    task = torch.enqueue("do the long one", agent="developer-1")
    until(lambda: "do the long one" in list(heard), "the model has the task", SECONDS)
    first = nova.send_message("developer-1", "what was said before comes before")
    sent = nova.send_message("developer-1", "stop that", when="interrupt")
    nova.await_delivery(sent.id, SECONDS)
    assert nova.message(first.id).state.arrived
    result = task.result(timeout=SECONDS)
    assert result.answer == "I stopped, and have it now."
    assert list(heard) == ["do the long one", "what was said before comes before", "stop that"]


def test_a_task_waits_for_the_turn_of_a_message_and_does_not_hide_its_answer(
    nova: NovaOrchestrator, torch: Torch, fake: FakeKind, heard: list[str]
) -> None:
    fake.cli.play(Scenario(turns=(Turn((Work(2.5), Say("So it is.")), match="think"),)))
    sent = nova.send_message("developer-1", "think about it", kind="question")
    nova.await_delivery(sent.id, SECONDS)
    assert torch.enqueue("and now the task", agent="developer-1").result(timeout=SECONDS).succeeded
    assert list(heard) == ["think about it", "and now the task"]
    reply = until(lambda: nova.message(sent.id).reply, "it is answered")
    assert nova.message(reply).message.message == "So it is."


def test_what_a_message_makes_the_agent_ask_is_answered_by_the_kinds_policy(
    nova: NovaOrchestrator, shared_node: Node
) -> None:
    kind = FakeKind(shared_node, name="trusting")
    toml = kind.folder / "agents" / "fake.toml"
    toml.write_text(toml.read_text() + '\n[permissions]\nallow = ["Bash(touch *)"]\n')
    kind.cli.play(Scenario(Turn((Permission(command="touch it"), Say("I may.")))))
    kind.worker("trusted", "devops")
    assert nova.ask("trusted", "make it", SECONDS).message.message == "I may."


# ── time, ids ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_same_id_twice_is_one_message(nova: NovaOrchestrator, heard: list[str]) -> None:
    sent = [nova.send_message("developer-1", text, id="only-one") for text in ("once", "twice")]
    nova.await_delivery("only-one", SECONDS)
    assert {one.id for one in sent} == {"only-one"}
    assert nova.send_message("developer-1", "again", id="only-one").state.arrived
    assert nova.ask("developer-1", "anything else?", SECONDS)
    assert list(heard) == ["once", "anything else?"]


def test_what_is_expired_is_not_delivered(
    nova: NovaOrchestrator, torch: Torch, shells: dict[str, AgentWorker], shared_node: Node
) -> None:
    file = shared_node.work / "expired"
    task = torch.enqueue(f"until [ -e {file}.go ]; do sleep 0.05; done", agent="qa-2")
    until(lambda: task.status is TaskState.RUNNING, "the task runs")
    sent = nova.send_message("qa-2", f"touch {file}", expires=0.2)
    after = nova.send_message("qa-2", f"touch {file}.after")
    until(lambda: nova.message(sent.id).state is MessageState.EXPIRED, "its time is over")
    Path(f"{file}.go").touch()
    nova.await_delivery(after.id, SECONDS)
    until(Path(f"{file}.after").exists, "the next one came")
    assert not file.exists()
    assert nova.replay(sent.id) is MessageState.ACCEPTED
    until(file.exists, "it was replayed", SECONDS)


def test_a_question_without_a_reply_is_told(nova: NovaOrchestrator, shells: dict[str, AgentWorker]) -> None:
    with pytest.raises(NoReply, match="qa-1 has not replied"):
        nova.ask("qa-1", "true", timeout=1)
