"""A certificate: the fleet's root says whose a public key is, and until when."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Self

from pydantic import Field, ValidationError

from torch_tasks.caller import CallerKind
from torch_tasks.errors import BadSignature
from torch_tasks.model.fields import Model
from torch_tasks.signing.ed25519 import decode, encode, fingerprint, is_signature, public_key_of, signature_of
from torch_tasks.signing.fleet_keys import FleetKeys, FleetRoot

_PREFIX = b"torch certificate 1\n"
"""What else a root signs begins otherwise."""


class KeyCertificate(Model):
    """Whose a public key is."""

    fleet: Annotated[str, Field(max_length=32)]
    """The fleet's name: the fingerprint of its first root."""
    issuer: Annotated[str, Field(max_length=32)]
    """The fingerprint of the root that signed this."""
    serial: Annotated[str, Field(pattern="^[0-9a-f]{16}$")]
    kind: CallerKind
    name: Annotated[str, Field(min_length=1, max_length=64)]
    """Of the node, person or program."""
    role: Annotated[str, Field(max_length=64)] | None = None
    """What its rights follow from, as with a token's role; None: from its kind alone."""
    key: Annotated[str, Field(max_length=64)]
    """The public key."""
    valid_from: int
    """In seconds since 1970, as is the end."""
    valid_until: int
    root: FleetRoot | None = None
    """The root that signed this, if it followed another one lately: who has not heard of it can tell by this."""

    @property
    def ends_at(self) -> datetime:
        return datetime.fromtimestamp(self.valid_until, UTC)

    @property
    def owner(self) -> str:
        return f"{self.kind} {self.name}"

    def __str__(self) -> str:
        return f"{self.owner}{f', {self.role}' if self.role else ''}, serial {self.serial}"

    def signed_by(self, root: str) -> str:
        """The certificate as text, signed with the root's private key."""
        if fingerprint(public_key_of(root)) != self.issuer:
            raise BadSignature(f"the certificate of {self.owner} names another root than the one that is to sign it")
        payload = encode(self.model_dump_json(exclude_none=True).encode())
        return f"{payload}.{signature_of(root, _PREFIX + payload.encode())}"

    @classmethod
    def read(cls, text: str, keys: FleetKeys) -> Self:
        """The certificate in this text; :class:`BadSignature` unless a root of the fleet signed it."""
        payload, _, signature = text.partition(".")
        try:
            certificate = cls.model_validate_json(decode(payload))
        except (ValueError, ValidationError) as error:
            raise BadSignature(f"what came as a certificate cannot be read: {error}") from None
        issuer = keys.root(certificate.issuer) or certificate._announced_root(keys)
        if issuer is None:
            raise BadSignature(
                f"the certificate of {certificate.owner} is of another fleet ({certificate.fleet}, root "
                f"{certificate.issuer}); 'torch-tasks keys list' shows the roots that are trusted here"
            )
        if not is_signature(signature, issuer.key, _PREFIX + payload.encode()):
            raise BadSignature(f"the certificate of {certificate.owner} was not signed by the root that it names")
        if issuer.until is not None and certificate.valid_until > issuer.until:
            raise BadSignature(
                f"the certificate of {certificate.owner} ends later than the last one that its root {issuer.name} "
                "issued before another root followed it"
            )
        return certificate

    def _announced_root(self, keys: FleetKeys) -> FleetRoot | None:
        """The root that this names, if it follows the latest one that is known."""
        is_next = (
            self.root is not None
            and self.root.name == self.issuer
            and keys.latest.name not in keys.revoked
            and self.root.follows(keys.latest.key, keys.fleet)
        )
        return self.root if is_next else None
