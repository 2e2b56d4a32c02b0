"""Whether a machine obeys a pause or a stop: who ordered it must have the right when the machine applies it, too."""

from __future__ import annotations

from torch_tasks.errors import SignatureRefused
from torch_tasks.fleet import fleet
from torch_tasks.machine.holds import NodeHolds
from torch_tasks.model.hold import STOP, Hold, agent_in
from torch_tasks.security.decision import decide, note_denial
from torch_tasks.security.rights import Right, Subject
from torch_tasks.store.holds import require_signed


def agree(node: NodeHolds) -> None:
    """Have this machine and the broker agree on all holds; one that its asker may not order is refused and counted."""
    for overruled in node.agree(fleet().holds, why_not_obeyed):
        note_denial(_operation(overruled.scope, overruled.hold), overruled.hold.by, overruled.why)


def why_not_obeyed(scope: str, hold: Hold) -> str:
    """Why who ordered this hold may not, or did not order it; empty if it counts."""
    try:
        require_signed(scope, hold)
    except SignatureRefused as error:
        return f"this hold is refused: {error}"
    verdict = decide(hold.by.caller, Right.HOLD, Subject(agent=agent_in(scope)))
    return "" if verdict.allowed else str(verdict)


def _operation(scope: str, hold: Hold) -> str:
    if scope == STOP:
        return "fleet.start" if hold.lifted else "fleet.stop"
    return "agent.resume" if hold.lifted else "agent.pause"
