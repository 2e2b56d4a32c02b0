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
from functools import partial
from typing import Any

import click
from pydantic import BaseModel
from rich.text import Text

from torch_tasks.broker.connection import connect, nothing_is_here, nothing_runs
from torch_tasks.broker.moved import latest
from torch_tasks.cli.options import JSON
from torch_tasks.cli.output import ago, as_json, beside, local, print_styled
from torch_tasks.config_files import known_kinds, user_config
from torch_tasks.errors import BrokerUnreachable, InvalidSettings, TorchError
from torch_tasks.machine.certificates import Certificates
from torch_tasks.machine.holds import NodeHolds
from torch_tasks.machine.own_server import metrics_at
from torch_tasks.model.certificate import ReleaseState
from torch_tasks.settings import settings, unknown_variables
from torch_tasks.signing.keyring import keyring
from torch_tasks.started_by_name import CONFIGURATION_FAULTS, INSTALLED_RELEASE, WHY_NO_BOX, load
from torch_tasks.store.ledger import ledger_of
from torch_tasks.system.files import make_folder
from torch_tasks.system.machine_use import LEAST_FREE_MIB, disk_space
from torch_tasks.system.processes import Processes

_FLEET_CHECKS = "torch_tasks.cli.fleet_checks"
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
        "sandbox": _sandbox,
        "state folder": _state_folder,
        "keys": _keys,
        "broker": _broker,
        "broker users": partial(_asked, "broker_users"),
        "memory": partial(_asked, "memory"),
        "ledger": _ledger,
        "audit": _audit,
        "messages": partial(_asked, "messages"),
        "releases": partial(_asked, "releases"),
        **({"other fleets": partial(_asked, "other_fleets")} if _has_other_fleets() else {}),
        "agents": partial(_asked, "agents"),
        "programs": _programs,
        "stopped": _stopped,
        "paused": partial(_asked, "paused"),
        "for you": partial(_asked, "for_you"),
        "check-ins": partial(_asked, "checkins"),
        "flower": _flower,
        "metrics": _metrics,
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


def _sandbox() -> str:
    mode, why = settings().sandbox, load(WHY_NO_BOX)()
    if mode == "never":
        return "agents are not boxed (TORCH_SANDBOX=never): each can do whatever this user can"
    if why is None:
        return f"agents are boxed (TORCH_SANDBOX={mode})"
    if mode == "always":
        raise TorchError(f"no agent starts: TORCH_SANDBOX is always, and {why}")
    return f"agents are NOT boxed, each can do whatever this user can: {why}"


def _state_folder() -> str:
    folder = settings().state_dir
    make_folder(folder)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise TorchError(f"{folder} cannot be written; make it writable or set TORCH_STATE_DIR")
    disk = disk_space(folder)
    if disk.is_full:
        raise TorchError(f"the disk of {folder} is full: {disk}, and {LEAST_FREE_MIB} are needed; make room")
    return f"{folder}, {disk}"


def _keys() -> str:
    if not settings().keys_folder.exists():
        return f"none yet; the first 'torch-tasks up' makes them in {settings().keys_folder}"
    ring = keyring()
    own = ring.identity().certificate
    where = "its root is here" if ring.may_issue else "its root is elsewhere"
    return f"fleet {ring.fleet}, {where}; {own.owner} until {local(own.ends_at)}"


def _broker() -> str:
    address = settings().broker()
    connect(address).ping()
    server = connect(address).info("server")
    name = "DragonflyDB" if "dragonfly_version" in server else str(server.get("server_name", "redis")).capitalize()
    version = server.get("dragonfly_version") or server.get("valkey_version") or server.get("redis_version")
    now = latest(address)
    moved = "" if now == address else f"; it has moved to {now.with_login(None)}: set TORCH_BROKER_URL to that"
    return f"{name} {version} at {address} (from {address.source}){moved}"


def _ledger() -> str:
    ledger = ledger_of(settings())
    if ledger is None:
        return "off (TORCH_LEDGER=false): a task that the broker loses is lost"
    if not ledger.exists():
        return f"{ledger.path}, no task was enqueued here yet"
    found = ledger.summary()
    elsewhere = f", {found.elsewhere} open for other brokers" if found.elsewhere else ""
    moment = datetime.fromtimestamp(found.reconciled, UTC) if found.reconciled else None
    reconciled = f"broker last reconciled {ago(moment)}" if moment else "broker not reconciled yet"
    lost = f", {found.lost} came after the backup that was restored ('torch-tasks backup lost')" if found.lost else ""
    return f"{ledger.path}, {found.open} open, {found.spooled} spooled{lost}{elsewhere}, {reconciled}"


def _audit() -> str:
    """Checked where nothing runs, too."""
    if not settings().state.audit.exists():
        return "nothing was noted on this machine yet"
    return str(load(f"{_FLEET_CHECKS}:audit")())


def _programs() -> str:
    """The releases of the programs that torch.toml names, and of those that were tried here."""
    certificates = Certificates(settings().state)
    declared = {each.kind for each in (*settings().agents, *settings().pools)}
    kinds = sorted(declared.union(certificates.kinds()).intersection(known_kinds()))
    found = {kind: load(INSTALLED_RELEASE)(kind, certificates) for kind in kinds}
    tried = {kind: runs for kind, runs in found.items() if runs.release_state}
    words = "\n".join(f"{kind} {runs.release or ''} {runs.release_state}: {runs.why}" for kind, runs in tried.items())
    if any(runs.release_state is ReleaseState.BROKEN for runs in tried.values()):
        raise TorchError(words)
    return words or "none that torch.toml names could be certified; 'torch-tasks kinds' lists all"


def _stopped() -> str:
    node = NodeHolds(settings().state_dir)
    if stop := node.stop:
        how = "torch-tasks start --all" if stop.fleet else f"torch-tasks start --here' or 'rm {node.stop_file}"
        raise TorchError(f"no task begins on this machine, stopped {stop}; '{how}' lifts it")
    with suppress(BrokerUnreachable):
        if others := _asked("stopped_elsewhere"):
            raise TorchError(f"not here, but elsewhere: {'; '.join(others)}")
    return "no"


def _flower() -> str:
    running = Processes(settings().state.run).find("flower")
    if running is None:
        return "this machine runs no Flower"
    if not _asked("flower_answers"):
        raise TorchError(f"{running.facts['url']} does not answer; see 'torch-tasks logs flower'")
    return running.facts["url"]


def _metrics() -> str:
    if not settings().metrics:
        return "off (TORCH_METRICS=false)"
    return metrics_at(settings().state) or "shown while a node worker runs here, and none does"


def _has_other_fleets() -> bool:
    with suppress(InvalidSettings):
        return bool(settings().fleets) or settings().state.crossings.is_dir()
    return False


def _asked(check: str) -> Any:
    """What a check of the fleet finds; where nothing runs, that is said before what the check needs is loaded."""
    if nothing_is_here():
        raise nothing_runs()
    return load(f"{_FLEET_CHECKS}:{check}")()
