"""A real Prometheus, private to a test, with the configuration and the rules that are shipped."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests import services
from tests.house import system

ROOT = Path(__file__).parents[1]
CONFIG = ROOT / "docker" / "prometheus"
DASHBOARDS = ROOT / "docker" / "grafana" / "dashboards"
_SELECTOR = re.compile(
    r"\b(?:afterlive|rabbitmq|up\b)[a-z0-9_:]*(?:\{[^}]*\})?|\b[a-z]+:afterlive_[a-z0-9_:]+(?:\{[^}]*\})?"
)


def rules() -> list[dict[str, Any]]:
    """Every rule that is shipped."""
    files = [yaml.safe_load(path.read_text()) for path in sorted((CONFIG / "rules").glob("*.yml"))]
    return [rule for file in files for group in file["groups"] for rule in group["rules"]]


def dashboards() -> dict[str, dict[str, Any]]:
    """Grafana's JSON by file."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(DASHBOARDS.glob("*.json"))}


def queries() -> list[tuple[str, str]]:
    """(dashboard: panel, expression) of every query of every dashboard."""
    return [
        (f"{name}: {panel['title']}", target["expr"])
        for name, dashboard in dashboards().items()
        for panel in dashboard["panels"]
        for target in panel["targets"]
    ]


def selectors(expression: str) -> list[str]:
    """What an expression asks the database for: each metric with its matchers."""
    return _SELECTOR.findall(expression)


def configuration(targets: Mapping[str, Sequence[str]], key_file: Path) -> dict[str, Any]:
    """The shipped configuration, hurried, with addresses in place of names that nobody here resolves."""
    made: dict[str, Any] = yaml.safe_load((CONFIG / "prometheus.yml").read_text())
    made["global"] = dict.fromkeys(made["global"], "1s")
    made["rule_files"] = [str(CONFIG / pattern) for pattern in made["rule_files"]]
    jobs = made["scrape_configs"]
    assert {job["job_name"] for job in jobs} == set(targets), "another job is scraped than is run here"
    for job in jobs:
        for way in [key for key in job if key.endswith("_sd_configs")]:
            del job[way]
        job["static_configs"] = [{"targets": list(targets[job["job_name"]])}]
        if "authorization" in job:
            job["authorization"]["credentials_file"] = str(key_file)
    return made


@dataclass
class Prometheus:
    """A server that runs."""

    client: httpx.Client
    process: subprocess.Popen[bytes]
    targets: int

    def ask(self, path: str, **parameters: str) -> Any:
        """`data` of the API's answer; an expression that cannot be evaluated fails the test."""
        told = self.client.get(path, params=parameters).json()
        assert told["status"] == "success", (parameters, told)
        return told["data"]

    def query(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """Series and their values now."""
        found = self.ask("query", query=expression)
        assert found["resultType"] == "vector", expression
        return [(one["metric"], float(one["value"][1])) for one in found["result"]]

    def value(self, expression: str) -> float | None:
        """Of an expression with one series; None where it has none."""
        found = self.query(expression)
        assert len(found) <= 1, (expression, found)
        return found[0][1] if found else None

    def unhealthy(self) -> list[tuple[str, str]]:
        """Targets that are not scraped yet, or in vain."""
        targets = self.ask("targets")["activeTargets"]
        if len(targets) < self.targets:
            return [("", f"{len(targets)} of {self.targets} targets are known yet")]
        return [(one["scrapeUrl"], one["lastError"]) for one in targets if one["health"] != "up"]

    def firing(self) -> set[str]:
        return {alert["labels"]["alertname"] for alert in self.ask("alerts")["alerts"] if alert["state"] == "firing"}


@contextmanager
def prometheus(folder: Path, targets: Mapping[str, Sequence[str]], key: str) -> Iterator[Prometheus]:
    """Prometheus until the block ends; `targets` by job, its own address comes in by itself."""
    program = system.find(system.NEEDS["prometheus"])
    assert program, "no Prometheus on this machine: run python -m tests.house.system prometheus"
    port = services.free_port()
    address = f"127.0.0.1:{port}"
    key_file = folder / "key"
    key_file.write_text(key)
    config = folder / "prometheus.yml"
    config.write_text(yaml.safe_dump(configuration({**targets, "prometheus": [address]}, key_file)))
    command = [
        program,
        f"--config.file={config}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={address}",
    ]
    log = folder / "prometheus.log"
    with log.open("ab") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, stdin=subprocess.DEVNULL, cwd=folder)
    try:
        services.await_port(process, port, log)
        give_up = time.monotonic() + 60
        while not httpx.get(f"http://{address}/-/ready").is_success:  # it listens before it has read its data
            assert time.monotonic() < give_up, f"Prometheus is not ready: {log.read_text()}"
            time.sleep(0.05)
        with httpx.Client(base_url=f"http://{address}/api/v1/", timeout=30) as client:
            yield Prometheus(client, process, sum(map(len, targets.values())) + 1)
    finally:
        services.stop(process)
