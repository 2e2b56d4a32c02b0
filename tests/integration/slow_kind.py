"""A kind of agent whose program becomes ready when the test says so."""

from __future__ import annotations

import json
from pathlib import Path

TOML = r"""
command = ["sh", "-c", {script}]

[[rules]]
name = "open"
state = "ready"
where = "composer"
pattern = '\A'
"""


def slow_kind(folder: Path) -> dict[str, str]:
    """What a node worker's environment must hold to know the kind ``slow``; it is ready once ``gate`` is there."""
    (folder / "config" / "agents").mkdir(parents=True)
    script = f"until [ -e {folder}/gate ]; do sleep 0.05; done; printf '> '; exec cat"
    (folder / "config" / "agents" / "slow.toml").write_text(TOML.format(script=json.dumps(script)))
    return {"TORCH_CONFIG_DIR": str(folder / "config")}
