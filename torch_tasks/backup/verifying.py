"""Verifies a backup: that it is whole, who made it, and of which fleet it is."""

from __future__ import annotations

import tempfile
from pathlib import Path

from torch_tasks.backup.archive import FLEET, Archive
from torch_tasks.errors import BackupDamaged, OtherFleet, SignatureRefused
from torch_tasks.settings import Settings
from torch_tasks.signing.fleet_keys import FleetKeys
from torch_tasks.signing.keyring import FLEET_FILE, Keyring, keyring
from torch_tasks.signing.signature import Purpose, verify


def verified(path: Path, settings: Settings) -> tuple[Archive, str]:
    """An archive all of which was read, and who signed it; empty if it was made where nothing is signed.

    On a machine that has keys it must be of its fleet (:class:`OtherFleet`); elsewhere the archive itself says which
    roots its fleet has, and the fleet's name is their fingerprint.
    """
    archive = Archive(path)
    archive.check()
    own = keyring(settings) if (settings.keys_folder / FLEET_FILE).exists() else None
    if not archive.manifest.fleet:
        if settings.signing == "enforce" and own:
            raise BackupDamaged(f"the backup {path} is not signed, and TORCH_SIGNING is enforce here")
        return archive, ""
    text = b"".join(archive.read(FLEET)).decode()
    if own:
        _require_same_fleet(archive, own)
        return archive, _signer(archive, own)
    with tempfile.TemporaryDirectory() as folder:
        ring = Keyring.of_fleet(Path(folder), text, settings.node, root_place="")
        if ring.fleet != archive.manifest.fleet:
            raise BackupDamaged(f"the backup {path} names another fleet than the keys in it")
        return archive, _signer(archive, ring)


def _require_same_fleet(archive: Archive, own: Keyring) -> None:
    if own.fleet != archive.manifest.fleet:
        raise OtherFleet(
            f"the backup {archive.path} is of fleet {archive.manifest.fleet}, and this machine's keys are of fleet "
            f"{own.fleet}; use an empty state folder (TORCH_STATE_DIR), or a machine of that fleet"
        )
    text = b"".join(archive.read(FLEET)).decode()
    own.fleet_keys.require_same_fleet(FleetKeys.read(text), f"the backup {archive.path}")


def _signer(archive: Archive, ring: Keyring) -> str:
    try:
        signed = verify(ring, archive.signature, Purpose.BACKUP, archive.manifest_text.encode())
    except SignatureRefused as error:
        raise BackupDamaged(f"the backup {archive.path} is not believed: {error}") from None
    return signed.signer.owner
