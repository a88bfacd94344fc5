"""What a playback link opens."""

from __future__ import annotations

import gzip
import time

import httpx
import pytest

from control.api.app import create_app
from control.api.signing import sign
from control.ledger.engine import Ledger
from control.settings import Settings
from control.storage import ObjectStore
from tests.api_server import PROBLEM, Api, problem, serving
from tests.conftest import API_KEY
from tests.replays import advance


@pytest.fixture
def replay(api: Api) -> str:
    """The playback link of a completed replay with a few files in the store."""
    stream_id, answer = api.ended()
    prefix = answer["replay"]["prefix"].rstrip("/")
    api.store.put_bytes(f"{prefix}/master.m3u8", b"#EXTM3U\n")
    api.store.put_bytes(f"{prefix}/720p/init.mp4", b"init")
    api.store.put_bytes(f"{prefix}/720p/seg-00000.m4s", bytes(range(256)) * 2000)
    api.store.put_bytes(f"{prefix}/720p/.seg-00001.m4s", b"unfinished")
    api.store.put_bytes(f"{prefix}/poster.jpg", b"jpeg")
    api.store.put_bytes(f"{prefix}/storyboard.vtt", b"WEBVTT\n")
    api.store.put_bytes(f"{prefix}/replay.json", b"{}")
    api.store.put_bytes("replays/other/master.m3u8", b"#EXTM3U\n")
    advance(api.ledger, stream_id, "completed")
    link: str = api.client.get(f"/streams/{stream_id}").json()["player_url"]
    return link


def test_files_have_their_types_and_lifetimes(api: Api, replay: str) -> None:
    expected = {
        "master.m3u8": ("application/vnd.apple.mpegurl", "max-age=300"),
        "720p/init.mp4": ("video/mp4", "immutable"),
        "720p/seg-00000.m4s": ("video/mp4", "immutable"),
        "poster.jpg": ("image/jpeg", "max-age=300"),
        "storyboard.vtt": ("text/vtt; charset=utf-8", "max-age=300"),
    }
    for name, (media_type, lifetime) in expected.items():
        answer = api.stranger.get(replay + name)
        assert answer.status_code == 200, name
        assert answer.headers["content-type"] == media_type, name
        assert lifetime in answer.headers["cache-control"], name
        assert answer.headers["access-control-allow-origin"] == "*", name
        assert answer.headers["x-content-type-options"] == "nosniff", name
        head = api.stranger.head(replay + name)
        assert head.status_code == 200, name
        assert head.content == b"", name
        assert head.headers["content-length"] == str(len(answer.content)), name
        again = api.stranger.get(replay + name, headers={"If-None-Match": answer.headers["etag"]})
        assert again.status_code == 304, name
        assert again.content == b"", name


def test_playlists_are_asked_for_again_while_the_replay_grows(api: Api) -> None:
    _, answer = api.ended()
    key = f"{answer['replay']['prefix'].rstrip('/')}/master.m3u8"
    api.store.put_bytes(key, b"#EXTM3U\n")
    first = api.stranger.get(answer["playback_url"])
    assert "no-cache" in first.headers["cache-control"]
    api.store.put_bytes(key, b"#EXTM3U\n#EXT-X-ENDLIST\n")
    second = api.stranger.get(answer["playback_url"], headers={"If-None-Match": first.headers["etag"]})
    assert second.status_code == 200
    assert second.text.endswith("#EXT-X-ENDLIST\n")
    assert second.headers["etag"] != first.headers["etag"]


def test_ranges_of_a_segment(api: Api, replay: str) -> None:
    segment = f"{replay}720p/seg-00000.m4s"
    whole = api.stranger.get(segment)
    assert whole.headers["accept-ranges"] == "bytes"
    size = len(whole.content)
    for asked, start, end in [("0-99", 0, 100), ("500000-", 500000, size), ("-1000", size - 1000, size)]:
        part = api.stranger.get(segment, headers={"Range": f"bytes={asked}"})
        assert part.status_code == 206
        assert part.content == whole.content[start:end]
        assert part.headers["content-range"] == f"bytes {start}-{end - 1}/{size}"
        assert part.headers["content-length"] == str(end - start)
    outside = api.stranger.get(segment, headers={"Range": f"bytes={size}-"})
    problem(outside, 416, "range-unsatisfiable")
    assert outside.headers["content-range"] == f"bytes */{size}"
    stale = api.stranger.get(segment, headers={"Range": "bytes=0-9", "If-Range": '"older"'})
    assert (stale.status_code, len(stale.content)) == (200, size)
    fresh = api.stranger.get(segment, headers={"Range": "bytes=0-9", "If-Range": whole.headers["etag"]})
    assert (fresh.status_code, len(fresh.content)) == (206, 10)
    preflight = api.stranger.options(segment, headers={"Origin": "https://shop.test"})
    assert preflight.status_code == 204
    assert "Range" in preflight.headers["access-control-allow-headers"]


@pytest.mark.parametrize(
    "path",
    [
        "720p/.seg-00001.m4s",
        "replay.json",
        "missing.m4s",
        "720p",
        "720p/",
        "../other/master.m3u8",
        "%2e%2e/other/master.m3u8",
        "..%2fother%2fmaster.m3u8",
        "720p/%2e%2e/%2e%2e/other/master.m3u8",
        "%252e%252e/other/master.m3u8",
        "..%5cother%5cmaster.m3u8",
        "%00.m3u8",
        "%2fetc%2fpasswd",
    ],
)
def test_nothing_else_is_served(api: Api, replay: str, path: str) -> None:
    """Raw requests: httpx would tidy the path up before it sends it."""
    target = httpx.URL(replay).raw_path + path.encode()
    request = httpx.Request("GET", str(api.stranger.base_url), extensions={"target": target})
    answer = api.stranger.send(request)
    assert answer.status_code == 404, answer.text
    assert answer.headers["content-type"] == PROBLEM


def test_links_end_and_cannot_be_made_up(api: Api, replay: str) -> None:
    stream_id, link = httpx.URL(replay).path.strip("/").split("/")[1:]
    forged = f"{link[:-9]}{'B' if link[-9] == 'A' else 'A'}{link[-8:]}"  # the last one holds bits that do not count
    problem(api.stranger.get(f"/play/{stream_id}/{forged}/master.m3u8"), 403, "link-invalid")
    other, _ = api.ended()
    problem(api.stranger.get(f"/play/{other}/{link}/status"), 403, "link-invalid")
    secret = api.settings.api.signing_secret
    assert secret is not None
    old = sign(secret.get_secret_value().encode(), stream_id, int(time.time()) - 1)
    problem(api.stranger.get(f"/play/{stream_id}/{old}/master.m3u8"), 410, "link-expired")
    person = api.stranger.get(f"/play/{stream_id}/{old}/", headers={"Accept": "text/html"})
    assert person.status_code == 410
    assert "expired" in person.text
    assert person.headers["content-type"].startswith("text/html")
    gone = sign(secret.get_secret_value().encode(), "nope", int(time.time()) + 60)
    problem(api.stranger.get(f"/play/nope/{gone}/status"), 404, "not-found")


def test_the_player_page_runs_only_its_own_scripts(api: Api) -> None:
    created = api.client.post("/streams", json={"title": "<script>alert(1)</script>", "recording": "a.mp4"})
    ended = api.client.post(f"/streams/{created.json()['id']}/end")
    link = ended.json()["player_url"]
    page = api.stranger.get(link)
    assert page.status_code == 200
    assert "<script>alert" not in page.text
    assert "&lt;script&gt;alert" in page.text
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "unsafe" not in policy
    assert page.headers["x-frame-options"] == "DENY"
    assert page.headers["referrer-policy"] == "no-referrer"
    for name in ("player.js", "player.css"):
        address = next(part for part in page.text.split('"') if part.endswith(name))
        asset = api.stranger.get(link + address, headers={"Accept-Encoding": "gzip"})
        assert asset.status_code == 200
        assert "immutable" in asset.headers["cache-control"]
        assert asset.headers["content-encoding"] == "gzip"
        plain = api.stranger.get(link + address, headers={"Accept-Encoding": "identity"})
        assert plain.content == asset.content != gzip.compress(asset.content)
    problem(api.stranger.get(f"{link}_player/0000/player.js"), 404, "not-found")


def test_the_status_tells_a_viewer_what_there_is(api: Api, replay: str) -> None:
    assert api.stranger.get(f"{replay}status").json() == {
        "title": "A stream",
        "state": "completed",
        "playable": True,
        "progress": 1.0,
        "eta_seconds": None,
        "problem": None,
        "playlist": "master.m3u8",
        "poster": "poster.jpg",
        "storyboard": "storyboard.vtt",
    }
    _, answer = api.ended()
    waiting = api.stranger.get(f"{answer['player_url']}status").json()
    assert waiting["playable"] is False
    assert (waiting["playlist"], waiting["poster"], waiting["storyboard"]) == (None, None, None)


def test_on_s3_media_comes_from_the_bucket_and_playlists_from_here(
    settings: Settings, ledger: Ledger, s3_store: ObjectStore
) -> None:
    with serving(create_app(settings, ledger, s3_store)) as url:
        with httpx.Client(base_url=url, headers={"X-API-Key": API_KEY}) as client:
            stream_id = client.post("/streams", json={"title": "T", "recording": "a.mp4"}).json()["id"]
            answer = client.post(f"/streams/{stream_id}/end").json()
        prefix = answer["replay"]["prefix"].rstrip("/")
        s3_store.put_bytes(f"{prefix}/master.m3u8", b"#EXTM3U\n")
        s3_store.put_bytes(f"{prefix}/720p/seg-00000.m4s", b"0123456789")
        link = answer["player_url"]
        assert httpx.get(f"{link}master.m3u8").text == "#EXTM3U\n"
        segment = httpx.get(f"{link}720p/seg-00000.m4s")
        assert segment.status_code == 307
        bucket = httpx.URL(segment.headers["location"])
        part = httpx.get(bucket, headers={"Range": "bytes=2-4"})
        assert part.content == b"234"
        policy = httpx.get(link).headers["content-security-policy"]
        assert f"connect-src 'self' {bucket.scheme}://{bucket.netloc.decode()}" in policy
        assert httpx.get(f"{link}720p/missing.m4s").status_code == 404
