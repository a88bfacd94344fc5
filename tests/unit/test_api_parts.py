"""The API's pure parts: keys, ranges, servable paths, problem documents."""

from __future__ import annotations

import base64
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr
from starlette.datastructures import Headers

from control import errors
from control.api import auth, problems, redaction
from control.api.files import servable, wanted_range
from control.api.openapi import described
from control.api.problems import RangeUnsatisfiable, pointer, status_of
from control.api.signing import sign


def basic(text: str) -> str:
    return "Basic " + base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, (None, False)),
        ({"x-api-key": "k"}, ("k", False)),
        ({"authorization": "Bearer k"}, ("k", False)),
        ({"authorization": "bearer  k "}, ("k", False)),
        ({"authorization": "Bearer"}, (None, False)),
        ({"authorization": basic("user:k")}, ("k", True)),
        ({"authorization": basic(":k:with:colons")}, ("k:with:colons", True)),
        ({"authorization": basic("k")}, (None, True)),
        ({"authorization": "Basic !"}, (None, True)),
        ({"authorization": "Basic /w=="}, (None, True)),
        ({"authorization": "Digest k"}, (None, False)),
    ],
)
def test_where_a_key_may_be(headers: dict[str, str], expected: tuple[str | None, bool]) -> None:
    assert auth.offered_key(Headers(headers)) == expected


def test_each_key_of_the_ring_opens_and_nothing_else() -> None:
    ring = auth.KeyRing([SecretStr("one"), SecretStr("two"), SecretStr("")])
    assert len(ring) == 2
    assert [ring.accepts(key) for key in ("one", "two", "", "On", "onetwo", "ключ")] == [True, True] + [False] * 4
    assert not auth.KeyRing([]).accepts("")


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, None),
        ("bytes=0-99", (0, 100)),
        ("bytes=10-", (10, 90)),
        ("bytes=-30", (70, 30)),
        ("bytes=-300", (0, 100)),
        ("bytes=90-1000", (90, 10)),
        ("bytes=99-99", (99, 1)),
        ("bytes=0-0", (0, 1)),
        ("bytes=5-2", None),
        ("bytes=0-1,5-6", None),
        ("bytes=-", None),
        ("bytes=a-b", None),
        ("items=0-1", None),
    ],
)
def test_ranges_of_a_file_of_100_bytes(header: str | None, expected: tuple[int, int] | None) -> None:
    assert wanted_range(header, 100) == expected


@pytest.mark.parametrize(
    ("header", "size"), [("bytes=100-", 100), ("bytes=100-101", 100), ("bytes=-0", 9), ("bytes=0-", 0)]
)
def test_ranges_outside_the_file(header: str, size: int) -> None:
    with pytest.raises(RangeUnsatisfiable):
        wanted_range(header, size)


@given(st.integers(0, 1 << 40), st.integers(0, 1 << 40), st.integers(1, 1 << 40))
def test_a_range_never_leaves_the_file(first: int, last: int, size: int) -> None:
    try:
        wanted = wanted_range(f"bytes={first}-{last}", size)
    except RangeUnsatisfiable:
        assert first >= size
        return
    if wanted is None:
        assert last < first
    else:
        start, length = wanted
        assert (start, start + length - 1) == (first, min(last, size - 1))


@pytest.mark.parametrize("path", ["master.m3u8", "720p/seg-00001.m4s", "a/b/init.mp4", "poster.jpg", "storyboard.vtt"])
def test_what_a_viewer_may_have(path: str) -> None:
    assert servable(path) == "." + path.rsplit(".")[-1]


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/master.m3u8",
        "720p//seg.m4s",
        "720p/",
        "../other/master.m3u8",
        "720p/../../x.m4s",
        ".work/seg.m4s",
        "720p/.seg.m4s",
        ".m3u8",
        "720p/.m4s",
        "a\\..\\b.m4s",
        "a\0.m4s",
        "C:a.m4s",
        "replay.json",
        "notes.txt",
        "m3u8",
    ],
)
def test_what_no_viewer_may_have(path: str) -> None:
    with pytest.raises(errors.ObjectMissing):
        servable(path)


def test_every_error_class_has_a_status() -> None:
    def family(kind: type[errors.AfterliveError]) -> list[type[errors.AfterliveError]]:
        return [kind, *(below for child in kind.__subclasses__() for below in family(child))]

    statuses = {kind.__name__: status_of(kind) for kind in family(errors.AfterliveError)}
    assert statuses["NotFound"] == statuses["ObjectMissing"] == 404
    assert statuses["Conflict"] == 409
    assert statuses["RecordingRefused"] == statuses["RecordingMissing"] == 422
    assert statuses["StorageUnavailable"] == 503
    assert statuses["ConfigurationError"] == 500


@pytest.mark.parametrize(
    ("loc", "expected"),
    [
        (("body", "title"), "#/title"),
        (("body", "a/b", "c~d"), "#/a~1b/c~0d"),
        (("body", "items", 3, "id"), "#/items/3/id"),
        (("body",), "#"),
        (("body", 17), "#"),  # where JSON stops making sense, FastAPI gives a position
        (("query", "limit"), "query/limit"),
    ],
)
def test_pointers(loc: tuple[int | str, ...], expected: str) -> None:
    assert pointer(loc) == expected


def test_documented_examples_are_what_is_sent() -> None:
    found = described(errors.NotFound(noun="stream", key="x"), path="/streams/x")
    assert set(found) == {401, 404, 500, 503}
    example = found[404]["content"]["application/problem+json"]["examples"]["not-found"]["value"]
    assert example == problems.problem("not-found", 404, "There is no stream x.", "/streams/x").model_dump(
        exclude_none=True
    )


def test_the_access_log_shows_no_whole_link(caplog: pytest.LogCaptureFixture) -> None:
    redaction.install()
    redaction.install()
    log = logging.getLogger("uvicorn.access")
    assert sum(isinstance(known, redaction.AccessLogFilter) for known in log.filters) == 1
    link = sign(b"secret", "str_1", 1_790_000_000)
    with caplog.at_level(logging.INFO, logger="uvicorn.access"):
        log.propagate = True
        log.info('%s - "%s %s HTTP/%s" %d', "127.0.0.1:1", "GET", f"/play/str_1/{link}/720p/seg-00000.m4s", "1.1", 200)
    assert link not in caplog.text
    assert "GET /play/str_1/1790000000-…/720p/seg-00000.m4s" in caplog.text
