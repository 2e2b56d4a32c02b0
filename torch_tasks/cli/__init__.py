"""The command ``torch-tasks``.

Each command is loaded when it is called: an agent that reports from its pane does not wait for Celery's import.
"""

from __future__ import annotations

import sys
from typing import Any

import click

from torch_tasks.errors import TorchError
from torch_tasks.started_by_name import NODE_COMMANDS, load

#: name → (where it is, what it does)
_COMMANDS = {
    "up": ("torch_tasks.cli.stack:up", "Run broker, node worker, agent workers, beat and Flower on this machine."),
    "down": ("torch_tasks.cli.stack:down", "Stop everything that `up` started."),
    "worker": ("torch_tasks.cli.workers:worker", "Run one agent worker."),
    "node": ("torch_tasks.cli.nodes:node", "Run this machine's node worker; list, show and drain nodes."),
    "spawn": ("torch_tasks.cli.agents:spawn", "Start an agent somewhere in the fleet."),
    "scale": ("torch_tasks.cli.nodes:scale", "Grow the pools of agents to match the waiting tasks, and say why."),
    "retire": ("torch_tasks.cli.agents:retire", "End an agent."),
    "run": ("torch_tasks.cli.tasks:run", "Hand a task to the fleet."),
    "tasks": ("torch_tasks.cli.tasks:tasks", "List the latest tasks."),
    "task": ("torch_tasks.cli.tasks:task", "Show one task."),
    "handoff": ("torch_tasks.cli.tasks:handoff", "Hand a task over to another agent."),
    "cancel": ("torch_tasks.cli.tasks:cancel", "Cancel tasks."),
    "answer": ("torch_tasks.cli.tasks:answer", "Answer the question of a waiting task's agent."),
    "dead": ("torch_tasks.cli.tasks:dead", "List, show, replay or drop the tasks that ran out of retries."),
    "agents": ("torch_tasks.cli.agents:agents", "List the agents."),
    "kinds": (f"{NODE_COMMANDS}:kinds", "List the kinds of agents, and whether their programs are installed here."),
    "agent": ("torch_tasks.cli.agents:agent", "Show one agent."),
    "budget": ("torch_tasks.cli.fleet:budget", "Show how much of each account with a model provider is used up."),
    "pause": ("torch_tasks.cli.fleet:pause", "Keep an agent, a role or the whole fleet from taking new tasks."),
    "resume": ("torch_tasks.cli.fleet:resume", "Lift a pause."),
    "stop": ("torch_tasks.cli.fleet:stop", "Stop the fleet or this machine, with the broker or without."),
    "start": ("torch_tasks.cli.fleet:start", "Lift a stop."),
    "attach": (f"{NODE_COMMANDS}:attach", "Attach this terminal to an agent's pane."),
    "screen": (f"{NODE_COMMANDS}:screen", "Print what an agent's pane shows."),
    "done": ("torch_tasks.cli.pane:done", "For agents: report the task as done."),
    "fail": ("torch_tasks.cli.pane:fail", "For agents: report that the task cannot be done."),
    "progress": ("torch_tasks.cli.pane:progress", "For agents: report progress on the task."),
    "send": ("torch_tasks.cli.messages:send", "Send an agent a message."),
    "ask": ("torch_tasks.cli.messages:ask", "Ask an agent and print its reply."),
    "reply": ("torch_tasks.cli.messages:reply", "Answer a message."),
    "broadcast": ("torch_tasks.cli.messages:broadcast", "Send a message to many agents."),
    "inbox": ("torch_tasks.cli.messages:inbox", "Show the messages that wait for you."),
    "messages": ("torch_tasks.cli.messages:messages", "List the latest messages, or show one."),
    "checkin": ("torch_tasks.cli.checkins:checkin", "Schedule notes for agents, and tasks."),
    "note": ("torch_tasks.cli.collaboration:note", "Record and search facts about a project."),
    "claim": ("torch_tasks.cli.collaboration:claim", "Claim a shared resource."),
    "release": ("torch_tasks.cli.collaboration:release", "Release a claimed resource."),
    "claims": ("torch_tasks.cli.collaboration:claims", "List the claimed resources."),
    "help-wanted": ("torch_tasks.cli.collaboration:help_wanted", "Ask able agents for help until one accepts."),
    "team": ("torch_tasks.cli.collaboration:team", "Find agents that together have the given skills."),
    "git": ("torch_tasks.cli.fleet:git", "Show the state of the agents' git trees."),
    "monitor": ("torch_tasks.cli.fleet:monitor", "Show messages, tasks and agents as they change."),
    "logs": ("torch_tasks.cli.stack:logs", "Print the log of a process on this machine."),
    "compat": ("torch_tasks.compat.install:compat", "Install the tools that Torch replaces under their old names."),
    "doctor": ("torch_tasks.cli.doctor:doctor", "Check this machine and the fleet: what works, what does not."),
    "demo": ("torch_tasks.cli.demo:demo", "Demonstrate Torch on this machine in under a minute."),
    "version": ("torch_tasks.cli:version", "Print the version."),
}
_HIDDEN = {
    "supervise": "torch_tasks.cli.stack:supervise",
    "end-panes": f"{NODE_COMMANDS}:end_panes",
    "check-agents": f"{NODE_COMMANDS}:check_agents",
}


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        place = _COMMANDS[cmd_name][0] if cmd_name in _COMMANDS else _HIDDEN.get(cmd_name)
        if place is None:
            return None
        command: click.Command = load(place)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, help_text) for name, (_, help_text) in _COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except TorchError as error:
            click.echo(f"Error: {error}", err=True)
            sys.exit(error.exit_code)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="torch-tasks", prog_name="torch-tasks")
def main() -> None:
    """Fleets of terminal agents, fed by Celery.

    Exit codes: 0 done, 1 failed, 2 wrong usage, 3 no able agent, 4 no broker, 124 timed out.
    """


@click.command()
def version() -> None:
    """Print the version."""
    from importlib.metadata import version as installed  # 30 ms, which only this command needs

    click.echo(installed("torch-tasks"))
