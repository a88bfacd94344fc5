"""Each image installs the lock's part of its own tier, all of it, and nothing else."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from tests.house.installed import installed_by
from tests.scripts import load

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "docker" / "requirements.py"
# The lock is for every machine, so it has what older Pythons and other systems need besides; its markers keep it out.
ELSEWHERE = {"async-timeout", "tzdata"}


def printed(*names: str) -> str:
    # As an image is built: with a Python that has no packages.
    done = subprocess.run([sys.executable, "-IS", SCRIPT, *names], capture_output=True, text=True, check=True)
    return done.stdout


def names_of(requirements: str) -> set[str]:
    return set(re.findall(r"^([a-z0-9-]+)(?:\[[^\]]*\])?==", requirements, re.MULTILINE))


@pytest.mark.parametrize("tier", ["control", "media", "notify"])
def test_an_image_installs_its_tier_and_nothing_else(tier: str) -> None:
    wanted = {name for name in installed_by(tier) if "[" not in name} - {"afterlive"}
    chosen = names_of(printed(tier))
    assert wanted - chosen == set()
    assert chosen - wanted <= ELSEWHERE
    assert "celery" in chosen


@pytest.mark.parametrize(
    ("image", "names", "never"),
    [
        ("control", ["control"], {"av", "numpy", "pillow", "ffmpeg-python", "imageio-ffmpeg", "m3u8"}),
        ("notify", ["notify"], {"av", "numpy", "pillow", "imageio-ffmpeg", "fastapi", "uvicorn", "starlette"}),
        ("media", ["media"], {"sqlalchemy", "psycopg", "alembic", "fastapi", "jinja2", "cryptography", "httpx"}),
        ("flower", ["base", "flower"], {"av", "numpy", "sqlalchemy", "fastapi", "pytest"}),
    ],
)
def test_an_image_lacks_what_it_must_not_have(image: str, names: list[str], never: set[str]) -> None:
    chosen = names_of(printed(*names))
    assert chosen & never == set()
    assert {"celery", "pydantic", "prometheus-client"} <= chosen
    # And it is what the Dockerfile asks for.
    stage = (ROOT / "docker" / "Dockerfile").read_text().partition(f" AS {image}-environment\n")[2]
    asked = stage.partition("FROM ")[0].replace(" $EXTRAS", "")
    assert f"python3 docker/requirements.py {' '.join(names)} > " in asked


def test_versions_hashes_and_markers_are_the_locks() -> None:
    lock = (ROOT / "requirements.lock").read_text()
    everything = printed("all")
    assert all(line in lock for line in everything.splitlines())
    assert "numpy==" in everything
    assert "python_full_version < '3.12'" in everything
    entries = re.split(r"^(?=[a-z])", everything, flags=re.MULTILINE)[1:]
    assert all("--hash=sha256:" in entry and not entry.rstrip().endswith("\\") for entry in entries)


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return load(SCRIPT)


LOCK = """alpha==1 \\
    --hash=sha256:aa
    # via afterlive (pyproject.toml)
beta[fast]==2 ; python_full_version < '3.12' \\
    --hash=sha256:ba \\
    --hash=sha256:bb
    # via alpha
beta==3 ; python_full_version >= '3.12' \\
    --hash=sha256:bc
    # via alpha
gamma==4 \\
    --hash=sha256:ca
    # via
    #   afterlive (pyproject.toml:dev)
    #   beta
delta==5 \\
    --hash=sha256:da
    # via afterlive (pyproject.toml:dev)
"""


def test_what_is_wanted_through_others_comes_along(script: ModuleType) -> None:
    subset: Callable[[str, set[str]], str] = script.subset
    assert subset(LOCK, {"alpha"}) == LOCK.partition("delta")[0].replace(
        "    # via afterlive (pyproject.toml)\n", ""
    ).replace("    # via alpha\n", "").replace("    # via\n    #   afterlive (pyproject.toml:dev)\n    #   beta\n", "")
    assert names_of(subset(LOCK, {"delta"})) == {"delta"}
    with pytest.raises(SystemExit, match=r"requirements.lock has no epsilon"):
        subset(LOCK, {"epsilon"})
