"""Folders of keys for programs and people elsewhere."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from torch_tasks.caller import OPERATOR, CallerKind
from torch_tasks.errors import BrokerAway, FileExists, WrongUsage
from torch_tasks.fleet import fleet
from torch_tasks.model.fields import AgentId
from torch_tasks.settings import settings
from torch_tasks.signing.ed25519 import new_key, public_key_of
from torch_tasks.signing.key_certificate import KeyCertificate
from torch_tasks.signing.keyring import Keyring


def issue_into(
    ring: Keyring, folder: Path, kind: CallerKind, name: str, role: str, lasts_seconds: float
) -> KeyCertificate:
    """Make a folder of keys for this name; the root's private key is not among them."""
    _require_usable(name)
    _require_no_agents(name)
    if folder.exists() and any(folder.iterdir()):
        raise FileExists(f"{folder} is not empty; name a new folder for the keys")
    private = new_key()
    certificate = ring.issue(kind, name, public_key_of(private), role=role, lasts_seconds=lasts_seconds)
    made = Keyring.of_fleet(folder, ring.fleet_text, ring.node, root_place=ring.node)
    return made.keep(private, certificate).certificate


def _require_usable(name: str) -> None:
    """Refuse a name that messages and records could not carry, or by which the people at a machine are called."""
    try:
        usable = TypeAdapter(AgentId).validate_python(name) == name != OPERATOR
    except ValidationError:
        usable = False
    if not usable:
        raise WrongUsage(
            f"{name!r} is no name for the bearer of keys: it has at most 48 small letters, digits and -, _, . after "
            f"the first, and is not {OPERATOR!r}, which is who asks at a machine of the fleet"
        )


def _require_no_agents(name: str) -> None:
    """Refuse the name of an agent of the fleet, or of this machine: what its bearer does would look like its own."""
    chosen = settings()
    known = {spec.id for spec in chosen.agents} | {folder.name for folder in chosen.state.agents()}
    with suppress(BrokerAway):
        known |= {name} if fleet().registry.entry(name) else set()
    if name in known:
        raise WrongUsage(f"{name} is an agent's name, so no keys are issued to it; choose another one")
