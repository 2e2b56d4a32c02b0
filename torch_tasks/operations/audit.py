"""The operations on the audit of the machine that carries them out."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path

from pydantic import AwareDatetime, Field

from torch_tasks.errors import BrokerAway, KeysUnusable, SignatureRefused, StateFolderUnusable
from torch_tasks.fleet import fleet
from torch_tasks.model.audit_record import AuditOutcome, AuditRecord
from torch_tasks.model.fields import Model, now
from torch_tasks.operations.operation import Request, operation
from torch_tasks.operations.policy import RuleShown, rights_table
from torch_tasks.security.audit import audit_log, records
from torch_tasks.security.audit_checks import check_audit
from torch_tasks.security.audit_heads import SignedHead, kept_here, read_head
from torch_tasks.security.rights import Right
from torch_tasks.settings import settings
from torch_tasks.signing.keyring import keyring
from torch_tasks.started_by_name import BEATS_HEADS, load
from torch_tasks.system.chain import ChainedLog, ChainEntry
from torch_tasks.system.chain_check import Fault


class FindAudit(Request):
    """Which entries."""

    seconds: float | None = Field(None, gt=0, description="Only those of the last so many seconds.")
    who: str | None = Field(None, description="Only what this caller did, as agent:dev-1 or dev-1.")
    what: str | None = Field(None, description="Only these acts: task.cancel, or task for all about tasks.")
    outcome: AuditOutcome | None = Field(None, description="Only what ended so.")
    limit: int = Field(100, ge=1, le=100_000, description="How many, the latest.")

    def wants(self, record: AuditRecord, since: datetime | None) -> bool:
        return (
            (since is None or record.at >= since)
            and self.who in (None, record.who, record.who.partition(":")[2])
            and (self.what is None or record.what == self.what or record.what.startswith(f"{self.what}."))
            and self.outcome in (None, record.outcome)
        )


class AuditShown(AuditRecord):
    """An entry of the audit, with its number."""

    number: int


@operation("audit.show", Right.AUDIT, needs_broker=False)
def show(asked: FindAudit) -> list[AuditShown]:
    """What was done and decided on this machine: who, on whose behalf, what, on what, by which rule, how it ended."""
    since = None if asked.seconds is None else now() - timedelta(seconds=asked.seconds)
    found = ((entry, record) for entry, record in records() if asked.wants(record, since))
    return [_shown(entry, record) for entry, record in deque(found, maxlen=asked.limit)]


def _shown(entry: ChainEntry, record: AuditRecord) -> AuditShown:
    return AuditShown(number=entry.number, **dict(record))


class HeadSeen(Model):
    """How far the audit was, as its node signed it."""

    kept: str
    """Where the signed head is kept: on the broker, in the state folder, or in a beat's journal."""
    number: int
    at: AwareDatetime


class AuditVerdict(Model):
    """Whether the audit is as it was written."""

    node: str
    entries: int
    files: int
    files_read: int
    """The others have not changed since they were found good."""
    intact: bool
    fault: Fault | None = None
    file: str = ""
    line: int = 0
    number: int = 0
    """Of the first entry that is not as it was."""
    words: str = ""
    heads: tuple[HeadSeen, ...] = ()
    """What the log was compared with, besides itself."""
    warnings: tuple[str, ...] = ()


class VerifyAudit(Request):
    """How much of it."""

    whole: bool = Field(True, description="Also the files that have not changed since they were last found good.")


@operation("audit.verify", Right.AUDIT, needs_broker=False)
def verify(asked: VerifyAudit) -> AuditVerdict:
    """Check this machine's audit entry by entry, and against what its node signed; names the first bad entry."""
    heads, warnings = _signed_heads()
    log, checked = audit_log(), check_audit(whole=asked.whole)
    broken = checked.broken
    verdict = AuditVerdict(
        node=settings().node,
        entries=sum(1 for _ in log.entries()) if broken else checked.entries,
        files=len(log.files()),
        files_read=checked.files_read,
        intact=broken is None,
        heads=tuple(HeadSeen(kept=kept, number=head.head.number, at=head.at) for kept, head in heads),
        warnings=tuple(warnings),
    )
    if broken:
        found = {"fault": broken.fault, "file": broken.file, "line": broken.line, "number": broken.number}
        return verdict.model_copy(update={**found, "words": broken.words})
    for _, head in sorted({head.head.number: head for _, head in heads}.items()):
        if fault := _unlike(head, log, checked.last.number):
            return verdict.model_copy(update={"intact": False, **fault})
    return verdict


def _unlike(head: SignedHead, log: ChainedLog, last: int) -> dict[str, object] | None:
    """How the log differs from what its node signed."""
    number, at = head.head.number, f"{head.at:%Y-%m-%d %H:%M:%S} UTC"
    if number > last:
        words = f"the log ends after entry {last}, but its node signed entry {number} at {at}"
        return {"fault": Fault.CUT, "number": last + 1, "words": words}
    if not log.has(head.head):
        words = f"entry {number}, or one before it, is another than the one that its node signed at {at}"
        return {"fault": Fault.CHANGED, "number": number, "words": words}
    return None


def _signed_heads() -> tuple[list[tuple[str, SignedHead]], list[str]]:
    """The heads of this node's log that others keep, with where; and what is wrong with some."""
    state, warnings = settings().state, list[str]()
    sources: dict[str, Mapping[str, str]] = {"in the state folder": kept_here(state.audit_heads)}
    try:
        sources["on the broker"] = fleet().audit_heads.all()
    except BrokerAway as error:
        warnings.append(f"the head on the broker was not compared: {error}")
    try:
        sources |= {f"in beat's journal {name}": known for name, known in load(BEATS_HEADS)(state.beats).items()}
    except StateFolderUnusable as error:
        warnings.append(f"the heads in beat's journal were not compared: {error}")
    heads: list[tuple[str, SignedHead]] = []
    for kept, known in sources.items():
        if text := known.get(settings().node):
            try:
                heads.append((kept, read_head(text)))
            except (SignatureRefused, KeysUnusable) as error:
                warnings.append(f"the head {kept} counts for nothing: {error}")
    if not heads:
        warnings.append("no signed head of this log is known: a cut end of it would not be seen")
    return heads, warnings


class ReportSince(Request):
    seconds: float = Field(30 * 86_400, gt=0, description="How far back, in seconds.")


class KeyShown(Model):
    """A key with which this machine signs."""

    owner: str
    serial: str
    role: str | None
    valid_until: AwareDatetime
    revoked: bool


class Doing(Model):
    """How often somebody did something."""

    who: str
    what: str
    outcome: AuditOutcome
    times: int


class Retention(Model):
    """How long the audit is kept, and what there is."""

    days: float
    files: int
    bytes: int
    oldest: AwareDatetime | None


class ComplianceReport(Model):
    """Who could do what, who did what, keys, refused attempts, and how long all this is kept."""

    node: str
    since: AwareDatetime
    until: AwareDatetime
    verdict: AuditVerdict
    rights: list[RuleShown]
    """Who could do what: every right of every sort of caller, with the rule."""
    done: list[Doing]
    """Who did what, how often."""
    refused: list[AuditShown]
    keys: list[KeyShown]
    key_changes: list[AuditShown]
    retention: Retention


@operation("audit.report", Right.AUDIT, needs_broker=False)
def report(asked: ReportSince) -> ComplianceReport:
    """Who could do what, who did what and was refused what, which keys there are, and how long all this is kept."""
    until = now()
    since = until - timedelta(seconds=asked.seconds)
    counted: Counter[tuple[str, str, AuditOutcome]] = Counter()
    refused: list[AuditShown] = []
    key_changes: list[AuditShown] = []
    oldest: datetime | None = None
    for entry, record in records():
        oldest = oldest or record.at
        if record.at < since:
            continue
        if record.outcome is not AuditOutcome.BEGUN:
            counted[record.who, record.what, record.outcome] += 1
        if record.outcome is AuditOutcome.REFUSED:
            refused.append(_shown(entry, record))
        if record.what.startswith("key"):
            key_changes.append(_shown(entry, record))
    files = audit_log().files()
    return ComplianceReport(
        node=settings().node,
        since=since,
        until=until,
        verdict=verify.carry_out(VerifyAudit()),
        rights=rights_table(),
        done=[Doing(who=who, what=what, outcome=out, times=n) for (who, what, out), n in sorted(counted.items())],
        refused=refused,
        keys=_keys(),
        key_changes=key_changes,
        retention=Retention(days=settings().audit_days, files=len(files), bytes=_bytes_of(files), oldest=oldest),
    )


def _bytes_of(files: list[Path]) -> int:
    total = 0
    for file in files:
        with suppress(FileNotFoundError):  # it was pruned meanwhile
            total += file.stat().st_size
    return total


def _keys() -> list[KeyShown]:
    ring = keyring()
    return [
        KeyShown(
            owner=one.certificate.owner,
            serial=one.certificate.serial,
            role=one.certificate.role,
            valid_until=one.certificate.ends_at,
            revoked=ring.is_revoked(one.certificate),
        )
        for one in ring.identities()
    ]
