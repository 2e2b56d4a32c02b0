"""What the audit of a machine notes, before what, and what its signed heads bring to light."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from torch_tasks.beat.heads_keeper import HeadsKeeper
from torch_tasks.beat.journal import Journal
from torch_tasks.caller import Caller, CallerKind, acting_as
from torch_tasks.cli import fleet_checks
from torch_tasks.cli.audit import audit as command
from torch_tasks.errors import AuditBroken, AuditNotWritten, NotAllowed
from torch_tasks.fleet import fleet
from torch_tasks.machine.issued_keys import issue_into
from torch_tasks.model.audit_record import AuditOutcome, AuditRecord
from torch_tasks.operations import audit
from torch_tasks.operations.audit import FindAudit, ReportSince, VerifyAudit
from torch_tasks.operations.operation import Access, Operation, Request
from torch_tasks.operations.performing import perform_here
from torch_tasks.security.audit import audit_log, note_event, records
from torch_tasks.security.audit_heads import exchange, kept_here, latest, read_head, sign_head
from torch_tasks.security.rights import Right, Subject
from torch_tasks.security.rules import rules
from torch_tasks.settings import settings
from torch_tasks.signing.keyring import Keyring, keyring
from torch_tasks.signing.signature import Purpose, sign
from torch_tasks.system.chain import ChainedLog
from torch_tasks.system.chain_check import Fault
from torch_tasks.system.chain_lines import Head

TOKEN = "ghp_" + "a1B2c3D4e5F6" * 3
PERSON = Caller()
DEVELOPER = Caller(agent="dev-1", role="developer")


@pytest.fixture(autouse=True)
def _own_state(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setenv("TORCH_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("TORCH_KEYS_DIR", str(tmp_path / "keys"))
    monkeypatch.setenv("TORCH_NODE", "build-1")
    with monkeypatch.context() as patch:  # a log that begins with what the test does
        patch.setenv("TORCH_AUDIT", "off")
        settings.cache_clear()
        keyring().identity(CallerKind.NODE)
    for cached in (settings, fleet, rules):
        cached.cache_clear()
    yield
    for cached in (settings, fleet, rules):
        cached.cache_clear()


class Order(Request):
    agent: str = "dev-2"
    text: str = ""


def an_operation(right: Right, acts: list[str], *, access: Access = Access.WRITE) -> Operation[Order, None]:
    def carry_out(asked: Order) -> None:
        acts.append(asked.text)
        if asked.text == "fails":
            raise NotAllowed("it does not go")

    return Operation(
        "agent.order", access, right, Order, carry_out, lambda _: Subject(), lambda _: None, False, False, False
    )


def noted() -> list[tuple[str, str, str]]:
    return [(record.who, record.what, record.outcome) for _, record in records()]


def test_an_act_is_noted_with_who_what_on_what_by_which_rule_and_how_it_ended() -> None:
    with acting_as(DEVELOPER):
        perform_here(an_operation(Right.SEND, []), Order(text=f"with {TOKEN}"))
    ((_, record),) = records()
    assert (record.who, record.role, record.what, record.on) == (
        "agent:dev-1",
        "developer",
        "agent.order",
        "agent dev-2",
    )
    assert 'send = "own"' in record.rule
    assert (record.outcome, record.node) == (AuditOutcome.DONE, "build-1")
    assert len(record.digest) == 16
    assert TOKEN not in audit_log().files()[0].read_text()


def test_a_failure_and_a_refusal_are_noted_with_their_reasons() -> None:
    with acting_as(DEVELOPER), pytest.raises(NotAllowed):
        perform_here(an_operation(Right.SEND, []), Order(text="fails"))
    with acting_as(DEVELOPER), pytest.raises(NotAllowed):
        perform_here(an_operation(Right.HOLD, acts := []), Order())
    assert not acts
    (_, failed), (_, refused) = records()
    assert (failed.outcome, failed.why) == (AuditOutcome.FAILED, "NotAllowed: it does not go")
    assert (refused.outcome, refused.what, refused.who) == (AuditOutcome.REFUSED, "agent.order", "agent:dev-1")
    assert 'hold = "none"' in refused.why


def test_reading_is_noted_only_where_the_setting_asks_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with acting_as(PERSON):
        perform_here(an_operation(Right.LOOK, [], access=Access.READ), Order())
        assert noted() == []
        monkeypatch.setenv("TORCH_AUDIT", "all")
        settings.cache_clear()
        perform_here(an_operation(Right.LOOK, [], access=Access.READ), Order())
        assert noted() == [("person:operator", "agent.order", "done")]
        monkeypatch.setenv("TORCH_AUDIT", "off")
        settings.cache_clear()
        perform_here(an_operation(Right.RETIRE, []), Order())
        assert len(noted()) == 1


def full(*_: Any, **__: Any) -> Any:
    raise AuditNotWritten("the audit cannot be written: No space left on device")


def test_a_weighty_act_is_noted_first_and_not_done_without(monkeypatch: pytest.MonkeyPatch) -> None:
    acts: list[str] = []
    with acting_as(PERSON):
        perform_here(an_operation(Right.RETIRE, acts), Order(text="one"))
        assert [outcome for *_, outcome in noted()] == ["begun", "done"]
        monkeypatch.setattr(ChainedLog, "append", full)
        with pytest.raises(AuditNotWritten):
            perform_here(an_operation(Right.RETIRE, acts), Order(text="two"))
    assert acts == ["one"]


@pytest.mark.parametrize("right", [Right.ENQUEUE, Right.HOLD])
def test_work_and_holds_go_on_although_the_disk_is_full(right: Right, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ChainedLog, "append", full)
    acts: list[str] = []
    with acting_as(PERSON):
        perform_here(an_operation(right, acts), Order(text="one"))
    assert acts == ["one"]


def test_what_is_shown_can_be_chosen() -> None:
    note_event("agent.started", "agent dev-1")
    with acting_as(DEVELOPER):
        perform_here(an_operation(Right.SEND, []), Order())
    assert [one.what for one in audit.show.carry_out(FindAudit(what="agent"))] == ["agent.started", "agent.order"]
    assert [one.what for one in audit.show.carry_out(FindAudit(who="dev-1"))] == ["agent.order"]
    assert [one.what for one in audit.show.carry_out(FindAudit(who="node:build-1"))] == ["agent.started"]
    assert [one.what for one in audit.show.carry_out(FindAudit(limit=1))] == ["agent.order"]
    assert audit.show.carry_out(FindAudit(outcome=AuditOutcome.REFUSED)) == []


def test_the_outcome_is_chosen_as_the_page_writes_it(capsys: pytest.CaptureFixture[str]) -> None:
    command(["show", "--outcome", "refused", "--json"], standalone_mode=False)
    assert json.loads(capsys.readouterr().out) == []


def some(count: int) -> ChainedLog:
    for number in range(count):
        note_event("agent.started", f"agent dev-{number}")
    return audit_log()


def test_a_cut_tail_is_named_by_what_the_node_signed() -> None:
    log = some(5)
    exchange(log, settings().state.audit_heads, None)
    verdict = audit.verify.carry_out(VerifyAudit())
    assert verdict.intact
    assert [head.number for head in verdict.heads] == [6]
    (file,) = log.files()
    file.write_bytes(b"".join(file.read_bytes().splitlines(keepends=True)[:-2]))
    verdict = audit.verify.carry_out(VerifyAudit())
    assert (verdict.intact, verdict.fault, verdict.number) == (False, Fault.CUT, 5)
    some(4)  # what is written afterwards does not hide it
    with pytest.raises(AuditBroken, match="entry 6 of the audit"):
        exchange(log, settings().state.audit_heads, None)
    verdict = audit.verify.carry_out(VerifyAudit())
    assert (verdict.intact, verdict.fault, verdict.number) == (False, Fault.CHANGED, 6)


def test_a_log_that_is_gone_or_written_anew_is_named() -> None:
    log = some(5)
    exchange(log, settings().state.audit_heads, None)
    shutil.rmtree(log.folder)
    with pytest.raises(AuditBroken):
        exchange(log, settings().state.audit_heads, None)
    assert audit.verify.carry_out(VerifyAudit()).fault is Fault.CUT
    some(5)
    assert audit.verify.carry_out(VerifyAudit()).fault is Fault.CHANGED


class Broker:
    """Keeps heads as the broker does."""

    def __init__(self) -> None:
        self.kept: dict[str, str] = {}

    def all(self) -> dict[str, str]:
        return dict(self.kept)

    def put(self, heads: dict[str, str]) -> None:
        self.kept.update(heads)


def test_beats_journal_knows_the_head_when_log_and_broker_and_folder_were_written_anew(tmp_path: Path) -> None:
    broker, file, log = Broker(), settings().state.audit_heads, some(5)
    keeper = HeadsKeeper(broker, Journal(tmp_path / "beat.sqlite"), settings())  # type: ignore[arg-type]
    exchange(log, file, broker)  # type: ignore[arg-type]
    keeper.play_round()
    signed = dict(broker.kept)
    shutil.rmtree(log.folder)
    file.unlink()
    broker.kept = {"build-1": "what nobody signed"}
    some(2)
    HeadsKeeper(broker, Journal(tmp_path / "beat.sqlite"), settings()).play_round()  # type: ignore[arg-type]
    assert broker.kept == signed
    with pytest.raises(AuditBroken, match="is not the one that this node signed"):
        exchange(audit_log(), file, broker)  # type: ignore[arg-type]


def test_a_cut_that_only_beats_journal_shows_is_named() -> None:
    broker, file, log = Broker(), settings().state.audit_heads, some(5)
    exchange(log, file, broker)  # type: ignore[arg-type]
    journal = settings().state.beat("a-broker")
    kept = Journal(journal)
    HeadsKeeper(broker, kept, settings()).play_round()  # type: ignore[arg-type]
    kept.close()  # or it would write once more when it is collected
    file.unlink()
    (entries,) = log.files()
    entries.write_bytes(b"".join(entries.read_bytes().splitlines(keepends=True)[:-2]))
    verdict = audit.verify.carry_out(VerifyAudit())
    assert (verdict.fault, verdict.number) == (Fault.CUT, 5)
    assert [head.kept for head in verdict.heads] == ["in beat's journal a-broker.sqlite"]
    journal.write_bytes(b"no journal at all, " * 99)
    for beside in journal.parent.glob("*.sqlite-*"):
        beside.unlink()
    verdict = audit.verify.carry_out(VerifyAudit())
    assert any("the heads in beat's journal were not compared" in warning for warning in verdict.warnings)


def test_heads_that_others_know_come_back_and_the_latest_counts() -> None:
    broker, file, log = Broker(), settings().state.audit_heads, some(3)
    exchange(log, file, broker)  # type: ignore[arg-type]
    first = dict(broker.kept)
    some(2)
    exchange(log, file, broker)  # type: ignore[arg-type]
    assert kept_here(file) == broker.kept != first
    broker.kept = {}
    exchange(log, file, broker)  # type: ignore[arg-type]
    assert kept_here(file) == broker.kept
    broker.kept = dict(first)  # an older one takes no place
    exchange(log, file, broker)  # type: ignore[arg-type]
    assert read_head(broker.kept["build-1"]).head.number == 6
    file.write_text("not json")
    exchange(log, file, broker)  # type: ignore[arg-type]
    assert kept_here(file) == broker.kept


def test_a_head_counts_only_if_its_node_signed_it() -> None:
    some(2)
    good = sign_head(Head(2, "00"))
    keys = keyring()
    claims = {"node": "build-2", "number": 9, "hash": "00"}
    of_another = sign(keys, keys.identity(CallerKind.NODE), Purpose.AUDIT, b"", None, **claims)
    for_else = sign(keys, keys.identity(CallerKind.NODE), Purpose.END, b"", None, node="build-1", number=9, hash="00")
    by_person = sign(keys, keys.identity(CallerKind.PERSON), Purpose.AUDIT, b"", None, **{**claims, "node": "operator"})
    assert latest({"build-1": good, "build-2": of_another}) == {"build-1": good}
    assert latest({"build-1": for_else}, {"operator": by_person}, {"x": "nonsense"}, {"build-2": good}) == {}


def test_the_report_says_who_could_do_what_who_did_and_was_refused_what() -> None:
    with acting_as(DEVELOPER), pytest.raises(NotAllowed):
        perform_here(an_operation(Right.HOLD, []), Order())
    with acting_as(PERSON):
        perform_here(an_operation(Right.RETIRE, []), Order())
    exchange(audit_log(), settings().state.audit_heads, None)
    report = audit.report.carry_out(ReportSince())
    assert report.verdict.intact
    assert {(one.who, one.what, one.outcome, one.times) for one in report.done} == {
        ("agent:dev-1", "agent.order", AuditOutcome.REFUSED, 1),
        ("person:operator", "agent.order", AuditOutcome.DONE, 1),
    }
    assert [one.who for one in report.refused] == ["agent:dev-1"]
    assert {(rule.caller, rule.right) for rule in report.rights} >= {("agent", Right.HOLD), ("viewer", Right.AUDIT)}
    assert [key.owner for key in report.keys] == ["node build-1"]
    assert report.retention.files == 1
    json.loads(report.model_dump_json())


def test_the_command_names_the_first_bad_entry_and_fails(capsys: pytest.CaptureFixture[str]) -> None:
    log = some(3)
    with pytest.raises(SystemExit) as ended:
        command(["verify"])
    assert (ended.value.code, capsys.readouterr().out.splitlines()[0]) == (
        0,
        "intact: 4 entries in 1 files of node build-1",
    )
    (file,) = log.files()
    file.write_bytes(file.read_bytes().replace(b"dev-1", b"dev-9"))
    with pytest.raises(SystemExit) as ended:
        command(["verify"])
    assert ended.value.code == 1
    assert capsys.readouterr().out.startswith("changed: entry 3 is not what was written (000001.jsonl, line 3)")
    command(["show", "--what", "agent.started"], standalone_mode=False)
    assert "dev-0" in capsys.readouterr().out
    command(["report", "--markdown"], standalone_mode=False)
    assert "## Who could do what" in capsys.readouterr().out


def test_an_entry_without_secrets_is_kept_word_for_word() -> None:
    record = AuditRecord(who="a:b", what="x", on="task 1", why="because", node="n", pid=1)
    assert AuditRecord.model_validate_json(record.model_dump_json(exclude_defaults=True)).why == "because"


def test_every_change_of_keys_is_noted_with_who_made_it(tmp_path: Path) -> None:
    ring = Keyring(tmp_path / "root", "build-1")
    ring.identity(CallerKind.NODE)
    issued = issue_into(ring, tmp_path / "ci", CallerKind.PROGRAM, "ci", "program", 60)
    ring.rotate()
    far = Keyring.of_fleet(tmp_path / "far", ring.fleet_text, "far", root_place="build-1")
    ring.revoke("ci")
    ring.rotate_root()
    far.accept(ring.fleet_text, "the broker")
    found = [(record.who, record.what) for _, record in records()]
    assert found == [
        ("person:operator", "keys.founded"),
        ("node:build-1", "keys.kept"),
        ("person:operator", "keys.issued"),
        ("person:operator", "keys.kept"),
        ("person:operator", "keys.kept"),
        ("person:operator", "keys.revoked"),
        ("person:operator", "keys.root_followed"),
        ("node:build-1", "keys.heard"),
    ]
    by_what = {record.what: record.on for _, record in records()}
    assert by_what["keys.issued"].startswith(f"program ci, program, serial {issued.serial} until ")
    assert by_what["keys.revoked"] == f"program ci, program, serial {issued.serial}"
    assert by_what["keys.heard"] == f"root {ring.fleet_keys.latest.name} follows; revoked: {issued.serial}"
    report = audit.report.carry_out(ReportSince())
    assert [change.what for change in report.key_changes] == [what for _, what in found]


def test_no_keys_are_issued_that_the_audit_cannot_note(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ring = Keyring(tmp_path / "root", "build-1")
    monkeypatch.setattr(ChainedLog, "append", full)
    with pytest.raises(AuditNotWritten):
        issue_into(ring, tmp_path / "ci", CallerKind.PROGRAM, "ci", "program", 60)
    assert not (tmp_path / "ci").exists()
    assert not ring.issued()
    assert ring.identity(CallerKind.NODE)  # the machine's own goes on


def test_doctor_reads_what_it_has_not_found_good_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_AUDIT_FILE_BYTES", "4096")
    settings.cache_clear()
    exchange(log := some(50), settings().state.audit_heads, None)
    files = len(log.files())
    assert files > 2
    assert " read: " not in fleet_checks.audit()
    some(1)
    assert ", 1 read: the others have not changed, as entry " in fleet_checks.audit()
    assert audit.verify.carry_out(VerifyAudit()).files_read == files
    first = log.files()[0]
    first.write_bytes(first.read_bytes().replace(b"dev-1", b"dev-9", 1))
    with pytest.raises(AuditBroken, match=r"changed: "):
        fleet_checks.audit()
    settings().state.audit_checked.write_text('{"000001.jsonl": "nonsense"}')
    with pytest.raises(AuditBroken, match=r"changed: "):
        fleet_checks.audit()


def test_doctor_names_the_first_entry_that_is_not_as_it_was() -> None:
    exchange(log := some(4), settings().state.audit_heads, None)
    assert fleet_checks.audit().startswith("intact, 5 entries in 1 files, as entry 5 was signed")
    (file,) = log.files()
    file.write_bytes(file.read_bytes().replace(b"dev-1", b"dev-9", 1))
    with pytest.raises(AuditBroken, match=r"changed: .*; the first bad entry of 5 entries in 1 files is \d"):
        fleet_checks.audit()
