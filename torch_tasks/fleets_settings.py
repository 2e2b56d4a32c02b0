"""What a user may set of other fleets, each with a broker of its own, to which this one speaks."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field
from pydantic_settings import BaseSettings

from torch_tasks.model.address import FleetName
from torch_tasks.server_settings import ExpandedPath


class FleetDoor(BaseModel):
    """How another fleet is reached: through its server, as the bearer of a token that it gave."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    server: str
    token_file: ExpandedPath


class FleetsSettings(BaseSettings):
    """The part of the settings that is about other fleets."""

    fleets: dict[FleetName, FleetDoor] = Field(
        {},
        description="Other fleets by the names that they have here: `[fleets.NAME]` in torch.toml, with `server`, the "
        "address of that fleet's server, and `token_file`, a file with a token of it; here JSON. See docs/scale.md.",
    )
