"""The command ``torch-tasks`` explains itself."""

from __future__ import annotations

import re
import subprocess

import pytest
from click.testing import CliRunner
from machine import TORCH_TASKS

from torch_tasks.cli import COMMANDS as GROUPS
from torch_tasks.cli import main

RUN_OPTIONS = (
    "--role --skill --agent --priority --workdir --kind --timeout --check --check-rounds --permissions"
    " --fresh --max-retries --id --title"
)
COMMANDS = [name for group in GROUPS.values() for name in group]
OPTIONS = {
    "up": "--agent --no-beat --no-flower --detach --keep-agents",
    "down": "--keep-agents",
    "answer": "TASK REPLY",
    "deploy": "systemd compose kubernetes secrets",
    "done": "TASK",
    "fail": "TASK",
    "progress": "TASK",
    "dead": "list show replay drop",
    "worker": "--id --role --skill --kind --workdir --fresh --memory --cpu --processes",
    "node": "--node --agent list show drain undrain invite join",
    "scale": "--dry-run --explain --json",
    "spawn": "ROLE --skill --kind --node --label --temporary --workdir --fresh --parent --id"
    " --memory --cpu --processes",
    "retire": "AGENT --now --hand-over --note --timeout --no-wait",
    "run": RUN_OPTIONS + " --spool --wait --wait-timeout --unroutable-after",
    "tasks": "--limit --state --json",
    "task": "--json",
    "handoff": "TASK AGENT --note --question",
    "cancel": "TASK_IDS",
    "agents": "--role --skill --online --all --json forget",
    "budget": "ACCOUNT --json",
    "agent": "--release --json",
    "pause": "AGENT --role --all --reason --interrupt",
    "resume": "AGENT --role --all --reason",
    "stop": "--all --here --reason",
    "start": "--all --here --reason",
    "kinds": "--json",
    "certify": "KIND --record --json",
    "attach": "--read-only",
    "screen": "--history --explain --follow",
    "send": "AGENT TEXT --when [idle|now|interrupt] --emergency --as --about --expires --id --wait --from --json",
    "ask": "AGENT TEXT --timeout --when --emergency --from --json",
    "reply": "TEXT --to --when --from --json",
    "broadcast": "TEXT --role --skill --project --when --emergency --from --json",
    "inbox": "PARTY --peek --json",
    "checkin": "add list show edit pause resume remove run history",
    "note": "add search list",
    "claim": "RESOURCE --for --wait --by --json",
    "release": "RESOURCE --by",
    "claims": "--json",
    "help-wanted": "--skill --role --expires --from --json",
    "team": "--skill --json",
    "messages": "MESSAGE --with --limit --replay --refused --json",
    "git": "report",
    "monitor": "--agent --role --only --for --json",
    "logs": "--lines --follow --task --agent --all --json",
    "trace": "TASK --events --json",
    "compat": "install",
    "completion": "bash zsh fish --install",
    "summary": "--since --markdown --json",
    "report": "--since --markdown --html --json",
    "init": "--yes",
    "policy": "show explain refusals",
    "console": "--no-browser --json",
    "serve": "--host --port",
    "token": "create list revoke",
    "keys": "list issue rotate revoke",
    "backup": "make verify lost",
    "restore": "--passphrase-file --without-keys --only --replace --json",
    "audit": "show verify report",
    "broker": "make users rotate add remove",
    "operations": "NAME --json",
    "mcp": "--longest-wait",
    "doctor": "--json",
    "demo": "--stay",
    "version": "--help",
}
_BECOME_CELERY = ("worker", "node")
"""Celery's worker takes the process over."""


@pytest.mark.parametrize("name", sorted(set(COMMANDS) - set(_BECOME_CELERY)))
def test_every_command_explains_itself(name: str) -> None:
    said = CliRunner().invoke(main, [name, "--help"], prog_name="torch-tasks")
    assert (said.exit_code, said.stderr) == (0, "")
    assert [option for option in OPTIONS[name].split() if option not in said.stdout] == []


@pytest.mark.parametrize("name", _BECOME_CELERY)
def test_what_becomes_a_worker_explains_itself(name: str) -> None:
    said = subprocess.run([TORCH_TASKS, name, "--help"], capture_output=True, text=True, check=True, timeout=60)
    assert said.stderr == ""
    assert [option for option in OPTIONS[name].split() if option not in said.stdout] == []


def test_the_help_lists_every_command_and_every_exit_code() -> None:
    said = CliRunner().invoke(main, ["--help"], prog_name="torch-tasks").stdout
    assert [name for name in COMMANDS if not re.search(rf"^  {name} ", said, re.MULTILINE)] == []
    assert [code for code in ("0", "1", "2", "3", "4", "124") if not re.search(rf"\b{code} [a-z]", said)] == []
    assert "supervise" not in said
