"""A certificate: the fleet's root says whose a public key is, and until when."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Self

from pydantic import Field, ValidationError

from torch_tasks.caller import CallerKind
from torch_tasks.errors import BadSignature
from torch_tasks.model.fields import Model
from torch_tasks.signing.ed25519 import decode, encode, fingerprint, is_signature, public_key_of, signature_of

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

    @property
    def ends_at(self) -> datetime:
        return datetime.fromtimestamp(self.valid_until, UTC)

    @property
    def owner(self) -> str:
        return f"{self.kind} {self.name}"

    def signed_by(self, root: str) -> str:
        """The certificate as text, signed with the root's private key."""
        if fingerprint(public_key_of(root)) != self.issuer:
            raise BadSignature(f"the certificate of {self.owner} names another root than the one that is to sign it")
        payload = encode(self.model_dump_json(exclude_none=True).encode())
        return f"{payload}.{signature_of(root, _PREFIX + payload.encode())}"

    @classmethod
    def read(cls, text: str, roots: dict[str, str]) -> Self:
        """The certificate in this text; :class:`BadSignature` unless one of these roots signed it.

        ``roots`` are public keys by their fingerprints.
        """
        payload, _, signature = text.partition(".")
        try:
            certificate = cls.model_validate_json(decode(payload))
        except (ValueError, ValidationError) as error:
            raise BadSignature(f"what came as a certificate cannot be read: {error}") from None
        root = roots.get(certificate.issuer)
        if root is None:
            raise BadSignature(
                f"the certificate of {certificate.owner} is of another fleet ({certificate.fleet}, root "
                f"{certificate.issuer}); 'torch-tasks keys list' shows the roots that are trusted here"
            )
        if not is_signature(signature, root, _PREFIX + payload.encode()):
            raise BadSignature(f"the certificate of {certificate.owner} was not signed by the root that it names")
        return certificate
