"""The compose file and the image, checked without a container engine."""

from __future__ import annotations

import hashlib
import json
import re
import ssl
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from check_jsonschema.builtin_schemas import get_builtin_schema  # carries the compose specification's own schema
from jsonschema.validators import validator_for
from kombu.transport.redis import SWEEP_BINDINGS

from torch_tasks.deploy.deployment_secrets import make_missing
from torch_tasks.errors import TorchError
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
    **{name: list(commands.NODE) for name in ("root", "node-1", "node-2")},
    **{name: list(commands.BEAT) for name in ("beat-1", "beat-2")},
    "server": list(commands.SERVE),
    "flower": [*commands.flower("0.0.0.0", 5555), "--conf=/run/secrets/flower"],
}
WATCHING: dict[str, dict[str, Any]] = {
    name: service for name, service in yaml.safe_load(MONITORING)["services"].items() if name not in COMMANDS
}
ALL = {**SERVICES, **WATCHING}
PINNED = re.compile(r"[a-z0-9./-]+:v?\d+(\.\d+)+(-[a-z]+)?")
IMAGE = re.compile(r"\$\{(\w+_IMAGE):-([^}]+)\}")


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
            assert json.loads(arguments) == COMMANDS["root"]


def test_everything_waits_for_a_healthy_broker_and_is_asked_whether_it_is_ready() -> None:
    for name, service in SERVICES.items():
        asked = " ".join(service["healthcheck"]["test"])
        if name != "dragonfly":
            assert service["depends_on"] == {"dragonfly": {"condition": "service_healthy"}}
            assert "/healthcheck'" in asked if name == "flower" else "/readyz'" in asked


@pytest.mark.parametrize("name", ALL)
def test_each_is_locked_up(name: str) -> None:
    service = ALL[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert re.fullmatch(r"[1-9]\d*:\d+", service["user"])
    boxed = {"seccomp=unconfined", "apparmor=unconfined", "systempaths=unconfined"}
    assert set(service["security_opt"]) - {"no-new-privileges:true"} == (boxed if name.startswith("node-") else set())


def test_each_machine_has_a_volume_and_a_name_of_its_own() -> None:
    machines = {name: service for name, service in SERVICES.items() if name not in ("dragonfly", "flower")}
    assert {name: service["hostname"] for name, service in machines.items()} == {name: name for name in machines}
    assert all(f"{name}:/var/lib/torch" in service["volumes"] for name, service in machines.items())


def test_the_broker_knows_kombus_script_and_speaks_tls_alone() -> None:
    words = SERVICES["dragonfly"]["command"]
    sha = hashlib.sha1(SWEEP_BINDINGS.encode()).hexdigest()
    assert {f"--lua_undeclared_keys_shas={sha}", "--tls", "--admin_bind=127.0.0.1"} <= set(words)
    assert SERVICES["node-1"]["environment"]["TORCH_BROKER_URL"] == "rediss://dragonfly:6379/0"


def test_ports_are_published_on_loopback_only() -> None:
    ports = [port for service in ALL.values() for port in service.get("ports", ())]
    assert [port for port in ports if not port.startswith("127.0.0.1:")] == []
    assert len(ports) == 4


def test_secrets_lie_in_files_alone() -> None:
    documents = [yaml.safe_load(document) for document in (COMPOSE, MONITORING)]
    given = {one["file"] for document in documents for one in document["secrets"].values()}
    assert all(file.startswith("./secrets/") for file in given)
    for service in ALL.values():
        for name, value in service.get("environment", {}).items():
            assert not re.search("pass|auth|secret|token", name, re.IGNORECASE) or value.startswith("/run/secrets/")
            assert "@" not in str(value)
    arguments = " ".join(argument for service in ALL.values() for argument in service.get("command", ()))
    assert "$" not in arguments
    assert "requirepass" not in arguments


def test_the_example_names_every_image_and_sets_nothing() -> None:
    lines = (FOLDER / ".env.example").read_text().splitlines()
    assert [line for line in lines if not line.startswith("#")] == []
    named = set(re.findall(r"^# (\w+)=", "\n".join(lines), re.MULTILINE))
    assert named == {name for name, _ in IMAGE.findall(COMPOSE + MONITORING)}


def test_every_image_is_pinned() -> None:
    bases = [arguments.split()[0] for instruction, arguments in DOCKERFILE if instruction == "FROM"]
    images = [found[2] for service in ALL.values() if (found := IMAGE.fullmatch(service["image"]))]
    assert len(images) == len(ALL)
    assert [image for image in bases + images if not PINNED.fullmatch(image)] == []
    version = (REPO / "VERSION").read_text().strip()
    assert {SERVICES[name]["image"] for name in COMMANDS} == {f"${{TORCH_IMAGE:-torch-tasks:{version}}}"}


def test_the_image_is_built_from_what_the_repository_has() -> None:
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


def test_the_image_has_what_each_command_needs() -> None:
    runs = " ".join(arguments for instruction, arguments in DOCKERFILE if instruction == "RUN")
    assert all(f" {program} " in runs for program in ("git", "tmux", "bubblewrap"))
    assert "--uid 1000" in runs  # as compose.yaml and the manifests say
    scripts = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]["scripts"]
    assert {words[0] for words in COMMANDS.values()} <= {*scripts, "celery"}


# ── its secrets ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_secrets_are_made_once_and_each_file_that_a_service_wants(tmp_path: Path) -> None:
    made = {file.name for file in make_missing(tmp_path / "s", "torch")}
    wanted = {
        Path(one["file"]).name for text in (COMPOSE, MONITORING) for one in yaml.safe_load(text)["secrets"].values()
    }
    assert wanted - {"prometheus-token"} <= made  # which first-start makes
    assert (tmp_path / "s").stat().st_mode & 0o077 == 0
    assert (tmp_path / "s" / "broker-admin").stat().st_mode & 0o077 == 0
    before = {name: (tmp_path / "s" / name).read_bytes() for name in made}
    assert make_missing(tmp_path / "s", "torch") == []
    (tmp_path / "s" / "broker-cert.pem").unlink()
    assert {file.name for file in make_missing(tmp_path / "s", "torch")} == {"broker-cert.pem"}
    assert (tmp_path / "s" / "broker-ca.pem").read_bytes() == before["broker-ca.pem"]
    (tmp_path / "s" / "broker-ca-key.pem").unlink()
    with pytest.raises(TorchError, match=r"without its key: put broker-ca-key\.pem back"):
        make_missing(tmp_path / "s", "torch")


def test_the_brokers_certificate_is_trusted_by_its_authority_for_its_names_alone(tmp_path: Path) -> None:
    make_missing(tmp_path, "shop")
    files = {name: str(tmp_path / f"broker-{name}.pem") for name in ("ca", "cert", "key")}
    offered = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    offered.load_cert_chain(files["cert"], files["key"])
    for host, is_trusted in (("dragonfly", True), ("dragonfly.shop.svc", True), ("other", False)):
        wanted = ssl.create_default_context(cafile=files["ca"])
        assert shakes_hands(offered, wanted, host) is is_trusted


def shakes_hands(offered: ssl.SSLContext, wanted: ssl.SSLContext, host: str) -> bool:
    """Whether a client that wants this host takes the server."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = offered.wrap_bio(to_server, to_client, server_side=True)
    client = wanted.wrap_bio(to_client, to_server, server_hostname=host)
    for side in (client, server, client, server):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue
        except ssl.SSLCertVerificationError:
            return False
    return True
