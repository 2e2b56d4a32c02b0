"""What was done and decided on this machine, for those who may read the audit."""

from __future__ import annotations

from typing import Any

from torch_tasks.errors import InvalidRequest
from torch_tasks.model.audit_record import AuditOutcome
from torch_tasks.security.rights import Right
from torch_tasks.server.console.page import ConsolePage, Visit

_MOST = 200
SINCE = {"1h": 3600.0, "24h": 86_400.0, "7d": 7 * 86_400.0, "": None}
"""The times that the page offers, each in seconds; the last one is all."""


def gather(visit: Visit) -> dict[str, Any]:
    asked = {name: visit.query.get(name, "").strip() for name in ("who", "what", "outcome")}
    since = visit.query.get("since", "24h")
    if since not in SINCE:
        offered = ", ".join(filter(None, SINCE))
        raise InvalidRequest(f"the audit is not shown since {since[:40]!r}, but of the last {offered}, or all (since=)")
    named = {name: value for name, value in asked.items() if value}
    found = visit.ask("audit.show", limit=_MOST, seconds=SINCE[since], **named)
    return {
        "records": list(reversed(found)),
        "is_cut": len(found) == _MOST,
        "verdict": visit.ask("audit.verify") if "verify" in visit.query else None,
        "asked": asked,
        "since": since,
        "times": list(SINCE),
        "outcomes": list(AuditOutcome),
        "refusals": visit.ask("policy.refusals"),
    }


AUDIT = ConsolePage("audit", "/audit", "Audit", gather, right=Right.AUDIT, news="", in_menu=True)
