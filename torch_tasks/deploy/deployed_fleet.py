"""What the files of a profile say of one fleet: its agents, and what its settings differ in from the defaults."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha1
from importlib.metadata import version
from typing import Any
from urllib.parse import urlsplit

from kombu.transport.redis import SWEEP_BINDINGS
from pydantic import BaseModel, SecretStr

from torch_tasks.model.agent import AgentFields, AgentSpec
from torch_tasks.model.spawn import Pool
from torch_tasks.settings import Settings

OF_ONE_MACHINE = frozenset((
    "broker_url", "state_dir", "node", "node_address", "node_labels", "keys_dir", "token_file",
    "server_host", "server_certificate", "server_key", "broker_ca", "broker_certificate", "broker_key",
    "metrics_host", "oidc_client_secret_file", "cgroup", "flower_port", "serve", "pane_scope",
))  # fmt: skip
"""Settings that say where something is on the machine that they were made for: no other takes them over."""
_APART = frozenset({"agents", "pools", "server"})
"""Written in tables of their own; and what a command chose for itself."""
_MAY_HOLD_SECRETS = frozenset({"notify", "notify_command"})
"""What addresses and commands hold that tell a person of something."""


@dataclass(frozen=True)
class WrittenSetting:
    """A setting as it stands in torch.toml."""

    name: str
    value: str
    description: str


class DeployedFleet:
    """The fleet of these settings, in the words of the templates."""

    def __init__(self, settings: Settings, nodes: int = 1, namespace: str = "torch") -> None:
        changed = [name for name in Settings.model_fields if _differs(settings, name)]
        taken = [name for name in changed if name not in OF_ONE_MACHINE]
        self.version = version("torch-tasks")
        self.settings = [_written(settings, name) for name in taken if not _is_secret(settings, name)]
        self.left_out = sorted(f"TORCH_{name}".upper() for name in changed if name in OF_ONE_MACHINE)
        self.secrets = sorted(f"TORCH_{name}".upper() for name in taken if _is_secret(settings, name))
        self.agents = [_table(agent) for agent in settings.agents]
        self.pools = [_table(pool) for pool in settings.pools]
        self.all_as_pools = [_table(pool) for pool in (*_pools_of(settings.agents), *settings.pools)]
        given = settings.given_broker()
        self.broker = given and given.with_login(None).url.get_secret_value()
        """The address of a broker that is there already, without its login; None: the deployment has one."""
        self.broker_memory = settings.broker_memory
        self.broker_scripts = sha1(SWEEP_BINDINGS.encode(), usedforsecurity=False).hexdigest()
        """The scripts of kombu's that do not declare their keys, as DragonflyDB wants to know."""
        self.nodes = nodes
        self.namespace = namespace
        self.broker_port = urlsplit(self.broker or "").port or 6379
        self.broker_pod_memory = f"{settings.broker_memory // (1 << 20) * 3 // 2 + 512}Mi"
        """With room for a snapshot, which is written while the data changes."""
        self.server_port = settings.server_port
        self.node_port = settings.metrics_port
        self.beat_port = settings.metrics_beat_port
        self.server_names = list(settings.server_names)
        self.has_server_certificate = settings.server_certificate is not None
        self.collector = settings.otlp_endpoint


def _differs(settings: Settings, name: str) -> bool:
    default = Settings.model_fields[name].get_default(call_default_factory=True)
    return name not in _APART and bool(getattr(settings, name) != default)


def _is_secret(settings: Settings, name: str) -> bool:
    return name in _MAY_HOLD_SECRETS or isinstance(getattr(settings, name), SecretStr)


def _written(settings: Settings, name: str) -> WrittenSetting:
    value = settings.model_dump(mode="json", include={name}, exclude_none=True)[name]
    return WrittenSetting(name, toml(value), Settings.model_fields[name].description or "")


def _pools_of(agents: Iterable[AgentSpec]) -> list[Pool]:
    """Pools of as many agents: where each machine has the same files, none can declare an agent of a fixed name."""
    alike = Counter(tuple((name, getattr(agent, name)) for name in AgentFields.model_fields) for agent in agents)
    return [Pool(**dict(fields), min=count, max=count) for fields, count in alike.items()]


def _table(what: BaseModel) -> dict[str, str]:
    """The fields that are not as they would be without being written, as TOML."""
    fields = what.model_dump(mode="json", exclude_defaults=True, exclude_none=True)
    return {name: toml(value) for name, value in fields.items()}


def toml(value: Any) -> str:
    """A value of JSON as one of TOML, on one line."""
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{json.dumps(key)} = {toml(one)}" for key, one in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(toml, value)) + "]"
    return json.dumps(value, ensure_ascii=False)
