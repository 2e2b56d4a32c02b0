"""What a fleet says of its own keys, signed by its latest root: which roots count, and which keys were revoked."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Self

from pydantic import Field, ValidationError

from torch_tasks.errors import BadSignature, OtherFleet
from torch_tasks.model.fields import Model
from torch_tasks.signing.ed25519 import decode, encode, fingerprint, is_signature, public_key_of, signature_of

_PREFIX, _SUCCESSION = b"torch fleet keys 1\n", b"torch root 1\n"
"""What else a root signs begins otherwise."""
_MOST_ROOTS = 64
LONGEST_FLEET_KEYS = 1 << 20


class FleetRoot(Model):
    """A root of the fleet: the key that signs certificates."""

    key: Annotated[str, Field(max_length=64)]
    """Its public key."""
    after: Annotated[str, Field(max_length=128)] | None = None
    """The signature of the root before it; the first one has none."""
    until: int | None = None
    """Once another root has followed it, in seconds since 1970: when the last certificate ends that it issued."""

    @property
    def name(self) -> str:
        return fingerprint(self.key)

    @classmethod
    def following(cls, former: str, fleet: str, key: str) -> Self:
        """The root with this public key, which the former one names with its private key as the next."""
        return cls(key=key, after=signature_of(former, _succession(fleet, key)))

    def follows(self, former: str, fleet: str) -> bool:
        """Whether the root with this public key named it as the next."""
        return self.after is not None and is_signature(self.after, former, _succession(fleet, self.key))


class FleetKeys(Model):
    """The fleet's roots, the latest last, and what was revoked."""

    fleet: Annotated[str, Field(max_length=32)]
    """The fleet's name: the fingerprint of its first root."""
    number: Annotated[int, Field(ge=0)] = 0
    """Grows with each change."""
    roots: Annotated[tuple[FleetRoot, ...], Field(min_length=1, max_length=_MOST_ROOTS)]
    revoked: tuple[Annotated[str, Field(max_length=32)], ...] = ()
    """The serials of certificates, and the names of roots of which no certificate counts any more."""

    @classmethod
    def founded(cls, root: str) -> Self:
        """Those of a new fleet with this public key as its root."""
        return cls(fleet=fingerprint(root), roots=(FleetRoot(key=root),))

    @property
    def latest(self) -> FleetRoot:
        return self.roots[-1]

    def root(self, name: str) -> FleetRoot | None:
        return next((root for root in self.roots if root.name == name), None)

    def with_root(self, former: str, key: str, until: int) -> Self:
        """With another root, which the private key of the latest one names; that one's certificates end then."""
        *earlier, last = self.roots
        following = FleetRoot.following(former, self.fleet, key)
        return self._changed(roots=(*earlier, last.model_copy(update={"until": until}), following))

    def with_revoked(self, names: Iterable[str]) -> Self:
        return self._changed(revoked=tuple(sorted({*self.revoked, *names})))

    def news_since(self, before: Self) -> str:
        """What this says that an earlier one did not, in words."""
        roots = [f"root {root.name} follows" for root in self.roots[len(before.roots) :]]
        revoked = sorted(set(self.revoked).difference(before.revoked))
        return "; ".join([*roots, *([f"revoked: {', '.join(revoked)}"] if revoked else [])])

    def _changed(self, **fields: object) -> Self:
        return self.model_copy(update={**fields, "number": self.number + 1})

    def signed_by(self, root: str) -> str:
        """This as text, signed with the private key of the latest root."""
        if public_key_of(root) != self.latest.key:
            raise BadSignature("only the latest root of a fleet says which keys count")
        payload = encode(self.model_dump_json(exclude_none=True).encode())
        return f"{payload}.{signature_of(root, _PREFIX + payload.encode())}"

    @classmethod
    def read(cls, text: str) -> Self:
        """What the text says; :class:`BadSignature` unless each root names the next, and the latest signed it all."""
        payload, _, signature = text.partition(".")
        try:
            if len(text) > LONGEST_FLEET_KEYS:
                raise ValueError("it is too long")
            found = cls.model_validate_json(decode(payload))
        except (ValueError, ValidationError) as error:
            raise BadSignature(f"what came as a fleet's keys cannot be read: {error}") from None
        first, *others = found.roots
        chained = all(root.follows(former.key, found.fleet) for former, root in zip(found.roots, others, strict=False))
        if first.name != found.fleet or not chained:
            raise BadSignature(f"the roots of fleet {found.fleet} do not follow each other")
        if not is_signature(signature, found.latest.key, _PREFIX + payload.encode()):
            raise BadSignature(f"what is said of the keys of fleet {found.fleet} was not signed by its latest root")
        return found

    def require_same_fleet(self, other: FleetKeys, where: str) -> None:
        """Raise :class:`OtherFleet` unless one of the two has grown out of the other."""
        if self.roots[0].key != other.roots[0].key:
            raise OtherFleet(
                f"{where} belongs to fleet {other.fleet}, and this machine's keys to fleet {self.fleet}; join that "
                "fleet with 'torch-tasks node join TOKEN' (a token: 'torch-tasks node invite' on the machine with its "
                "root), or use another broker"
            )
        if any(mine.key != theirs.key for mine, theirs in zip(self.roots, other.roots, strict=False)):
            raise BadSignature(
                f"{where} names another root after the root {self.roots[0].name} of fleet {self.fleet} than this "
                "machine knows: somebody else has the private key of an earlier root"
            )

    def is_older_than(self, other: FleetKeys) -> bool:
        """Whether the other one, of the same fleet, is later, and takes nothing back that this one says."""
        return (
            other.number > self.number
            and len(other.roots) >= len(self.roots)
            and set(self.revoked).issubset(other.revoked)
        )


def _succession(fleet: str, key: str) -> bytes:
    return _SUCCESSION + f"{fleet}\n{key}".encode()
