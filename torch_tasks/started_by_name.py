"""The names of what lower layers start but may not import: all that they know of those."""

from __future__ import annotations

from importlib import import_module
from typing import Any

WORKER = "torch_tasks.workers.program:Program"
"""Celery's worker as Torch runs it."""
CONSUMER = "torch_tasks.workers.consumer:OwnConsumer"
"""What a worker takes messages with: it keeps those that are no task among the dead letters."""
AGENT_POOL = "torch_tasks.workers.host.agent_worker:AgentPool"
"""The pool of an agent worker, which ends a task by interrupting the agent."""
BEAT = "torch_tasks.beat.program:BeatProgram"
"""Celery's beat as Torch runs it."""
SCHEDULER = "torch_tasks.beat.scheduler:TorchScheduler"
"""What beat runs."""
USER_TMUX = "torch_tasks.workers.programs.user_programs:ProgramAwareTmux"
"""The user's own tmux server, with what its programs show."""
PUBLISH_AT_DESK = "torch_tasks.link.canvas:publish"
"""Has the worker of the agent in whose pane this process runs publish a task."""
DESK_RESULTS = "torch_tasks.link.canvas:DeskResults"
"""Celery's result backend in an agent's pane."""
CONFIGURATION_FAULTS = "torch_tasks.workers.configuration:configuration_faults"
"""Checks the whole configuration, kinds included."""
INSTALLED_RELEASE = "torch_tasks.workers.programs.installed:installed_release"
"""What is known of the release of a kind's program on this machine."""
LOGIN_PROVIDER = "torch_tasks.broker.logins.OwnLogin"
"""Gives each new connection of kombu and Celery its user and password."""
WHY_NO_BOX = "torch_tasks.workers.sandbox.ability:why_not"
"""Why no program can be boxed on this machine; None if it can."""
NOTE_KEY_CHANGE = "torch_tasks.security.audit:note_key_change"
"""Notes in the audit that a key was issued, replaced, revoked, or that the fleet has another root."""
BEATS_HEADS = "torch_tasks.beat.journal:kept_heads"
"""How far each node's audit was, as the journals of this machine's beats keep it."""
NODE_COMMANDS = "torch_tasks.workers.cli"
"""The commands that need a pane."""
WARM_PARENT = "torch_tasks.workers.warm_parent"
"""The program that loads what the others need, and forks them."""
UP_AND_DOWN = "torch_tasks.workers.up_and_down"
"""What `up` and `down` have done in a process of its own."""
CERTIFY = "torch_tasks.workers.certify.command:certify"
"""The command that tries the programs of kinds."""
NOVA_ORCHESTRATOR = "torch_tasks.facades.messages:NovaOrchestrator"
CLAIMS = "torch_tasks.facades.collaboration:Claims"
NOTES = "torch_tasks.facades.collaboration:Notes"
FORM_TEAM = "torch_tasks.facades.collaboration:form_team"
AGENT_REGISTRY = "torch_tasks.facades.agents:AgentRegistry"
TASK_ORCHESTRATOR = "torch_tasks.facades.assignment:TaskOrchestrator"
SYSTEM_MONITOR = "torch_tasks.facades.health:SystemMonitor"
"""What programs import from the room of its noun, although it asks through the link."""
REGISTRY_COMMAND = "torch_tasks.cli.agents:registry"


def load(name: str) -> Any:
    """Import ``module:attribute``."""
    module, attribute = name.split(":")
    return getattr(import_module(module), attribute)
