"""The verifier: silent on a correct presentation, of ours or of others; over HTTP, by its command."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from media_worker.cli import verify as command
from media_worker.verify import RULES, VerifyError, verify
from media_worker.verify.fetch import Fetcher, FetchError, Ref
from tests.hls_clips import (
    FRAME_RATE,
    SECONDS,
    Hls,
    broken_rules,
    ffmpeg,
)


def test_a_correct_presentation_has_no_finding(correct: Hls) -> None:
    report = verify(str(correct.master))
    assert report.findings == ()
    assert report.ok
    assert report.decoded
    video = {each.name: each for each in report.renditions if each.kind == "video"}
    assert {name: (each.width, each.height) for name, each in video.items()} == {
        "180p/playlist.m3u8": (320, 180),
        "90p/playlist.m3u8": (160, 90),
    }
    for each in video.values():
        assert each.samples == each.decoded_frames == SECONDS * FRAME_RATE
        assert each.frame_rate == FRAME_RATE
        assert each.duration_seconds == SECONDS
    assert [each.kind for each in report.renditions] == ["video", "video", "audio"]


def test_without_decoding_nothing_is_decoded(correct: Hls) -> None:
    report = verify(str(correct.master), decode=False)
    assert report.findings == ()
    assert not report.decoded
    assert {each.decoded_frames for each in report.renditions} == {None}


# --- other people's HLS --------------------------------------------------------------------------

TONE = ("-f", "lavfi", "-i", f"sine=frequency=440:sample_rate=48000:duration={SECONDS}")
PICTURE = ("-f", "lavfi", "-i", f"testsrc2=size=320x180:rate=30:duration={SECONDS}")
X264 = ("-c:v", "libx264", "-preset", "veryfast", "-pix_fmt", "yuv420p", "-g", "60", "-sc_threshold", "0")
BASICS = {"readable", "clear", "map", "continuous", "segment-idr", "idr-interval", "segment-length", "extinf"}


@pytest.mark.parametrize(
    ("more", "names"),
    [
        ((), "%v/s%d.ts"),
        (("-hls_flags", "single_file"), "%v/all.ts"),
        (("-hls_segment_type", "fmp4"), "%v/s%d.m4s"),
        (("-hls_segment_type", "fmp4", "-hls_flags", "single_file"), "%v/all.m4s"),
    ],
    ids=["transport stream", "transport stream in byte ranges", "fMP4", "fMP4 in byte ranges"],
)
def test_ffmpegs_own_hls_with_muxed_audio(tmp_path: Path, more: tuple[str, ...], names: str) -> None:
    ffmpeg(
        *(*PICTURE, *TONE, *X264, "-c:a", "aac", "-f", "hls", "-hls_time", "6", "-hls_playlist_type", "vod"),
        *("-master_pl_name", "master.m3u8", "-var_stream_map", "v:0,a:0", *more),
        *("-hls_segment_filename", str(tmp_path / names), str(tmp_path / "%v/list.m3u8")),
    )
    report = verify(str(tmp_path / "master.m3u8"))
    found = broken_rules(report)
    assert {"separate-audio", "iframes"} <= found
    assert not found & (BASICS | {"decodes", "frames", "codecs", "resolution"}), report.findings
    (rendition,) = report.renditions
    assert rendition.kind == "muxed"
    assert rendition.samples == rendition.decoded_frames == SECONDS * FRAME_RATE
    assert abs(rendition.duration_seconds - SECONDS) < 0.001
    assert (rendition.width, rendition.height) == (320, 180)


def test_a_lost_transport_stream_packet_is_found(tmp_path: Path) -> None:
    ffmpeg(
        *(*PICTURE, *X264, "-f", "hls", "-hls_time", "6", "-hls_playlist_type", "vod"),
        *("-master_pl_name", "master.m3u8", "-hls_segment_filename", str(tmp_path / "s%d.ts")),
        str(tmp_path / "list.m3u8"),
    )
    path = tmp_path / "s1.ts"
    data = path.read_bytes()
    path.write_bytes(data[: 188 * 40] + data[188 * 80 :])
    assert broken_rules(verify(str(tmp_path / "master.m3u8"))) & {"decodes", "frames", "continuous"}


@pytest.mark.parametrize(
    "content",
    [
        "#EXTM3U\n",
        "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n",
        "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\nmaster.m3u8\n",
        "#EXTM3U\n#EXT-X-STREAM-INF:CODECS=\"\"\nnowhere.m3u8\n",
        "#EXTM3U\n#EXT-X-TARGETDURATION:6\n#EXTINF:6,\n\n",
        "#EXTM3U\n#EXT-X-TARGETDURATION:6\n#EXTINF:6,\n#EXT-X-BYTERANGE:9@999999\nmaster.m3u8\n",
        "#EXTM3U\n#EXT-X-TARGETDURATION:6\n#EXTINF:6,\n../../../../../../dev/zero\n",
        "#EXTM3U\n#EXT-X-TARGETDURATION:6\n#EXTINF:6,\nmaster.m3u8\n",
        "#EXTM3U\n#EXT-X-TARGETDURATION:6\n#EXTINF:0,\nmaster.m3u8\n",
        "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1,FRAME-RATE=nan\nhttp://[\n",
    ],
)  # fmt: skip
def test_strange_playlists_give_findings_not_crashes(tmp_path: Path, content: str) -> None:
    (tmp_path / "master.m3u8").write_text(content)
    report = verify(str(tmp_path / "master.m3u8"))
    assert not report.ok
    json.loads(report.to_json())


NO_PLAYLISTS = [
    "",
    "hello",
    "#EXTINF:6,\nx.ts\n",
    "#EXTM3U\n#EXTINF:abc,\nx.ts\n",
    "#EXTM3U\n#EXTINF:inf,\nx.ts\n",
    "#EXTM3U\n#EXTINF:-1,\nx.ts\n",
    "#EXTM3U\n#EXTINF:6,\nhttp://[\n",
    "#EXTM3U\n#EXTINF:6,\n#EXT-X-BYTERANGE:x@y\nx.ts\n",
]


@pytest.mark.parametrize("content", NO_PLAYLISTS)
def test_what_is_no_playlist_cannot_be_verified(tmp_path: Path, content: str) -> None:
    (tmp_path / "master.m3u8").write_text(content)
    with pytest.raises(VerifyError, match="is not an HLS playlist"):
        verify(str(tmp_path / "master.m3u8"))


# --- over HTTP -----------------------------------------------------------------------------------


class Ranges(SimpleHTTPRequestHandler):
    """A static server with byte ranges, and a redirection to wherever the query says."""

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        if self.path.startswith("/to?"):
            self.send_response(302)
            self.send_header("Location", self.path[4:])
            self.end_headers()
            return
        wanted = self.headers.get("Range")
        path = Path(self.translate_path(self.path))
        if wanted is None or not path.is_file():
            super().do_GET()
            return
        first, _, last = wanted.removeprefix("bytes=").partition("-")
        data = path.read_bytes()[int(first) : int(last) + 1 if last else None]
        self.send_response(206)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@contextmanager
def served(folder: Path) -> Iterator[str]:
    def handler(*arguments: Any) -> Ranges:
        return Ranges(*arguments, directory=str(folder))

    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_over_http_the_same_is_found(correct: Hls) -> None:
    with served(correct.folder) as url:
        report = verify(f"{url}/master.m3u8", timeout_seconds=5)
    assert report.findings == ()
    assert len(report.renditions) == 3


def test_a_missing_master_is_unreadable(correct: Hls) -> None:
    with served(correct.folder) as url, pytest.raises(VerifyError, match="404"):
        verify(f"{url}/other.m3u8")


def test_the_network_reaches_no_local_file(correct: Hls, tmp_path: Path) -> None:
    secret = tmp_path / "secret.m3u8"
    secret.write_text("#EXTM3U\n")
    (tmp_path / "master.m3u8").write_text(f"#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n{secret.as_uri()}\n")
    with served(tmp_path) as url:
        report = verify(f"{url}/master.m3u8")
        assert "not read here" in next(each.message for each in report.findings if each.rule == "readable")
        with pytest.raises(VerifyError, match="not allowed"):
            verify(f"{url}/to?{secret.as_uri()}")
        with pytest.raises(VerifyError, match="neither http nor https"):
            verify(f"{url}/to?ftp://127.0.0.1/x.m3u8")
        assert verify(f"{url}/to?{url}/master.m3u8").renditions


@pytest.mark.parametrize("address", ["ftp://host/x.m3u8", "concat://a.ts", "data://text/plain,x"])
def test_other_schemes_are_refused(address: str) -> None:
    with pytest.raises(VerifyError, match="only http, https and local files"):
        verify(address)


def test_size_and_time_of_a_read_are_bounded(tmp_path: Path) -> None:
    big = tmp_path / "big.m4s"
    big.write_bytes(bytes(300_000))
    fetcher = Fetcher(tmp_path.as_uri(), segment_limit_bytes=200_000)
    with pytest.raises(FetchError, match="larger than 200000 bytes"):
        fetcher.segment(Ref(big.as_uri()))
    with pytest.raises(FetchError, match="over the limit"):
        fetcher.segment(Ref(big.as_uri(), 0, 250_000))
    assert len(fetcher.segment(Ref(big.as_uri(), 299_000, 1_000))) == 1_000
    with pytest.raises(FetchError, match="only 500 are there"):
        fetcher.segment(Ref(big.as_uri(), 299_500, 1_000))
    with pytest.raises(FetchError, match="took longer"):
        Fetcher(tmp_path.as_uri(), deadline_seconds=0).segment(Ref(big.as_uri()))


# --- the command ---------------------------------------------------------------------------------


def test_the_command_answers_by_exit_status(hls: Hls) -> None:
    runner = CliRunner()
    good = runner.invoke(command, [str(hls.master)], env={"COLUMNS": "200"})
    assert good.exit_code == 0, good.output
    assert f"ok: {len(RULES)} rules, every frame decoded; 0 that must hold are broken" in good.stdout
    hls.edit("90p/playlist.m3u8", "#EXT-X-ENDLIST\n", "")
    bad = runner.invoke(command, [str(hls.master), "--no-decode"], env={"COLUMNS": "200"})
    assert bad.exit_code == 1
    assert "EXT-X-ENDLIST is missing" in bad.stdout
    as_json = runner.invoke(command, [str(hls.master), "--json"])
    assert as_json.exit_code == 1
    report = json.loads(as_json.stdout)
    assert report["ok"] is False
    assert [each["rule"] for each in report["findings"]] == ["vod"]
    assert len(report["renditions"]) == 3


def test_unreadable_input_is_one_clear_line(tmp_path: Path) -> None:
    outcome = CliRunner().invoke(command, [str(tmp_path / "nothing.m3u8")])
    assert outcome.exit_code == 2
    assert outcome.stdout == ""
    assert outcome.stderr.splitlines() == [f"afterlive verify: {tmp_path / 'nothing.m3u8'} is not there"]
