"""Where configuration files lie: Torch's own and the user's."""

from __future__ import annotations

import os
from pathlib import Path


def shipped_config() -> Path:
    """The folder of Torch's own; in a clone, a link to the top-level ``config/``."""
    return Path(__file__).resolve().parent / "config"


def user_config() -> Path:
    """The folder of the user's configuration; it may not exist."""
    if chosen := os.environ.get("TORCH_CONFIG_DIR"):
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "torch"


def config_names(folder: str) -> list[str]:
    """The names, without ``.toml``, of the files in a folder of both configurations."""
    places = (shipped_config() / folder, user_config() / folder)
    return sorted({file.stem for place in places for file in place.glob("*.toml")})


def config_file(name: str) -> Path | None:
    """The user's file of this name, else the shipped one, else None."""
    for folder in (user_config(), shipped_config()):
        if (path := folder / name).is_file():
            return path
    return None
