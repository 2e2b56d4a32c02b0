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
    """The environment in which a node worker knows the kind ``slow``, which is ready once the file ``gate`` exists."""
    (folder / "config" / "agents").mkdir(parents=True)
    script = f"until [ -e {folder}/gate ]; do sleep 0.05; done; printf '> '; exec cat"
    (folder / "config" / "agents" / "slow.toml").write_text(TOML.format(script=json.dumps(script)))
    return {"TORCH_CONFIG_DIR": str(folder / "config")}
