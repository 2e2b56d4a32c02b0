"""What is sealed for recipients opens with their keys alone, also with age and SSH keys of other programs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from pyrage import x25519

from torch_tasks.backup.age import Identities, Recipients
from torch_tasks.backup.sealing import Passphrase
from torch_tasks.errors import BackupDamaged, InvalidRequest, SealNotOpened

DATA = b"root key\x00\n" * 100


def test_each_recipient_opens_it_and_nobody_else() -> None:
    first, second, other = (x25519.Identity.generate() for _ in range(3))
    sealed = Recipients([str(first.to_public()), f" {second.to_public()}\n"]).seal(DATA, "b1")
    assert b"root key" not in sealed
    for one in (first, second):
        assert Identities(f"# created: now\n# public key: {one.to_public()}\n{one}\n").open(sealed, "b1") == DATA
    assert Identities(f"{other}\n{first}\n").open(sealed, "b1") == DATA
    with pytest.raises(SealNotOpened, match="does not open the keys"):
        Identities(str(other)).open(sealed, "b1")
    with pytest.raises(SealNotOpened, match="does not open the keys"):
        Identities(str(first)).open(sealed[:-1] + bytes([sealed[-1] ^ 1]), "b1")
    with pytest.raises(BackupDamaged, match="another backup's"):
        Identities(str(first)).open(sealed, "b2")


def test_an_ssh_key_opens_it(tmp_path: Path) -> None:
    key, file = Ed25519PrivateKey.generate(), tmp_path / "key"
    file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    sealed = Recipients([f"{public} me@laptop"]).seal(DATA, "b1")
    assert Identities.in_file(file).open(sealed, "b1") == DATA


def test_what_was_sealed_the_other_way_says_so() -> None:
    identity = x25519.Identity.generate()
    with pytest.raises(SealNotOpened, match="sealed with a passphrase: give --passphrase-file"):
        Identities(str(identity)).open(Passphrase("correct horse battery").seal(DATA, "b1"), "b1")
    with pytest.raises(SealNotOpened, match="sealed for recipients of age: give --identity-file"):
        Passphrase("correct horse battery").open(Recipients([str(identity.to_public())]).seal(DATA, "b1"), "b1")


@pytest.mark.parametrize("key", ["age1nonesuch", "ssh-ed25519 AAAA", "", "a person"])
def test_what_is_no_public_key_is_refused(key: str) -> None:
    with pytest.raises(InvalidRequest, match="is no recipient of age"):
        Recipients([key])


def test_a_private_key_in_the_place_of_a_public_one_is_refused_and_not_shown() -> None:
    key = str(x25519.Identity.generate())
    with pytest.raises(InvalidRequest, match="is a private key of age") as refusal:
        Recipients([key])
    assert key not in str(refusal.value)


@pytest.mark.parametrize("text", ["AGE-SECRET-KEY-1NONE", "-----BEGIN OPENSSH PRIVATE KEY-----\nno\n"])
def test_what_is_no_private_key_is_refused_and_not_shown(text: str) -> None:
    with pytest.raises(InvalidRequest, match="the identity cannot be read") as refusal:
        Identities(text)
    assert text not in str(refusal.value)


def test_a_file_without_a_key_and_one_that_is_not_there_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="has no key in it"):
        Identities("# nothing\n")
    with pytest.raises(InvalidRequest, match=r"cannot read the keys in .*: .*No such file"):
        Identities.in_file(tmp_path / "no")


def test_without_the_library_it_is_said_what_to_install() -> None:
    tried = (
        "import sys; sys.modules['pyrage'] = None\nfrom torch_tasks.backup.age import Recipients\nRecipients(['age1'])"
    )
    done = subprocess.run([sys.executable, "-c", tried], capture_output=True, text=True, check=False)
    assert "pip install 'torch-tasks[age]'" in done.stderr.splitlines()[-1]
