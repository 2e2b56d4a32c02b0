"""Where configuration files lie: Torch's own and the user's."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

from torch_tasks.errors import StateFolderUnusable
from torch_tasks.state_folder import StateFolder

_TEMPLATE = "generic"
"""A file of a kind for users to copy, not a kind."""


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


def known_kinds() -> list[str]:
    """The kinds of agents that have a file."""
    return [kind for kind in config_names("agents") if kind != _TEMPLATE]


def config_file(name: str) -> Path | None:
    """The user's file of this name, else the shipped one, else None."""
    for folder in (user_config(), shipped_config()):
        if (path := folder / name).is_file():
            return path
    return None


def glance(setting: str) -> str | None:
    """The text of a setting in the environment or torch.toml, whatever else is wrong there; nothing is checked."""
    if given := os.environ.get(f"TORCH_{setting}".upper()):
        return given
    file = config_file("torch.toml")
    line = rf"""^\s*{setting}\s*=\s*(["'])(.+?)\1"""
    found = re.search(line, file.read_text(errors="replace"), re.MULTILINE) if file else None
    return found[2] if found else None


def default_state_dir() -> Path:
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "torch"


def glance_at_state_dir() -> Path:
    """The state folder that the settings name, although they may be unusable."""
    named = glance("state_dir")
    return Path(named).expanduser().absolute() if named else default_state_dir()


def given_by_fleet() -> dict[str, str]:
    """What ``torch-tasks node join`` left in the state folder: this machine's name, and the broker's address."""
    file = StateFolder(glance_at_state_dir()).joined
    try:
        found = json.loads(file.read_bytes())
        return {name: found[name] for name in ("node", "broker_url")}
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StateFolderUnusable(f"cannot read {file}: {error}. 'torch-tasks node join' writes it anew") from None
