"""Check-ins as people and agents ask for them: the commands on a machine of which every part is real."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from machine import Machine
from waiting import until

pytestmark = pytest.mark.slow

FAR = "2031-01-01 09:00 UTC"


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    """A machine with a beat and two agents, a developer and one for quality."""
    machine = Machine(TZ="Europe/Berlin")
    machine.fork_stack()
    machine.torch("up", "--detach", "--no-flower", "--agent", "dev-1:developer", "--agent", "qa-1:qa", seconds=90)
    yield machine
    machine.torch("down")
    machine.close()


def ask(machine: Machine, *words: str, **how: Any) -> Any:
    """What a command of ``checkin`` answers as JSON."""
    return json.loads(machine.torch("checkin", *words, "--json", **how).stdout)


def add(machine: Machine, *words: str) -> str:
    """The id of a new check-in."""
    return str(ask(machine, "add", *words)["checkin"]["id"])


def fires(machine: Machine, checkin_id: str, outcome: str = "sent") -> list[dict[str, Any]]:
    """The fires of a check-in, once the latest has this outcome."""

    def found() -> list[dict[str, Any]]:
        told: list[dict[str, Any]] = ask(machine, "history", checkin_id)
        return told if told and told[0]["outcome"] == outcome else []

    return until(found, f"{checkin_id} is {outcome}")


def refused(machine: Machine, *words: str, code: int = 2) -> str:
    """How a command of ``checkin`` is refused."""
    done = machine.torch("checkin", *words, code=code)
    assert done.stdout == ""
    assert done.stderr.startswith("Error: ")
    return done.stderr


# ── from a pane ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_agent_schedules_for_itself_from_its_pane_and_gets_it_there(machine: Machine) -> None:
    proof = machine.work / "proof"
    note = f"echo $TORCH_AGENT_ID > {proof}"
    script = f"torch-tasks checkin add 0.05 '{note}' --id from-the-pane"
    said = machine.torch("run", "--wait", "--agent", "dev-1", script).stdout
    assert "check-in from-the-pane for dev-1: once, " in said
    assert until(lambda: proof.exists() and proof.read_text(), "the note is run in the agent's shell") == "dev-1\n"
    (fire,) = fires(machine, "from-the-pane")
    (receipt,) = fire["receipts"]
    assert receipt["agent"] == "dev-1"
    message = until(
        lambda: (found := message_of(machine, receipt["message"]))["state"] == "acknowledged" and found,
        "the message is acknowledged",
    )
    assert message["message"]["message"] == note
    assert (message["message"]["sender"], message["message"]["kind"]) == ("dev-1", "checkin")
    shown = machine.torch("checkin", "history", "from-the-pane").stdout
    assert f"dev-1: message {receipt['message']} acknowledged" in shown
    record = ask(machine, "show", "from-the-pane")
    assert (record["state"], record["runs"], record["checkin"]["sender"]) == ("ended", 1, "dev-1")


def message_of(machine: Machine, message_id: str) -> dict[str, Any]:
    """The record of a message."""
    found: dict[str, Any] = json.loads(machine.torch("messages", message_id, "--json").stdout)
    return found


# ── each verb ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_check_in_is_listed_shown_changed_paused_run_and_removed(machine: Machine) -> None:
    said = machine.torch("checkin", "add", "weekdays 9:00", "make status", "dev-1", "--id", "daily", "--jitter", "5")
    assert said.stdout.startswith("check-in daily for dev-1: cron 0 9 * * 1-5 Europe/Berlin; next ")
    assert said.stdout.endswith(" 09:00:00 CET, Europe/Berlin (from TZ)\n") or "CEST" in said.stdout
    assert said.stderr == ""
    assert "daily" in machine.torch("checkin", "list").stdout
    assert [one["checkin"]["id"] for one in ask(machine, "list") if one["checkin"]["id"] == "daily"] == ["daily"]
    kept = ask(machine, "edit", "daily", "--time", "every 2h from 9:00 UTC", "--note", "make it so", "--when", "skip")
    checkin = kept["checkin"]
    assert (checkin["schedule"]["kind"], checkin["schedule"]["seconds"], checkin["jitter"]) == ("every", 7200, 5)
    assert (checkin["note"], checkin["when"], checkin["target"]["agent"]) == ("make it so", "skip", "dev-1")
    assert kept["version"] == 2
    assert ask(machine, "edit", "daily", "--to", "qa-1")["checkin"]["target"]["agent"] == "qa-1"
    assert ask(machine, "edit", "daily", "--role", "qa")["checkin"]["target"]["agent"] is None
    ask(machine, "edit", "daily", "--to", "dev-1", "--note", f"touch {machine.work}/ran")
    assert machine.torch("checkin", "pause", "daily").stdout == "check-in daily paused\n"
    assert ask(machine, "show", "daily")["slot"] is None
    assert machine.torch("checkin", "resume", "daily").stdout.startswith("check-in daily active, next ")
    assert machine.torch("checkin", "run", "daily").stdout.startswith("check-in daily fires; ")
    until(lambda: (machine.work / "ran").exists(), "it has fired at once")
    (fire,) = fires(machine, "daily")
    assert fire["note"] == "" or "hand" in fire["note"]
    shown = machine.torch("checkin", "show", "daily").stdout
    for line in (
        "for:      dev-1",
        "by:       operator",
        "times:    every 2 h",
        "busy:     skip",
        f"{machine.work}/ran",
    ):
        assert line in shown
    assert ask(machine, "remove", "daily") == {"removed": "daily"}
    assert "daily" not in machine.torch("checkin", "list", "--all").stdout


def test_a_check_in_becomes_a_real_task(machine: Machine) -> None:
    checkin_id = add(machine, "0.02", "echo done by $TORCH_AGENT_ID", "--task", "--role", "qa", "--timeout", "30")
    (fire,) = fires(machine, checkin_id)
    task = until(
        lambda: (found := json.loads(machine.torch("task", fire["task"], "--json").stdout))["result"] and found,
        "the task has ended",
    )
    assert (task["state"], task["agent"], task["result"]["answer"]) == ("succeeded", "qa-1", "done by qa-1\n")
    assert f"task {fire['task']} succeeded" in machine.torch("checkin", "history", checkin_id).stdout
    assert ask(machine, "show", checkin_id)["checkin"]["target"]["task"] == {"role": "qa", "timeout": 30.0}


def test_a_role_gets_it_and_intervals_end_after_their_runs(machine: Machine) -> None:
    log = machine.work / "again"
    checkin_id = add(machine, "--every", "1s", f"echo $TORCH_AGENT_ID >> {log}", "--role", "qa", "--max-runs", "2")
    until(lambda: log.exists() and log.read_text() == "qa-1\nqa-1\n", "it came up twice")
    assert [fire["receipts"][0]["agent"] for fire in fires(machine, checkin_id)] == ["qa-1", "qa-1"]
    assert (
        until(lambda: (record := ask(machine, "show", checkin_id))["state"] == "ended" and record, "ended")["runs"] == 2
    )


def test_one_id_is_one_check_in(machine: Machine) -> None:
    first = machine.torch("checkin", "add", FAR, "make one", "dev-1", "--id", "once")
    again = machine.torch("checkin", "add", FAR, "make two", "dev-1", "--id", "once")
    assert first.stderr == ""
    assert "exists already and was not changed" in again.stderr
    assert ask(machine, "show", "once")["checkin"]["note"] == "make one"


def test_the_note_may_come_from_standard_input_and_the_cron_line_from_its_option(machine: Machine) -> None:
    kept = ask(machine, "add", "--cron", "*/15 * * * * UTC", "-", "dev-1", stdin="make this; make that\n")
    assert kept["checkin"]["note"] == "make this; make that\n"
    assert kept["checkin"]["schedule"] == {"kind": "cron", "expression": "*/15 * * * *", "timezone": "UTC"}
    assert kept["zone"] == "UTC (as given)"


# ── what is refused, and what is warned of ───────────────────────────────────────────────────────────────────────


def kept(machine: Machine) -> list[Any]:
    """All check-ins as they were asked for; what has come of them changes with the time."""
    return [record["checkin"] for record in ask(machine, "list", "--all")]


def test_what_cannot_be_kept_is_refused_and_says_why(machine: Machine) -> None:
    before = kept(machine)
    assert "did you mean dev-1?" in refused(machine, "add", "30", "make", "dev-2")
    assert "'soon' is no clear time" in refused(machine, "add", "soon", "make", "dev-1")
    assert "is in the past" in refused(machine, "add", "2020-01-01 9:00", "make", "dev-1")
    assert "is empty" in refused(machine, "add", "30", " ", "dev-1")
    assert "no agent's pane" in refused(machine, "add", "30", "make")
    assert "say WHEN NOTE" in refused(machine, "add", "30")
    assert "--task" in refused(machine, "add", "30", "make", "dev-1", "--timeout", "5")
    assert "one of agent, role" in refused(machine, "add", "30", "make", "dev-1", "--role", "qa")
    assert "max_runs" in refused(machine, "add", "30", "make", "dev-1", "--max-runs", "0")
    assert "never come up" in refused(machine, "add", FAR, "make", "dev-1", "--until", "tomorrow 9:00")
    assert "nothing to change in once: give --time" in refused(machine, "edit", "once")
    for verb in ("show", "pause", "resume", "remove", "run", "history"):
        assert "no check-in 'nothing'" in refused(machine, verb, "nothing", code=1)
    assert "no check-in 'nothing'" in refused(machine, "edit", "nothing", "--note", "make", code=1)
    assert kept(machine) == before


def test_a_note_that_says_little_is_warned_of(machine: Machine) -> None:
    for note in ("check", "Continue!", "status?", "standard check-in", "?"):
        said = machine.torch("checkin", "add", FAR, note, "--role", "developer")
        assert "says little: a good note names what to look at" in said.stderr, note
    assert ask(machine, "add", FAR, "check", "--role", "developer")["warnings"]
    for note, whom in (("look at the build", "--role=developer"), ("status", "dev-1")):  # for a shell it is a command
        assert machine.torch("checkin", "add", FAR, note, whom).stderr == ""
    assert "no agent has the role writer" in machine.torch("checkin", "add", FAR, "write", "--role", "writer").stderr


def test_who_has_no_beat_hears_of_it(machine: Machine) -> None:
    alone = Machine()
    alone.fork_stack()
    try:
        alone.torch("up", "--detach", "--no-flower", "--no-beat", "--agent", "dev-1:developer", seconds=90)
        said = alone.torch("checkin", "add", "30", "make", "dev-1")
        assert "no beat runs: nothing fires until one does" in said.stderr
        assert "no beat runs" in alone.torch("doctor", code=1).stdout
        alone.torch("down")
    finally:
        alone.close()
    said = machine.torch("doctor").stdout
    assert "leads" in said
