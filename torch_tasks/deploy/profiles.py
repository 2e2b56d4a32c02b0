"""The profiles in which a fleet is deployed: which files each has, and what is to be done with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

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
    values = {"fleet": fleet, "commands": commands, "words": " ".join}
    made = {name: environment.get_template(f"{profile.name}/{name}.j2").render(values) for name in profile.templates}
    made |= {name: (MONITORING.parent / name).read_text() for name in profile.copied}
    if profile.configuration:
        made |= {f"{profile.configuration}/{name}": text for name, text in _users_configuration().items()}
    return made


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
    return [step.format(out=out, beat_port=fleet.beat_port, version=fleet.version) for step in profile.next_steps]
