"""From an agent's pane everything goes through the agent's desk, and nothing needs the broker's address."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable
from typing import Any

import pytest
from clients import start_client
from nodes import AgentWorker, Broker, Node
from waiting import until

from torch_tasks import TaskResult, Torch
from torch_tasks.fleet import fleet
from torch_tasks.transport import Deliveries

SECONDS = 60
Do = Callable[..., TaskResult]


@pytest.fixture(scope="module")
def asks(shared_node: Node) -> AgentWorker:
    """The agent in whose pane the tests' scripts run."""
    return shared_node.agent_worker("boss-1", "boss")


@pytest.fixture(scope="module")
def works(shared_node: Node) -> AgentWorker:
    """The agent that gets what is enqueued there."""
    return shared_node.agent_worker("developer-1", "developer")


@pytest.fixture
def do(asks: AgentWorker, works: AgentWorker, torch: Torch) -> Do:
    """Has the agent run a script and returns how that ended."""

    def do(script: str, **fields: Any) -> TaskResult:
        return torch.enqueue(f"{{ {script}; }} 2>&1", agent="boss-1", **fields).result(timeout=SECONDS)

    return do


def python(program: str) -> str:
    """The command line of a program in Python."""
    return f"{shlex.quote(sys.executable)} -c {shlex.quote(program)}"


def test_a_panes_environment_holds_neither_the_brokers_address_nor_a_password(
    do: Do, broker: Broker, asks: AgentWorker
) -> None:
    """Also not in its tmux server, which hands its own to every new pane."""
    names = dict(line.split("=", 1) for line in do("env").answer.splitlines() if "=" in line)
    told = {name for name in names if name.startswith("TORCH_")}
    assert told == {
        "TORCH_AGENT_ID", "TORCH_CONFIG_DIR", "TORCH_CONTEXT", "TORCH_DESK", "TORCH_DESK_SECONDS", "TORCH_INCARNATION",
        "TORCH_MARK", "TORCH_STATE_DIR", "TORCH_TASK_ID",
    }  # fmt: skip
    assert not [name for name, value in names.items() if broker.url in value]
    assert broker.url not in asks.tmux("show-environment", "-g")
    assert (
        broker.url not in do("echo checked", check="env > $TORCH_ANSWER.env; cat $TORCH_ANSWER.env").evidence[-1].detail
    )


def test_torch_enqueues_and_waits(do: Do, torch: Torch) -> None:
    done = do(
        python(
            "from torch_tasks import Torch\n"
            "task = Torch().enqueue('echo from a pane', role='developer')\n"
            "print(task.id, task.result(timeout=30).answer)"
        )
    )
    task_id, answer = done.answer.split(maxsplit=1)
    assert answer.strip() == "from a pane"
    enqueued_by = torch.task(task_id).record().enqueued_by
    assert enqueued_by
    assert (enqueued_by.kind, enqueued_by.name) == ("agent", "boss-1")


CANVAS = """
import json
from celery import chain, chord, group
from torch_tasks.tasks.run import run

READ = "import json, os; print([one['answer'] for one in json.load(open(os.environ['TORCH_CONTEXT']))['earlier']])"

def on_developer(prompt):
    return run.s(prompt, role="developer")

def answers(result):
    got = result.get(timeout=30)
    return [one["answer"] for one in got] if isinstance(got, list) else got["answer"]

def reads():
    return on_developer(f'python3 -c "{READ}"')

print(json.dumps([
    answers(run.delay("echo one", role="developer")),
    answers(run.apply_async(("echo two",), {"role": "developer"}, countdown=0.1)),
    answers(chain(on_developer("echo three"), reads()).delay()),
    answers(group(on_developer(f"echo {n}") for n in range(3)).delay()),
    answers(chord([on_developer("echo a"), on_developer("echo b")])(reads())),
]))
"""


def test_delay_apply_async_and_canvas_work_as_they_do_elsewhere(do: Do) -> None:
    done = do(python(CANVAS))
    assert done.succeeded, done.answer
    alone, later, after, together, last = json.loads(done.answer)
    assert (alone, later, together) == ("one\n", "two\n", ["0\n", "1\n", "2\n"])
    assert (after, last) == ("['three\\n']\n", "['a\\n', 'b\\n']\n")


def test_the_commands_reach_the_fleet(do: Do, torch: Torch) -> None:
    done = do(
        "torch-tasks send developer-1 'echo from a pane' && torch-tasks agents && torch-tasks inbox && "
        "torch-tasks run --role developer --wait 'echo ran' && torch-tasks task $TORCH_TASK_ID"
    )
    assert done.succeeded, done.answer
    assert "developer-1" in done.answer
    assert "ran" in done.answer


CLAIMS = """
import json
from torch_tasks.errors import TorchError
from torch_tasks.link.desk import desk_of_this_pane

def call(operation, **fields):
    try:
        return desk_of_this_pane().call(operation, fields)
    except TorchError as error:
        return type(error).__name__

own = call("message.send", to="developer-1", text="true")
print(json.dumps({
    "own": call("message.get", message_id=own["id"])["message"]["sender"],
    "sent": call("message.send", to="developer-1", text="true", sender="developer-1"),
    "inbox": call("message.inbox", party="developer-1"),
    "done": call("pane.done", task_id="another"),
    "field": call("task.enqueue", prompt="true", enqueued_by={"kind": "person", "name": "operator"}),
    "allow": call("task.enqueue", prompt="true", permissions="allow"),
    "answer": call("task.answer", task_id="another", reply="1"),
    "stop": call("fleet.stop"),
}))
"""


def test_an_agent_that_claims_to_be_another_is_refused_by_name_in_every_field(do: Do, torch: Torch) -> None:
    claimed = "TORCH_AGENT_ID=developer-1 TORCH_INCARNATION=99 TORCH_TASK_ID=another USER=operator "
    done = do(claimed + python(CLAIMS))
    assert done.succeeded, done.answer
    got = json.loads(done.answer)
    assert got == {
        "own": "boss-1",
        "sent": "NotYours",
        "inbox": "NotYours",
        "done": "NotInPane",
        "field": "InvalidTask",
        "allow": "NotAllowed",
        "answer": "NotAllowed",
        "stop": "NotAllowed",
    }
    until(lambda: torch.agent("boss-1").desk_refused.get("NotAllowed", 0) >= 3, "they are counted")


@pytest.mark.parametrize(
    ("program", "error"),
    [
        ("run.s('true', permissions='allow').delay()", "NotAllowed"),
        ("(run.si('true') | run.si('true', permissions='allow')).delay()", "NotAllowed"),
        ("run.si('true').apply_async(link=celery.signature('torch.retire', args=['qa-1']))", "NotThroughDesk"),
        ("celery.current_app.send_task('torch.housekeeping')", "NotThroughDesk"),
        ("celery.current_app.control.shutdown()", "NotThroughDesk"),
        ("run.si('true').set(queue='torch.agent.developer-1').freeze() and "
         "run.apply_async(('true',), link=run.si('true').set(queue='torch.system'))", "NotThroughDesk"),
    ],
)  # fmt: skip
def test_what_celery_may_not_send_from_a_pane_is_refused_by_name(do: Do, program: str, error: str) -> None:
    done = do(python(f"import celery\nfrom torch_tasks.tasks.run import run\n{program}"))
    assert not done.succeeded
    assert f"torch_tasks.errors.{error}: " in done.answer


ENQUEUE = """
for number in range(60):
    print(torch.enqueue("true", role="unheard-of", title=f"number {number}").id, flush=True)
"""


@pytest.mark.slow
def test_what_is_asked_while_the_worker_is_killed_again_and_again_is_done_once(
    shared_node: Node, broker: Broker, torch: Torch
) -> None:
    """The client waits at the desk for the next worker, and asks again with the same key."""
    worker = shared_node.agent_worker("carrier-1", "carrier")
    desk = shared_node.state / "agents" / "carrier-1" / "desk" / "socket"
    client = start_client(ENQUEUE, TORCH_DESK=str(desk), TORCH_BROKER_URL="redis://127.0.0.1:9/0")
    assert client.stdout
    ids = []
    for answered in range(60):
        ids.append(client.stdout.readline().strip())
        if answered % 15 == 7:
            worker.kill()
            worker = shared_node.agent_worker("carrier-1", "carrier")
    assert client.wait(SECONDS) == 0, client.stderr and client.stderr.read()
    accepted = [record for record in torch.tasks(1000) if record.spec.role == "unheard-of"]
    assert sorted(record.spec.title for record in accepted) == sorted(f"number {number}" for number in range(60))
    assert {record.spec.id for record in accepted} == set(ids)
    waiting = [json.loads(text)["headers"]["id"] for text in Deliveries(fleet().client).waiting("torch.unheard-of.any")]
    # A worker that was killed before it answered has a message sent again: the same task, which is done once.
    assert set(waiting) == set(ids)
