"""Prometheus' own tools on what it is given: the configuration, the rules, and a test of each alert."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.cog import plugins
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

from tests import monitoring
from tests.house import dashboards, system
from tests.monitoring import CONFIG, ROOT, rules

TESTS = sorted((ROOT / "tests" / "prometheus").glob("*.yml"))
OURS = re.compile(r"\bafterlive_[a-z0-9_]+")
SUFFIXES = ("_bucket", "_sum", "_count")


def promtool(*arguments: str | Path) -> str:
    found = system.find(system.NEEDS["prometheus"])
    assert found, "no Prometheus on this machine: run python -m tests.house.system prometheus"
    command = [str(Path(found).with_name("promtool")), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def metrics_of(expression: str) -> set[str]:
    """Ours, by the names they have in the code; what a rule records begins with another word."""
    found = {name for name in OURS.findall(expression) if f":{name}" not in expression}
    return {name.removesuffix(next((end for end in SUFFIXES if name.endswith(end)), "")) for name in found}


def test_configuration_and_rules_are_valid() -> None:
    promtool("check", "config", "--syntax-only", CONFIG / "prometheus.yml")
    promtool("check", "rules", *sorted((CONFIG / "rules").glob("*.yml")))


@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.stem)
def test_the_rules_do_what_they_say(path: Path) -> None:
    promtool("test", "rules", path)


def test_each_alert_is_shown_to_be_quiet_and_to_fire() -> None:
    quiet: set[str] = set()
    firing: set[str] = set()
    for test in (test for path in TESTS for test in yaml.safe_load(path.read_text())["tests"]):
        for asked in test.get("promql_expr_test", ()):
            if "ALERTS" in asked["expr"]:
                expected = [sample["labels"] for sample in asked["exp_samples"]]
                (firing if f'{{alertname="{test["name"]}"}}' in expected else quiet).add(test["name"])
    alerts = {rule["alert"] for rule in rules() if "alert" in rule}
    assert firing == alerts
    assert quiet == alerts


def test_each_alert_says_what_it_is_and_what_to_do() -> None:
    for rule in rules():
        if "alert" in rule:
            assert rule["labels"]["severity"] in ("critical", "warning")
            assert set(rule["annotations"]) == {"summary", "description", "remedy"}


def metrics_there_are() -> set[str]:
    """By what makes them: prometheus-client's classes, or the table of the GPUs' readings."""
    tiers = ("control", "media_worker", "notify_worker", "pipelines")
    sources = "\n".join(path.read_text() for tier in tiers for path in (ROOT / tier).rglob("*.py"))
    made = r'(?:Counter|Gauge|Histogram|GaugeMetricFamily)\(\s*"(afterlive_[a-z0-9_]+)"'
    return set(re.findall(made, sources)) | set(re.findall(r'"(afterlive_gpu_[a-z0-9_]+)": \(', sources))


def test_rules_and_dashboards_ask_for_metrics_and_jobs_there_are() -> None:
    expressions = [rule["expr"] for rule in rules()] + [query for _, query in monitoring.queries()]
    asked = {name for expression in expressions for name in metrics_of(expression)}
    if not (ROOT / "media_worker" / "encoder_metrics.py").exists():
        asked = {name for name in asked if not name.startswith("afterlive_encoder_")}
    assert len(asked) > 40
    assert asked - metrics_there_are() == set()
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    used = set(re.findall(r"\b[a-z]+:afterlive_[a-z0-9_:]+", "\n".join(expressions)))
    assert used <= recorded
    jobs = {job["job_name"] for job in yaml.safe_load((CONFIG / "prometheus.yml").read_text())["scrape_configs"]}
    named = set(re.findall(r'job=~?"([^"]+)"', "\n".join(expressions)))
    assert {job for names in named for job in names.split("|")} <= jobs


@pytest.mark.parametrize("name", dashboards.tables())
def test_a_dashboard_is_what_its_table_says(name: str) -> None:
    made = dashboards.made(name, dashboards.tables()[name])
    assert (monitoring.DASHBOARDS / f"{name}.json").read_text() == made, "run python -m tests.house.dashboards"


@pytest.mark.parametrize("name", dashboards.tables())
def test_grafanas_own_models_know_all_of_a_dashboard(name: str) -> None:
    """Read by Grafana's types and written again, nothing is lost: no field is misspelt, or of another version."""
    plugins.register_default_plugins()
    told = monitoring.dashboards()[name]
    known = json.loads(JSONEncoder().encode(Dashboard.from_json(told)))
    assert lost(told, known) == []


def lost(told: Any, known: Any, where: str = "") -> list[str]:
    """What of `told` is not in `known`."""
    if isinstance(told, dict):
        missing = [f"{where}/{key}" for key in told if key not in known]
        return missing + [
            one for key in told.keys() & known.keys() for one in lost(told[key], known[key], f"{where}/{key}")
        ]
    if isinstance(told, list):
        if len(told) != len(known):
            return [where]
        return [one for i, both in enumerate(zip(told, known, strict=True)) for one in lost(*both, f"{where}/{i}")]
    return [] if told == known else [where]


def test_dashboards_are_provisioned() -> None:
    found = monitoring.dashboards()
    assert set(found) == {"media", "fast-lane", "failures", "capacity"}
    assert len({dashboard["uid"] for dashboard in found.values()}) == len(found)
    folder = monitoring.ROOT / "docker" / "grafana" / "provisioning"
    (source,) = yaml.safe_load((folder / "datasources" / "prometheus.yml").read_text())["datasources"]
    assert (source["uid"], source["type"]) == (dashboards.SOURCE["uid"], "prometheus")
    for dashboard in found.values():
        places = [panel["gridPos"] for panel in dashboard["panels"]]
        cells = {
            (x, y)
            for at in places
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert len(cells) == sum(at["w"] * at["h"] for at in places), "panels lie over one another"
        assert max(x for x, _ in cells) < 24


def test_what_is_scraped_are_services_of_compose() -> None:
    """Names and files meet those of the containers."""
    compose = yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text())["services"]
    jobs = yaml.safe_load((CONFIG / "prometheus.yml").read_text())["scrape_configs"]
    names = {name for job in jobs for found in job.get("dns_sd_configs", ()) for name in found["names"]}
    fixed = {at.partition(":")[0] for job in jobs for found in job.get("static_configs", ()) for at in found["targets"]}
    assert (names | fixed) - {"localhost"} <= compose.keys()
    keys = {Path(job["authorization"]["credentials_file"]).name for job in jobs if "authorization" in job}
    assert keys == {secret["target"] for secret in compose["prometheus"]["secrets"]}
    provisioning = ROOT / "docker" / "grafana" / "provisioning" / "dashboards" / "afterlive.yml"
    (provider,) = yaml.safe_load(provisioning.read_text())["providers"]
    assert f"./grafana/dashboards:{provider['options']['path']}:ro" in compose["grafana"]["volumes"]


def test_each_metric_is_explained() -> None:
    """In the table of docker/monitoring.md, where the first of a row may lend the others its beginning."""
    told: set[str] = set()
    for line in (ROOT / "docker" / "monitoring.md").read_text().splitlines():
        names = re.findall(r"`((?:afterlive|…)_[a-z0-9_]+)`", line.partition(" | ")[0])
        if names and line.startswith("| `afterlive_"):
            first = names[0]
            ends = [name.removeprefix("…") for name in names if name.startswith("…")]
            told |= {name for name in names if not name.startswith("…")}
            starts = [first[:i] for i, letter in enumerate(first) if letter == "_"]
            told |= {start + end for start in starts for end in ends}
    assert metrics_there_are() - told == set()
