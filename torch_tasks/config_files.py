"""Where the files that travel with Torch lie: its default configuration.

In a clone they are the top-level ``config/``, to which the package has a link; a wheel has them inside the package.
"""

from __future__ import annotations

import os
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def shipped_config() -> Path:
    """The folder of the configuration that Torch ships."""
    return _PACKAGE / "config"


def user_config() -> Path:
    """The folder of the user's own configuration; it need not exist."""
    chosen = os.environ.get("TORCH_CONFIG_DIR")
    if chosen:
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "torch"


def config_names(folder: str) -> list[str]:
    """The names, without their endings, of the files in a folder of the configuration, the user's and the shipped."""
    places = (shipped_config() / folder, user_config() / folder)
    return sorted({file.stem for place in places for file in place.glob("*.toml")})


def config_file(name: str) -> Path | None:
    """The user's file of this name if there is one, else the shipped one, else nothing."""
    for folder in (user_config(), shipped_config()):
        if (path := folder / name).is_file():
            return path
    return None
