"""Writes docs/settings.md from the settings model: ``python docs/generate_settings.py``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from torch_tasks.server_settings import ServerSettings
from torch_tasks.settings import Settings

HEAD = """\
# Settings

Each setting is an environment variable; without `TORCH_` and in small letters it is a line of `torch.toml`, which is
looked for in `$TORCH_CONFIG_DIR`, else in `~/.config/torch`, else among the files Torch ships. The environment wins.
This page is generated from `torch_tasks/settings.py` by `python docs/generate_settings.py`.

| Variable | Default | Meaning |
| --- | --- | --- |
| `TORCH_CONFIG_DIR` | `~/.config/torch` | The folder of your own `torch.toml` and `agents/*.toml`. |
"""


def page() -> str:
    """The whole page."""
    rows = [f"| `TORCH_{name.upper()}` | {_default(field)} | {field.description} |" for name, field in fields()]
    return HEAD + "\n".join(rows) + "\n"


def fields() -> list[tuple[str, FieldInfo]]:
    """The settings, as the model has them, those of the server last."""
    return sorted(Settings.model_fields.items(), key=lambda one: one[0] in ServerSettings.model_fields)


def _default(field: FieldInfo) -> str:
    extra: Any = field.json_schema_extra
    if isinstance(extra, dict) and "default" in extra:
        return str(extra["default"])
    return "unset" if field.default in (None, PydanticUndefined, (), {}) else f"`{field.default}`"


if __name__ == "__main__":
    Path(__file__).with_name("settings.md").write_text(page())
