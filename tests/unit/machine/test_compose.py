"""The compose file and the image, checked without a container engine."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from check_jsonschema.builtin_schemas import get_builtin_schema  # carries the compose specification's own schema
from jsonschema.validators import validator_for
from kombu.transport.redis import SWEEP_BINDINGS

from torch_tasks.machine import commands

REPO = Path(__file__).resolve().parents[3]
FOLDER = REPO / "compose"
COMPOSE = (FOLDER / "compose.yaml").read_text()
MONITORING = (FOLDER / "monitoring.yaml").read_text()
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load(COMPOSE)["services"]
DOCKERFILE = [
    line.split(maxsplit=1)
    for line in (FOLDER / "Dockerfile").read_text().replace("\\\n", " ").splitlines()
    if line and not line.startswith("#")
]

COMMANDS = {
    "node": list(commands.NODE),
    "beat": list(commands.BEAT),
    "flower": list(commands.flower("0.0.0.0", 5555)),
}
PINNED = re.compile(r"[a-z0-9./-]+:v?\d+(\.\d+)+(-[a-z]+)?")
REQUIRED_VARIABLE = re.compile(r"\$\{(\w+):\?[^}]+\}")


def complaints(document: object) -> list[str]:
    """What the compose specification's schema has against this document."""
    schema = get_builtin_schema("vendor.compose-spec")
    # By the draft that the schema itself names: an older one ignores the rule against unknown keys.
    validator = validator_for(schema, default=None)
    return [f"{error.json_path}: {error.message}" for error in validator(schema).iter_errors(document)]


def copied() -> set[str]:
    """What the Dockerfile takes from the repository."""
    words = [arguments.split() for instruction, arguments in DOCKERFILE if instruction == "COPY"]
    return {source for *sources, _ in words if not sources[0].startswith("--from=") for source in sources}


def secrets() -> Iterator[tuple[str, str]]:
    """Each environment value that is a password or holds one."""
    for service in SERVICES.values():
        for name, value in service.get("environment", {}).items():
            if re.search("pass|auth|secret|token|_url", name, re.IGNORECASE):
                yield name, value


@pytest.mark.parametrize("document", [COMPOSE, MONITORING], ids=["the fleet", "monitoring"])
def test_follows_the_compose_specification(document: str) -> None:
    assert complaints(yaml.safe_load(document)) == []


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"comand": ["true"]}, "$.services.flower: Unevaluated properties are not allowed ('comand' was unexpected)"),
        ({"ports": "5555"}, "$.services.flower.ports: '5555' is not of type 'array'"),
        (
            {"depends_on": {"beat": {}}},
            "$.services.flower.depends_on: {'beat': {}} is not valid under any of the given schemas",
        ),
    ],
)
def test_the_schema_refuses_a_broken_file(change: dict[str, object], complaint: str) -> None:
    document = yaml.safe_load(COMPOSE)
    document["services"]["flower"] |= change
    assert complaint in complaints(document)


def test_runs_the_same_commands_as_without_containers() -> None:
    assert {name: service["command"] for name, service in SERVICES.items() if name != "dragonfly"} == COMMANDS


def test_no_command_goes_through_a_shell() -> None:
    for service in SERVICES.values():
        assert isinstance(service["command"], list)
        assert service.get("healthcheck", {"test": ["CMD"]})["test"][0] == "CMD"
    for instruction, arguments in DOCKERFILE:
        if instruction in {"CMD", "ENTRYPOINT"}:
            assert json.loads(arguments) == COMMANDS["node"]


def test_everything_waits_for_a_healthy_broker() -> None:
    assert "test" in SERVICES["dragonfly"]["healthcheck"]
    for name in COMMANDS:
        assert SERVICES[name]["depends_on"] == {"dragonfly": {"condition": "service_healthy"}}


def test_a_second_beat_stands_by() -> None:
    assert SERVICES["beat"]["deploy"]["replicas"] == 2


def test_the_broker_knows_kombus_script() -> None:
    sha = hashlib.sha1(SWEEP_BINDINGS.encode()).hexdigest()
    assert f"--lua_undeclared_keys_shas={sha}" in SERVICES["dragonfly"]["command"]


def test_ports_are_published_on_loopback_only() -> None:
    ports = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert ports == {"flower": ["127.0.0.1:5555:5555"]}


def test_no_password_is_written_down() -> None:
    found = dict(secrets())
    assert set(found) == {"TORCH_BROKER_URL", "DFLY_requirepass", "REDISCLI_AUTH", "FLOWER_BASIC_AUTH"}
    assert REQUIRED_VARIABLE.sub("*", found.pop("TORCH_BROKER_URL")) == "redis://:*@dragonfly:6379/0"
    assert all(REQUIRED_VARIABLE.fullmatch(value) for value in found.values())
    arguments = " ".join(argument for service in SERVICES.values() for argument in service["command"])
    assert "$" not in arguments
    assert "requirepass" not in arguments


def test_the_example_names_every_variable_and_fills_in_none() -> None:
    example = [line for line in (FOLDER / ".env.example").read_text().splitlines() if not line.startswith("#")]
    assert sorted(example) == sorted(f"{name}=" for name in set(REQUIRED_VARIABLE.findall(COMPOSE + MONITORING)))


def test_every_image_is_pinned() -> None:
    bases = [arguments.split()[0] for instruction, arguments in DOCKERFILE if instruction == "FROM"]
    images = [service["image"] for service in SERVICES.values()]
    assert [image for image in bases + images if not PINNED.fullmatch(image)] == []
    version = (REPO / "VERSION").read_text().strip()
    assert {SERVICES[name]["image"] for name in COMMANDS} == {f"torch-tasks:{version}"}


def test_the_image_is_built_from_what_the_repository_has() -> None:
    assert SERVICES["node"]["build"] == {"context": "..", "dockerfile": "compose/Dockerfile"}
    assert copied() == {
        *("constraints.txt", "pyproject.toml", "VERSION", "README.md", "LICENSE"),
        *("torch_tasks", "workers", "beat", "config"),
    }
    assert [source for source in copied() if not (REPO / source).exists()] == []
    lines = (FOLDER / "Dockerfile.dockerignore").read_text().splitlines()
    assert {line[1:] for line in lines if line.startswith("!")} == copied()
    assert "*" in lines


def test_the_image_does_not_run_as_root() -> None:
    assert [arguments for instruction, arguments in DOCKERFILE if instruction == "USER"] == ["torch"]
