"""The link to another fleet: through its server, with the token that the settings name."""

from __future__ import annotations

from torch_tasks.caller import own_desk
from torch_tasks.errors import InvalidSettings, NotThroughDesk, UnknownFleet
from torch_tasks.fleets_settings import FleetDoor
from torch_tasks.link.server import ServerLink, token_in
from torch_tasks.model.near import did_you_mean
from torch_tasks.settings import settings


def door_of(name: str) -> FleetDoor:
    """How the settings say that this fleet is reached; :class:`UnknownFleet` if they do not."""
    if own_desk():
        raise NotThroughDesk(
            "an agent's pane reaches its own fleet alone, and with 'send AGENT@FLEET' and 'run --agent AGENT@FLEET' "
            "agents of others, if its rights say so"
        )
    known = settings().fleets
    if name not in known:
        hint = did_you_mean(name, known, f"those that are: {', '.join(sorted(known)) or 'none'}")
        raise UnknownFleet(f"no fleet {name!r} stands in the settings (fleets); {hint}")
    return known[name]


def link_to(name: str) -> ServerLink:
    """A link to the fleet of this name, with the token as its file has it now."""
    door = door_of(name)
    token = token_in(door.token_file, f"fleets.{name}.token_file")
    if door.token_file.stat().st_mode & 0o077:
        raise InvalidSettings(
            f"others may read the token of fleet {name} in {door.token_file}: chmod 600 it, or make a new one"
        )
    return ServerLink(door.server, token)
