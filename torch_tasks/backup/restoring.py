"""Restores a backup: the files of one machine, and what lay on the broker, onto an empty one of any kind.

Either is marked before it is begun and until it is complete. A marked broker gives no task to anybody, and a marked
machine starts nothing: an interrupted restoring is repeated, with the same backup.
"""

from __future__ import annotations

import io
import json
import shutil
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import redis

from torch_tasks import keys
from torch_tasks.backup.archive import Archive
from torch_tasks.backup.machine_files import AGENTS, BEAT, CONFIG, CROSSINGS, KEYS, LEDGER, OUTBOX
from torch_tasks.backup.sealing import Opener
from torch_tasks.backup.taking import BROKER, NODES, SEALED
from torch_tasks.broker.connection import connect
from torch_tasks.config_files import user_config
from torch_tasks.errors import BackupDamaged, FleetNotEmpty, InvalidRequest
from torch_tasks.fleet import Fleet
from torch_tasks.settings import Settings
from torch_tasks.store.key_copies import KeyCopy, delete_keys, names, read_keys, write_keys
from torch_tasks.store.key_families import Fate, fate_of
from torch_tasks.store.ledger_file import readdress
from torch_tasks.system.files import make_folder, usable, write_private
from torch_tasks.transport.gate import Gate

RAISED_BY = 1000
"""How far a restored incarnation is above the one in the backup.

An agent or a node that lived on has been hosted less often since then, so what it writes under an older incarnation is
refused, and its next worker gets a later one.
"""


def is_interrupted(settings: Settings) -> bool:
    """Whether this machine's files were being restored, and that was not finished."""
    return settings.state.restoring.exists()


# ── the files of a machine ───────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class FilesOf:
    """The files of one machine in a backup, as they are to lie on this one."""

    archive: Archive
    node: str
    settings: Settings

    def restore(self, opener: Opener | None, *, replace: bool) -> list[str]:
        """Lay them down; returns their names. With an opener, also the keys, if it is the machine that had them."""
        manifest, state = self.archive.manifest, self.settings.state
        if not self.archive.names(f"{NODES}{self.node}/"):
            there = ", ".join(one.node for one in manifest.nodes if not one.why_missing)
            raise InvalidRequest(
                f"the backup has no files of node {self.node}; it has those of {there}. Set TORCH_NODE to one of them, "
                "or restore the broker alone ('--only broker')"
            )
        files = [*self._files(), *(self._secrets(opener) if opener else ())]
        self._require_empty(replace=replace)
        make_folder(state.path)
        write_private(state.restoring, json.dumps({"backup": manifest.id}))
        for place in (self._place(name) for name, _ in files if name.endswith(".sqlite")):
            for ending in ("", "-wal", "-shm"):
                place.with_name(place.name + ending).unlink(missing_ok=True)
        for folder in {self._place(f"{name.split('/')[0]}/") for name, _ in files if name.startswith(_WHOLE)}:
            shutil.rmtree(folder, ignore_errors=True)
        for name, data in files:
            self._write(self._place(name), data)
        if self._place(LEDGER).exists():
            readdress(self._place(LEDGER), manifest.place, self.settings.broker().place)
        state.restoring.unlink()
        return [name for name, _ in files]

    def _require_empty(self, *, replace: bool) -> None:
        state = self.settings.state
        if is_interrupted(self.settings):
            begun = json.loads(state.restoring.read_text())["backup"]
            if begun == self.archive.manifest.id or replace:
                return
            raise FleetNotEmpty(
                f"restoring another backup ({begun}) into {state.path} was interrupted: repeat that one, or give "
                "--replace to have this one instead"
            )
        there = [one for one in (state.ledger, state.roster, *state.agents()) if one.exists()]
        if there and not replace:
            raise FleetNotEmpty(
                f"this machine's state folder is not empty: {there[0]} is there. Use an empty one (TORCH_STATE_DIR), "
                "or --replace to have the backup's files in place of these"
            )

    def _files(self) -> Iterator[tuple[str, bytes]]:
        beginning = f"{NODES}{self.node}/"
        for part in self.archive.names(beginning):
            yield _safe(part.removeprefix(beginning)), b"".join(self.archive.read(part))

    def _secrets(self, opener: Opener) -> Iterator[tuple[str, bytes]]:
        """The keys, if they are this machine's, and it has none."""
        manifest = self.archive.manifest
        if not self.archive.has(SEALED) or self.node != manifest.node:
            return
        packed = zipfile.ZipFile(io.BytesIO(opener.open(b"".join(self.archive.read(SEALED)), manifest.id)))
        for name in packed.namelist():
            if not (name.startswith(KEYS) and self._has_keys()):
                yield _safe(name), packed.read(name)

    def _has_keys(self) -> bool:
        folder = self.settings.keys_folder
        return folder.is_dir() and any(folder.iterdir()) and not is_interrupted(self.settings)

    def _place(self, name: str) -> Path:
        """Where a file of this name lies on this machine."""
        state, broker = self.settings.state, self.settings.broker()
        for beginning, folder in (
            (KEYS, self.settings.keys_folder),
            (CONFIG, user_config()),
            (OUTBOX, state.outbox(broker.file_name)),
        ):
            if name.startswith(beginning):
                return folder / name.removeprefix(beginning)
        return state.beat(broker.file_name) if name == BEAT else state.path / name

    def _write(self, place: Path, data: bytes) -> None:
        make_folder(place.parent)
        with usable(place):
            place.unlink(missing_ok=True)
            place.touch(mode=0o600)
            place.write_bytes(data)


_WHOLE = (AGENTS, CROSSINGS, OUTBOX, "spent/", "audit/")
"""Folders that are replaced as a whole."""


def _safe(name: str) -> str:
    """The name, which leads to no other place than below a folder."""
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or "\\" in name:
        raise BackupDamaged(f"the backup holds a file whose name leads elsewhere: {name!r}")
    return name


# ── the broker ───────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class BrokerPart:
    """What lay on the broker."""

    archive: Archive
    fleet: Fleet

    def restore(self, *, replace: bool) -> int:
        """Put it onto this machine's broker; returns how many keys there are then. The gate is closed until the end."""
        manifest, gate = self.archive.manifest, Gate(self.fleet.client)
        client = connect(self.fleet.settings.broker(), decoded=False)
        present = names(client, lambda fate: fate is not Fate.EPHEMERAL)
        found = [one for one in present if one not in (keys.FLEET_KEYS, keys.FLEET_FORMAT)]
        self._require_empty(gate.being_restored(), found, replace=replace)
        gate.close(manifest.id, manifest.epoch)
        delete_keys(client, [one for one in names(client, lambda _: True) if not _stays(one)])
        count = write_keys(client, self._copies(client))
        gate.restored(manifest.made_at.timestamp(), manifest.place)
        return count

    def _require_empty(self, begun: str | None, present: list[str], *, replace: bool) -> None:
        where = f"the broker at {self.fleet.settings.broker().place}"
        if begun and begun != self.archive.manifest.id and not replace:
            raise FleetNotEmpty(
                f"restoring another backup ({begun}) onto {where} was interrupted: repeat that one, or give --replace "
                "to have this one instead"
            )
        if present and not begun and not replace:
            raise FleetNotEmpty(
                f"{where} is not empty: it has {len(present)} keys of a fleet, as {present[0]}. Use an empty one, or "
                "--replace to have what is in the backup in place of all that"
            )

    def _copies(self, client: redis.Redis) -> Iterator[KeyCopy]:
        """What is to be written: beside what processes that lived on have put back meanwhile, where that is later."""
        batch: list[KeyCopy] = []
        for line in self.archive.lines(BROKER):
            batch.append(KeyCopy.read(line))
            if len(batch) == _AT_ONCE:
                yield from _unless_later(batch, client)
                batch = []
        yield from _unless_later(batch, client)


_AT_ONCE = 200


def _unless_later(copies: list[KeyCopy], client: redis.Redis) -> Iterator[KeyCopy]:
    there = {one.name: one for one in read_keys(client, [one.name for one in copies if _is_compared(one)])}
    for one in copies:
        known = there.get(one.name)
        if fate_of(one.name) is Fate.RAISED:
            yield _raised(one, known)
        elif known is None or _revision(known) < _revision(one):
            yield one._replace(adds=one.kind != "string")


def _stays(name: str) -> bool:
    """Whether a key of the broker is not deleted before: numbers that only grow, and what the gate is known by."""
    return name == keys.BROKER_STATE or fate_of(name) is Fate.RAISED


def _is_compared(copy: KeyCopy) -> bool:
    return fate_of(copy.name) is Fate.RAISED or copy.name.startswith(keys.task_record(""))


def _revision(record: KeyCopy) -> int:
    found = dict(record.value).get("revision", "0") if record.kind == "hash" else "0"
    return int(found) if str(found).isdecimal() else 0


def _raised(copy: KeyCopy, known: KeyCopy | None) -> KeyCopy:
    """The numbers of a copy, each far above what it was, and not below what is there."""
    if copy.kind == "string":
        return copy._replace(value=str(max(int(copy.value) + RAISED_BY, int(known.value) if known else 0)))
    present = dict(known.value) if known else {}
    value = [[name, str(max(int(number) + RAISED_BY, int(present.get(name, 0))))] for name, number in copy.value]
    return copy._replace(value=value, adds=True)
