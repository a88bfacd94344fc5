"""What a tier imports is what its extra installs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import packages_distributions

import grimp
import pytest
from packaging.utils import canonicalize_name

from tests.house.installed import PACKAGES, installed_by

# What runs on a node of the tier. Others of our modules come in by import.
TIERS = {
    "control": ("control", "pipelines"),
    "media": ("media_worker", "control.bus.app", "control.bus.cancel", "control.checks", "control.storage"),
    "notify": ("notify_worker", "control.bus.app", "control.bus.cancel", "control.checks", "control.storage"),
}

# Used where it is there; below, every tier is started without.
OPTIONAL = {"opentelemetry-api", "opentelemetry-sdk", "opentelemetry-exporter-otlp-proto-http"}


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph(
        *PACKAGES, include_external_packages=True, exclude_type_checking_imports=True, cache_dir=None
    )


@pytest.mark.parametrize("tier", TIERS)
def test_a_tier_imports_only_what_its_extra_installs(graph: grimp.ImportGraph, tier: str) -> None:
    allowed = installed_by(tier) | OPTIONAL
    used = {module.partition(".")[0] for module in reached(graph, TIERS[tier])} - set(PACKAGES)
    owners = packages_distributions()
    strays = {
        module: owners.get(module, ["?"])
        for module in used - sys.stdlib_module_names
        if not allowed & {canonicalize_name(owner) for owner in owners.get(module, ["?"])}
    }
    assert strays == {}
    assert "celery" in allowed


@pytest.mark.parametrize(
    ("tier", "never"), [("media", {"sqlalchemy", "fastapi"}), ("notify", {"av", "numpy", "pillow"})]
)
def test_a_tier_does_not_install_what_it_must_not_have(tier: str, never: set[str]) -> None:
    assert not installed_by(tier) & never


_WITHOUT = """
import importlib, pkgutil, sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ABSENT or name in ABSENT:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
ABSENT = set(sys.argv[1].split(","))
sys.meta_path.insert(0, Absent())
for name in sys.argv[2].split(","):
    module = importlib.import_module(name)
    for found in pkgutil.walk_packages(getattr(module, "__path__", []), name + "."):
        if not found.name.endswith("__main__") and ".migrations." not in found.name:  # Alembic runs those
            importlib.import_module(found.name)
"""


@pytest.mark.parametrize(
    ("absent", "modules"),
    [
        (
            "sqlalchemy,alembic,fastapi,starlette,uvicorn,jinja2",
            "media_worker,control.bus.app,control.checks,control.cli.doctor",
        ),
        ("av,numpy,PIL,ffmpeg,imageio_ffmpeg,m3u8", "control,pipelines,notify_worker"),
        ("av,numpy,PIL,fastapi,starlette,uvicorn", "notify_worker,control.ledger.engine,control.bus.relay"),
        ("boto3,botocore,fastapi", "control.storage,control.recordings"),
        ("opentelemetry,pynvml", "media_worker,notify_worker,pipelines,control.bus,control.ledger,control.storage"),
        ("opentelemetry.sdk,opentelemetry.exporter,pynvml", "control"),  # FastAPI brings the rest of it
    ],
)
def test_a_tier_starts_where_the_other_tiers_packages_are_absent(absent: str, modules: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _WITHOUT, absent, modules], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_command_helps_on_a_node_of_another_tier() -> None:
    code = (
        _WITHOUT.partition("for name in sys.argv[2]")[0]
        + "from control.cli import main; sys.argv[1:] = ['--help']; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "sqlalchemy,fastapi"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Not on this node: it needs the package" in done.stdout
    assert "verify" in done.stdout


def reached(graph: grimp.ImportGraph, starts: tuple[str, ...]) -> Iterator[str]:
    """Every module that may be loaded once `starts` are."""
    for start in starts:
        yield from graph.find_upstream_modules(start, as_package=start in PACKAGES)
