"""The player page in headless Chromium with hls.js, on a replay made by hand."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from control.api.app import create_app
from control.ledger.engine import Ledger
from control.settings import Settings
from control.storage import LocalStore
from tests.api_server import serving
from tests.conftest import API_KEY
from tests.e2e import by_hand
from tests.e2e.browser import play_and_check, viewer, wait_until
from tests.replays import advance

pytestmark = pytest.mark.browser
FRAMES = by_hand.SECONDS * by_hand.FRAME_RATE


@dataclass
class Show:
    """A running API with one stream that ended."""

    player_url: str
    stream_id: str
    folder: Path
    """Where the replay's files belong."""
    ledger: Ledger


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A replay's files."""
    folder = tmp_path_factory.mktemp("by-hand") / "replay"
    by_hand.make_replay(folder)
    return folder


@pytest.fixture
def show(settings: Settings, ledger: Ledger, local_store: LocalStore) -> Iterator[Show]:
    with serving(create_app(settings, ledger, local_store)) as url:
        with httpx.Client(base_url=url, headers={"X-API-Key": API_KEY}) as client:
            created = client.post("/streams", json={"title": "Tea bowls, live", "recording": "a.mp4"}).json()
            ended = client.post(f"/streams/{created['id']}/end").json()
        yield Show(ended["player_url"], created["id"], local_store.root / ended["replay"]["prefix"], ledger)


def publish(made: Path, show: Show, segments: int) -> None:
    """Put the replay's files in place, with playlists as they are when `segments` of each rendition are there."""
    for source in sorted(made.rglob("*")):
        target = show.folder / source.relative_to(made)
        if source.is_dir():
            target.mkdir(parents=True, exist_ok=True)
        elif source.name == "playlist.m3u8":
            part = target.with_name(".playlist.m3u8")
            part.write_text(by_hand.unfinished(source.read_text(), segments) if segments else source.read_text())
            part.replace(target)  # a reader sees the old one or the new one
        elif not target.exists():
            target.write_bytes(source.read_bytes())


def test_a_finished_replay_plays_seeks_switches_and_previews(made: Path, show: Show) -> None:
    publish(made, show, segments=0)
    advance(show.ledger, show.stream_id, "completed")
    report = play_and_check(show.player_url, duration_seconds=by_hand.SECONDS)
    assert report.errors == []
    assert report.engine.startswith("hls.js 1.7.")
    assert sorted(report.levels) == [(320, 180), (640, 360)]
    assert report.ended
    assert report.seeks_ok
    assert report.qualities_ok
    assert report.storyboard_ok
    assert report.duration_seconds == pytest.approx(by_hand.SECONDS, abs=0.1)
    # Chromium counts what it shows; a frame or two at each end of a run are not.
    assert FRAMES * 0.95 <= report.frames_decoded <= FRAMES + 2


def test_a_replay_in_the_making_starts_by_itself_and_goes_on_to_its_end(made: Path, show: Show) -> None:
    """Nobody touches the page: it waits, plays what there is from the first frame, and goes on as more comes."""
    errors: list[str] = []
    with viewer(errors) as page:
        page.goto(show.player_url)
        wait_until(page, "() => window.__afterlive?.view === 'waiting'", 15)
        assert page.text_content("#message-heading") == "The replay is being made"
        page.evaluate("window.sameDocument = true")

        publish(made, show, segments=1)
        advance(show.ledger, show.stream_id, "transcoding")
        advance(show.ledger, show.stream_id, "playable")
        wait_until(page, "() => document.getElementById('video').currentTime > 0.2", 20)
        assert page.evaluate("document.getElementById('video').currentTime") < 3
        assert page.evaluate("window.__afterlive.playlist.live") is True
        assert page.is_visible("#making")

        publish(made, show, segments=2)
        wait_until(page, "() => document.getElementById('video').currentTime > 5", 30)
        publish(made, show, segments=0)
        advance(show.ledger, show.stream_id, "completed")
        wait_until(page, "() => document.getElementById('video').ended", 40)

        assert page.evaluate("document.getElementById('video').duration") == pytest.approx(by_hand.SECONDS, abs=0.1)
        assert page.evaluate("window.__afterlive.playlist.live") is False
        assert page.evaluate("window.sameDocument")
        assert not page.is_visible("#making")
        found = page.evaluate("window.__afterlive")
    # Waiting at the end of what there is so far is no fault; hls.js reports it as a stall.
    faults = [
        error for error in found["hlsErrors"] if error["details"] not in ("bufferStalledError", "bufferNudgeOnStall")
    ]
    assert faults == []
    assert found["pageErrors"] == []
    assert errors == []


def test_a_replay_that_another_encoder_makes_anew_goes_on(made: Path, show: Show) -> None:
    """While it is watched, its renditions come into other folders, and the old ones go: as when a GPU fails."""
    errors: list[str] = []
    with viewer(errors) as page:
        page.goto(show.player_url)
        publish(made, show, segments=1)
        advance(show.ledger, show.stream_id, "transcoding")
        advance(show.ledger, show.stream_id, "playable")
        wait_until(page, "() => document.getElementById('video').currentTime > 2", 30)
        page.evaluate("window.sameDocument = true")

        anew = made.with_name("anew")
        shutil.copytree(made, anew)
        master = anew / "master.m3u8"
        old = [folder.name for folder in anew.iterdir() if folder.name.endswith("p") and folder.is_dir()]
        for name in old:
            (anew / name).rename(anew / f"{name}-libx264")
            master.write_text(master.read_text().replace(f"{name}/", f"{name}-libx264/"))
        publish(anew, show, segments=0)
        (show.folder / "master.m3u8").write_bytes(master.read_bytes())
        for name in old:
            shutil.rmtree(show.folder / name)
        advance(show.ledger, show.stream_id, "completed")
        wait_until(page, "() => document.getElementById('video').ended", 60)
        assert page.evaluate("document.getElementById('video').duration") == pytest.approx(by_hand.SECONDS, abs=0.1)
        assert page.evaluate("window.sameDocument")
        found = page.evaluate("window.__afterlive")
    assert found["pageErrors"] == []
    assert {error["status"] for error in found["hlsErrors"] if error["fatal"]} == {404}


def test_a_failed_replay_says_so(show: Show) -> None:
    advance(show.ledger, show.stream_id, "failed", problem="recording-not-media")
    errors: list[str] = []
    with viewer(errors) as page:
        page.goto(show.player_url)
        wait_until(page, "() => window.__afterlive?.view === 'failed'", 15)
        assert page.text_content("#message-heading") == "This replay could not be made"
        assert "recording-not-media" in (page.text_content("#message-detail") or "")
        assert not page.is_visible("#controls")
    assert errors == []


def test_everything_can_be_reached_and_used_with_the_keyboard(made: Path, show: Show) -> None:
    publish(made, show, segments=0)
    advance(show.ledger, show.stream_id, "completed")
    errors: list[str] = []
    with viewer(errors) as page:
        page.goto(show.player_url)
        wait_until(page, "() => window.__afterlive?.levels.length > 0", 15)
        reached = []
        for _ in range(9):
            page.keyboard.press("Tab")
            reached.append(page.evaluate("document.activeElement.id"))
        assert reached == ["start", "seek", "play", "mute", "volume", "speed", "quality", "fullscreen", ""]

        page.focus("#seek")
        wait_until(page, "() => document.getElementById('video').duration > 0", 15)
        page.keyboard.press("ArrowRight")
        wait_until(page, "() => Math.abs(document.getElementById('video').currentTime - 5) < 0.5", 15)
        page.locator("#preview-picture").wait_for(state="visible")
        assert page.get_attribute("#seek", "role") == "slider"
        wait_until(page, "() => document.getElementById('seek').getAttribute('aria-valuenow') === '5'", 15)
        assert page.get_attribute("#seek", "aria-valuetext") == "5 seconds of 12 seconds"
        page.keyboard.press("m")
        wait_until(page, "() => document.getElementById('mute').getAttribute('aria-label') === 'Turn sound on'", 15)
        assert page.evaluate("document.getElementById('video').muted")
        page.keyboard.press("Home")
        page.keyboard.press(" ")
        wait_until(page, "() => !document.getElementById('video').paused", 15)
        wait_until(page, "() => document.getElementById('play').getAttribute('aria-label') === 'Pause'", 15)
    assert errors == []


@pytest.mark.parametrize(("width", "height"), [(1280, 800), (360, 640), (844, 390)])
def test_the_page_fits_the_screen(made: Path, show: Show, width: int, height: int) -> None:
    publish(made, show, segments=0)
    advance(show.ledger, show.stream_id, "completed")
    errors: list[str] = []
    with viewer(errors, width=width, height=height) as page:
        page.goto(show.player_url)
        wait_until(page, "() => window.__afterlive?.levels.length > 0", 15)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        for name in ("play", "mute", "speed", "quality", "fullscreen", "seek"):
            box = page.locator(f"#{name}").bounding_box()
            assert box is not None, name
            assert box["x"] >= 0, name
            assert box["x"] + box["width"] <= width, name
    assert errors == []
