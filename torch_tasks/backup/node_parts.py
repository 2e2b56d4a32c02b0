"""What another machine of the fleet has for a backup: its node worker sends it through the broker, sealed.

Only who asked can open the pieces, and who asked believes none that this node did not seal. Secrets are not among what
is sent: each machine's own backups alone have its keys.
"""

from __future__ import annotations

import tempfile
import time
import uuid
import zipfile
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import IO, Any

import redis

from torch_tasks import keys
from torch_tasks.app import app
from torch_tasks.backup.machine_files import read_all, what_travels
from torch_tasks.broker.connection import connect
from torch_tasks.caller import CallerKind
from torch_tasks.errors import BackupIncomplete, SignatureRefused
from torch_tasks.fleet import Fleet, fleet
from torch_tasks.security.decision import require
from torch_tasks.security.rights import Right, Subject
from torch_tasks.signing.ed25519 import decode, encode
from torch_tasks.signing.enforcement import checked, seal
from torch_tasks.signing.signature import Purpose
from torch_tasks.tasks.system_task import SystemTask

_PIECE = 1 << 18
_AHEAD = 8
"""So many pieces lie on the broker at a time."""
_SILENCE_SECONDS = 30.0
"""For so long each of the two waits for the other."""
_LOOK_SECONDS = 2
_BETWEEN_LOOKS = 0.05
_LAST = b"last"


def part_of(of: Fleet, node: str) -> Iterator[tuple[str, bytes]]:
    """The files of another machine by their names; :class:`BackupIncomplete` says why they cannot be had."""
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    ticket, private = uuid.uuid4().hex, X25519PrivateKey.generate()
    public = encode(private.public_key().public_bytes_raw())
    app.send_task("torch.send_backup", (ticket, public), queue=keys.node_queue(node), expires=_SILENCE_SECONDS)
    with tempfile.TemporaryFile() as file:
        _receive(of, node, ticket, private, file)
        try:
            with zipfile.ZipFile(file) as packed:
                for name in packed.namelist():
                    yield name, packed.read(name)
        except zipfile.BadZipFile as error:
            raise BackupIncomplete(f"what it sent is no archive ({error})") from None


def _receive(of: Fleet, node: str, ticket: str, private: Any, file: IO[bytes]) -> None:
    client = connect(of.settings.broker(), decoded=False)
    pieces = _pieces(client, keys.backup_part(ticket))
    opened = None
    for number, piece in enumerate(pieces):
        if opened is None:
            opened = _cipher(private, _public_of(node, ticket, piece.decode(errors="replace")), ticket)
            continue
        text, is_last = _open(opened, number, piece)
        file.write(text)
        if is_last:
            return


def _pieces(client: redis.Redis, place: str) -> Iterator[bytes]:
    heard = time.monotonic()
    while time.monotonic() - heard < _SILENCE_SECONDS:
        answer: Any = client.blpop([place], timeout=_LOOK_SECONDS)
        if answer:
            heard = time.monotonic()
            yield answer[1]
    raise BackupIncomplete(f"its node worker sent nothing for {_SILENCE_SECONDS:g} s")


def _public_of(node: str, ticket: str, text: str) -> str:
    """The public key of the node's side, as the node signed it."""
    public, _, signature = text.partition(" ")
    try:
        signed = checked(signature, Purpose.BACKUP, public, ticket=ticket)
    except SignatureRefused as error:
        raise BackupIncomplete(f"what came in its name is not believed: {error}") from None
    if signed and (signed.signer.kind, signed.signer.name) != (CallerKind.NODE, node):
        raise BackupIncomplete(f"what came in its name was signed by {signed.signer.owner}")
    return public


def _open(cipher: Any, number: int, piece: bytes) -> tuple[bytes, bool]:
    from cryptography.exceptions import InvalidTag

    for mark in (b"", _LAST):
        try:
            return cipher.decrypt(_nonce(number), piece, mark), mark == _LAST
        except InvalidTag:
            continue
    raise BackupIncomplete("a piece of what came in its name was changed on the way")


# ── the other side ───────────────────────────────────────────────────────────────────────────────────────────────────


@app.task(base=SystemTask, name="torch.send_backup", ignore_result=True)
def send_backup(ticket: str, public: str) -> None:
    """Sent to a node: send what it has for a backup to the one who asks, sealed for its public key."""
    require("backup.part", Right.AUDIT, Subject())
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    private = X25519PrivateKey.generate()
    mine = encode(private.public_key().public_bytes_raw())
    signature = seal(Purpose.BACKUP, mine, 600, by=CallerKind.NODE, ticket=ticket) or ""
    cipher, numbers = _cipher(private, public, ticket), count(1)
    send = _sender(connect(fleet().settings.broker(), decoded=False), keys.backup_part(ticket))
    if not send(f"{mine} {signature}".encode()):
        return
    with tempfile.TemporaryFile(dir=_folder(fleet())) as file:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as packed:
            for name, data in read_all(what_travels(fleet().settings)):
                packed.writestr(name, data)
        file.seek(0)
        while piece := file.read(_PIECE):
            if not send(cipher.encrypt(_nonce(next(numbers)), piece, b"")):
                return
    send(cipher.encrypt(_nonce(next(numbers)), b"", _LAST))


def _folder(of: Fleet) -> Path:
    return of.settings.state_dir


def _sender(client: redis.Redis, place: str) -> Callable[[bytes], bool]:
    """Puts a piece there when there is room; false if nobody takes them any more."""

    def send(piece: bytes) -> bool:
        deadline = time.monotonic() + _SILENCE_SECONDS
        while int(client.llen(place)) >= _AHEAD:
            if time.monotonic() > deadline:
                client.delete(place)
                return False
            time.sleep(_BETWEEN_LOOKS)
        with client.pipeline() as pipe:
            pipe.rpush(place, piece)
            pipe.pexpire(place, int(_SILENCE_SECONDS * 1000))
            pipe.execute()
        return True

    return send


def _cipher(private: Any, public: str, ticket: str) -> Any:
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey
    from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    shared = private.exchange(X25519PublicKey.from_public_bytes(decode(public)))
    return ChaCha20Poly1305(HKDF(SHA256(), 32, salt=ticket.encode(), info=b"torch backup part 1").derive(shared))


def _nonce(number: int) -> bytes:
    return number.to_bytes(12)
