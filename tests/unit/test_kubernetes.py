"""docker/kubernetes: what the manifests name is there, and KEDA knows what they say."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from control.bus.names import QUEUES
from tests import compose
from tests.unit.test_compose import known_settings

FOLDER = compose.DOCKER / "kubernetes"
KINDS = ("cpu", "nvidia", "vaapi")


def documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((FOLDER / name).read_text()))


ALL = [each for path in sorted(FOLDER.glob("*.yaml")) for each in documents(path.name)]
DEPLOYMENTS = {each["metadata"]["name"]: each for each in ALL if each["kind"] == "Deployment"}
SCALED = [each for each in ALL if each["kind"] == "ScaledObject"]


# https://keda.sh/docs/latest/reference/scaledobject-spec/
_SPEC = {
    "scaleTargetRef", "minReplicaCount", "maxReplicaCount", "idleReplicaCount", "pollingInterval", "cooldownPeriod",
    "initialCooldownPeriod", "advanced", "triggers", "fallback",
}  # fmt: skip
# https://keda.sh/docs/latest/scalers/prometheus/
_PROMETHEUS = {
    "serverAddress", "query", "threshold", "activationThreshold", "namespace", "customHeaders", "ignoreNullValues",
    "queryParameters", "unsafeSsl", "timeout", "authModes",
}  # fmt: skip


@pytest.mark.parametrize("scaled", SCALED, ids=lambda each: each["metadata"]["name"])
def test_a_scaled_object_says_what_keda_knows(scaled: dict[str, Any]) -> None:
    assert scaled["apiVersion"] == "keda.sh/v1alpha1"
    spec = scaled["spec"]
    assert set(spec) <= _SPEC
    assert 0 <= spec["minReplicaCount"] < spec["maxReplicaCount"]
    for trigger in spec["triggers"]:
        assert set(trigger) == {"type", "metricType", "metadata"}
        assert trigger["type"] == "prometheus"
        assert set(trigger["metadata"]) <= _PROMETHEUS
        # KEDA takes texts alone.
        assert all(isinstance(value, str) for value in trigger["metadata"].values())
    behavior = spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    assert behavior["scaleUp"]["stabilizationWindowSeconds"] < behavior["scaleDown"]["stabilizationWindowSeconds"]


def test_each_kind_of_worker_is_scaled() -> None:
    assert set(DEPLOYMENTS) == {f"afterlive-media-{kind}" for kind in KINDS}
    assert {each["spec"]["scaleTargetRef"]["name"] for each in SCALED} == set(DEPLOYMENTS)
    for name, each in DEPLOYMENTS.items():
        pod = each["spec"]["template"]["spec"]
        [container] = pod["containers"]
        target = name.removeprefix("afterlive-")
        assert re.fullmatch(rf"registry\.example/afterlive/{target}:\d+\.\d+\.\d+", container["image"])
        assert container["args"] == compose.load("compose.yaml")["services"][target]["command"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        mounted = {mount["name"] for mount in container["volumeMounts"]}
        assert mounted == {volume["name"] for volume in pod["volumes"]}
        of_gpus = [key for key in container["resources"]["limits"] if "/" in key]
        assert bool(of_gpus) == (target != "media-cpu")


def test_every_setting_and_secret_is_one() -> None:
    known = set(known_settings()) | {"AFTERLIVE_SECRETS_DIR"}
    text = (FOLDER / "media.yaml").read_text()
    assert set(re.findall(r"\b(AFTERLIVE_[A-Z0-9_]+)\b", text)) <= known
    secrets = set(re.findall(r"--from-file=(\w+)=docker/secrets/gpu-host/(\w+)", text))
    gpu_host = compose.load("gpu-host.yaml", env={"S3_ENDPOINT": "x"})["services"]["media-cpu"]["secrets"]
    assert secrets == {(each["target"], each["source"]) for each in gpu_host}


def test_it_scales_by_metrics_and_queues_that_are_there() -> None:
    root = Path(__file__).parents[2]
    told = "\n".join(path.read_text() for path in (root / "control").glob("*.py"))
    for each in SCALED:
        triggers = each["spec"]["triggers"]
        assert {trigger["metricType"] for trigger in triggers} == {"Value", "AverageValue"}
        for trigger in triggers:
            query = trigger["metadata"]["query"]
            assert float(trigger["metadata"]["threshold"]) > 0
            for metric in re.findall(r"afterlive_\w+", query):
                assert f'"{metric}"' in told, metric
            for queue in re.findall(r'queue="([^"]+)"', query):
                assert queue in QUEUES
