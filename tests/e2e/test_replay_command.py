"""`afterlive replay`: what it makes, what it says, and that it can be killed and stopped at any moment."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import m3u8
import pytest

from tests.e2e.commands import all_gone, ffmpegs_of, run, started, wait_for
from tests.e2e.recordings import make

HLS_PARSER = Path(__file__).parents[1] / "npm"


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("recording") / "live.mp4")


@pytest.fixture(scope="module")
def finished(recording: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A replay made without disturbance."""
    out = tmp_path_factory.mktemp("finished") / "replay"
    done = run("replay", recording, "--out", out, cwd=recording.parent)
    assert done.returncode == 0, done.stderr
    return out


def bytes_of(replay: Path) -> dict[str, str]:
    """Hash of every file but the summary, which has times in it."""
    paths = [path for path in replay.rglob("*") if path.is_file() and path.name != "replay.json"]
    return {str(path.relative_to(replay)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def chunks_done(out: Path, number: int) -> Callable[[], bool]:
    """Whether an unfinished replay has so many chunks in its private store."""
    store = out / ".afterlive" / "store"
    return lambda: len(list(store.rglob("chunk-*.json"))) >= number


def test_it_makes_everything_and_nothing_else(finished: Path) -> None:
    names = {path.name for path in finished.iterdir()}
    rungs = {"360p", "234p"}
    pictures = {"poster.jpg", "thumbnails", "storyboard", "storyboard.vtt"}
    assert names == rungs | pictures | {"master.m3u8", "audio", "replay.json"}
    for rung in rungs:
        inside = {path.name for path in (finished / rung).iterdir()}
        assert inside == {"init.mp4", "playlist.m3u8", "iframes.m3u8", *(f"seg-{n:05d}.m4s" for n in range(4))}


def test_the_summary_has_what_was_measured(finished: Path, recording: Path) -> None:
    summary = json.loads((finished / "replay.json").read_text())
    assert summary["source"]["size_bytes"] == recording.stat().st_size
    assert summary["source"]["video"]["frame_rate"] == "30"
    assert [rung["name"] for rung in summary["rungs"]] == ["360p", "234p"]
    for rung in summary["rungs"]:
        files = sum(path.stat().st_size for path in (finished / rung["name"]).glob("*.m4s"))
        assert rung["bytes"] == files
        assert rung["frames"] == 600
        assert rung["average_bps"] == pytest.approx(files * 8 / 20, rel=0.01)
        assert rung["peak_bps"] >= rung["average_bps"]
        assert rung["init_sha256"] == hashlib.sha256((finished / rung["name"] / "init.mp4").read_bytes()).hexdigest()
    assert summary["audio"][0]["seconds"] == pytest.approx(20, abs=1 / 30)
    assert set(summary["checks"].values()) == {True}
    assert summary["timings"]["transcoding_seconds"] > 0
    # Why it has these rungs, at these rates.
    assert [point["short_side"] for point in summary["source"]["complexity"]["points"]] == [360, 180]
    for choice, planned in zip(summary["plan"]["ladder"], summary["plan"]["rungs"], strict=True):
        assert (choice["name"], choice["kbps"]) == (planned["name"], planned["video_kbps"])
        assert choice["why"]


def test_our_verifier_finds_nothing(finished: Path) -> None:
    done = run("verify", finished / "master.m3u8", "--score", "--segments", "1", "--json", cwd=finished)
    report = json.loads(done.stdout)
    assert (done.returncode, report["findings"]) == (0, [])
    best, small = report["scores"]
    assert best["vmaf"] > small["vmaf"]
    assert best["psnr_db"] > 25  # a frame off, of this picture, is less than 20


def test_another_python_parser_reads_it(finished: Path) -> None:
    master = m3u8.load(str(finished / "master.m3u8"))
    assert {playlist.stream_info.resolution for playlist in master.playlists} == {(640, 360), (416, 234)}
    assert len(master.iframe_playlists) == 2
    assert [media.type for media in master.media] == ["AUDIO"]
    for playlist in master.playlists:
        inside = m3u8.load(str(finished / str(playlist.uri)))
        assert inside.is_endlist
        assert sum(segment.duration or 0 for segment in inside.segments) == pytest.approx(20, abs=0.001)


def test_a_javascript_parser_reads_it_in_strict_mode(finished: Path) -> None:
    script = """
        const HLS = require('hls-parser');
        const fs = require('fs');
        HLS.setOptions({ strictMode: true });
        const out = process.argv[1];
        const master = HLS.parse(fs.readFileSync(`${out}/master.m3u8`, 'utf8'));
        const lists = master.variants.map(v => v.uri).concat(master.variants.flatMap(v => v.audio.map(a => a.uri)));
        const frames = master.variants.filter(v => v.isIFrameOnly).map(v => v.uri);
        const parsed = lists.map(uri => HLS.parse(fs.readFileSync(`${out}/${uri}`, 'utf8')));
        console.log(JSON.stringify({
            master: master.isMasterPlaylist, variants: master.variants.length, iframes: frames.length,
            seconds: parsed.map(p => p.segments.reduce((sum, s) => sum + s.duration, 0)),
            ended: parsed.every(p => p.endlist), maps: parsed.every(p => p.segments[0].map.uri === 'init.mp4'),
        }));
    """
    done = subprocess.run(
        ["node", "-e", script, str(finished)], cwd=HLS_PARSER, capture_output=True, text=True, check=True, timeout=60
    )
    seen = json.loads(done.stdout)
    assert (seen["master"], seen["variants"], seen["iframes"]) == (True, 4, 2)
    assert seen["ended"]
    assert seen["maps"]
    assert all(abs(seconds - 20) < 1.5 for seconds in seen["seconds"])


def test_killed_at_any_moment_it_goes_on_where_it_was_and_gives_the_same_bytes(
    recording: Path, finished: Path, tmp_path: Path
) -> None:
    out = tmp_path / "replay"
    log = tmp_path / "log"
    for chunks in (1, 2):
        with started("replay", recording, "--out", out, "--jobs", "1", cwd=tmp_path, log=log) as process:
            wait_for(chunks_done(out, chunks), seconds=60, what=f"chunk {chunks} is done")
            encoders = ffmpegs_of(process)
            process.send_signal(signal.SIGKILL)
            process.wait(5)
        assert not (out / "master.m3u8").exists()
        # On a busy machine they take a while to end; that they do not go on, test_runner shows with endless ones.
        assert all_gone(encoders, seconds=30)
    before = {path.name: path.stat().st_mtime_ns for path in (out / ".afterlive" / "store").rglob("360p/seg-*.m4s")}
    done = run("replay", recording, "--out", out, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert bytes_of(out) == bytes_of(finished)
    assert not (out / ".afterlive").exists()
    # Finished chunks were not made again.
    after = {path.name: path.stat().st_mtime_ns for path in (out / "360p").glob("seg-*.m4s")}
    kept = [name for name, written in before.items() if after[name] == written]
    assert len(before) >= 2
    assert len(kept) >= 2


@pytest.mark.parametrize(
    "how", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)], ids=lambda how: how.name
)
def test_ctrl_c_stops_ffmpeg_within_a_second_and_leaves_nothing(tmp_path: Path, how: signal.Signals) -> None:
    recording = make(tmp_path / "longer.mp4", seconds=60)
    out, log = tmp_path / "replay", tmp_path / "log"
    with started("replay", recording, "--out", out, "--preset", "slower", cwd=tmp_path, log=log) as process:
        wait_for(lambda: ffmpegs_of(process), seconds=30, what="ffmpeg runs")
        time.sleep(0.5)
        encoders = ffmpegs_of(process)
        process.send_signal(how)
        assert all_gone(encoders, seconds=1)
        assert process.wait(10) == 130
    assert not out.exists()
    assert "cancelled" in log.read_text()


def test_other_work_in_the_folder_is_not_taken_over(recording: Path, tmp_path: Path) -> None:
    out, log = tmp_path / "replay", tmp_path / "log"
    other = make(tmp_path / "other.mp4", seconds=9, tone=880)
    with started("replay", recording, "--out", out, "--jobs", "1", cwd=tmp_path, log=log) as process:
        wait_for(chunks_done(out, 1), seconds=60, what="a chunk is done")
        process.kill()
        process.wait(5)
    done = run("replay", other, "--out", out, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["plan"]["frames"] == 270


def test_a_full_folder_is_not_overwritten(recording: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "precious").write_text("mine")
    done = run("replay", recording, "--out", tmp_path / "full", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("afterlive: conflict: ")
    assert (tmp_path / "full" / "precious").read_text() == "mine"


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (None, "recording-missing"),
        (b"", "recording-empty"),
        (b"\x00\x01 not a film" * 5000, "recording-not-media"),
        (b"#EXTM3U\n#EXTINF:6,\nhttp://localhost/x.ts\n", "recording-refused"),
        (b"ffconcat version 1.0\nfile /etc/passwd\n", "recording-refused"),
    ],
)
def test_bad_input_is_one_clear_line(tmp_path: Path, content: bytes | None, code: str) -> None:
    source = tmp_path / "bad.mp4"
    if content is not None:
        source.write_bytes(content)
    done = run("replay", source, "--out", tmp_path / "out", cwd=tmp_path)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(f"afterlive: {code}: ")
    assert str(source) in last
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("source", ["http://localhost/x.mp4", "concat:a.mp4|b.mp4", "subfile,,start,0,end,9,,:a.mp4"])
def test_addresses_are_refused(tmp_path: Path, source: str) -> None:
    done = run("replay", source, "--out", tmp_path / "out", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("afterlive: recording-refused: ")
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_wrong_ladder_says_where(recording: Path, tmp_path: Path) -> None:
    ladder = tmp_path / "ladder.toml"
    ladder.write_text("[[rung]]\nshort_side = 360\nkbps = 0\n")
    done = run("replay", recording, "--out", tmp_path / "out", "--ladder", ladder, cwd=tmp_path)
    assert done.returncode == 1
    assert "ladder-invalid" in done.stderr
    assert "rung 1, kbps" in done.stderr


def test_a_ladder_of_one_s_own(recording: Path, tmp_path: Path) -> None:
    ladder = tmp_path / "ladder.toml"
    ladder.write_text("[[rung]]\nshort_side = 180\nkbps = 200\n")
    done = run("replay", recording, "--out", tmp_path / "out", "--ladder", ladder, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [rung["name"] for rung in json.loads(done.stdout)["rungs"]] == ["180p"]
