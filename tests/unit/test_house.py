"""The house's own rules: who imports whom, what each tier installs, the lock, what may be committed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution, packages_distributions
from pathlib import Path

import grimp
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from pydantic_settings import BaseSettings

from control.settings import Settings
from tests.house import hygiene, lock
from tests.services import tool

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("control", "media_worker", "notify_worker", "pipelines")

# --- who imports whom -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the packages and their contracts, free to be spoilt."""
    copy = tmp_path_factory.mktemp("house") / "a copy"
    for package in PACKAGES:
        shutil.copytree(
            ROOT / package, copy / package, ignore=shutil.ignore_patterns("node_modules", "__pycache__", "static")
        )
    shutil.copy(ROOT / "pyproject.toml", copy)
    return copy


def lint_imports(house: Path, *arguments: str) -> tuple[int, str]:
    done = subprocess.run(
        [tool("lint-imports"), "--no-cache", *arguments],
        cwd=house,
        env={"PYTHONPATH": str(house), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_every_import_rule_is_kept(house: Path) -> None:
    status, output = lint_imports(house)
    assert status == 0, output
    assert "0 broken" in output


@pytest.mark.parametrize(
    ("contract", "module", "line"),
    [
        ("control-alone", "control/bus/names.py", "import media_worker.ffmpeg"),
        ("control-alone", "control/api/auth.py", "import pipelines.plan"),
        ("control-alone", "control/checks/own.py", "import av"),
        ("foundations", "control/storage/content.py", "from control.api import auth"),
        ("foundations", "control/ledger/base.py", "import fastapi"),
        ("gateways-low", "control/gateways/base.py", "import control.ledger.base"),
        ("fake-gateway", "control/api/auth.py", "import control.fake_ecpay.trades"),
        ("storage-low", "control/errors.py", "import control.ledger.models"),
        ("ledger-wakes-nobody", "control/ledger/base.py", "import celery"),
        ("settings-lowest", "control/settings.py", "import control.storage.local"),
        ("api-and-page", "control/web/pages.py", "import notify_worker"),
        ("pipelines", "pipelines/plan.py", "import numpy"),
        ("pipelines", "pipelines/plan.py", "def f():\n    from media_worker import probe"),
        ("media-worker", "media_worker/scratch.py", "import control.ledger.engine"),
        ("media-worker", "media_worker/scratch.py", "from fastapi import FastAPI"),
        ("media-worker", "control/bus/task.py", "import sqlalchemy"),
        ("notify-worker", "notify_worker/__init__.py", "import av"),
    ],
)
def test_a_forbidden_import_is_found(house: Path, contract: str, module: str, line: str) -> None:
    path = house / module
    before = path.read_text()
    path.write_text(f"{before}\n{line}\n")
    try:
        status, output = lint_imports(house, "--contract", contract)
    finally:
        path.write_text(before)
    assert status == 1, output
    assert "1 broken" in output
    assert module.removesuffix(".py").removesuffix("/__init__").replace("/", ".") in output


def test_every_package_has_a_contract() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    sources = {module for contract in contracts for module in contract.get("source_modules", contract.get("layers"))}
    assert set(PACKAGES) <= sources
    assert {f"control.{path.stem}" for path in (ROOT / "control").iterdir() if _is_module(path)} <= sources | {
        "control.cli"  # the top: it may know everything of control
    }


def _is_module(path: Path) -> bool:
    return (path.suffix == ".py" and path.stem != "__init__") or (path / "__init__.py").is_file()


# --- an extra a tier --------------------------------------------------------------------------------------------------

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


def installed_by(extra: str) -> set[str]:
    """Names of the distributions `pip install afterlive[extra]` brings."""
    found: set[str] = set()
    todo = [Requirement(f"afterlive[{extra}]")]
    while todo:
        wanted = todo.pop()
        name = canonicalize_name(wanted.name)
        key = f"{name}[{','.join(sorted(wanted.extras))}]"
        if key in found:
            continue
        found |= {name, key}
        try:
            needs = [Requirement(text) for text in distribution(name).requires or ()]
        except PackageNotFoundError:
            continue  # for another platform
        for need in needs:
            environments = [{"extra": each} for each in wanted.extras or {""}]
            if need.marker is None or any(need.marker.evaluate(each) for each in environments):
                todo.append(need)
    return found


# --- the lock ---------------------------------------------------------------------------------------------------------

PYPROJECT = """
[project]
name = "afterlive"
dependencies = ["Some.Package>=2", "plain"]
[project.optional-dependencies]
media = ["av>=18; python_version > '3'"]
all = ["afterlive[media]"]
[dependency-groups]
dev = ["ruff"]
"""
_HASH = "    --hash=sha256:00"
LOCK = f"""some-package==2.1 \\
{_HASH}
    # via afterlive (pyproject.toml)
plain==1.0 ; sys_platform == 'linux' \\
{_HASH} \\
{_HASH}
    # via
    #   afterlive (pyproject.toml)
    #   some-package
plain==1.1 ; sys_platform != 'linux' \\
{_HASH}
    # via afterlive (pyproject.toml)
av==18.1 \\
{_HASH}
    # via afterlive (pyproject.toml)
ruff==0.1 \\
{_HASH}
    # via afterlive (pyproject.toml:dev)
other==1 \\
{_HASH}
    # via plain
"""


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("", "", []),
        ("some-package==2.1", "some-package==1.9", ["Some.Package>=2 is wanted, 1.9 is locked"]),
        ("ruff==0.1", "rough==0.1", ["ruff is not in it", "rough is in it, and nothing wants it"]),
        (f"other==1 \\\n{_HASH}", "other==1", ["other 1 has no hash"]),
        ("other==1", "other @ https://example.invalid/other\nother==1", ["it holds an address or an option"]),
    ],
)
def test_a_lock_out_of_step_is_found(old: str, new: str, expected: list[str]) -> None:
    assert sorted(lock.problems(PYPROJECT, LOCK.replace(old, new) if old else LOCK)) == sorted(expected)


def test_the_lock_is_in_step() -> None:
    assert list(lock.problems((ROOT / "pyproject.toml").read_text(), (ROOT / "requirements.lock").read_text())) == []


# --- what may be committed --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        "cd /" + "home/ann/afterlive",
        "/" + "Users/ann/x",
        'PATH = "/' + 'root/.cache"',
        "see /" + "work/main/x",
        "https://py" + "pi.org/simple",
        "https://files.python" + "hosted.org/x.whl",
        "https://registry.npm" + "js.org/hls.js",
        "pip install --index" + "-url http://mirror/simple x",
        '"resolved": "' + 'http://mirror/x.tgz"',
    ],
)
def test_machine_paths_and_registries_are_found(tmp_path: Path, line: str) -> None:
    path = tmp_path / "file"
    path.write_text(f"first\n{line}\n")
    assert [finding.partition(":")[0] for finding in hygiene.findings(path)] == ["2"]


@pytest.mark.parametrize("line", ["PyPI and npm", "/srv/recordings/live.mp4", "network/work/shop", "the work/rest"])
def test_what_is_harmless_is_let_through(tmp_path: Path, line: str) -> None:
    path = tmp_path / "file"
    path.write_text(line)
    assert list(hygiene.findings(path)) == []


def test_nothing_of_one_machine_is_committed() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    assert [str(path) for path in hygiene.committed(ROOT) if list(hygiene.findings(path))] == []


# --- make -------------------------------------------------------------------------------------------------------------


def test_make_explains_itself() -> None:
    # Where make itself runs the tests, its own variables would have the inner one tell of folders.
    env = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}

    def make(*targets: str) -> str:
        return subprocess.run(["make", *targets], cwd=ROOT, env=env, capture_output=True, text=True, check=True).stdout

    listed = make("help")
    makefile = (ROOT / "Makefile").read_text()
    phony = next(line for line in makefile.splitlines() if line.startswith(".PHONY:")).split()[1:]
    assert [line.split()[1] for line in listed.splitlines()] == phony
    assert make() == listed


def test_make_says_what_is_missing(tmp_path: Path) -> None:
    """Where there is no Python, one clear line and a failure."""
    for name in ("Makefile", "pyproject.toml", "requirements.lock"):
        shutil.copy(ROOT / name, tmp_path)
    for name in ("tests/house/environment.py", "control/web/install.py"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    make = shutil.which("make")
    assert make
    done = subprocess.run(
        [make, "setup"], cwd=tmp_path, env={"PATH": str(tmp_path)}, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert "no Python 3.11 or later was found" in done.stderr
    assert not (tmp_path / ".venv").exists()


# --- what tests need of the operating system ------------------------------------------------------------------------

_FAKE_APT = """#!/bin/sh
echo "$@" >> apt.log
case "$1" in
    update) exit 0;;
    install) [ -e broken ] && { echo "E: no such package" >&2; exit 100; }
             printf '#!/bin/sh\n' > chromium; chmod +x chromium;;
esac
"""


def need_chromium(folder: Path) -> subprocess.CompletedProcess[str]:
    """Ask for Chromium on a machine whose only programs are those in `folder`, and a shell's."""
    if not (folder / "chmod").exists():
        (folder / "chmod").symlink_to(shutil.which("chmod") or "")
    return subprocess.run(
        [sys.executable, "-m", "tests.house.system", "chromium"],
        cwd=folder,
        env={"PATH": str(folder), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="only root installs")
def test_root_installs_what_is_missing_once(tmp_path: Path) -> None:
    (tmp_path / "apt-get").write_text(_FAKE_APT)
    (tmp_path / "apt-get").chmod(0o755)
    for _ in range(2):
        done = need_chromium(tmp_path)
        assert done.returncode == 0, done.stderr
    calls = (tmp_path / "apt.log").read_text().splitlines()
    assert [call.split()[0] for call in calls] == ["update", "install"]
    assert calls[1].split()[-1] == "chromium"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root installs")
def test_an_installation_that_fails_is_told(tmp_path: Path) -> None:
    (tmp_path / "apt-get").write_text(_FAKE_APT)
    (tmp_path / "apt-get").chmod(0o755)
    (tmp_path / "broken").touch()
    done = need_chromium(tmp_path)
    assert done.returncode == 1
    assert "apt-get install failed: E: no such package" in done.stderr


def test_where_nothing_can_be_installed_one_line_says_what_is_needed(tmp_path: Path) -> None:
    done = need_chromium(tmp_path)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "chromium" in done.stderr


# --- settings ---------------------------------------------------------------------------------------------------------


def test_the_example_file_names_every_setting_with_its_default(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shown = dict(
        line.removeprefix("#").split("=", 1)
        for line in (ROOT / ".env.example").read_text().splitlines()
        if line.startswith("#AFTERLIVE_")
    )
    groups = [field.annotation for field in Settings.model_fields.values()]
    fields = {
        f"{group.model_config['env_prefix']}{name}".upper(): (group, name)
        for group in groups
        if isinstance(group, type) and issubclass(group, BaseSettings)
        for name in group.model_fields
    }
    assert set(shown) == set(fields)
    monkeypatch.chdir(tmp_path)
    defaults = {setting: getattr(group(), name) for setting, (group, name) in fields.items()}
    for setting, text in shown.items():
        if text and "…" not in text:
            monkeypatch.setenv(setting, text)
    assert {setting: getattr(group(), name) for setting, (group, name) in fields.items()} == defaults
