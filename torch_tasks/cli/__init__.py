"""The command ``torch-tasks``.

Each command is loaded when it is called: an agent that reports from its pane does not wait for Celery's import.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import nullcontext, redirect_stderr, suppress
from typing import Any

import click
from click.shell_completion import CompletionItem

from torch_tasks.caller import own_desk
from torch_tasks.config_files import glance, glance_at_state_dir
from torch_tasks.errors import NothingRuns, TorchError, WrongUsage
from torch_tasks.link import NO_SERVER, SERVER_VARIABLE, TOKEN_VARIABLE, server_chosen
from torch_tasks.model.near import did_you_mean
from torch_tasks.started_by_name import CERTIFY, NODE_COMMANDS, UP_AND_DOWN, load
from torch_tasks.state_folder import TMUX, StateFolder
from torch_tasks.system.loading import loading
from torch_tasks.system.terminal import visible_output

COMPLETE = "_TORCH_TASKS_COMPLETE"
"""With this variable, the shell asks what may be typed next."""

#: group → name → (where it is, what it does)
COMMANDS = {
    "Work": {
        "run": ("torch_tasks.cli.tasks:run", "Hand a task to the fleet."),
        "tasks": ("torch_tasks.cli.tasks:tasks", "List the latest tasks."),
        "task": ("torch_tasks.cli.tasks:task", "Show one task."),
        "trace": ("torch_tasks.cli.trace:trace", "Draw how a task spent its time, with all tasks of its trace."),
        "summary": ("torch_tasks.cli.summary:summary", "Show what waits for you, and what became of each task."),
        "report": ("torch_tasks.cli.report:report", "Show uptime, completion, delivery, cost, capacity and trends."),
        "answer": ("torch_tasks.cli.tasks:answer", "Answer the question of a waiting task's agent."),
        "handoff": ("torch_tasks.cli.tasks:handoff", "Hand a task over to another agent."),
        "cancel": ("torch_tasks.cli.tasks:cancel", "Cancel tasks."),
        "dead": ("torch_tasks.cli.dead_letters:dead", "List, show, replay or drop the tasks that ran out of retries."),
        "git": ("torch_tasks.cli.fleet:git", "Show the state of the agents' git trees."),
    },
    "Agents": {
        "agents": ("torch_tasks.cli.agents:agents", "List the agents."),
        "agent": ("torch_tasks.cli.agents:agent", "Show one agent."),
        "spawn": ("torch_tasks.cli.agents:spawn", "Start an agent somewhere in the fleet."),
        "retire": ("torch_tasks.cli.agents:retire", "End an agent."),
        "screen": (f"{NODE_COMMANDS}:screen", "Print what an agent's pane shows."),
        "attach": (f"{NODE_COMMANDS}:attach", "Attach this terminal to an agent's pane."),
        "team": ("torch_tasks.cli.collaboration:team", "Find agents that together have the given skills."),
    },
    "Messages": {
        "send": ("torch_tasks.cli.messages:send", "Send an agent a message."),
        "ask": ("torch_tasks.cli.messages:ask", "Ask an agent and print its reply."),
        "reply": ("torch_tasks.cli.messages:reply", "Answer a message."),
        "broadcast": ("torch_tasks.cli.messages:broadcast", "Send a message to many agents."),
        "inbox": ("torch_tasks.cli.messages:inbox", "Show the messages that wait for you."),
        "messages": ("torch_tasks.cli.messages:messages", "List the latest messages, or show one."),
    },
    "Time": {
        "checkin": ("torch_tasks.cli.checkins:checkin", "Schedule notes for agents, and tasks."),
    },
    "Fleet": {
        "monitor": ("torch_tasks.cli.fleet:monitor", "Show messages, tasks and agents as they change."),
        "pause": ("torch_tasks.cli.fleet:pause", "Keep an agent, a role or the whole fleet from taking new tasks."),
        "resume": ("torch_tasks.cli.fleet:resume", "Lift a pause."),
        "stop": ("torch_tasks.cli.fleet:stop", "Stop the fleet or this machine, with the broker or without."),
        "start": ("torch_tasks.cli.fleet:start", "Lift a stop."),
        "scale": ("torch_tasks.cli.nodes:scale", "Grow the pools of agents to match the waiting tasks."),
        "policy": ("torch_tasks.cli.policy:policy", "Show who may do what, and what was refused."),
        "audit": ("torch_tasks.cli.audit:audit", "Show, verify and report what was done and decided here."),
        "budget": ("torch_tasks.cli.fleet:budget", "Show how much of each account is used up."),
        "node": ("torch_tasks.cli.nodes:node", "Run this machine's node worker; list, show and drain nodes."),
    },
    "This machine": {
        "init": ("torch_tasks.cli.init:init", "Write a first configuration after three questions."),
        "demo": ("torch_tasks.cli.demo:demo", "Demonstrate Torch on this machine in under a minute."),
        "up": ("torch_tasks.cli.stack:up", "Run all of Torch on this machine: broker, workers, agents."),
        "down": ("torch_tasks.cli.down:down", "Stop everything that `up` started."),
        "doctor": ("torch_tasks.cli.doctor:doctor", "Check this machine and the fleet: what works, what does not."),
        "serve": ("torch_tasks.cli.server:serve", "Serve the fleet by HTTP to programs and people elsewhere."),
        "console": ("torch_tasks.cli.console:console", "Open the fleet in a browser."),
        "broker": ("torch_tasks.cli.broker:broker", "Make users on the broker, and change their passwords."),
        "backup": ("torch_tasks.cli.backup:backup", "Back the fleet up, verify a backup, list what came after it."),
        "restore": ("torch_tasks.cli.backup:restore", "Restore a backup of the fleet."),
        "token": ("torch_tasks.cli.server:token", "Make, list and revoke the tokens with which they ask."),
        "logs": ("torch_tasks.cli.logs:logs", "Print the log of a process on this machine."),
        "keys": ("torch_tasks.cli.keys:keys", "List, issue, rotate and revoke this fleet's keys."),
        "operations": ("torch_tasks.cli.operations:operations", "List what can be asked of Torch, and by whom."),
        "kinds": (f"{NODE_COMMANDS}:kinds", "List the kinds of agents, and which are installed here."),
        "certify": (CERTIFY, "Try the programs of kinds against a fake model."),
        "worker": ("torch_tasks.cli.workers:worker", "Run one agent worker."),
        "completion": ("torch_tasks.cli.completion:completion", "Have the shell complete commands, options and ids."),
        "mcp": ("torch_tasks.cli.mcp:mcp", "Give a model's program Torch's tools (MCP)."),
        "compat": ("torch_tasks.compat.install:compat", "Install the tools that Torch replaces under their old names."),
        "deploy": ("torch_tasks.cli.deploy:deploy", "Write the files for systemd, compose or Kubernetes."),
        "version": ("torch_tasks.cli:version", "Print the version."),
    },
    "For agents": {
        "done": ("torch_tasks.cli.pane:done", "Report the task as done."),
        "fail": ("torch_tasks.cli.pane:fail", "Report that the task cannot be done."),
        "progress": ("torch_tasks.cli.pane:progress", "Report progress on the task."),
        "note": ("torch_tasks.cli.collaboration:note", "Record and search facts about a project."),
        "claim": ("torch_tasks.cli.collaboration:claim", "Claim a shared resource."),
        "release": ("torch_tasks.cli.collaboration:release", "Release a claimed resource."),
        "claims": ("torch_tasks.cli.collaboration:claims", "List the claimed resources."),
        "help-wanted": ("torch_tasks.cli.collaboration:help_wanted", "Ask able agents for help until one accepts."),
    },
}
_HIDDEN = {
    "supervise": "torch_tasks.cli.supervise:supervise",
    "end-panes": f"{UP_AND_DOWN}:end_panes",
    "check-agents": f"{UP_AND_DOWN}:check_agents",
}


_PLACES = {name: place for group in COMMANDS.values() for name, (place, _) in group.items()} | _HIDDEN


#: They start or end what runs, or work on this machine's files alone.
_NEED_NO_FLEET = frozenset((
    "init", "demo", "up", "down", "doctor", "logs", "kinds", "worker", "completion", "compat", "version", "stop",
    "audit", "certify", "mcp", "serve", "console", "token", "keys", "broker", "done", "fail", "progress", "operations",
    "restore", "deploy", *_HIDDEN,
))  # fmt: skip


#: They are about this machine alone, or an agent's own pane: no server does them.
_OF_THIS_MACHINE = frozenset((
    "init", "demo", "up", "down", "doctor", "logs", "kinds", "certify", "worker", "node", "compat", "serve", "console",
    "token", "keys", "broker", "backup", "restore", "attach", "done", "fail", "progress", "deploy", *_HIDDEN,
))  # fmt: skip


def needs_a_fleet(words: Sequence[str], state: StateFolder) -> bool:
    """Whether this command line can do nothing where nothing runs; every command can that is not named here."""
    name, *rest = words
    match name:
        case "node":  # without the name of a command, it is the node worker
            return bool(rest) and not rest[0].startswith("-") and rest[0] != "join"
        case "run":
            return "--spool" not in rest
        case "policy":
            return rest[:1] != ["show"]
        case "start":
            return "--here" not in rest
        case "backup":
            return rest[:1] != ["verify"]
        case "screen" | "attach":  # `down --keep-agents` leaves the panes
            return not any((state.agent(word) / TMUX).exists() for word in rest)
        case "send":  # a worker that waits for a broker takes its agent's mail
            from torch_tasks.machine.agent_folder import is_hosted

            return not any(is_hosted(state.agent(word)) for word in rest)
    return name in _PLACES and name not in _NEED_NO_FLEET


def _refuse_if_nothing_runs(words: Sequence[str]) -> None:
    """Raise :class:`NothingRuns` before what the command needs is loaded: that takes a second.

    In an agent's pane its desk is there, or comes back, wherever the broker is.
    """
    elsewhere = glance("broker_url") or server_chosen() or own_desk()
    state = StateFolder(glance_at_state_dir())
    if not words or {"-h", "--help"} & set(words) or elsewhere or state.joined.exists():
        return
    with suppress(OSError):  # the command itself names a state folder that cannot be read
        if needs_a_fleet(words, state) and (not state.broker_address.exists() or _was_killed(state)):
            raise NothingRuns(state.path)


def _choose_link(server: str | None, words: Sequence[str]) -> None:
    """Have this process, and those that it starts, reach the fleet through the server, if the command is one for it."""
    is_local = _is_about_this_machine(words)
    if server and is_local:
        raise WrongUsage(
            f"'torch-tasks {' '.join(words[:2])}' is about this machine: leave "
            "--server out, or run it where the server is"
        )
    if words[:1] == ["down"] and (named := server_chosen()):
        click.echo(f"this is about this machine alone: the server at {named} (TORCH_SERVER) is not asked", err=True)
    if server or is_local:
        os.environ[SERVER_VARIABLE] = NO_SERVER if is_local else str(server)


def _server_named(server: str | None, fleet: str | None) -> str | None:
    """The server through which a command goes; for another fleet, with that one's token from now on."""
    if fleet is None:
        return server
    if server:
        raise WrongUsage("--server and --fleet each name a fleet: leave one of them out")
    from torch_tasks.link.elsewhere import door_of
    from torch_tasks.settings import settings

    door = door_of(fleet)
    os.environ[TOKEN_VARIABLE] = str(door.token_file)
    settings.cache_clear()
    return door.server


def _is_about_this_machine(words: Sequence[str]) -> bool:
    match words:
        case ["node", "invite" | "join", *_]:
            return True
        case ["node", _, *_] | []:
            return False
        case ["stop" | "start", *rest]:
            return "--here" in rest
        case [name, *_]:
            return name in _OF_THIS_MACHINE
    return False


def _was_killed(state: StateFolder) -> bool:
    from torch_tasks.system.own_broker import is_gone

    return is_gone(state)


class VisibleCommand(click.Command):
    """A command whose whole output is visible text."""

    def main(self, *args: Any, **how: Any) -> Any:
        with visible_output(), redirect_stderr(None) if COMPLETE in os.environ else nullcontext():
            # In color, or click would drop sequences from what goes into a pipe before they are shown.
            return super().main(*args, **{"color": True, **how})


class _Commands(VisibleCommand, click.Group):
    """All commands, flat to type and in groups to read."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for group in COMMANDS.values() for name in group]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _PLACES:
            return None
        with loading():
            command: click.Command = load(_PLACES[cmd_name])
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name in _PLACES or name.startswith("-") or ctx.resilient_parsing:
            return super().resolve_command(ctx, args)
        hint = did_you_mean(name, self.list_commands(ctx), "'torch-tasks --help' lists the commands")
        raise click.UsageError(f"there is no command {name!r}; {hint}", ctx)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """The commands that begin so, of which none is loaded for that; or the options of ``torch-tasks`` itself."""
        if incomplete.startswith("-"):
            return click.Command.shell_complete(self, ctx, incomplete)
        said = {name: words for group in COMMANDS.values() for name, (_, words) in group.items()}
        return [CompletionItem(name, help=said[name]) for name in said if name.startswith(incomplete)]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        widest = max(map(len, self.list_commands(ctx)))
        for group, commands in COMMANDS.items():
            with formatter.section(group):
                formatter.write_dl([(f"{name:<{widest}}", said) for name, (_, said) in commands.items()])

    def invoke(self, ctx: click.Context) -> Any:
        words = [*ctx._protected_args, *ctx.args]
        try:
            _choose_link(_server_named(ctx.params["server"], ctx.params["fleet"]), words)
            _refuse_if_nothing_runs(words)
            return super().invoke(ctx)
        except TorchError as error:
            click.echo(f"Error: {error}", err=True)
            sys.exit(error.exit_code)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="torch-tasks", prog_name="torch-tasks")
@click.option("--server", metavar="URL", help="Reach the fleet through this server (default: TORCH_SERVER).")
@click.option("--fleet", metavar="NAME", help="Reach another fleet, one of those that the settings name.")
def main(server: str | None, fleet: str | None) -> None:
    """Fleets of terminal agents, fed by Celery.

    Exit codes: 0 done, 1 failed, 2 wrong usage, 3 no able agent, 4 no broker, 5 not allowed, 124 timed out.
    """


@click.command()
def version() -> None:
    """Print the version."""
    from importlib.metadata import version as installed  # 30 ms, which only this command needs

    click.echo(installed("torch-tasks"))
