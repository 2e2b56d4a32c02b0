"""Folders of keys for programs and people elsewhere."""

from __future__ import annotations

from pathlib import Path

from torch_tasks.caller import CallerKind
from torch_tasks.errors import FileExists
from torch_tasks.signing.ed25519 import new_key, public_key_of
from torch_tasks.signing.key_certificate import KeyCertificate
from torch_tasks.signing.keyring import Keyring


def issue_into(
    ring: Keyring, folder: Path, kind: CallerKind, name: str, role: str, lasts_seconds: float
) -> KeyCertificate:
    """Make a folder of keys for this name; the root's private key is not among them."""
    if folder.exists() and any(folder.iterdir()):
        raise FileExists(f"{folder} is not empty; name a new folder for the keys")
    private = new_key()
    certificate = ring.issue(kind, name, public_key_of(private), role=role, lasts_seconds=lasts_seconds)
    return Keyring.of_fleet(folder, ring.fleet_text, ring.node).keep(private, certificate).certificate
