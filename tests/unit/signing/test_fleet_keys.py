"""What a fleet says of its own keys: roots that follow each other, and what was revoked."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from torch_tasks.caller import CallerKind
from torch_tasks.errors import BadSignature, KeyNotFound, KeyRevoked, KeysUnusable, OtherFleet
from torch_tasks.signing.ed25519 import new_key, public_key_of
from torch_tasks.signing.fleet_keys import FleetKeys
from torch_tasks.signing.keyring import LIFETIME_SECONDS, Keyring
from torch_tasks.signing.signature import LONGEST, Purpose, sign, verify

TEXT = b"text"


@pytest.fixture
def keys(tmp_path: Path) -> Keyring:
    """Where the root is."""
    return Keyring(tmp_path / "keys", "vm")


@pytest.fixture
def far(keys: Keyring, tmp_path: Path) -> Keyring:
    """A machine of the same fleet without the root."""
    return _machine(keys, tmp_path / "far", "far")


def _machine(keys: Keyring, folder: Path, name: str) -> Keyring:
    folder.mkdir()
    (folder / "fleet.keys").write_text(keys.fleet_text)
    machine, private = Keyring(folder, name), new_key()
    machine.keep(private, keys.issue(CallerKind.NODE, name, public_key_of(private)))
    return machine


def _signed(by: Keyring) -> str:
    return sign(by, by.identity(CallerKind.NODE), Purpose.MESSAGE, TEXT, 60)


def _copy(keys: Keyring, folder: Path) -> Keyring:
    """As a thief has it."""
    folder.mkdir()
    for file in keys.folder.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return Keyring(folder, keys.node)


def test_what_is_said_later_counts_and_what_is_said_earlier_does_not(keys: Keyring, far: Keyring) -> None:
    first, serial = keys.fleet_text, far.identity().certificate.serial
    keys.revoke(serial)
    assert far.accept(keys.fleet_text, "the broker")
    assert far.fleet_keys.revoked == (serial,)
    assert not far.accept(first, "the broker")
    assert far.fleet_text == keys.fleet_text


def test_a_revoked_machine_says_that_it_is(keys: Keyring, far: Keyring) -> None:
    signed = _signed(far)
    assert [one.name for one in keys.revoke("far")] == ["far"]
    with pytest.raises(KeyRevoked, match="node far"):
        verify(keys, signed, Purpose.MESSAGE, TEXT)
    far.accept(keys.fleet_text, "the broker")
    with pytest.raises(KeyRevoked, match="node join TOKEN"):
        far.identity()


def test_the_roots_machine_replaces_its_revoked_key(keys: Keyring) -> None:
    old = keys.identity(CallerKind.NODE)
    keys.revoke("vm")
    assert keys.identity(CallerKind.NODE).certificate.serial != old.certificate.serial
    assert verify(keys, _signed(keys), Purpose.MESSAGE, TEXT)


@pytest.mark.parametrize("name", ["nobody", "0" * 16])
def test_nothing_is_revoked_that_is_not_known(keys: Keyring, name: str) -> None:
    with pytest.raises(KeyNotFound, match=name):
        keys.revoke(name)


def test_only_where_the_root_is_anything_is_revoked_or_rotated(keys: Keyring, far: Keyring) -> None:
    for act, command in (
        (lambda: far.revoke("vm"), "revoke vm"),
        (far.rotate_root, "rotate --root"),
        (far.rotate, "rotate"),
    ):
        with pytest.raises(KeysUnusable, match=f"run 'torch-tasks keys {command}' on the machine that has it"):
            act()


def test_another_fleet_is_named(keys: Keyring, tmp_path: Path) -> None:
    other = Keyring(tmp_path / "other", "vm")
    with pytest.raises(OtherFleet, match=f"the broker belongs to fleet {other.fleet}.*node join TOKEN"):
        keys.accept(other.fleet_text, "the broker")


def test_forged_fleet_keys_are_refused(keys: Keyring, far: Keyring) -> None:
    forged = FleetKeys.founded(public_key_of(root := new_key())).model_copy(update={"fleet": keys.fleet, "number": 9})
    with pytest.raises(BadSignature, match="do not follow each other"):
        far.accept(forged.signed_by(root), "the broker")
    stolen = far.fleet_keys.with_root(root, public_key_of(root), 0)
    with pytest.raises(BadSignature, match="do not follow each other"):
        far.accept(stolen.signed_by(root), "the broker")
    changed = keys.fleet_text[:40] + ("A" if keys.fleet_text[40] != "A" else "B") + keys.fleet_text[41:]
    for junk in (changed, "", "x.y", "." * 9, "W10." + "A" * 86):
        with pytest.raises(BadSignature):
            far.accept(junk, "the broker")


def test_a_root_that_was_rotated_is_trusted_before_anybody_heard_of_it(keys: Keyring, far: Keyring) -> None:
    before, at_far = _signed(keys), _signed(far)
    keys.rotate_root()
    after = _signed(keys)
    assert keys.identity(CallerKind.NODE).certificate.issuer == keys.fleet_keys.latest.name
    assert len(after) < LONGEST
    for signed in (before, at_far, after):
        assert verify(far, signed, Purpose.MESSAGE, TEXT)
        assert verify(keys, signed, Purpose.MESSAGE, TEXT)
    assert far.accept(keys.fleet_text, "the broker")
    assert far.needs_renewal(far.identity().certificate)
    for signed in (before, at_far, after):
        assert verify(far, signed, Purpose.MESSAGE, TEXT)


def test_a_machine_that_slept_through_two_rotations_follows(keys: Keyring, far: Keyring) -> None:
    keys.rotate_root()
    keys.rotate_root()
    with pytest.raises(BadSignature, match="another fleet"):
        verify(far, _signed(keys), Purpose.MESSAGE, TEXT)
    assert far.accept(keys.fleet_text, "the broker")
    assert verify(far, _signed(keys), Purpose.MESSAGE, TEXT)


def test_who_stole_a_former_root_founds_no_successor_of_it(keys: Keyring, far: Keyring, tmp_path: Path) -> None:
    keys.identity(CallerKind.NODE)
    thief = _copy(keys, tmp_path / "thief")
    keys.rotate_root()
    far.accept(keys.fleet_text, "the broker")
    thief.rotate_root()
    thief.revoke("vm")
    with pytest.raises(BadSignature, match="somebody else has the private key"):
        far.accept(thief.fleet_text, "the broker")
    with pytest.raises(BadSignature, match="another fleet"):
        verify(far, _signed(thief), Purpose.MESSAGE, TEXT)


def test_a_former_root_issues_nothing_that_ends_later_than_its_last(keys: Keyring, tmp_path: Path) -> None:
    keys.identity(CallerKind.NODE)
    thief = _copy(keys, tmp_path / "thief")
    keys.rotate_root()
    private = new_key()
    later = thief.issue(CallerKind.NODE, "x", public_key_of(private), lasts_seconds=LIFETIME_SECONDS + 100)
    with pytest.raises(BadSignature, match="ends later"):
        keys.keep(private, later)


def test_a_former_root_can_be_revoked_with_all_that_it_issued(keys: Keyring, far: Keyring) -> None:
    signed, former = _signed(far), keys.fleet_keys.latest.name
    with pytest.raises(KeyNotFound, match="rotate --root"):
        keys.revoke(former)
    keys.rotate_root()
    assert "far" in [one.name for one in keys.revoke(former)]
    with pytest.raises(KeyRevoked):
        verify(keys, signed, Purpose.MESSAGE, TEXT)
    assert verify(keys, _signed(keys), Purpose.MESSAGE, TEXT)


@pytest.mark.parametrize("written", ["root first", "fleet first"])
def test_a_rotation_that_was_cut_off_leaves_a_root_of_use(keys: Keyring, written: str) -> None:
    former, known = (keys.folder / "root.key").read_text(), keys.fleet_text
    keys.rotate_root()
    both = (keys.folder / "root.key").read_text() + former
    (keys.folder / "root.key").write_text(both)
    if written == "root first":
        (keys.folder / "fleet.keys").write_text(known)
    again = Keyring(keys.folder, "vm")
    assert verify(again, _signed(again), Purpose.MESSAGE, TEXT)


def test_own_keys_are_rotated_and_what_the_former_signed_counts(keys: Keyring) -> None:
    before, old = _signed(keys), keys.identity(CallerKind.NODE).certificate.serial
    (new,) = keys.rotate()
    assert new.certificate.serial == keys.identity(CallerKind.NODE).certificate.serial != old
    assert verify(keys, before, Purpose.MESSAGE, TEXT)


def test_all_certificates_that_were_issued_are_known(keys: Keyring, far: Keyring) -> None:
    keys.identity(CallerKind.NODE)
    keys.issue(CallerKind.PROGRAM, "ci", public_key_of(new_key()), role="program", lasts_seconds=60)
    assert [(one.kind, one.name, one.role) for one in keys.issued()] == [
        ("node", "far", None), ("node", "vm", None), ("program", "ci", "program"),
    ]  # fmt: skip
    assert all(one.valid_until > time.time() for one in keys.issued())
