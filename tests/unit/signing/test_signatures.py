"""Who signed what, for what, until when; and all that is refused."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from torch_tasks.caller import CallerKind
from torch_tasks.errors import BadSignature, KeyRevoked, KeysUnusable, NotSigned, SignatureExpired, SignatureRefused
from torch_tasks.signing import signature as signing
from torch_tasks.signing.ed25519 import decode, encode, new_key, public_key_of
from torch_tasks.signing.keyring import Keyring
from torch_tasks.signing.signature import Purpose, sign, verify

TEXT = b'{"body": "echo x"}'


@pytest.fixture
def keys(tmp_path: Path) -> Keyring:
    return Keyring(tmp_path / "keys", "vm")


def _signed(keys: Keyring, lasts: float | None = 60, **claims: object) -> str:
    return sign(keys, keys.identity(CallerKind.NODE), Purpose.MESSAGE, TEXT, lasts, **claims)


def test_a_signature_says_who_signed_and_what_it_claims(keys: Keyring) -> None:
    found = verify(keys, _signed(keys, id="t-1"), Purpose.MESSAGE, TEXT)
    assert (found.signer.kind, found.signer.name, found.claims) == (CallerKind.NODE, "vm", {"id": "t-1"})


def test_the_same_keys_are_found_again(keys: Keyring) -> None:
    again = Keyring(keys.folder, "vm")
    assert again.fleet == keys.fleet
    assert again.identity(CallerKind.NODE).private == keys.identity(CallerKind.NODE).private
    assert verify(again, _signed(keys), Purpose.MESSAGE, TEXT)


def test_another_node_of_the_fleet_verifies_without_the_root(keys: Keyring, tmp_path: Path) -> None:
    private = new_key()
    certificate = keys.issue(CallerKind.NODE, "far", public_key_of(private))
    there = tmp_path / "far"
    there.mkdir()
    (there / "fleet.keys").write_bytes((keys.folder / "fleet.keys").read_bytes())
    far = Keyring(there, "far")
    far.keep(private, certificate)
    assert verify(far, _signed(keys), Purpose.MESSAGE, TEXT).signer.name == "vm"
    theirs = sign(far, far.identity(CallerKind.NODE), Purpose.END, TEXT, None)
    assert verify(keys, theirs, Purpose.END, TEXT).signer.name == "far"
    with pytest.raises(KeysUnusable, match="does not have the private key"):
        far.issue(CallerKind.PROGRAM, "mine", public_key_of(new_key()))


def test_nothing_is_readable_for_others(keys: Keyring) -> None:
    keys.identity(CallerKind.NODE)
    modes = {file.name: file.stat().st_mode & 0o777 for file in keys.folder.iterdir() if file.name != "lock"}
    assert set(modes.values()) == {0o600}, modes
    assert keys.folder.stat().st_mode & 0o777 == 0o700


def test_no_private_key_is_shown(keys: Keyring) -> None:
    identity = keys.identity(CallerKind.NODE)
    assert identity.private not in repr(identity)


@pytest.mark.parametrize("place", [0, 60, -60, -1])
def test_any_changed_sign_is_noticed(keys: Keyring, place: int) -> None:
    good = _signed(keys)
    changed = list(good)
    changed[place] = "A" if changed[place] != "A" else "B"
    with pytest.raises(BadSignature):
        verify(keys, "".join(changed), Purpose.MESSAGE, TEXT)


@pytest.mark.parametrize("none", [None, ""])
def test_what_has_no_signature_is_not_signed(keys: Keyring, none: str | None) -> None:
    with pytest.raises(NotSigned):
        verify(keys, none, Purpose.MESSAGE, TEXT)


@pytest.mark.parametrize(
    "junk", ["x", "....", "a.b.c.d", "." * 5000, "é.é.é.é", "W10.W10.W10.W10", "bnVsbA.e30.e30.e30"]
)
def test_junk_is_a_bad_signature(keys: Keyring, junk: str) -> None:
    with pytest.raises(BadSignature):
        verify(keys, junk, Purpose.MESSAGE, TEXT)


def test_another_text_purpose_or_fleet_is_refused(keys: Keyring, tmp_path: Path) -> None:
    good = _signed(keys)
    with pytest.raises(BadSignature, match="changed afterwards"):
        verify(keys, good, Purpose.MESSAGE, TEXT + b" ")
    with pytest.raises(BadSignature, match="not for 'end'"):
        verify(keys, good, Purpose.END, TEXT)
    with pytest.raises(BadSignature, match="another fleet"):
        verify(Keyring(tmp_path / "other", "vm"), good, Purpose.MESSAGE, TEXT)


def test_a_certificate_that_names_another_owner_is_refused(keys: Keyring) -> None:
    parts = _signed(keys).split(".")
    renamed = json.loads(decode(parts[0])) | {"name": "boss"}
    with pytest.raises(BadSignature, match="not signed by the root"):
        verify(keys, ".".join([encode(json.dumps(renamed).encode()), *parts[1:]]), Purpose.MESSAGE, TEXT)


def test_what_is_too_old_is_refused(keys: Keyring, monkeypatch: pytest.MonkeyPatch) -> None:
    good, now = _signed(keys, lasts=60), time.time()
    monkeypatch.setattr(signing.time, "time", lambda: now + 61)
    with pytest.raises(SignatureExpired, match="expired"):
        verify(keys, good, Purpose.MESSAGE, TEXT)


def test_what_has_no_end_outlives_its_certificate(keys: Keyring, monkeypatch: pytest.MonkeyPatch) -> None:
    good, now = _signed(keys, lasts=None), time.time()
    monkeypatch.setattr(signing.time, "time", lambda: now + 90 * 86_400)
    assert verify(keys, good, Purpose.MESSAGE, TEXT)


def test_an_expired_certificate_signs_nothing_more(keys: Keyring) -> None:
    private = new_key()
    over = keys.keep(private, keys.issue(CallerKind.PROGRAM, "old", public_key_of(private), lasts_seconds=-1))
    with pytest.raises(SignatureExpired, match="was not valid"):
        verify(keys, sign(keys, over, Purpose.MESSAGE, TEXT, 60), Purpose.MESSAGE, TEXT)


def test_a_clock_that_is_far_ahead_is_named(keys: Keyring, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    keys.identity(CallerKind.NODE)
    monkeypatch.setattr(signing.time, "time", lambda: now + 2 * signing.CLOCK_SKEW_SECONDS)
    ahead = _signed(keys)
    monkeypatch.undo()
    with pytest.raises(BadSignature, match="compare the machines' clocks"):
        verify(keys, ahead, Purpose.MESSAGE, TEXT)


def test_a_revoked_key_counts_no_more_in_any_process(keys: Keyring) -> None:
    good, other = _signed(keys), Keyring(keys.folder, "vm")
    keys.revoke(keys.identity(CallerKind.NODE).certificate.serial)
    for each in (keys, other):
        with pytest.raises(KeyRevoked, match="node vm"):
            verify(each, good, Purpose.MESSAGE, TEXT)


def test_a_key_that_ends_soon_is_renewed(keys: Keyring) -> None:
    private = new_key()
    ending = keys.issue(CallerKind.NODE, "vm", public_key_of(private), lasts_seconds=0)
    keys.keep(private, ending)
    renewed = keys.identity(CallerKind.NODE)
    assert renewed.private != private
    assert renewed.certificate.valid_until > time.time() + 86_400


def test_a_pane_founds_no_fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_DESK", str(tmp_path / "desk"))
    with pytest.raises(KeysUnusable, match="pane"):
        Keyring(tmp_path / "keys", "vm")
    assert not (tmp_path / "keys").exists()


def test_every_refusal_is_one_of_a_kind() -> None:
    for error in (NotSigned, BadSignature, SignatureExpired, KeyRevoked):
        assert issubclass(error, SignatureRefused)
        assert error.exit_code == 5
