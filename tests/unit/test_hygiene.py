"""What may be committed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.house import hygiene
from tests.house.hygiene import ROOT


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
