"""What a store of one kind alone does, a folder or S3; and which one the settings choose."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr

from control.errors import ConfigurationError, ObjectKeyInvalid, StorageUnavailable
from control.settings import StorageSettings
from control.storage import (
    LocalStore,
    Metered,
    S3Store,
    cache_control,
    content_type,
    folder_of,
    open_store,
)
from tests.services import S3Server
from tests.services import s3_server as s3_server_in

UNICODE_KEY = "店/直播 録画/Überraschung ½.m4s"


# --- the folder alone -------------------------------------------------------------------------------------------------


def test_symbolic_links_are_never_followed(local_store: LocalStore, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"secret")
    local_store.put_bytes("a/b", b"1")
    (local_store.root / "a" / "folder").symlink_to(outside)
    (local_store.root / "a" / "file").symlink_to(outside / "secret")
    (local_store.root / "loop").symlink_to(local_store.root / "loop")
    for key in ("a/folder/secret", "a/file", "loop", "loop/x"):
        calls: list[Callable[[], object]] = [
            partial(local_store.get_bytes, key),
            partial(local_store.size, key),
            partial(local_store.local_path, key),
            partial(local_store.put_bytes, key, b"overwritten"),
            partial(local_store.delete, key),
        ]
        for call in calls:
            with pytest.raises(ObjectKeyInvalid, match="symbolic link"):
                call()
    assert list(local_store.list("")) == ["a/b"]
    with pytest.raises(ObjectKeyInvalid):
        local_store.delete_prefix("a/folder/")
    assert local_store.delete_prefix("a/") == 1
    assert (outside / "secret").read_bytes() == b"secret"


def test_a_store_may_itself_be_reached_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    LocalStore(tmp_path / "link").put_bytes("a", b"1")
    assert (tmp_path / "real" / "a").read_bytes() == b"1"


def test_objects_have_the_usual_permissions(local_store: LocalStore) -> None:
    """Other programs (a web server) may read them, as far as the umask allows."""
    before = os.umask(0o022)
    try:
        local_store.put_bytes("a/b", b"1")
    finally:
        os.umask(before)
    path = local_store.local_path("a/b")
    assert path is not None
    assert path.stat().st_mode & 0o777 == 0o644


def test_an_object_in_the_way_of_a_folder(local_store: LocalStore) -> None:
    local_store.put_bytes("a", b"1")
    local_store.put_bytes("b/c", b"1")
    for key in ("a/b", "b"):
        with pytest.raises(ObjectKeyInvalid, match="in its way"):
            local_store.put_bytes(key, b"2")
    assert list(local_store.list("")) == ["a", "b/c"]


def test_what_a_dead_writer_left_is_removed_after_a_day(local_store: LocalStore) -> None:
    local_store.put_bytes("a", b"1")
    incoming = local_store.root / ".incoming"
    for name, age_seconds in (("old", 2 * 24 * 3600), ("new", 60)):
        (incoming / name).write_bytes(b"part")
        os.utime(incoming / name, (time.time() - age_seconds,) * 2)
    LocalStore(local_store.root)
    assert [path.name for path in incoming.iterdir()] == ["new"]


def test_a_read_only_store_is_unavailable(local_store: LocalStore, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ConfigurationError, match="not a folder"):
        LocalStore(tmp_path / "file")
    local_store.root.mkdir()
    (local_store.root / ".incoming").write_bytes(b"somebody's file")
    with pytest.raises(StorageUnavailable):
        local_store.put_bytes("a", b"1")


# --- S3 alone ---------------------------------------------------------------------------------------------------------


def test_links_read_the_object_and_name_its_kind(s3_store: S3Store) -> None:
    s3_store.put_bytes("r/ä b/master.m3u8", b"#EXTM3U")
    link = s3_store.read_url("r/ä b/master.m3u8", 60)
    assert link is not None
    answer = httpx.get(link, timeout=10)
    assert answer.content == b"#EXTM3U"
    assert answer.headers["Content-Type"] == "application/vnd.apple.mpegurl"
    assert httpx.get(link.replace("X-Amz-Signature=", "X-Amz-Signature=0"), timeout=10).status_code == 403


def test_a_folder_has_no_links_and_a_bucket_no_paths(local_store: LocalStore, s3_store: S3Store) -> None:
    for store in (local_store, s3_store):
        store.put_bytes("a/b", b"1")
    path = local_store.local_path("a/b")
    assert path is not None
    assert path.read_bytes() == b"1"
    assert local_store.read_url("a/b", 60) is None
    assert s3_store.local_path("a/b") is None


def test_stores_with_other_prefixes_do_not_meet(s3_server: S3Server) -> None:
    one, other, whole = (open_store(s3_server.settings("prefixes", prefix)) for prefix in ("one", "one/other", ""))
    one.put_bytes("a", b"1")
    other.put_bytes("a", b"2")
    assert one.get_bytes("a") == b"1"
    assert list(one.list("")) == ["a", "other/a"]
    assert list(whole.list("")) == ["one/a", "one/other/a"]
    assert other.delete_prefix("a/") == 0
    assert whole.delete_prefix("one/other/") == 1
    assert list(one.list("")) == ["a"]


def test_a_server_that_goes_away_is_a_passing_fault_soon_told(tmp_path: Path) -> None:
    with s3_server_in(tmp_path) as server:
        store = open_store(server.settings("gone"))
        store.put_bytes("a", bytes(40_000_000))
        stream = store.open("a")
        assert stream.read(1) == b"\0"
        server.kill()
        began = time.monotonic()
        with pytest.raises(StorageUnavailable):
            stream.read()
        with pytest.raises(StorageUnavailable) as told:
            store.put_bytes("b", b"1")
        assert told.value.retryable
        with pytest.raises(StorageUnavailable):
            list(store.list(""))
        assert time.monotonic() - began < 40


@pytest.mark.parametrize(
    ("change", "setting"),
    [
        ({"s3_secret_key": SecretStr("wrong")}, "AFTERLIVE_STORAGE_S3_SECRET_KEY"),
        ({"s3_access_key": SecretStr("wrong")}, "AFTERLIVE_STORAGE_S3_ACCESS_KEY"),
        ({"s3_secret_key": None}, "AFTERLIVE_STORAGE_S3_SECRET_KEY"),
        ({"url": "s3://no-such-bucket"}, "AFTERLIVE_STORAGE_URL"),
        ({"url": "s3://Not_A_Bucket!"}, "AFTERLIVE_STORAGE_URL"),
        ({"s3_endpoint": "not a url"}, "AFTERLIVE_STORAGE_S3_ENDPOINT"),
    ],
)
def test_a_wrong_setting_is_named(s3_server: S3Server, change: dict[str, object], setting: str) -> None:
    store = open_store(s3_server.settings("settings").model_copy(update=change))
    with pytest.raises(ConfigurationError, match=setting):
        store.put_bytes("a", b"1")


# --- which store --------------------------------------------------------------------------------------------------


def test_the_url_chooses_the_store(tmp_path: Path) -> None:
    for url in (f"file:{tmp_path}/a b", f"file://{tmp_path}/a%20b"):
        store = open_store(StorageSettings(_env_file=None, url=url))
        assert folder_of(store) == tmp_path.resolve() / "a b"
    made = open_store(StorageSettings(_env_file=None, url="s3://bucket/some/prefix/"))
    assert isinstance(made, Metered)
    assert folder_of(made) is None
    bucket = made.inner
    assert isinstance(bucket, S3Store)
    assert (bucket.bucket, bucket.prefix) == ("bucket", "some/prefix/")
    for url in ("", "file:", "/srv/store", "s3:bucket", "s3://", "ftp://host/x", "s3://bucket?x=1"):
        with pytest.raises(ConfigurationError, match="AFTERLIVE_STORAGE_URL"):
            open_store(StorageSettings(_env_file=None, url=url))


def test_a_folder_needs_no_boto3() -> None:
    """It takes most of a second to import; `afterlive replay` must not wait for it."""
    code = "import sys, control.storage; sys.exit('boto3' in sys.modules or 'botocore' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


def test_content_types_and_lifetimes() -> None:
    assert content_type("r/1/720p/seg-00001.m4s") == content_type("r/1/720p/INIT.MP4") == "video/mp4"
    assert content_type("r/1/storyboard.vtt") == "text/vtt; charset=utf-8"
    assert content_type("README") == "application/octet-stream"
    assert "immutable" in cache_control("r/1/720p/seg-00001.m4s")
    for growing in ("master.m3u8", "replay.json", "storyboard.vtt"):
        assert cache_control(growing) == "no-cache"
