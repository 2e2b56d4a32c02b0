"""What `torch-tasks backup` and `restore` do on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path

from torch_tasks.backup.archive import Archive
from torch_tasks.backup.manifest import Manifest
from torch_tasks.backup.restoring import BrokerPart, FilesOf
from torch_tasks.backup.sealing import Opener, Seal
from torch_tasks.backup.taking import SEALED, take
from torch_tasks.backup.verifying import verified
from torch_tasks.broker.connection import answers
from torch_tasks.errors import InvalidRequest, OtherFleet
from torch_tasks.fleet import Fleet, fleet
from torch_tasks.machine.broker import start_broker, stop_broker
from torch_tasks.machine.fleet_keys import require_own_fleet
from torch_tasks.machine.stack import GRACE, Stack
from torch_tasks.model.asker import Asker
from torch_tasks.model.fields import Model
from torch_tasks.security.audit import note_event
from torch_tasks.settings import Settings
from torch_tasks.signing.fleet_keys import FleetKeys
from torch_tasks.signing.keyring import FLEET_FILE
from torch_tasks.tasks import recovery


class Only(StrEnum):
    """Which half of a backup is restored, if not both."""

    BROKER = "broker"
    FILES = "files"


class Restoring(Model):
    """What was restored."""

    manifest: Manifest
    signer: str
    files: int
    """How many files of this machine."""
    keys: int
    """How many keys of the broker."""
    came_after: tuple[str, ...] = ()
    """Tasks that this machine's ledger knows and the backup does not: whether they were done is not known."""


def make_backup(path: Path, seal: Seal | None) -> Manifest:
    """Write a backup; the audit notes it before, so that it is in it."""
    note_event("backup.begun", str(path), who=Asker.now(), durable=True)
    return take(path, fleet(), seal)


def restore_here(
    path: Path,
    settings: Settings,
    *,
    opener: Opener | None,
    without_keys: bool,
    only: Only | None,
    replace: bool,
) -> Restoring:
    """Restore this machine's files and the broker, or one of the two."""
    archive, signer = verified(path, settings)
    manifest, files, count = archive.manifest, 0, 0
    if only is not Only.BROKER:
        Stack(settings).refuse_if_up()
        _require_opener(archive, settings, opener, without_keys=without_keys)
        files = len(FilesOf(archive, settings.node, settings).restore(opener, replace=replace))
    if only is Only.FILES:
        return Restoring(manifest=manifest, signer=signer, files=files, keys=0)
    with _broker_there(settings):
        of = fleet()
        _require_same_fleet(of, manifest)
        count = BrokerPart(archive, of).restore(replace=replace)
        note_event("backup.restored", f"{manifest.id} of {manifest.made_at}", who=Asker.now(), durable=True)
        came_after = recovery.came_after_backup() if _can_sign(settings) else []
    return Restoring(manifest=manifest, signer=signer, files=files, keys=count, came_after=tuple(came_after))


def tasks_after_backup(former: str | None) -> list[str]:
    """The tasks enqueued on this machine that came after the backup; those of the ``former`` broker are this one's now.

    Unless it is named, the former broker is the one of which the backup was.
    """
    of = fleet()
    require_own_fleet(of)
    restored = of.gate.last_restored()
    if restored is None:
        raise InvalidRequest(f"the broker at {of.settings.broker().place} was not restored from a backup")
    if (place := former or restored.place) != of.settings.broker().place:
        recovery.adopt(place)
    return recovery.came_after_backup()


def _require_opener(archive: Archive, settings: Settings, opener: Opener | None, *, without_keys: bool) -> None:
    has_own = (settings.keys_folder / FLEET_FILE).exists()
    if archive.has(SEALED) and settings.node == archive.manifest.node and not (opener or without_keys or has_own):
        raise InvalidRequest(
            "the keys of this machine are in the backup, sealed: give --passphrase-file or --identity-file to open "
            "them, or --without-keys to leave them there"
        )


def _require_same_fleet(of: Fleet, manifest: Manifest) -> None:
    there = of.key_exchange.fleet_keys()
    if there and manifest.fleet and FleetKeys.read(there).fleet != manifest.fleet:
        raise OtherFleet(
            f"the broker at {of.settings.broker().place} belongs to fleet {FleetKeys.read(there).fleet}, and the "
            f"backup is of fleet {manifest.fleet}; use an empty broker"
        )


def _can_sign(settings: Settings) -> bool:
    return settings.signing == "off" or (settings.keys_folder / FLEET_FILE).exists()


@contextmanager
def _broker_there(settings: Settings) -> Iterator[None]:
    """This machine's own broker runs meanwhile, unless another one is named."""
    if settings.given_broker() or (settings.state.broker_address.exists() and answers(settings.broker())):
        yield
        return
    start_broker(settings)
    try:
        yield
    finally:
        stop_broker(settings, GRACE)
