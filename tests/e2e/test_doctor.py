"""`afterlive doctor` as a person starts it."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

from tests.services import tool


def doctor(folder: Path, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [tool("afterlive"), "doctor", *arguments],
        cwd=folder,
        env={"PATH": os.environ["PATH"], "HOME": str(folder), **settings},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_a_machine_that_is_well(tmp_path: Path) -> None:
    done = doctor(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    for name in (
        "Python",
        "database",
        "object store",
        "broker",
        "ffmpeg",
        "encoder libx264",
        "encoder aac",
        "decoders",
    ):
        assert any(line.split()[0] == "ok" and f"{name}:" in line for line in lines), (name, done.stdout)
    assert "0 failed" in lines[-1] or "all is well" in lines[-1]
    assert list(tmp_path.iterdir()) == [], "looking leaves nothing behind"


def test_a_machine_that_is_not(tmp_path: Path) -> None:
    done = doctor(tmp_path, AFTERLIVE_MEDIA_FFMPEG="/nowhere/ffmpeg")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    failed = [line for line in done.stdout.splitlines() if line.split()[:1] == ["FAILED"]]
    assert len(failed) == 1
    assert "AFTERLIVE_MEDIA_FFMPEG" in failed[0]
    assert "→ pip install imageio-ffmpeg" in done.stdout


def test_json(tmp_path: Path) -> None:
    well = json.loads(doctor(tmp_path, "--json").stdout)
    assert well["ok"] is True
    assert {check["status"] for check in well["checks"]} <= {"ok", "info", "warn"}
    assert set(well["checks"][0]) == {"name", "status", "detail", "remedy"}
    done = doctor(tmp_path, "--json", AFTERLIVE_STORAGE_URL="ftp://elsewhere")
    assert done.returncode == 1
    ill = json.loads(done.stdout)
    assert ill["ok"] is False
    assert [check["name"] for check in ill["checks"] if check["status"] == "fail"] == ["object store"]
