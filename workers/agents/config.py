"""``config/agents/<kind>.toml``: what a user may say of a kind of agent program."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import cache

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from torch_tasks.errors import InvalidSettings
from torch_tasks.fields import readable
from torch_tasks.resources import config_file


class KindConfig(BaseModel):
    """The whole file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    program: str | None = None
    """Which of Torch's programs drives it; unset: the one of the file's name if there is one, else ``generic``."""
    account: str | None = None
    """The account with a provider of models that its agents share; unset: they share the kind's own."""
    command: tuple[str, ...] = Field(min_length=1)
    environment: Mapping[str, str] = {}


@cache
def kind_config(kind: str) -> KindConfig:
    """The configuration of a kind, or :class:`InvalidSettings`."""
    path = config_file(f"agents/{kind}.toml")
    if path is None:
        raise InvalidSettings(f"there is no agent kind {kind!r}: no agents/{kind}.toml in the configuration folders")
    try:
        return KindConfig.model_validate(tomllib.loads(path.read_text()))
    except ValidationError as error:
        raise InvalidSettings(f"{path}: {readable(error)}") from None
    except tomllib.TOMLDecodeError as error:
        raise InvalidSettings(f"{path} is not valid TOML: {error}") from None
