"""The lock is in step with what the project asks for."""

from __future__ import annotations

import pytest

from tests.house import lock
from tests.house.hygiene import ROOT

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
