"""``torch-tasks`` at a person's terminal: what it waits for, and visits to an agent's pane."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from machine import Machine
from terminals import Terminal
from waiting import until


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    """A machine with one agent, for all tests of this module."""
    machine = Machine()
    machine.fork_stack()
    machine.torch("up", "--detach", "--agent", "qa-1:qa", "--no-flower", "--no-beat")
    yield machine
    machine.close()


@pytest.fixture
def terminal(machine: Machine, request: pytest.FixtureRequest) -> Callable[..., Terminal]:
    """Opens terminals that are closed with the test."""

    def open_terminal(*words: str, **size: int) -> Terminal:
        terminal = Terminal(machine.env, *words, **size)
        request.addfinalizer(terminal.close)
        return terminal

    return open_terminal


def test_who_waits_at_a_terminal_sees_what_for(machine: Machine, terminal: Callable[..., Terminal]) -> None:
    gate = machine.work / "open"
    waiting = terminal("run", "--wait", "--id", "watched", f"until [ -e {gate} ]; do sleep 0.05; done; echo through")
    waiting.see("task watched")
    gate.touch()
    waiting.see("through")
    assert waiting.process.wait(10) == 0


def test_attach_shows_the_pane_and_leaves_it_alive(machine: Machine, terminal: Callable[..., Terminal]) -> None:
    machine.torch("run", "--agent", "qa-1", "--wait", "echo 'hello visitor'")
    pane = machine.pane("qa-1")
    visit = terminal("attach", "qa-1")
    visit.see("hello visitor")
    visit.type("echo typed-$((40 + 2))\r")
    visit.see("typed-42")
    # tmux takes keys that come within the same millisecond for a paste, in which no key has a meaning.
    assert "typed-42" in machine.torch("screen", "qa-1").stdout
    visit.type("\x02")
    prefixes = ("list-clients", "-F", "#{client_prefix}")
    until(lambda: "1" in machine.tmux("qa-1", *prefixes).split(), "tmux has taken the prefix key")
    visit.type("d")
    visit.see("[detached (from session qa-1)]")
    assert visit.process.wait(10) == 0
    assert machine.pane("qa-1") == pane
    assert machine.torch("run", "--agent", "qa-1", "--wait", "echo alive").stdout == "alive\n"


def test_who_has_a_smaller_terminal_is_told_how_to_see_the_rest(
    machine: Machine, terminal: Callable[..., Terminal]
) -> None:
    machine.torch("run", "--agent", "qa-1", "--wait", "clear; echo 'on top'; seq 41 80; printf '%150sat the right' ''")
    visit = terminal("attach", "qa-1", rows=24, columns=80)
    visit.see("C-b Shift-arrows: the rest  C-b d: leave")
    prefixes = ("list-clients", "-F", "#{client_prefix}")
    for key in ("A", "A", "A", "C", "C"):  # up, and to the right
        visit.type("\x02")
        until(lambda: "1" in machine.tmux("qa-1", *prefixes).split(), "tmux has taken the prefix key")
        visit.type(f"\x1b[1;2{key}")
        until(lambda: "1" not in machine.tmux("qa-1", *prefixes).split(), "tmux has taken the key")
    visit.see("on top")
    for rows, hides in ((50, True), (51, False)):  # one is the status line's
        other = terminal("attach", "qa-1", rows=rows)
        other.see("C-b d: leave")
        assert ("the rest" in other.text) is hides


def test_who_attaches_to_look_cannot_type(machine: Machine, terminal: Callable[..., Terminal]) -> None:
    machine.torch("run", "--agent", "qa-1", "--wait", "clear; echo 'look at me'")
    visit = terminal("attach", "qa-1", "--read-only")
    visit.see("look at me")
    visit.type("echo typed-$((40 + 2))\r")
    machine.torch("run", "--agent", "qa-1", "--wait", "echo 'the next task'")
    visit.see("the next task")
    assert "typed-42" not in machine.torch("screen", "qa-1").stdout


def test_who_is_attached_goes_along_into_a_new_pane(machine: Machine, terminal: Callable[..., Terminal]) -> None:
    machine.torch("run", "--agent", "qa-1", "--wait", "clear; echo 'the old one'")
    visit = terminal("attach", "qa-1")
    visit.see("the old one")
    machine.torch("run", "--agent", "qa-1", "--fresh", "--wait", "echo 'the new one'")
    visit.see("the new one")
    visit.type("echo typed-$((40 + 2))\r")
    visit.see("typed-42")


def test_who_is_attached_hears_that_the_agent_has_retired(machine: Machine, terminal: Callable[..., Terminal]) -> None:
    agent = machine.torch("spawn", "qa", "--id", "qa-9").stdout.strip()
    visit = terminal("attach", agent)
    visit.see("qa-9")
    machine.torch("retire", agent)
    visit.see("Error: the pane of qa-9 has ended")
    assert visit.process.wait(30) == 1
