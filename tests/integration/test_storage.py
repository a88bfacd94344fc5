"""One contract, two stores: everything here runs on a folder and on a real S3 server."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from pydantic import SecretStr

from control.errors import ObjectKeyInvalid, ObjectMissing, StorageUnavailable
from control.settings import StorageSettings
from control.storage import (
    LocalStore,
    ObjectStore,
    open_store,
)
from tests.services import S3Server, stop

UNICODE_KEY = "店/直播 録画/Überraschung ½.m4s"


@pytest.fixture(params=["local", "s3"])
def store(request: pytest.FixtureRequest) -> ObjectStore:
    made: ObjectStore = request.getfixturevalue(f"{request.param}_store")
    return made


# --- what is put can be got -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [b"", b"x", b"\x00\xff" * 70_000], ids=["empty", "one byte", "140 kB"])
def test_bytes_come_back(store: ObjectStore, data: bytes) -> None:
    store.put_bytes("a/b.bin", data)
    assert store.get_bytes("a/b.bin") == data
    assert store.size("a/b.bin") == len(data)


def test_a_file_in_several_parts_comes_back(store: ObjectStore, tmp_path: Path) -> None:
    source = tmp_path / "big.mp4"
    block = os.urandom(1 << 20)
    source.write_bytes(b"".join(bytes([n]) + block for n in range(20)))
    store.put_file("big/init.mp4", source)
    assert store.size("big/init.mp4") == source.stat().st_size > 20_000_000
    seen = hashlib.sha256()
    with store.open("big/init.mp4") as stream:
        while piece := stream.read(1 << 16):
            seen.update(piece)
    assert seen.digest() == hashlib.sha256(source.read_bytes()).digest()


def test_an_empty_file_comes_back(store: ObjectStore, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    store.put_file("empty.m4s", tmp_path / "empty")
    assert store.size("empty.m4s") == 0
    assert store.get_bytes("empty.m4s") == b""


def test_a_stored_file_is_a_copy(store: ObjectStore, tmp_path: Path) -> None:
    source = tmp_path / "seg.m4s"
    source.write_bytes(b"finished")
    store.put_file("seg.m4s", source)
    with source.open("r+b") as file:
        file.write(b"CHANGED!")
    assert store.get_bytes("seg.m4s") == b"finished"
    source.unlink()
    assert store.get_bytes("seg.m4s") == b"finished"


def test_putting_again_replaces(store: ObjectStore, tmp_path: Path) -> None:
    store.put_bytes("a.json", b"a long first version")
    store.put_bytes("a.json", b"second")
    assert store.get_bytes("a.json") == b"second"
    (tmp_path / "third").write_bytes(b"3")
    store.put_file("a.json", tmp_path / "third")
    assert store.get_bytes("a.json") == b"3"
    assert list(store.list("")) == ["a.json"]


def test_a_file_that_is_not_there_is_the_callers_mistake(store: ObjectStore, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        store.put_file("a.m4s", tmp_path / "nowhere")
    assert store.size("a.m4s") is None


def test_unicode_keys(store: ObjectStore) -> None:
    store.put_bytes(UNICODE_KEY, b"u")
    assert list(store.list("店/")) == [UNICODE_KEY]
    assert store.get_bytes(UNICODE_KEY) == b"u"
    assert store.delete_prefix("店/") == 1
    assert store.size(UNICODE_KEY) is None


# --- ranges -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("start", "length", "expected"),
    [
        (0, None, b"0123456789"),
        (0, 4, b"0123"),
        (3, 4, b"3456"),
        (3, None, b"3456789"),
        (8, 100, b"89"),
        (9, 1, b"9"),
        (10, None, b""),
        (11, 5, b""),
        (4, 0, b""),
    ],
)
def test_ranges(store: ObjectStore, start: int, length: int | None, expected: bytes) -> None:
    store.put_bytes("r.bin", b"0123456789")
    with store.open("r.bin", start, length) as stream:
        assert stream.read() == expected
        assert stream.read(1) == b""


def test_a_range_of_an_empty_object_is_empty(store: ObjectStore) -> None:
    store.put_bytes("empty", b"")
    for start, length in ((0, None), (0, 1), (5, 5)):
        with store.open("empty", start, length) as stream:
            assert stream.read() == b""


def test_a_stream_can_be_read_in_pieces(store: ObjectStore) -> None:
    data = os.urandom(700_001)
    store.put_bytes("p.bin", data)
    with store.open("p.bin", 1, 700_000) as stream:
        pieces = list(iter(lambda: stream.read(65_536), b""))
    assert b"".join(pieces) == data[1:]
    assert {len(piece) for piece in pieces[:-1]} == {65_536}


def test_negative_ranges_are_refused(store: ObjectStore) -> None:
    store.put_bytes("r.bin", b"0123456789")
    for start, length in ((-1, None), (0, -1)):
        with pytest.raises(ValueError, match="range"):
            store.open("r.bin", start, length)


# --- what is missing --------------------------------------------------------------------------------------------------


def test_missing_objects(store: ObjectStore) -> None:
    store.put_bytes("folder/there", b"1")
    for key in ("nothing", "folder", "folder/there/below", "folder/ther"):
        assert store.size(key) is None
        assert store.local_path(key) is None
        for start, length in ((0, None), (1, None), (0, 5), (0, 0)):
            with pytest.raises(ObjectMissing, match=re.escape(key)):
                store.open(key, start, length)
        with pytest.raises(ObjectMissing):
            store.get_bytes(key)
    store.delete("nothing")
    store.delete("folder/ther")
    assert store.delete_prefix("nothing/") == 0
    assert list(store.list("nothing/")) == []
    assert store.get_bytes("folder/there") == b"1"


# --- listing and deleting ---------------------------------------------------------------------------------------------


def test_list_is_sorted_and_bounded_by_the_prefix(store: ObjectStore) -> None:
    keys = ["r/1/a", "r/1/b.x", "r/1/b/c", "r/1/b0", "r/10/a", "r/1.json", "s/1", "z"]
    for key in reversed(keys):
        store.put_bytes(key, b"")
    assert list(store.list("")) == sorted(keys)
    assert list(store.list("r/")) == sorted(key for key in keys if key.startswith("r/"))
    assert list(store.list("r/1")) == sorted(key for key in keys if key.startswith("r/1"))
    assert list(store.list("r/1/")) == ["r/1/a", "r/1/b.x", "r/1/b/c", "r/1/b0"]
    assert list(store.list("r/1/b")) == ["r/1/b.x", "r/1/b/c", "r/1/b0"]
    assert list(store.list("r/1/b/")) == ["r/1/b/c"]


def test_deleting_a_prefix_takes_nothing_else(store: ObjectStore) -> None:
    for key in ("r/1/a", "r/1/b/c", "r/10/a", "r/1.json"):
        store.put_bytes(key, b"1")
    assert store.delete_prefix("r/1/") == 2
    assert list(store.list("")) == ["r/1.json", "r/10/a"]
    assert store.delete_prefix("r/1/") == 0
    store.put_bytes("r/1/a", b"again")
    assert store.get_bytes("r/1/a") == b"again"


def test_more_objects_than_a_page_holds(store: ObjectStore) -> None:
    keys = [f"many/{n:04}.m4s" for n in range(1_050)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key: store.put_bytes(key, b""), keys))
    assert list(store.list("many/")) == keys
    assert store.delete_prefix("many/") == len(keys)
    assert list(store.list("")) == []


def test_delete_takes_one_object(store: ObjectStore) -> None:
    store.put_bytes("d/a", b"1")
    store.put_bytes("d/b", b"2")
    store.delete("d/a")
    store.delete("d/a")
    assert list(store.list("d/")) == ["d/b"]


# --- keys -------------------------------------------------------------------------------------------------------------

BAD_KEYS = [
    "",
    "/etc/passwd",
    "..",
    "../x",
    "a/../../x",
    "a/./b",
    "a//b",
    "a/",
    "a\\b",
    "a\0b",
    "a\nb",
    "\ud800",
    "x" * 901,
]


@pytest.mark.parametrize("key", BAD_KEYS)
def test_bad_keys_are_refused_everywhere(store: ObjectStore, key: str, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"")
    calls: list[Callable[[], object]] = [
        lambda: store.put_bytes(key, b""),
        lambda: store.put_file(key, source),
        lambda: store.get_bytes(key),
        lambda: store.open(key),
        lambda: store.size(key),
        lambda: store.delete(key),
        lambda: store.read_url(key, 60),
        lambda: store.local_path(key),
    ]
    for call in calls:
        with pytest.raises(ObjectKeyInvalid):
            call()


@pytest.mark.parametrize("prefix", ["", "/", "a", "../", "a/../../", "a//", "/a/", ".incoming/"])
def test_only_a_folder_of_keys_can_be_deleted(store: ObjectStore, prefix: str) -> None:
    store.put_bytes("a/b", b"1")
    with pytest.raises(ObjectKeyInvalid):
        store.delete_prefix(prefix)
    assert list(store.list("")) == ["a/b"]


@pytest.mark.parametrize("prefix", ["/", "../", "a/../", "a//", "\\"])
def test_bad_prefixes_are_refused(store: ObjectStore, prefix: str) -> None:
    with pytest.raises(ObjectKeyInvalid):
        list(store.list(prefix))


# --- only complete things are visible ---------------------------------------------------------------------------------

_WRITER = """
import pathlib, sys
from control.settings import StorageSettings
from control.storage import open_store
open_store(StorageSettings()).put_file("half/done.mp4", pathlib.Path(sys.argv[1]))
"""


def _kill_a_writer_half_way(settings: StorageSettings, pipe: Path) -> None:
    """Another process stores what comes out of `pipe`; it is killed when 20 MB have gone in and more are to come."""
    environment = os.environ | {
        "AFTERLIVE_STORAGE_URL": settings.url,
        "AFTERLIVE_STORAGE_S3_ENDPOINT": settings.s3_endpoint or "",
        "AFTERLIVE_STORAGE_S3_ACCESS_KEY": _reveal(settings.s3_access_key),
        "AFTERLIVE_STORAGE_S3_SECRET_KEY": _reveal(settings.s3_secret_key),
    }
    os.mkfifo(pipe)
    writer = subprocess.Popen([sys.executable, "-c", _WRITER, str(pipe)], env=environment)
    try:
        with pipe.open("wb") as feed:
            for _ in range(20):
                feed.write(bytes(1 << 20))
            assert writer.poll() is None
            writer.kill()
            writer.wait(10)
    finally:
        stop(writer)


def _reveal(secret: SecretStr | None) -> str:
    return secret.get_secret_value() if secret else ""


def test_a_writer_killed_half_way_leaves_nothing_visible(tmp_path: Path, s3_server: S3Server) -> None:
    for settings in (
        StorageSettings(_env_file=None, url=f"file:{tmp_path / 'store'}"),
        s3_server.settings("killed-half-way"),
    ):
        store = open_store(settings)
        store.put_bytes("half/before.mp4", b"whole")
        _kill_a_writer_half_way(settings, tmp_path / f"pipe-{settings.url[:2]}")
        assert list(store.list("")) == ["half/before.mp4"]
        assert store.size("half/done.mp4") is None


def test_a_failed_write_keeps_the_old_object(local_store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    local_store.put_bytes("a", b"old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageUnavailable, match="No space left"):
        local_store.put_bytes("a", b"new")
    monkeypatch.undo()
    assert local_store.get_bytes("a") == b"old"
    assert [path.name for path in local_store.root.rglob("*") if path.is_file()] == ["a"]


def test_readers_never_see_a_mixture(store: ObjectStore) -> None:
    """Writers replace an object over and over while others read it."""
    versions = [bytes([letter]) * 300_000 for letter in b"abcd"]
    store.put_bytes("v", versions[0])
    with ThreadPoolExecutor(6) as pool:
        writes = [pool.submit(store.put_bytes, "v", versions[n % 4]) for n in range(40)]
        reads = [pool.submit(store.get_bytes, "v") for _ in range(40)]
        assert {len(set(read.result())) for read in reads} == {1}
        assert {len(read.result()) for read in reads} == {300_000}
        for write in writes:
            write.result()


def test_writing_while_folders_come_and_go(local_store: LocalStore) -> None:
    """A folder that a deletion empties is removed; a writer that needs it at that moment makes it again."""

    def put_and_delete(n: int) -> None:
        for _ in range(50):
            local_store.put_bytes(f"a/b/{n}", b"1")
            local_store.delete(f"a/b/{n}")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(put_and_delete, range(4)))
    assert list(local_store.list("")) == []
    assert not (local_store.root / "a").exists()
