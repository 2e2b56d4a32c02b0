"""Whoever may write to the broker, but has no key of the fleet, has nothing done and nothing believed."""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import forked
import pytest
from celery import Celery, chord
from clients import read_settings_anew
from hostile import body
from machine import TORCH_TASKS
from nodes import AgentWorker, Broker, Node
from waiting import until

from torch_tasks import Task, TaskSpec, TaskState, Torch, keys
from torch_tasks.app import app
from torch_tasks.caller import CallerKind
from torch_tasks.errors import BadSignature
from torch_tasks.fleet import fleet
from torch_tasks.model.fields import now
from torch_tasks.model.task import Priority
from torch_tasks.monitoring.summary import summarize
from torch_tasks.signing.ed25519 import new_key, public_key_of
from torch_tasks.signing.keyring import keyring
from torch_tasks.signing.signature import Purpose, sign
from torch_tasks.tasks.run import run
from torch_tasks.transport.envelope import fields_of, written

SOON = 30.0
QUEUE = keys.agent_queue("dev-1")


@pytest.fixture(scope="module")
def worker(torch: Torch, broker: Broker) -> Iterator[AgentWorker]:
    """One agent for all these tests, on a machine that believes nobody without a key."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCH_SIGNING", "enforce")
        read_settings_anew()
        node = Node("node-a", broker, torch)
        try:
            yield node.agent_worker("dev-1")
        finally:
            node.close()
    read_settings_anew()


def serves(torch: Torch) -> None:
    """The agent does the next task."""
    assert torch.enqueue("echo on", agent="dev-1").result(timeout=SOON).answer == "on\n"


def refusal_of(text: str) -> str:
    """Why the dead letter with this text was refused."""
    letters = fleet().refused.all()
    return next((letters[name].why for name in letters if fleet().deliveries.dead_letter(name) == text), "")


def only_message(queue: str) -> str:
    (message,) = fleet().deliveries.waiting(queue)
    return message


def _by_a_revoked_key(message: str) -> str:
    private = new_key()
    certificate = keyring().issue(CallerKind.NODE, "stolen", public_key_of(private))
    keyring().keep(private, certificate)
    thief = next(one for one in keyring().identities() if one.certificate.name == "stolen")
    text = json.dumps(fields_of(message))
    signature = sign(keyring(), thief, Purpose.MESSAGE, text.encode(), 600, queue=QUEUE)
    keyring().revoke(thief.certificate.serial)
    return f'{{"torch-signature":"{signature}",{text[1:]}'


def _with_callbacks(message: str) -> str:
    fields = fields_of(message)
    evil = {"task": "torch.run", "args": [{"prompt": "echo evil"}], "kwargs": {}, "options": {}}
    later = {"callbacks": [evil], "errbacks": None, "chain": None, "chord": None}
    wire = {"id": fields["headers"]["id"], "prompt": "true", "agent": "dev-1"}
    text = json.dumps({**fields, "body": body([[wire], {}, later])})
    return message[: message.index('"body"')] + text[1:]


FORGERIES: dict[str, tuple[Callable[[str], str], str]] = {
    "copied into another queue": (lambda message: message, "signed it for the queue"),
    "under another id": (lambda message: message.replace("stolen-", "forged-"), "changed afterwards"),
    "signed too long ago": (lambda message: written(fields_of(message), QUEUE, lasts_seconds=-1), "expired"),
    "by a key that was revoked": (_by_a_revoked_key, "was revoked"),
    "with callbacks made by hand": (_with_callbacks, "changed afterwards"),
    "without a signature": (lambda message: json.dumps(fields_of(message)), "publish with Torch's own Celery app"),
}


@pytest.mark.parametrize("how", FORGERIES)
def test_a_message_that_nobody_of_the_fleet_signed_for_this_queue_is_refused_and_named(
    how: str, worker: AgentWorker, torch: Torch, tmp_path: Path
) -> None:
    forge, why = FORGERIES[how]
    number = list(FORGERIES).index(how)
    stolen = torch.enqueue(f"touch {tmp_path / 'ran'}", agent=f"nobody-{number}", id=f"stolen-{number}")
    text = forge(only_message(keys.agent_queue(f"nobody-{number}")))
    denied = sum(fleet().denials.counts().values())
    fleet().deliveries.put(QUEUE, text, Priority.NORMAL.step)
    until(lambda: refusal_of(text), "it is refused", SOON)
    assert why in refusal_of(text)
    until(lambda: sum(fleet().denials.counts().values()) > denied, "the refusal is counted", SOON)
    assert fleet().denials.latest(1)[0].operation == "message.deliver"
    serves(torch)
    assert not (tmp_path / "ran").exists()
    assert stolen.status is TaskState.QUEUED
    stolen.cancel()
    assert worker.status == "running"


def test_who_may_publish_to_the_workers_but_has_no_key_commands_them_nothing(
    worker: AgentWorker, torch: Torch, broker: Broker
) -> None:
    """As with Flower's login, which may write where questions to the workers go."""
    name, place = f"dev-1@{worker.info.node if worker.info else ''}", "/0.celery.pidbox"
    with broker.client.pubsub() as heard, Celery("stranger", broker=app.conf.broker_url) as stranger:
        heard.subscribe(place)
        assert app.control.ping([name], timeout=SOON)
        copy = until(lambda: (heard.get_message(ignore_subscribe_messages=True) or {}).get("data"), "a copy of it")
        denied = sum(fleet().denials.counts().values())
        stranger.control.shutdown([name])
        asked = fields_of(copy)["body"]
        broker.client.publish(place, copy.replace(asked, body(json.loads(b64decode(asked)) | {"method": "shutdown"})))
        broker.client.publish(place, copy)
    until(lambda: sum(fleet().denials.counts().values()) >= denied + 3, "all three are refused", SOON)
    reasons = [denial.why for denial in fleet().denials.latest(3)]
    assert "sent it a second time" in reasons[0]
    assert "changed afterwards" in reasons[1]
    assert "it is not signed" in reasons[2]
    serves(torch)
    assert worker.status == "running"


@contextmanager
def busy(torch: Torch, folder: Path) -> Iterator[Task]:
    """The agent is busy with this task until the end."""
    gate = folder / "gate"
    task = torch.enqueue(f"until [ -e {gate} ]; do sleep 0.05; done", agent="dev-1")
    until(lambda: task.status is TaskState.RUNNING, "the agent is busy", SOON)
    try:
        yield task
    finally:
        gate.touch()


@pytest.mark.usefixtures("worker")
def test_a_stolen_message_that_is_pushed_again_and_again_runs_once(torch: Torch, tmp_path: Path) -> None:
    with busy(torch, tmp_path):
        task = torch.enqueue(f"echo once >> {tmp_path / 'ran'}", agent="dev-1")
        message = only_message(QUEUE)
    assert task.result(timeout=SOON).succeeded
    for _ in range(2):
        fleet().deliveries.put(QUEUE, message, Priority.NORMAL.step)
    until(lambda: not fleet().deliveries.waiting(QUEUE), "both are taken", SOON)
    serves(torch)
    assert (tmp_path / "ran").read_text() == "once\n"


@pytest.mark.usefixtures("worker")
def test_a_spec_that_was_swapped_in_the_record_is_refused_and_the_true_one_can_be_replayed(
    torch: Torch, broker: Broker, tmp_path: Path
) -> None:
    with busy(torch, tmp_path):
        task = torch.enqueue("echo true", agent="dev-1")
        swapped = {**task.record().spec.wire(), "prompt": f"touch {tmp_path / 'ran'}"}
        broker.client.hset(keys.task_record(task.id), "spec", json.dumps(swapped))
    result = task.result(timeout=SOON)
    assert result.status is TaskState.DEAD
    assert "held another spec than the one that was signed" in result.summary
    assert task.id in fleet().deliveries.dead_letter_ids()
    serves(torch)
    assert not (tmp_path / "ran").exists()
    task.replay()
    assert task.result(timeout=SOON).answer == "true\n"


def _forge_success(broker: Broker, task: Task, **more: str) -> None:
    result = {"task_id": task.id, "status": "succeeded", "answer": "forged", "exit_code": 0}
    forged = {"state": "succeeded", "result": json.dumps(result), **more}
    broker.client.hset(keys.task_record(task.id), mapping=forged)


@pytest.mark.usefixtures("worker")
def test_a_success_that_was_written_into_the_record_is_not_believed_and_what_waits_for_it_waits(
    torch: Torch, broker: Broker, tmp_path: Path
) -> None:
    task = torch.enqueue("echo true", agent="nobody")
    next_one = torch.enqueue(f"touch {tmp_path / 'ran'}", agent="dev-1", after=[task.id])
    _forge_success(broker, task)
    assert next(one for one in torch.tasks() if one.spec.id == task.id).state is TaskState.QUEUED
    _forge_success(broker, task)
    shown = forked.run([TORCH_TASKS, "task", task.id])
    assert "state:     queued" in shown.stdout
    assert task.status is TaskState.QUEUED
    _forge_success(broker, task)
    later = torch.enqueue(f"touch {tmp_path / 'ran'}", agent="dev-1", after=[task.id])
    serves(torch)
    assert {next_one.status, later.status} == {TaskState.PENDING}
    assert not (tmp_path / "ran").exists()
    place = keys.task_record(task.id)
    assert any(
        letter.place == place and "no node of this fleet says so" in letter.why
        for letter in fleet().refused.all().values()
    )
    assert fleet().denials.latest(1)[0].operation == "task.end"
    for one in (later, next_one, task):
        one.cancel()


@pytest.mark.usefixtures("worker")
def test_a_success_that_was_written_over_a_running_task_gives_way_to_its_true_end(
    torch: Torch, broker: Broker, tmp_path: Path
) -> None:
    with busy(torch, tmp_path) as task:
        _forge_success(broker, task)
    assert task.result(timeout=SOON).answer != "forged"
    until(lambda: task.record().state.ended, "it has ended", SOON)
    result = task.result(timeout=SOON)
    assert (result.status, result.answer) == (TaskState.SUCCEEDED, "")


@pytest.mark.usefixtures("worker")
def test_an_end_whose_result_was_changed_is_named_and_not_believed(torch: Torch, broker: Broker) -> None:
    failed = torch.enqueue("false", agent="dev-1")
    assert failed.result(timeout=SOON).status is TaskState.FAILED
    broker.client.hset(keys.task_record(failed.id), "state", "succeeded")
    assert failed.result(timeout=SOON).status is TaskState.FAILED  # as its signature says
    assert failed.record().state is TaskState.FAILED
    _forge_success(broker, failed)
    with pytest.raises(BadSignature, match="no node of this fleet says so: it is not what node node-a signed"):
        failed.result(timeout=SOON)
    shown = forked.run([TORCH_TASKS, "task", failed.id])
    assert "state:     succeeded (not believed)" in shown.stdout
    listed = forked.run([TORCH_TASKS, "tasks"]).stdout
    assert "succeeded (not believed)" in next(line for line in listed.splitlines() if failed.id[:8] in line)
    night = summarize(fleet(), now() - timedelta(hours=1))
    assert night.not_believed == 1
    assert [one.id for one in night.tasks if one.forged] == [failed.id]


@pytest.mark.usefixtures("worker")
def test_a_success_that_was_written_into_celerys_results_is_not_believed_and_starts_no_chord(
    torch: Torch, broker: Broker, tmp_path: Path
) -> None:
    first, second, gated = tmp_path / "first", tmp_path / "second", "until [ -e {0} ]; do sleep 0.05; done; echo {1}"
    header = [TaskSpec(prompt=gated.format(gate, gate.name), agent="dev-1") for gate in (first, second)]
    body = TaskSpec(prompt='cat "$TORCH_CONTEXT"', agent="dev-1")
    sent = chord([run.s(spec) for spec in header])(run.s(body))
    results, group = app.backend, sent.parent.id
    _forge_parts(broker, group, header[1].id)
    broker.client.set(results.get_key_for_group(group, ".s"), 1)  # so that the first end would start the body
    broker.client.set(results.get_key_for_task(header[1].id), json.dumps(_forged_meta(header[1].id)))
    assert run.AsyncResult(header[1].id).state == "PENDING"
    first.touch()
    assert torch.task(header[0].id).result(timeout=SOON).succeeded
    until(lambda: run.AsyncResult(header[0].id).state == "SUCCESS", "its part has come", SOON)
    serves_after = torch.task(header[1].id)
    until(lambda: serves_after.status is TaskState.RUNNING, "the second one goes on", SOON)
    assert torch.tasks(states=[TaskState.QUEUED]) == []
    _forge_parts(broker, group, header[1].id)
    second.touch()
    earlier = json.loads(sent.get(timeout=SOON)["answer"])["earlier"]
    assert [item["answer"] for item in earlier] == ["first\n", "second\n"]
    assert any("part of chord" in denial.why for denial in fleet().denials.latest(20))


def _forged_meta(task_id: str) -> dict[str, object]:
    return {"status": "SUCCESS", "result": {"task_id": task_id, "answer": "forged"}, "task_id": task_id}


def _forge_parts(broker: Broker, group: str, task_id: str) -> None:
    """The second part of a chord, as Celery keeps it, and as Torch does but for the signature."""
    part = [1, task_id, "SUCCESS", _forged_meta(task_id)["result"]]
    for text in (json.dumps(part), json.dumps({"part": part})):
        broker.client.zadd(app.backend.get_key_for_group(group, ".j"), {text: 1})
