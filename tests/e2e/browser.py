"""A viewer in headless Chromium: opens a player page, plays, seeks, changes the quality, looks at the storyboard."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from playwright.sync_api import Error as BrowserError
from playwright.sync_api import Page, Response, sync_playwright

from control.web.pages import Pages

CHROMIUM: Final = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
_ARGUMENTS: Final = [
    "--no-sandbox",  # containers have no user namespaces to build a sandbox from
    "--autoplay-policy=no-user-gesture-required",
    "--disable-dev-shm-usage",
]


@dataclass
class PlaybackReport:
    """What a viewer saw. Times in seconds."""

    errors: list[str] = field(default_factory=list)
    """Console errors, failed requests, exceptions of the page, and every error hls.js reported, fatal or not."""
    ended: bool = False
    """It played from the start to its end."""
    seeks_ok: bool = False
    """Playback went on from every place that was sought."""
    frames_decoded: int = 0
    """Between start and end, without the seeks before."""
    dropped: int = 0
    duration_seconds: float = 0.0
    engine: str = ""
    levels: list[tuple[int, int]] = field(default_factory=list)
    """Width and height of each rung offered."""
    qualities_ok: bool = False
    """Each rung was chosen in the menu and then played."""
    storyboard_ok: bool = False
    """Hovering the seek bar showed a picture."""


@contextmanager
def viewer(errors: list[str], *, width: int = 1280, height: int = 800) -> Iterator[Page]:
    """A browser's page whose every error is added to `errors`."""
    assert CHROMIUM is not None, "no Chromium on this machine: run python -m tests.house.system chromium"
    assert Pages().has_hls, "hls.js is not installed: run python -m control.web.install"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, headless=True, args=_ARGUMENTS)
        try:
            page = browser.new_page(viewport={"width": width, "height": height})
            page.on("console", lambda line: errors.append(f"console: {line.text}") if line.type == "error" else None)
            page.on("pageerror", lambda error: errors.append(f"exception: {error}"))
            page.on("response", lambda response: _note_failure(response, errors))
            yield page
        finally:
            browser.close()


def play_and_check(
    player_url: str,
    *,
    duration_seconds: float,
    speed: float = 1.0,
    patience: float = 30.0,
    screenshot: Path | None = None,
) -> PlaybackReport:
    """Open a finished replay and use everything the player offers, then play it from start to end.

    `speed` is the playback rate of the last run, `patience` how many seconds any one step may take beyond what
    playing takes. A step that does not happen is an entry in `errors`, not an exception.
    """
    report = PlaybackReport()
    with viewer(report.errors) as page:
        page.set_default_timeout(patience * 1000)
        try:
            page.goto(player_url)
            wait_until(page, "() => window.__afterlive?.levels.length > 0", patience)
            page.click("#start")
            wait_until(page, "() => document.getElementById('video').currentTime > 0.3", patience)
            _choose_qualities(page, report, patience)
            _look_at_storyboard(page, report, patience, screenshot)
            _seek_around(page, report, patience)
            _play_through(page, report, speed, duration_seconds / speed + patience)
        except (BrowserError, TimeoutError) as error:
            report.errors.append(f"step failed: {str(error).splitlines()[0]}; player: {_state(page)}")
        _collect(page, report)
    return report


def _choose_qualities(page: Page, report: PlaybackReport, patience: float) -> None:
    options: list[str] = page.eval_on_selector_all("#quality option", "all => all.map(option => option.value)")
    for value in options[1:]:  # the first is "auto"
        _seek(page, 0.05, patience)  # room ahead, so that the switch shows before the end
        page.select_option("#quality", value)
        wait_until(page, "level => window.__afterlive.level === level", patience, int(value))
    page.select_option("#quality", "-1")
    report.qualities_ok = len(options) > 1


def _look_at_storyboard(page: Page, report: PlaybackReport, patience: float, screenshot: Path | None) -> None:
    wait_until(page, "() => window.__afterlive.storyboardCues > 0", patience)
    bar = page.locator("#seek").bounding_box()
    assert bar is not None
    page.mouse.move(bar["x"] + bar["width"] / 2, bar["y"] + bar["height"] / 2)
    page.locator("#preview-picture").wait_for(state="visible")
    shown = float(page.get_attribute("#preview", "data-seconds") or "nan")
    length: float = page.eval_on_selector("#video", "video => video.duration")
    if screenshot:
        page.screenshot(path=screenshot)
    page.mouse.move(0, 0)
    page.locator("#preview").wait_for(state="hidden")
    report.storyboard_ok = abs(shown - length / 2) < max(0.5, length * 0.01)


def _seek_around(page: Page, report: PlaybackReport, patience: float) -> None:
    for share in (0.5, 0.1, 0.8, 0.3):
        _seek(page, share, patience)
    page.focus("#seek")
    before: float = page.eval_on_selector("#video", "video => video.currentTime")
    page.keyboard.press("Home")
    wait_until(page, "before => document.getElementById('video').currentTime < before", patience, min(before, 5.0))
    report.seeks_ok = True


def _seek(page: Page, share: float, patience: float) -> None:
    """Click the seek bar and wait until playback has gone on from there."""
    bar = page.locator("#seek").bounding_box()
    assert bar is not None
    page.mouse.click(bar["x"] + bar["width"] * share, bar["y"] + bar["height"] / 2)
    wait_until(
        page,
        """share => {
            const video = document.getElementById("video");
            const since = video.currentTime - share * video.duration;
            return !video.seeking && !video.paused && since > 0.25 && since < 5;
        }""",
        patience,
        share,
    )


def _play_through(page: Page, report: PlaybackReport, speed: float, patience: float) -> None:
    page.mouse.move(0, 0)
    before: dict[str, int] = page.evaluate(
        """async speed => {
            const video = document.getElementById("video");
            video.pause();
            video.currentTime = 0;
            await new Promise(done => video.addEventListener("seeked", done, { once: true }));
            const { totalVideoFrames: total, droppedVideoFrames: dropped } = video.getVideoPlaybackQuality();
            video.playbackRate = speed;
            await video.play();
            return { total, dropped };
        }""",
        speed,
    )
    wait_until(page, "() => document.getElementById('video').ended", patience)
    after: dict[str, float] = page.evaluate(
        """() => {
            const video = document.getElementById("video");
            const { totalVideoFrames: total, droppedVideoFrames: dropped } = video.getVideoPlaybackQuality();
            return { total, dropped, now: video.currentTime, duration: video.duration };
        }"""
    )
    report.ended = abs(after["now"] - after["duration"]) < 0.25
    report.duration_seconds = after["duration"]
    report.frames_decoded = int(after["total"]) - before["total"]
    report.dropped = int(after["dropped"]) - before["dropped"]


def wait_until(page: Page, condition: str, patience: float, argument: Any = None) -> None:
    """Until a JavaScript function is true. Raises TimeoutError.

    Playwright's own wait_for_function evaluates strings inside the page, which the page's security policy forbids.
    """
    deadline = time.monotonic() + patience
    while not page.evaluate(condition, argument):
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {patience:.0f} s: {' '.join(condition.split())} ({argument})")
        page.wait_for_timeout(50)


def _collect(page: Page, report: PlaybackReport) -> None:
    found: dict[str, Any] = page.evaluate("window.__afterlive ?? {}")
    report.engine = found.get("engine") or ""
    report.levels = [(level["width"], level["height"]) for level in found.get("levels", [])]
    report.errors += [f"hls.js: {error}" for error in found.get("hlsErrors", [])]
    report.errors += [f"page: {error}" for error in found.get("pageErrors", [])]


def _state(page: Page) -> Any:
    return page.evaluate(
        """() => {
            const { currentTime, duration, paused, seeking, readyState } = document.getElementById("video") ?? {};
            const { view, level } = window.__afterlive ?? {};
            return { currentTime, duration, paused, seeking, readyState, view, level };
        }"""
    )


def _note_failure(response: Response, errors: list[str]) -> None:
    if response.status >= 400:
        errors.append(f"HTTP {response.status}: {response.url}")
