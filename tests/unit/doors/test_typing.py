"""What a person types at ``torch-tasks``: commands stand in groups, and a mistyped word is told its neighbours."""

from __future__ import annotations

import re
from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

from torch_tasks.app import app
from torch_tasks.cli import COMMANDS, main

CTX = click.Context(main)


def said(*words: str, code: int = 0) -> str:
    """What the command prints, at 80 columns."""
    done = CliRunner().invoke(main, words, prog_name="torch-tasks", terminal_width=80)
    assert done.exit_code == code, done.output
    return done.output


def test_the_help_shows_each_command_once_in_its_group_with_one_line() -> None:
    sections = re.split(r"^([A-Z][\w ]*):\n", said("--help"), flags=re.MULTILINE)
    shown = {group: text for group, text in zip(sections[1::2], sections[2::2], strict=True) if group in COMMANDS}
    assert list(shown) == ["Work", "Agents", "Messages", "Time", "Fleet", "This machine", "For agents"]
    for group, commands in COMMANDS.items():
        lines = shown[group].strip("\n").splitlines()
        assert [line.split()[0] for line in lines] == list(commands)
        assert all(re.fullmatch(r"  [a-z-]+ +[A-Z].*\.", line) for line in lines), lines
    assert len({name for commands in COMMANDS.values() for name in commands}) == sum(map(len, COMMANDS.values()))


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (("agnts",), "there is no command 'agnts'; did you mean agents or agent?"),
        (("Tasks",), "there is no command 'Tasks'; did you mean tasks or task or ask?"),
        (("xyzzy",), "there is no command 'xyzzy'; 'torch-tasks --help' lists the commands"),
        (("node", "lst"), "there is no command 'lst' of node; did you mean list?"),
        (("node", "xyzzy"), "there is no command 'xyzzy' of node; there are list, show, drain, undrain, invite, join"),
        (("dead", "replya"), "No such command 'replya'. Did you mean 'replay'?"),
        (("pause", "--reson", "lunch"), "No such option '--reson'. (Did you mean one of: '--json', '--reason'"),
        (("tasks", "--state", "runnning"), "did you mean running?"),
        (("run", "--priority", "hihg", "x"), "'hihg' is none of urgent, high, normal, low; did you mean high?"),
        (("send", "--when", "xyzzy", "qa-1", "x"), "'xyzzy' is none of idle, now, interrupt; use one of them"),
    ],
)
def test_a_mistyped_word_is_told_its_neighbours(
    words: tuple[str, ...], hint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_BROKER_URL", "redis://a-fleet.example:6379/0")  # where nothing runs, that is said first
    assert hint in said(*words, code=2)


def options_named(flag: str) -> dict[str, click.Parameter]:
    """Every command that has this option, and the option."""

    def walk(name: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
        yield name, command
        if isinstance(command, click.Group):
            for inner in command.list_commands(click.Context(command)):
                if found := command.get_command(click.Context(command), inner):
                    yield from walk(f"{name} {inner}".strip(), found)

    commands = walk("", main)
    return {name: option for name, command in commands for option in command.params if flag in option.opts}


def test_a_kind_is_a_program() -> None:
    assert {name: option.name for name, option in options_named("--kind").items()} == {
        "run": "agent_kind",
        "spawn": "kind",
    }
    (of_worker,) = (option for option in app.user_options["worker"] if "--kind" in option.opts)
    assert of_worker.name == "agent_kind"


def test_an_agents_full_spec_is_given_where_agents_are_started_and_nowhere_else() -> None:
    full = {
        name for name, option in options_named("--agent").items() if str(option.make_metavar(CTX)).startswith("ID:")
    }
    assert full == {"up"}
    (of_worker,) = (option for option in app.user_options["worker"] if "--agent" in option.opts)
    assert str(of_worker.make_metavar(CTX)).startswith("ID:")


#: What returns nothing but its effect, or prints what is no value: a log, a screen, a script.
NOTHING_RETURNED = {
    "attach", "broker add", "broker follow", "broker make", "broker move", "broker remove", "broker rotate",
    "deploy systemd", "deploy compose", "deploy kubernetes", "deploy secrets",
    "compat install", "completion", "demo", "done", "down", "fail", "init", "mcp", "progress",
    "screen", "serve", "token revoke", "up", "version", "worker",
}  # fmt: skip


def test_whatever_returns_something_returns_it_as_json() -> None:
    def without(name: str, command: click.Command) -> Iterator[str]:
        inner = command.list_commands(CTX) if isinstance(command, click.Group) else []
        for one in inner:
            if found := command.get_command(CTX, one):  # type: ignore[attr-defined]
                yield from without(f"{name} {one}".strip(), found)
        if not inner and not any("--json" in option.opts for option in command.params):
            yield name

    assert set(without("", main)) == NOTHING_RETURNED
