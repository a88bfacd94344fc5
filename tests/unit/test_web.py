"""The pages' parts: what is locked, what is loaded, how it is installed."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from control.web import install
from control.web.pages import Pages

LOCKS = [install.WEB / "package-lock.json", install.TESTS / "package-lock.json"]


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.parent.name)
def test_the_locks_pin_contents_and_name_no_host(lock: Path) -> None:
    text = lock.read_text()
    assert "://" not in text
    packages = json.loads(text)["packages"]
    installed = {name: entry for name, entry in packages.items() if name}
    assert installed
    for name, entry in installed.items():
        assert entry["integrity"].startswith("sha512-"), name
        assert "resolved" not in entry, name
        assert not entry.get("hasInstallScript"), name  # they would not be run


def test_without_npm_the_wheels_npm_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    command = install.npm_command()
    said = subprocess.run([*command, "--version"], capture_output=True, text=True, timeout=120, check=False)
    assert said.returncode == 0, said.stderr
    assert int(said.stdout.split(".")[0]) >= 9  # the first that leaves addresses out of a lock


def test_without_any_npm_it_fails_in_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "package-lock.json").write_text("{}")
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    monkeypatch.setattr(install, "WEB", tmp_path)
    monkeypatch.setattr(install, "TESTS", tmp_path / "none")
    assert install.main([]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert said.startswith("error: there is no npm")
    assert install.main(["--optional"]) == 0
    assert capsys.readouterr().err.startswith("warning: ")


def test_a_page_without_hls_js_asks_for_none(tmp_path: Path) -> None:
    pages = Pages(hls_folder=tmp_path)
    assert not pages.has_hls
    page = pages.player(title="T")
    assert "hls.min.js" not in page
    assert "player.js" in page


def test_the_address_of_the_assets_follows_their_content(tmp_path: Path) -> None:
    plain = Pages(hls_folder=tmp_path).version
    (tmp_path / "hls.min.js").write_text("one\n//# sourceMappingURL=hls.min.js.map\n")
    one = Pages(hls_folder=tmp_path)
    assert one.assets["hls.min.js"].content == b"one\n"  # the map is not served, so nothing asks for it
    (tmp_path / "hls.min.js").write_text("two")
    two = Pages(hls_folder=tmp_path)
    assert len({plain, one.version, two.version}) == 3
    assert Pages(hls_folder=tmp_path).version == two.version


def test_no_page_holds_a_script_or_style_that_its_policy_forbids() -> None:
    pages = Pages()
    player = pages.player(title="T")
    assert "<style" not in player
    assert "style=" not in player
    assert "onclick=" not in player
    assert all("src=" in tag for tag in player.split("<script")[1:])
    refused = pages.refused(heading="H", detail="<b>")
    assert "<script" not in refused
    assert "&lt;b&gt;" in refused
