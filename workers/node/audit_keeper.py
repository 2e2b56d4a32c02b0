"""Keeps the audit of this machine: on the disk for good, its head signed, looked at, without what is too old."""

from __future__ import annotations

import time

from torch_tasks.errors import AuditBroken, BrokerAway
from torch_tasks.fleet import Fleet
from torch_tasks.security.audit import audit_log
from torch_tasks.security.audit_checks import check_audit
from torch_tasks.security.audit_heads import exchange
from torch_tasks.system.loops import Loop

_CHORES_SECONDS = 3600.0


class AuditKeeper:
    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._chores_at = 0.0
        self.loop = Loop("audit", self.play_round, pause=fleet.settings.audit_head_seconds)

    def play_round(self) -> None:
        log, settings = audit_log(), self._fleet.settings
        log.flush()
        try:
            exchange(log, settings.state.audit_heads, self._fleet.audit_heads)
        except BrokerAway:
            exchange(log, settings.state.audit_heads, None)
        if time.monotonic() >= self._chores_at:
            self._chores_at = time.monotonic() + _CHORES_SECONDS
            log.prune(time.time() - settings.audit_days * 86_400)
            self._check()

    def _check(self) -> None:
        """Read what was not found good before, so that a person who asks waits for little."""
        if broken := check_audit(whole=False).broken:
            raise AuditBroken(f"{broken}; 'torch-tasks audit verify' compares it with what was signed, too")
