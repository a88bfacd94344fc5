"""Prometheus' own tools on what it is given: the configuration, the rules, and a test of each alert."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml

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


def test_rules_and_dashboards_ask_for_metrics_and_jobs_there_are() -> None:
    tiers = ("control", "media_worker", "notify_worker", "pipelines")
    sources = [path.read_text() for tier in tiers for path in (ROOT / tier).rglob("*.py")]
    told = set(re.findall(r'"(afterlive_[a-z0-9_]+)"', "\n".join(sources)))
    expressions = [rule["expr"] for rule in rules()] + [query for _, query in monitoring.queries()]
    asked = {name for expression in expressions for name in metrics_of(expression)}
    if not (ROOT / "media_worker" / "encoder_metrics.py").exists():
        asked = {name for name in asked if not name.startswith("afterlive_encoder_")}
    assert len(asked) > 40
    assert asked - told == set()
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
