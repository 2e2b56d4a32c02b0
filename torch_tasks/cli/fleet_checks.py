"""What ``torch-tasks doctor`` asks where something runs: of the broker, and of Flower."""

from __future__ import annotations

from redis import ResponseError
from redis.utils import str_if_bytes

from torch_tasks.broker.connection import connect
from torch_tasks.broker.memory import memory_of
from torch_tasks.checkins.readiness import readiness
from torch_tasks.client import Torch
from torch_tasks.communication.messenger import outbox_of
from torch_tasks.errors import AuditBroken, BrokerUnreachable, LedgerOff, TorchError
from torch_tasks.fleet import fleet
from torch_tasks.machine.broker_logins import known_logins
from torch_tasks.machine.stack import Stack
from torch_tasks.model.broker_address import OWN_PLACE
from torch_tasks.operations.audit import VerifyAudit, verify
from torch_tasks.orchestration.attention import PASSING, needs
from torch_tasks.orchestration.followups import standing_still
from torch_tasks.settings import settings
from torch_tasks.store.fleet_format import own_format


def memory() -> str:
    memory = memory_of(connect(settings().broker()))
    if memory.warning:
        raise TorchError(memory.warning)
    return f"the broker uses {memory}"


def broker_users() -> str:
    """As whom Torch's processes connect, and what keeps others from it."""
    address = settings().broker()
    client = connect(address)
    try:
        who = str_if_bytes(client.acl_whoami()).removeprefix("User is ")  # DragonflyDB answers in words
    except ResponseError:
        return "none: this broker knows no users"
    if known_logins(settings()):
        return f"each process has its own; a command is {who}"
    if "dragonfly_version" in client.info("server") and address.socket:
        return "none: DragonflyDB takes each process that opens its socket for its owner; only you may enter its folder"
    can = "" if address.place == OWN_PLACE else "; 'torch-tasks broker make' gives each its own, see docs/broker.md"
    return f"none of Torch's: every process connects as {who}{can}"


def audit() -> str:
    """Whether this machine's audit is as it was written and signed."""
    verdict = verify.carry_out(VerifyAudit(whole=False))
    extent = f"{verdict.entries} entries in {verdict.files} files"
    if not verdict.intact:
        raise AuditBroken(
            f"{verdict.fault}: {verdict.words}; the first bad entry of {extent} is {verdict.number} "
            "('torch-tasks audit verify')"
        )
    compared = f"as entry {max(head.number for head in verdict.heads)} was signed" if verdict.heads else ""
    read = "" if verdict.files_read == verdict.files else f"{verdict.files_read} read: the others have not changed"
    return ", ".join(filter(None, (f"intact, {extent}", read, compared, *verdict.warnings)))


def messages() -> str:
    waiting = outbox_of(fleet()).waiting()
    try:
        connect(settings().broker()).ping()
    except BrokerUnreachable:
        if not settings().ledger:
            raise LedgerOff("the broker is away and TORCH_LEDGER=false, so no message can be sent; unset it") from None
        return f"fallback: the broker is away, {waiting} wait on this disk"
    return "through the broker" + (f", {waiting} wait on this disk to be sent" if waiting else "")


def other_fleets() -> str:
    """What waits here for each other fleet; a refusal was told to whoever asked."""
    kept, named = fleet().crossings, settings().fleets
    words: list[str] = []
    for name in sorted({*named, *kept.fleets()}):
        waiting, refused = kept.counts(name)
        why = kept.trouble(name) if name in named else "the settings do not name it any more (fleets)"
        words.append(f"{name}: {waiting} wait here" + (f" ({why})" if waiting and why else "") + f", {refused} refused")
    return "; ".join(words)


def releases() -> str:
    """Which release runs on which machine: those of one format may mix."""
    machines: dict[str, list[str]] = {}
    for node in Torch().nodes():
        if node.online:
            machines.setdefault(f"{node.version} (format {node.format})", []).append(node.name)
    found = "; ".join(f"Torch {release} on {', '.join(names)}" for release, names in sorted(machines.items()))
    return found or f"no node worker runs; this is Torch {own_format().release} (format {own_format().format})"


def agents() -> str:
    agents = Torch().agents()
    online = [info.agent_id for info in agents if info.online]
    return f"{len(online)} online{': ' + ', '.join(online) if online else ''}, {len(agents) - len(online)} offline"


def stopped_elsewhere() -> list[str]:
    """The agents that a stop keeps from beginning tasks."""
    return [f"{info.agent_id} on {info.node} {info.stopped}" for info in Torch().agents() if info.stopped]


def paused() -> str:
    pauses = fleet().holds.latest().pauses()
    return "; ".join(f"{scope} {hold}" for scope, hold in pauses) or "no"


def for_you() -> str:
    found = needs(fleet())
    is_told = any(not one.push for one in settings().channels)
    unnoticed = "" if is_told else "\nset TORCH_NOTIFY_COMMAND to be notified (docs/notify.md)"
    words = "\n".join(f"{need.text}: '{need.do}'" for need in found) or "nothing"
    if any(need.kind not in PASSING for need in found):
        raise TorchError(words + unnoticed)
    return words + unnoticed


def checkins() -> str:
    ready, still = readiness(fleet()), standing_still(fleet())
    waiting = fleet().checkins.to_come()
    if still:
        raise TorchError(f"no progress at {', '.join(map(str, still))}; see 'torch-tasks screen AGENT'")
    if waiting and ready.lacks:
        raise TorchError("; ".join(ready.lacks))
    if ready.leads is None:
        return "no beat runs, and no check-in is scheduled"
    return f"{waiting} to come, beat {ready.leads} leads"


def flower_answers() -> bool:
    return Stack(settings()).flower_answers()
