"""The manifests for Kubernetes, as the real kustomize renders them."""

from __future__ import annotations

import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from torch_tasks.machine import commands

FOLDER = Path(__file__).resolve().parents[3] / "compose" / "kubernetes"
POD_OWNERS = ("StatefulSet", "Deployment")


@cache
def rendered(overlay: str) -> dict[tuple[str, str], dict[str, Any]]:
    """Every object by its kind and name."""
    if shutil.which("kubectl") is None:
        pytest.skip("there is no kubectl, which has kustomize in it")
    argv = ["kubectl", "kustomize", str(FOLDER / overlay)]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60)
    return {(one["kind"], one["metadata"]["name"]): one for one in yaml.safe_load_all(done.stdout)}


def pods() -> dict[str, dict[str, Any]]:
    """What each workload runs, by its name."""
    return {name: one["spec"]["template"] for (kind, name), one in rendered("base").items() if kind in POD_OWNERS}


def containers() -> list[tuple[str, dict[str, Any]]]:
    found = [(name, pod["spec"]) for name, pod in pods().items()]
    return [(name, one) for name, spec in found for one in (*spec.get("initContainers", ()), *spec["containers"])]


def test_each_part_of_a_fleet_is_there_and_runs_what_everybody_runs() -> None:
    ran = {name: pod["spec"]["containers"][0].get("command") for name, pod in pods().items()}
    node, beat, server = (list(words) for words in (commands.NODE, commands.BEAT, commands.SERVE))
    assert ran == {
        "dragonfly": None,
        "torch-root": node,
        "torch-node": node,
        "torch-beat": beat,
        "torch-server": server,
    }


def test_all_but_the_agents_boxes_keep_to_what_kubernetes_calls_restricted() -> None:
    for name, pod in pods().items():
        assert pod["spec"]["securityContext"]["runAsNonRoot"] is True
        filtered = pod["spec"]["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault"
        assert filtered is (name != "torch-node")
        assert pod["spec"]["enableServiceLinks"] is False  # or TORCH_SERVER_PORT would be an address
        assert pod["spec"]["automountServiceAccountToken"] is False
    for name, one in containers():
        context = one["securityContext"]
        assert (context["allowPrivilegeEscalation"], context["readOnlyRootFilesystem"]) == (False, True), name
        assert context["capabilities"] == {"drop": ["ALL"]}
    assert pods()["torch-node"]["spec"]["hostUsers"] is False  # what an unmasked /proc takes


def test_kubernetes_asks_the_same_pages_as_everybody() -> None:
    for name, pod in pods().items():
        one = pod["spec"]["containers"][0]
        assert "limits" in one["resources"]
        if name != "dragonfly":
            assert one["livenessProbe"]["httpGet"]["path"] == "/healthz"
            assert one["readinessProbe"]["httpGet"]["path"] == "/readyz"


def test_every_pod_is_selected_guarded_and_keeps_its_state() -> None:
    base = rendered("base")
    for name, pod in pods().items():
        labels = pod["metadata"]["labels"]
        budgets = [one["spec"]["selector"]["matchLabels"] for (kind, _), one in base.items() if "Budget" in kind]
        assert [one for one in budgets if one.items() <= labels.items()], name
        policies = [one["spec"]["podSelector"]["matchLabels"] for (kind, _), one in base.items() if "Policy" in kind]
        assert [one for one in policies if one.items() <= labels.items()], name
        volumes = {one["name"] for one in pod["spec"].get("volumes", ())}
        owner = base.get(("StatefulSet", name)) or {"spec": {"volumeClaimTemplates": []}}
        volumes |= {one["metadata"]["name"] for one in owner["spec"]["volumeClaimTemplates"]}
        for one in (*pod["spec"].get("initContainers", ()), *pod["spec"]["containers"]):
            assert {mount["name"] for mount in one["volumeMounts"]} <= volumes


def test_no_secret_is_written_down() -> None:
    assert [kind for kind, _ in rendered("base") if kind == "Secret"] == []
    asked = {one["name"]: one for _, container in containers() for one in container.get("env", ())}
    assert [name for name, one in asked.items() if "@" in str(one.get("value", ""))] == []


def test_the_number_of_nodes_follows_torchs_own_metric() -> None:
    scaler = rendered("autoscaling")["HorizontalPodAutoscaler", "torch-node"]["spec"]
    assert ("StatefulSet", scaler["scaleTargetRef"]["name"]) in rendered("autoscaling")
    assert [one["external"]["metric"]["name"] for one in scaler["metrics"]] == ["torch_tasks_waiting"]


def test_the_operators_broker_takes_the_place_of_the_other() -> None:
    found = rendered("operator")
    assert ("StatefulSet", "dragonfly") not in found
    assert ("Service", "dragonfly") not in found
    assert found["Dragonfly", "dragonfly"]["spec"]["tlsSecretRef"] == {"name": "torch-broker-tls"}
