"""``torch-tasks doctor``."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime

import click
from pydantic import BaseModel
from rich.text import Text

from torch_tasks.broker.connection import connect
from torch_tasks.broker.memory import memory_of
from torch_tasks.checkins.book import readiness
from torch_tasks.cli.options import JSON
from torch_tasks.cli.output import ago, as_json, beside, print_styled
from torch_tasks.client import Torch
from torch_tasks.communication.orchestrator import outbox_of
from torch_tasks.config_files import user_config
from torch_tasks.errors import BrokerUnreachable, InvalidSettings, LedgerOff, TorchError
from torch_tasks.fleet import fleet
from torch_tasks.machine.holds import NodeHolds
from torch_tasks.machine.stack import Stack
from torch_tasks.orchestration.attention import NeedKind, needs
from torch_tasks.orchestration.followups import standing_still
from torch_tasks.settings import settings, unknown_variables
from torch_tasks.started_by_name import CONFIGURATION_FAULTS, load
from torch_tasks.system.files import make_folder

_NAME = 15
_INDENT = len("FAIL  ") + _NAME


class Finding(BaseModel):
    what: str
    good: bool
    detail: str


@click.command()
@JSON
def doctor(json_wanted: bool) -> None:
    """Check this machine and the fleet. Exit code 4 if no broker answers, 1 if anything else is wrong."""
    checks: dict[str, Callable[[], str]] = {
        "python": lambda: f"{platform.python_version()} at {sys.executable}",
        "configuration": _configuration,
        "tmux": _tmux,
        "state folder": _state_folder,
        "broker": _broker,
        "memory": _memory,
        "ledger": _ledger,
        "messages": _messages,
        "agents": _agents,
        "stopped": _stopped,
        "paused": _paused,
        "for you": _for_you,
        "check-ins": _checkins,
        "flower": _flower,
    }
    findings, code = [], 0
    for what, check in checks.items():
        try:
            findings.append(Finding(what=what, good=True, detail=check()))
        except TorchError as error:
            known = next((finding.what for finding in findings if finding.detail == str(error)), None)
            detail = f"unknown: see {known}" if known else str(error)
            findings.append(Finding(what=what, good=False, detail=detail))
            code = max(code, error.exit_code)
    if json_wanted:
        as_json(findings)
    else:
        for finding in findings:
            sign = Text("ok    ", style="green") if finding.good else Text("FAIL  ", style="bold red")
            print_styled(
                sign.append(f"{finding.what + ':':<{_NAME}}{beside(finding.detail, _INDENT)}", style="default")
            )
    sys.exit(code)


def _configuration() -> str:
    faults: list[str] = load(CONFIGURATION_FAULTS)()
    if faults:
        raise InvalidSettings("\n".join(faults))
    unread = unknown_variables()
    return f"{user_config()}" + (f"; no settings of Torch, and not read: {', '.join(unread)}" if unread else "")


def _tmux() -> str:
    path = shutil.which("tmux")
    if path is None:
        raise TorchError(
            "not on PATH: this machine can enqueue tasks but not host agents. Install it: apt install tmux"
        )
    version = subprocess.run([path, "-V"], capture_output=True, text=True, check=False).stdout.strip()
    return f"{version} at {path}"


def _state_folder() -> str:
    folder = settings().state_dir
    make_folder(folder)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise TorchError(f"{folder} cannot be written; make it writable or set TORCH_STATE_DIR")
    free = shutil.disk_usage(folder).free // 2**20
    return f"{folder}, {free:,} MiB free"


def _broker() -> str:
    address = settings().broker()
    connect(address).ping()
    server = connect(address).info("server")
    name = "DragonflyDB" if "dragonfly_version" in server else str(server.get("server_name", "redis")).capitalize()
    version = server.get("dragonfly_version") or server.get("valkey_version") or server.get("redis_version")
    return f"{name} {version} at {address} (from {address.source})"


def _memory() -> str:
    memory = memory_of(connect(settings().broker()))
    if memory.warning:
        raise TorchError(memory.warning)
    return f"the broker uses {memory}"


def _ledger() -> str:
    ledger = fleet().ledger
    if ledger is None:
        return "off (TORCH_LEDGER=false): a task that the broker loses is lost"
    if not ledger.exists():
        return f"{ledger.path}, no task was enqueued here yet"
    found = ledger.summary()
    elsewhere = f", {found.elsewhere} open for other brokers" if found.elsewhere else ""
    moment = datetime.fromtimestamp(found.reconciled, UTC) if found.reconciled else None
    reconciled = f"broker last reconciled {ago(moment)}" if moment else "broker not reconciled yet"
    return f"{ledger.path}, {found.open} open, {found.spooled} spooled{elsewhere}, {reconciled}"


def _messages() -> str:
    waiting = outbox_of(fleet()).waiting()
    try:
        connect(settings().broker()).ping()
    except BrokerUnreachable:
        if not settings().ledger:
            raise LedgerOff("the broker is away and TORCH_LEDGER=false, so no message can be sent; unset it") from None
        return f"fallback: the broker is away, {waiting} wait on this disk"
    return "through the broker" + (f", {waiting} wait on this disk to be sent" if waiting else "")


def _agents() -> str:
    agents = Torch().agents()
    online = [info.agent_id for info in agents if info.online]
    return f"{len(online)} online{': ' + ', '.join(online) if online else ''}, {len(agents) - len(online)} offline"


def _stopped() -> str:
    node = NodeHolds(settings().state_dir)
    if stop := node.stop:
        how = "torch-tasks start --all" if stop.fleet else f"torch-tasks start --here' or 'rm {node.stop_file}"
        raise TorchError(f"no task begins on this machine, stopped {stop}; '{how}' lifts it")
    with suppress(BrokerUnreachable):
        others = [f"{info.agent_id} on {info.node} {info.stopped}" for info in Torch().agents() if info.stopped]
        if others:
            raise TorchError(f"not here, but elsewhere: {'; '.join(others)}")
    return "no"


def _paused() -> str:
    pauses = fleet().holds.latest().pauses()
    return "; ".join(f"{scope} {hold}" for scope, hold in pauses) or "no"


def _for_you() -> str:
    found = needs(fleet())
    unnoticed = "" if settings().notify_command else "\nset TORCH_NOTIFY_COMMAND to be notified (docs/notify.md)"
    words = "\n".join(f"{need.text}: '{need.do}'" for need in found) or "nothing"
    if any(need.kind is not NeedKind.LIMITED for need in found):  # a limit passes by itself
        raise TorchError(words + unnoticed)
    return words + unnoticed


def _checkins() -> str:
    ready, still = readiness(fleet()), standing_still(fleet())
    waiting = fleet().checkins.to_come()
    if still:
        raise TorchError(f"no progress at {', '.join(map(str, still))}; see 'torch-tasks screen AGENT'")
    if waiting and ready.lacks:
        raise TorchError("; ".join(ready.lacks))
    if ready.leads is None:
        return "no beat runs, and no check-in is scheduled"
    return f"{waiting} to come, beat {ready.leads} leads"


def _flower() -> str:
    stack = Stack(settings())
    running = stack.processes.find("flower")
    if running is None:
        return "this machine runs no Flower"
    if not stack.flower_answers():
        raise TorchError(f"{running.facts['url']} does not answer; see 'torch-tasks logs flower'")
    return running.facts["url"]
