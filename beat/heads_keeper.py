"""Keeps in beat's journal how far the audit of each node is, as its node signed it.

So a log that somebody cut or wrote anew is still named after the broker and the node's own folder were emptied, too:
beat may run on another machine than the node.
"""

from __future__ import annotations

from torch_tasks.beat.journal import Journal
from torch_tasks.security.audit_heads import latest
from torch_tasks.settings import Settings
from torch_tasks.signing.keyring import FLEET_FILE
from torch_tasks.store.audit_heads import AuditHeads
from torch_tasks.system.loops import Loop


class HeadsKeeper:
    """A thread that brings the journal and the broker to the later of what both know."""

    def __init__(self, heads: AuditHeads, journal: Journal, settings: Settings) -> None:
        self._heads = heads
        self._journal = journal
        self._fleet_file = settings.keys_folder / FLEET_FILE
        self.loop = Loop("audit heads", self.play_round, pause=settings.audit_head_seconds)

    def play_round(self) -> None:
        if not self._fleet_file.exists():
            return  # without a fleet's keys no signature can be verified here
        kept, there = self._journal.heads(), self._heads.all()
        known = latest(kept, there)
        self._journal.keep_heads({node: text for node, text in known.items() if kept.get(node) != text})
        self._heads.put({node: text for node, text in known.items() if there.get(node) != text})
