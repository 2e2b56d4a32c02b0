"""Takes a backup while the fleet works: first what each machine knows, then what lies on the broker.

So whatever the machines' ledgers and journals have in it is on the broker as late as there, or later.
"""

from __future__ import annotations

import io
import time
import uuid
import zipfile
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from torch_tasks import keys
from torch_tasks.backup import node_parts
from torch_tasks.backup.archive import FLEET, ArchiveWriter
from torch_tasks.backup.machine_files import NamedPath, configuration, read_all, secrets, what_travels
from torch_tasks.backup.manifest import Manifest, NodePart
from torch_tasks.backup.sealing import Seal
from torch_tasks.broker.connection import connect
from torch_tasks.caller import CallerKind
from torch_tasks.errors import BackupIncomplete, BrokerAway
from torch_tasks.fleet import Fleet
from torch_tasks.machine.fleet_keys import require_own_fleet
from torch_tasks.model.node import NodeInfo
from torch_tasks.signing.keyring import keyring
from torch_tasks.signing.signature import Purpose, sign
from torch_tasks.store.fleet_copy import FleetCopy

BROKER, NODES, SEALED = "broker.jsonl", "nodes/", "sealed"


def take(path: Path, of: Fleet, seal: Seal | None) -> Manifest:
    """Write a backup of the fleet; without a seal, the keys of this machine are not in it."""
    require_own_fleet(of)
    begun, seconds = time.monotonic(), of.client.time()
    manifest = Manifest(
        id=uuid.uuid4().hex,
        version=version("torch-tasks"),
        fleet=keyring(of.settings).fleet if of.settings.signing != "off" else "",
        node=of.settings.node,
        place=of.settings.broker().place,
        made_at=datetime.fromtimestamp(seconds[0] + seconds[1] / 1e6, UTC),
        has_keys=seal is not None,
    )
    with ArchiveWriter(path.absolute()) as archive:
        nodes = _write_nodes(archive, of)
        if seal:
            sealed = seal.seal(_packed(read_all(secrets(of.settings))), manifest.id)
            with archive.part(SEALED) as part:
                part.write(sealed)
        copy = _write_broker(archive, of)
        if manifest.fleet:
            with archive.part(FLEET) as part:
                part.write(keyring(of.settings).fleet_text.encode())
        manifest = manifest.model_copy(
            update={
                "seconds": time.monotonic() - begun,
                "epoch": int(of.client.hget(keys.BROKER_STATE, "epoch") or 0),
                "keys": copy.keys,
                "open": len(copy.open),
                "ended": copy.ended,
                "without_message": tuple(copy.without_message),
                "nodes": nodes,
                "parts": tuple(archive.parts),
            }
        )
        text = manifest.model_dump_json(indent=1)
        archive.finish(text, _signature(of, text))
    return manifest


def _signature(of: Fleet, text: str) -> str:
    if of.settings.signing == "off":
        return ""
    ring = keyring(of.settings)
    return sign(ring, ring.identity(CallerKind.NODE), Purpose.BACKUP, text.encode(), None)


def _write_nodes(archive: ArchiveWriter, of: Fleet) -> tuple[NodePart, ...]:
    """What each machine of the fleet knows, this one first."""
    mine = of.settings.node
    found = [NodePart(node=mine, files=_write_files(archive, mine, read_all(_own_files(of))))]
    found += [_part_of(archive, of, info) for info in of.nodes.nodes() if info.name != mine]
    return tuple(found)


def _part_of(archive: ArchiveWriter, of: Fleet, info: NodeInfo) -> NodePart:
    if not info.online:
        return NodePart(node=info.name, why_missing="it is offline")
    try:
        return NodePart(node=info.name, files=_write_files(archive, info.name, node_parts.part_of(of, info.name)))
    except (BackupIncomplete, BrokerAway) as error:
        return NodePart(node=info.name, why_missing=str(error))


def _own_files(of: Fleet) -> list[NamedPath]:
    return [*what_travels(of.settings), *configuration()]


def _write_files(archive: ArchiveWriter, node: str, files: Iterable[tuple[str, bytes]]) -> int:
    count = 0
    for name, data in files:
        with archive.part(f"{NODES}{node}/{name}") as part:
            part.write(data)
        count += 1
    return count


def _write_broker(archive: ArchiveWriter, of: Fleet) -> FleetCopy:
    copy = FleetCopy(connect(of.settings.broker(), decoded=False))
    with archive.part(BROKER) as part:
        for one in copy.copies():
            part.write(one.line().encode() + b"\n")
    return copy


def _packed(files: Iterable[tuple[str, bytes]]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files:
            archive.writestr(name, data)
    return packed.getvalue()
