"""The command ``torch-tasks``: what it prints, where, and with which exit code it ends."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from machine import Machine
from waiting import until

REPOSITORY = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    """A machine with two agents, for all tests of this module."""
    machine = Machine()
    machine.fork_stack()
    machine.torch("up", "--detach", "--agent", "dev-1:developer:python", "--agent", "qa-1:qa", "--no-flower")
    yield machine
    machine.close()


@pytest.fixture(scope="module")
def done(machine: Machine) -> str:
    """The id of a task that succeeded."""
    machine.torch("run", "--wait", "--id", "the-done-one", "--role", "qa", "--check", "true", "echo 'the answer'")
    return "the-done-one"


@pytest.fixture(scope="module")
def nobodys(machine: Machine) -> str:
    """The id of a task that no agent can do."""
    return machine.torch("run", "--role", "nobody", "--id", "the-waiting-one", "true").stdout.strip()


def known(machine: Machine) -> int:
    """How many tasks the fleet knows."""
    return len(json.loads(machine.torch("tasks", "--limit", "1000", "--json").stdout))


def record(machine: Machine, task_id: str) -> Any:
    """The record of a task."""
    return json.loads(machine.torch("task", task_id, "--json").stdout)


# ── run ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_run_prints_the_id_alone(machine: Machine) -> None:
    handed = machine.torch("run", "true")
    assert re.fullmatch(r"[0-9a-f]{32}\n", handed.stdout)
    assert handed.stderr == ""


def test_run_takes_a_chosen_id_and_makes_one_task_of_it_however_often(machine: Machine, done: str) -> None:
    before = known(machine)
    again = machine.torch("run", "--id", done, "--role", "qa", "--check", "true", "echo 'the answer'")
    assert again.stdout == f"{done}\n"
    assert known(machine) == before


def test_run_refuses_another_task_under_a_known_id(machine: Machine, done: str) -> None:
    before = known(machine)
    refused = machine.torch("run", "--id", done, "echo 'another answer'", code=2)
    assert f"task {done} was accepted before with another spec" in refused.stderr
    assert refused.stdout == ""
    assert known(machine) == before


def test_run_with_wait_prints_the_answer_alone(machine: Machine) -> None:
    ended = machine.torch("run", "--wait", "echo", "two  words;", "printf end")
    assert (ended.stdout, ended.stderr) == ("two words\nend\n", "")


def test_a_prompt_from_standard_input_arrives_byte_for_byte(machine: Machine) -> None:
    prompt = "cat <<'END'\n\t日本 é\\ $HOME `x`  \r\nEND\n\n"
    ended = machine.torch("run", "--id", "from-stdin", "--wait", "-", stdin=prompt)
    assert ended.stdout == "\t日本 é\\ $HOME `x`  \r\n"
    assert record(machine, "from-stdin")["spec"]["prompt"] == prompt


# ── exit codes ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_1_when_the_task_failed_with_its_answer_and_the_reason(machine: Machine) -> None:
    ended = machine.torch("run", "--wait", "--agent", "qa-1", "echo so far; (exit 7)", code=1)
    assert ended.stdout == "so far\n"
    assert re.fullmatch(r"Error: task \w{32} failed on qa-1: exit code 7\n", ended.stderr)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["run", "x", "--skill", "two words"],
            "skills.0: 'two words' holds a space; use one word, such as 'two-words'",
        ),
        (["run", "x", "--role", "any"], "role: 'any' is a word that queue names use"),
        (["run", " "], "is empty; say what the agent shall do"),
        (["run", "x", "--timeout", "0"], "'0' is not a length of time; write it as 90"),
        (["run"], "Missing argument 'PROMPT...'"),
        (["run", "x", "--colour", "red"], "No such option"),
        (["run", "x", "--priority", "soon"], "Invalid value for '--priority'"),
        (["nonesuch"], "there is no command 'nonesuch'"),
        (["tasks", "--limit", "0"], "Invalid value for '--limit'"),
        (["tasks", "--state", "gone"], "Invalid value for '--state'"),
    ],
)
def test_2_when_the_command_is_wrong(machine: Machine, words: list[str], said: str) -> None:
    refused = machine.torch(*words, code=2)
    assert said in refused.stderr
    assert refused.stdout == ""


def test_2_comes_before_anything_is_enqueued(machine: Machine) -> None:
    before = known(machine)
    machine.torch("run", "x", "--skill", "two words", code=2)
    assert known(machine) == before


def test_3_when_nobody_can_do_the_task_which_stays_queued(machine: Machine) -> None:
    gave_up = machine.torch("run", "--role", "nobody", "--unroutable-after", "0.2", "true", code=3)
    task_id = gave_up.stdout.strip()
    assert (
        f"Error: task {task_id} is unroutable. No online agent can do this task: it needs role nobody. It stays"
        in gave_up.stderr
    )
    assert f"torch-tasks cancel {task_id}" in gave_up.stderr
    assert record(machine, task_id)["state"] == "queued"
    assert record(machine, task_id)["unroutable"] is True


def test_3_does_not_come_when_somebody_can(machine: Machine) -> None:
    assert machine.torch("run", "--wait", "--unroutable-after", "0", "echo hi").stdout == "hi\n"


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port on which nobody listens, and nobody else can."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]


@pytest.mark.parametrize("words", ["run x", "tasks", "task x", "cancel x", "agents", "screen away-1", "doctor"])
def test_4_when_no_broker_answers(machine: Machine, closed_port: int, words: str) -> None:
    url = f"redis://user:s3cr3t@127.0.0.1:{closed_port}/0"
    env = {"TORCH_BROKER_URL": url, "TORCH_BROKER_CONNECT_SECONDS": "0.2"}
    refused = machine.torch(*words.split(), code=4, **env)
    said = refused.stdout + refused.stderr
    assert f"no broker answers at redis://user:***@127.0.0.1:{closed_port}/0 (from TORCH_BROKER_URL)" in said
    assert "Start that broker or correct TORCH_BROKER_URL" in said
    assert "s3cr3t" not in said
    if words != "doctor":
        assert refused.stdout == ""


def test_124_when_the_task_ran_out_of_its_time(machine: Machine) -> None:
    ended = machine.torch("run", "--wait", "--timeout", "0.3", "echo begun; sleep 60", code=124)
    assert ended.stdout == "begun\n"
    assert ended.stderr.endswith("timed out after 0.3 s\n")


def test_124_when_the_waiting_ran_out_and_the_task_goes_on(machine: Machine) -> None:
    gate = machine.work / "gate"
    words = ("run", "--id", "patient", "--wait", "--wait-timeout", "0.5")
    gave_up = machine.torch(*words, f"until [ -e {gate} ]; do sleep 0.05; done; echo through", code=124)
    assert "task patient is running after 0.5 s; it goes on, ask again later" in gave_up.stderr
    assert gave_up.stdout == ""
    gate.touch()
    until(lambda: record(machine, "patient")["state"] == "succeeded", "the task ended by itself")
    assert record(machine, "patient")["result"]["answer"] == "through\n"


# ── tasks, task, cancel ──────────────────────────────────────────────────────────────────────────────────────────


def test_tasks_lists_the_newest_first(machine: Machine, done: str) -> None:
    machine.torch("run", "--wait", "--id", "newest", "true")
    listed = json.loads(machine.torch("tasks", "--json").stdout)
    assert listed[0]["spec"]["id"] == "newest"
    assert [task["created_at"] for task in listed] == sorted((t["created_at"] for t in listed), reverse=True)
    assert len(json.loads(machine.torch("tasks", "--limit", "1", "--json").stdout)) == 1


def test_tasks_lists_only_the_wanted_states(machine: Machine, done: str, nobodys: str) -> None:
    table = machine.torch("tasks", "--limit", "1000", "--state", "queued").stdout
    assert re.search(rf"^{nobodys} +queued \(unroutable\) +nobody +normal ", table, re.MULTILINE)
    assert done not in table
    two = json.loads(machine.torch("tasks", "--state", "queued", "--state", "succeeded", "--json").stdout)
    assert {task["state"] for task in two} == {"queued", "succeeded"}


def test_task_shows_what_was_asked_who_did_it_and_the_evidence(machine: Machine, done: str) -> None:
    said = machine.torch("task", done).stdout
    for part in (f"{'id:':<11}{done}", f"{'state:':<11}succeeded", "qa, normal", "qa-1 on ", "✓ exit code 0", "✓ true"):
        assert part in said
    assert said.endswith("\n\necho 'the answer'\n\nthe answer\n")


def test_an_unknown_task_is_named(machine: Machine) -> None:
    for words in (["task", "nonesuch"], ["cancel", "nonesuch"]):
        refused = machine.torch(*words, code=1)
        assert refused.stderr.startswith("Error: there is no record of task nonesuch")
        assert refused.stdout == ""


def test_cancel_ends_a_running_task_and_its_agent_works_on(machine: Machine) -> None:
    machine.torch("run", "--id", "endless", "--agent", "qa-1", "echo begun; sleep 600")
    until(lambda: record(machine, "endless")["state"] == "running", "the task runs")
    cancelled = machine.torch("cancel", "endless")
    assert (cancelled.stdout, cancelled.stderr) == ("task endless cancelled\n", "")
    assert record(machine, "endless")["result"]["error"]["kind"] == "cancelled"
    assert machine.torch("run", "--agent", "qa-1", "--wait", "echo alive").stdout == "alive\n"


def test_cancel_takes_back_what_nobody_has_begun(machine: Machine) -> None:
    machine.torch("run", "--id", "never", "--role", "nobody", "true")
    assert machine.torch("cancel", "never").stdout == "task never cancelled\n"


def test_cancel_says_what_had_ended_already_and_ends_the_others(machine: Machine, done: str) -> None:
    machine.torch("run", "--id", "not-yet", "--role", "nobody", "true")
    refused = machine.torch("cancel", done, "not-yet", code=1)
    assert refused.stderr == f"Error: task {done} had ended already: succeeded\n"
    assert refused.stdout == "task not-yet cancelled\n"


# ── agents, screen, logs ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("words", "ids"),
    [
        ([], ["dev-1", "qa-1"]),
        (["--online"], ["dev-1", "qa-1"]),
        (["--role", "qa"], ["qa-1"]),
        (["--skill", "python"], ["dev-1"]),
        (["--role", "qa", "--skill", "python"], []),
    ],
)
def test_agents_lists_those_that_match(machine: Machine, words: list[str], ids: list[str]) -> None:
    assert [info["agent_id"] for info in json.loads(machine.torch("agents", "--json", *words).stdout)] == ids


def test_agents_are_shown_with_what_they_can_and_do(machine: Machine) -> None:
    table = machine.torch("agents").stdout.splitlines()
    assert table[0].split() == [
        "ID",
        "ROLE",
        "SKILLS",
        "KIND",
        "NODE",
        "STATE",
        "LOAD",
        "SUCCESS",
        "TASK",
        "LAST",
        "SEEN",
    ]
    assert table[1].split()[:4] == ["dev-1", "developer", "python", "shell"]


def test_agent_shows_one(machine: Machine) -> None:
    assert json.loads(machine.torch("agent", "dev-1", "--json").stdout)["skills"] == ["python"]
    assert re.search(r"^status: +active$", machine.torch("agent", "dev-1").stdout, re.MULTILINE)


@pytest.mark.parametrize("command", ["agent", "screen", "attach"])
def test_an_unknown_agent_is_named(machine: Machine, command: str) -> None:
    refused = machine.torch(command, "nonesuch", code=1)
    said = "Error: no agent 'nonesuch' is registered; 'torch-tasks agents' lists those that are\n"
    assert (refused.stdout, refused.stderr) == ("", said)


def test_screen_prints_what_the_pane_shows_and_what_scrolled_away(machine: Machine) -> None:
    machine.torch("run", "--agent", "dev-1", "--wait", "echo first; seq 100")
    shown = machine.torch("screen", "dev-1").stdout.splitlines()
    assert shown[-1] == "dev-1>"
    assert "100" in shown
    assert "first" not in shown
    assert "first" in machine.torch("screen", "dev-1", "--history", "200").stdout.splitlines()


def test_the_pane_of_an_agent_of_this_machine_is_found_without_the_broker(machine: Machine, closed_port: int) -> None:
    machine.torch("run", "--agent", "dev-1", "--wait", "echo seen-$((40 + 2))")
    away = {"TORCH_BROKER_URL": f"redis://127.0.0.1:{closed_port}/0"}
    assert "seen-42" in machine.torch("screen", "dev-1", **away).stdout.splitlines()
    assert "ready" in machine.torch("screen", "dev-1", "--explain", **away).stdout
    assert "not a terminal" in machine.torch("attach", "dev-1", code=1, **away).stderr  # tmux says so


def test_logs_lists_and_prints_the_logs_of_this_machine(machine: Machine) -> None:
    there = ["agent-dev-1", "agent-qa-1", "beat", "broker", "node", "up"]
    assert machine.torch("logs").stdout.split() == there
    assert machine.torch("logs", "dev-1").stdout == machine.torch("logs", "agent-dev-1").stdout != ""
    assert len(machine.torch("logs", "node", "-n", "2").stdout.splitlines()) == 2
    events = [json.loads(line) for line in machine.torch("logs", "--all", "--json", "-n", "99999").stdout.splitlines()]
    assert {event["process"] for event in events} == set(there)
    assert {event["source"] for event in events if event["process"] == "broker"} == {"valkey"}
    assert all({"at", "level", "message"} <= event.keys() for event in events)


def test_an_unknown_log_is_named_beside_those_that_are_there(machine: Machine) -> None:
    refused = machine.torch("logs", "nonesuch", code=1)
    assert "there is no log of 'nonesuch'" in refused.stderr
    assert "agent-dev-1, agent-qa-1, beat, broker, node, up" in refused.stderr


# ── doctor, version ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def nothing_waits(machine: Machine) -> None:
    """What other tests enqueued for nobody is not wanted any more."""
    waiting = json.loads(machine.torch("tasks", "--state", "queued", "--json").stdout)
    for record in waiting:
        machine.torch("cancel", record["spec"]["id"])


@pytest.mark.usefixtures("nothing_waits")
def test_doctor_finds_nothing_wrong(machine: Machine) -> None:
    said = machine.torch("doctor")
    assert {line.split()[0] for line in said.stdout.splitlines() if not line.startswith(" ")} == {"ok"}
    findings = json.loads(machine.torch("doctor", "--json").stdout)
    details = {finding["what"]: finding["detail"] for finding in findings}
    assert details.keys() >= {"python", "tmux", "state folder", "broker", "agents", "flower"}
    assert "torch_node_info{" in httpx2.get(details["metrics"]).text
    assert all(finding["good"] for finding in findings)


@pytest.mark.usefixtures("nothing_waits")
def test_doctor_finds_what_is_wrong_besides_the_broker(machine: Machine) -> None:
    found = machine.torch("doctor", "--json", code=1, PATH="/nonexistent")
    wrong = [finding for finding in json.loads(found.stdout) if not finding["good"]]
    assert [finding["what"] for finding in wrong] == ["tmux"]
    assert "apt install tmux" in wrong[0]["detail"]


def test_version_is_the_one_of_the_file(machine: Machine) -> None:
    written = (REPOSITORY / "VERSION").read_text()
    assert machine.torch("version").stdout == written
    assert machine.torch("--version").stdout == f"torch-tasks, version {written}"


#: They ask the broker, and no worker.
ASKING = (
    "tasks", "task the-done-one", "trace the-done-one", "summary", "report", "dead list", "agents", "node list",
    "inbox", "messages", "checkin list", "note list", "claims", "budget", "git report", "scale --dry-run",
    "policy show",
)  # fmt: skip
PERFORMS = """
import contextlib, io, json, sys
from torch_tasks.cli import main
codes = {}
for words in sys.argv[1:]:
    with contextlib.redirect_stdout(io.StringIO()):
        codes[words] = main(words.split(), prog_name="torch-tasks", standalone_mode=False)
heavy = {"celery", "kombu", "amqp", "billiard", "yaml", "tenacity", "httpx2", "jinja2", "starlette"}
print(json.dumps([[words for words in codes if codes[words]], sorted(heavy & sys.modules.keys())]))
"""


def test_a_command_that_only_asks_the_broker_loads_what_it_needs(machine: Machine, done: str) -> None:
    """Each would start for twice as long with Celery, which has no part in it."""
    assert done in " ".join(ASKING)
    argv = [sys.executable, "-c", PERFORMS, *ASKING]
    asked = subprocess.run(argv, env=machine.env, cwd=machine.work, capture_output=True, text=True, timeout=60)
    assert asked.stdout, asked.stderr
    assert json.loads(asked.stdout.splitlines()[-1]) == [[], []]
