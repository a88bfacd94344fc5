"""Prometheus' own tools on what it is given: the configuration, the rules, and a test of each alert."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.house import system

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "docker" / "prometheus"
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


def rules() -> list[dict[str, Any]]:
    return [
        rule
        for path in sorted((CONFIG / "rules").glob("*.yml"))
        for group in yaml.safe_load(path.read_text())["groups"]
        for rule in group["rules"]
    ]


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


def test_rules_ask_for_metrics_the_code_has() -> None:
    sources = [
        path
        for tier in ("control", "media_worker", "notify_worker", "pipelines")
        for path in (ROOT / tier).rglob("*.py")
    ]
    told = set(re.findall(r'"(afterlive_[a-z0-9_]+)"', "\n".join(path.read_text() for path in sources)))
    asked = {name for rule in rules() for name in metrics_of(rule["expr"])}
    assert len(asked) > 20
    if not (ROOT / "media_worker" / "encoder_metrics.py").exists():
        asked = {name for name in asked if not name.startswith("afterlive_encoder_")}
    assert asked - told == set()
