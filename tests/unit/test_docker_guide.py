"""docker/README.md: every variable, command, service and file it names is there."""

from __future__ import annotations

import re

import click
import pytest

from control.cli import cli
from tests import compose
from tests.unit.test_compose import known_settings

GUIDE = (compose.DOCKER / "README.md").read_text()
# Of the build, of boto3, of make, of HTTP.
OTHERS = {"BASE", "EXTRAS", "AWS_CA_BUNDLE", "BENCH_ARGS", "GET"}


def test_every_variable_is_one() -> None:
    named = set(re.findall(r"`([A-Z][A-Z0-9_]{2,})(?:=[^`]*)?`", GUIDE))
    named |= set(re.findall(r"\b([A-Z][A-Z0-9_]{2,})=\S", GUIDE))
    assert len(named) >= 12
    known = {name for name, _ in compose.variables()} | set(known_settings()) | OTHERS
    assert named <= known


@pytest.mark.parametrize("line", re.findall(r"^\$ (.*)$", GUIDE, re.MULTILINE))
def test_every_command_line_is_one(line: str) -> None:
    line = line.partition("  #")[0].strip()
    for name in re.findall(r"(?:^| )(?:exec \S+ )?afterlive ([a-z-]+)", line):
        with click.Context(cli) as context:
            assert cli.get_command(context, name) is not None, name
    services = set(compose.load("compose.yaml")["services"])
    named = re.findall(r"--scale (\S+)=\d+", line) + re.findall(r"exec (\S+) afterlive", line)
    assert set(named) <= services
    for file in re.findall(r"(?:-f|--file=?) ?docker/(\S+)", line):
        assert (compose.DOCKER / file).is_file()
    for profile in re.findall(r"--profile (\S+)", line):
        assert profile in ("cpu", "nvidia", "vaapi", "monitoring", "dev")


def test_every_file_is_there() -> None:
    rows = re.findall(r"^\| `([a-z][\w./-]*)`(?:, `([\w./-]+)`)*", GUIDE.partition("## One machine")[0], re.MULTILINE)
    assert len(rows) >= 6
    for names in rows:
        for name in filter(None, names):
            assert (compose.DOCKER / name).exists(), name
