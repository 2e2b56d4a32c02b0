"""The profiles in which a fleet is deployed: which files each has, and what is to be done with them."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from torch_tasks.config_files import user_config
from torch_tasks.deploy.deployed_fleet import DeployedFleet
from torch_tasks.errors import TorchError
from torch_tasks.machine import commands

MONITORING = Path(__file__).parent / "monitoring"
"""Rules and dashboards, which are the same for every fleet; in a clone, a link to ``compose/monitoring``."""
_CONFIGURATION = ("agents/*.toml", "roles/*", "git.toml", "policy.toml", "prices.toml")
"""Of a user's own configuration, what all machines of the fleet have alike, beside torch.toml."""


@dataclass(frozen=True)
class Profile:
    """One way of running a fleet."""

    name: str
    templates: tuple[str, ...]
    """The files that are filled in, by their names in the deployment."""
    next_steps: tuple[str, ...]
    copied: tuple[str, ...] = ()
    """Files below ``monitoring/`` that are the same for every fleet."""
    configuration: str = ""
    """The folder for the user's kinds, roles and rules; empty: the machine has them already."""
    executable: frozenset[str] = field(default_factory=frozenset)


SYSTEMD = Profile(
    "systemd",
    (
        *("torch-node.service", "torch-beat@.service", "torch-serve.service", "torch-flower.service"),
        *("torch-system.conf", "torch.env.example", "torch.toml"),
    ),
    (
        "install -D -m 600 {out}/torch.env.example ~/.config/torch/torch.env    # then fill it in",
        "cp {out}/torch.toml ~/.config/torch/; cp {out}/*.service ~/.config/systemd/user/; loginctl enable-linger",
        "systemctl --user enable --now torch-node torch-beat@{beat_port} torch-serve",
    ),
)


_RULES = ("monitoring/alerts.yml", "monitoring/grafana-source.yaml", "monitoring/grafana-dashboards.yaml")

COMPOSE = Profile(
    "compose",
    (
        *("compose.yaml", "monitoring.yaml", ".env.example", "first-start", "config/torch.toml"),
        *("monitoring/prometheus.yml", "monitoring/collector.yaml"),
    ),
    (
        "docker build -f compose/Dockerfile -t torch-tasks:{version} .    # in a clone of Torch",
        "torch-tasks deploy secrets --out {out}/secrets",
        "{out}/first-start",
    ),
    copied=(*_RULES, *(f"monitoring/dashboards/{file.name}" for file in sorted(MONITORING.glob("dashboards/*.json")))),
    configuration="config",
    executable=frozenset({"first-start"}),
)


_OF_THE_FLEET = ("namespace", "broker", "root", "nodes", "beats", "server", "network-policies", "disruption-budgets")
KUBERNETES = Profile(
    "kubernetes",
    (
        *("first-start", "invite", "base/kustomization.yaml", "base/config/torch.toml"),
        *(f"base/{name}.yaml" for name in _OF_THE_FLEET),
        *("autoscaling/kustomization.yaml", "autoscaling/hpa.yaml"),
        *("operator/kustomization.yaml", "operator/dragonfly.yaml"),
    ),
    (
        "docker build -f compose/Dockerfile -t torch-tasks:{version} .    # in a clone of Torch; then push it",
        "torch-tasks deploy secrets --namespace {namespace} --out {out}/secrets",
        "{out}/first-start",
    ),
    configuration="base/config",
    executable=frozenset({"first-start", "invite"}),
)


def files_of(profile: Profile, fleet: DeployedFleet) -> dict[str, str]:
    """Each file's name and text."""
    environment = Environment(
        loader=PackageLoader("torch_tasks.deploy"),
        autoescape=False,  # noqa: S701 - no HTML
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    configured = _users_configuration() if profile.configuration else {}
    values: dict[str, Any] = {"configuration": ["torch.toml", *configured]}
    values |= {"fleet": fleet, "commands": commands, "words": " ".join, "listed": lambda words: json.dumps(list(words))}
    made = {name: environment.get_template(f"{profile.name}/{name}.j2").render(values) for name in profile.templates}
    made = {name: _tidy(text) if name.endswith(".yaml") else text for name, text in made.items()}
    made |= {name: (MONITORING.parent / name).read_text() for name in profile.copied}
    return made | {f"{profile.configuration}/{name}": text for name, text in configured.items()}


def _tidy(text: str) -> str:
    """YAML without the blank lines that templates leave within a block, and with one of them between blocks."""
    return re.sub(r"\n(?:[ \t]*\n)+", "\n\n", re.sub(r"\n(?:[ \t]*\n)+(?= {4})", "\n", text)).rstrip() + "\n"


def _users_configuration() -> dict[str, str]:
    folder = user_config()
    found = sorted(file for pattern in _CONFIGURATION for file in folder.glob(pattern) if file.is_file())
    return {str(file.relative_to(folder)): file.read_text() for file in found}


def write(profile: Profile, fleet: DeployedFleet, out: Path, *, force: bool) -> list[Path]:
    """Write the files; where one is there already, none, unless ``force``."""
    files = files_of(profile, fleet)
    if there := [str(out / name) for name in files if (out / name).exists() and not force]:
        raise TorchError(f"nothing was written: {', '.join(there)} exists already; --force overwrites what is there")
    for name, text in files.items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text(text)
        (out / name).chmod(0o755 if name in profile.executable else 0o644)
    return [out / name for name in files]


def next_steps(profile: Profile, fleet: DeployedFleet, out: Path) -> Sequence[str]:
    """The commands that make a fleet of the files."""
    facts = {"out": out, "beat_port": fleet.beat_port, "version": fleet.version, "namespace": fleet.namespace}
    return [step.format(**facts) for step in profile.next_steps]
