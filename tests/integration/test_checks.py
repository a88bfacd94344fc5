"""Each check of the doctor, on things that work and on things that do not."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterable
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import NamedTuple

import pytest
from pydantic import SecretStr

import control.checks
import media_worker.checks
from control.checks import Check, Status, own, run_checks
from control.ledger.engine import Ledger
from control.settings import Settings
from control.web import pages
from media_worker.ffmpeg import ffmpeg_path
from tests.brokers import RabbitMQ
from tests.services import S3Server, free_port

SECRET = "never-shown"


def found(checks: Iterable[Check]) -> dict[str, Check]:
    made = {check.name: check for check in checks}
    assert all(check.remedy for check in made.values() if check.status in (Status.WARN, Status.FAIL))
    assert all("\n" not in f"{check.name}{check.detail}{check.remedy}" for check in made.values())
    assert SECRET not in repr(made)
    return made


def test_a_fresh_machine_is_well(settings: Settings) -> None:
    checks = found(run_checks(settings))
    assert {check.name for check in checks.values() if check.status is Status.FAIL} == set()
    for name in ("database", "object store", "broker", "ffmpeg", "encoder libx264", "encoder aac", "decoders", "HDR"):
        assert checks[name].status is Status.OK, checks[name]
    assert not Path(settings.ledger.url.removeprefix("sqlite:///")).exists(), "looking must not make a database"


def test_a_machine_in_use_is_well(settings: Settings, ledger: Ledger) -> None:
    store = Path(settings.storage.url.removeprefix("file:"))
    store.mkdir()
    checks = found(own.checks(settings))
    assert "up to date" in checks["database"].detail
    assert "wrote, read, listed and deleted" in checks["object store"].detail
    assert [path for path in store.rglob("*") if path.is_file()] == []


# --- database ---------------------------------------------------------------------------------------------------------


def test_a_database_without_the_newest_schema(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "ledger.sqlite").touch()
    assert found(own.checks(settings))["database"].status is Status.WARN


@pytest.mark.parametrize("url", ["sqlite:////proc/version/x.sqlite", "nonsense", "sqlite:////proc/version"])
def test_a_database_that_cannot_be_used(settings: Settings, url: str) -> None:
    settings.ledger.url = url
    database = found(own.checks(settings))["database"]
    assert database.status is Status.FAIL
    assert "AFTERLIVE_DATABASE_URL" in (database.remedy or "")


# --- object store -----------------------------------------------------------------------------------------------------


def test_a_bucket_is_written_and_read(settings: Settings, s3_server: S3Server) -> None:
    settings.storage = s3_server.settings("doctor")
    assert found(own.checks(settings))["object store"].status is Status.OK
    assert list((s3_server.folder / "doctor").rglob("*.txt")) == []


def test_a_bucket_that_is_not_there(settings: Settings, s3_server: S3Server) -> None:
    settings.storage = s3_server.settings("doctor").model_copy(update={"url": "s3://no-such-bucket"})
    check = found(own.checks(settings))["object store"]
    assert check.status is Status.FAIL
    assert "AFTERLIVE_STORAGE_URL" in check.detail


def test_a_store_that_cannot_be_reached(settings: Settings, s3_server: S3Server) -> None:
    settings.storage = s3_server.settings("doctor").model_copy(
        update={"s3_endpoint": f"http://127.0.0.1:{free_port()}", "s3_secret_key": SecretStr(SECRET)}
    )
    began = time.monotonic()
    assert found(own.checks(settings))["object store"].status is Status.FAIL
    assert time.monotonic() - began < 30


def test_a_store_in_the_way_of_a_file(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "store").write_bytes(b"")
    assert found(own.checks(settings))["object store"].status is Status.FAIL
    settings.storage.url = "ftp://x"
    assert found(own.checks(settings))["object store"].status is Status.FAIL


# --- broker and results -----------------------------------------------------------------------------------------------


def test_servers_that_cannot_be_reached(settings: Settings) -> None:
    """No broker, no work; no result backend, no harm: the ledger is the truth. Passwords are not shown."""
    settings.bus.broker_url = SecretStr(f"amqp://user:{SECRET}@127.0.0.1:{free_port()}//")
    settings.bus.result_backend = SecretStr(f"redis://:{SECRET}@127.0.0.1:{free_port()}/0")
    began = time.monotonic()
    checks = found(own.checks(settings))
    assert checks["broker"].status is Status.FAIL
    assert "127.0.0.1" in checks["broker"].detail
    assert checks["results"].status is Status.WARN
    assert time.monotonic() - began < 30


def test_a_broker_without_queues_is_told_from_one_with_them(settings: Settings, rabbitmq: RabbitMQ) -> None:
    for topology, status in ((False, Status.WARN), (True, Status.OK)):
        url = rabbitmq.vhost(topology=topology)
        settings.bus.broker_url = SecretStr(url)
        check = found(own.checks(settings))["broker"]
        assert check.status is status
        assert ("high_priority" in check.detail) is not topology
        rabbitmq.forget(url)


@pytest.mark.parametrize("url", ["nonsense://host", "amqp://host:not-a-port/"])
def test_a_broker_url_that_cannot_be_used(settings: Settings, url: str) -> None:
    settings.bus.broker_url = SecretStr(url)
    assert found(own.checks(settings))["broker"].status is Status.FAIL


# --- disk, page, keys -------------------------------------------------------------------------------------------------


class _Usage(NamedTuple):
    total: int
    used: int
    free: int


@pytest.mark.parametrize(("free_gib", "status"), [(0.5, Status.FAIL), (5, Status.WARN), (50, Status.OK)])
def test_a_full_disk(settings: Settings, monkeypatch: pytest.MonkeyPatch, free_gib: float, status: Status) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: _Usage(0, 0, int(free_gib * 1024**3)))
    checks = found(own.checks(settings))
    assert {checks[f"disk ({name})"].status for name in ("scratch", "store", "database")} == {status}


def test_the_page_without_its_library(settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert own.HLS_JS == pages.HLS_JS / "hls.min.js"
    monkeypatch.setattr(own, "HLS_JS", tmp_path / "hls.min.js")
    assert found(own.checks(settings))["player page"].status is Status.WARN
    (tmp_path / "hls.min.js").touch()
    assert found(own.checks(settings))["player page"].status is Status.OK


def test_keys(settings: Settings) -> None:
    assert found(own.checks(settings))["API keys"].status is Status.WARN, "the one of the tests is short"
    settings.api.keys = [SecretStr("k" * 32)]
    assert found(own.checks(settings))["API keys"].status is Status.OK
    settings.api.signing_secret = None
    assert found(own.checks(settings))["API keys"].status is Status.WARN
    settings.api.keys = []
    assert found(own.checks(settings))["API keys"].status is Status.INFO


# --- ffmpeg -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def fake_ffmpeg(settings: Settings, tmp_path: Path) -> Callable[[str], dict[str, Check]]:
    """Checks with an ffmpeg that runs `body` (of a shell script) first and then the real one."""
    real = ffmpeg_path(settings.media)

    def check(body: str) -> dict[str, Check]:
        script = tmp_path / "ffmpeg"
        script.write_text(f'#!/bin/sh\n{body}\nexec "{real}" "$@"\n')
        script.chmod(0o755)
        settings.media.ffmpeg = str(script)
        return found(media_worker.checks.checks(settings))

    return check


def test_no_ffmpeg(settings: Settings) -> None:
    settings.media.ffmpeg = "/nowhere/ffmpeg"
    checks = found(media_worker.checks.checks(settings))
    assert checks["ffmpeg"].status is Status.FAIL
    assert "AFTERLIVE_MEDIA_FFMPEG" in checks["ffmpeg"].detail
    assert checks["scratch folder"].status is Status.OK, "one failure hides no other check"


def test_an_encoder_that_is_there_and_does_not_work(fake_ffmpeg: Callable[[str], dict[str, Check]]) -> None:
    checks = fake_ffmpeg('case "$*" in *libx264*) echo "Cannot load libcuda.so.1" >&2; exit 1;; esac')
    assert checks["encoder libx264"].status is Status.FAIL
    assert "Cannot load libcuda.so.1" in checks["encoder libx264"].detail
    assert checks["encoder aac"].status is Status.OK


def test_an_encoder_that_hangs(fake_ffmpeg: Callable[[str], dict[str, Check]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(media_worker.checks, "_PROBE_SECONDS", 2)
    checks = fake_ffmpeg('case "$*" in *libx264*) exec sleep 60;; esac')
    assert "not done within 2 s" in checks["encoder libx264"].detail


def test_an_encoder_with_keyframes_elsewhere(fake_ffmpeg: Callable[[str], dict[str, Check]]) -> None:
    checks = fake_ffmpeg(
        'case "$*" in *libx264*) for a; do shift; [ "$a" = 30 ] && a=20; set -- "$@" "$a"; done;; esac'
    )
    assert checks["encoder libx264"].status is Status.FAIL
    assert "[0, 20, 40] of 60" in checks["encoder libx264"].detail


def test_missing_decoders_and_filters(fake_ffmpeg: Callable[[str], dict[str, Check]]) -> None:
    listing = r"case \"$*\" in *-decoders) echo ' V....D h264 x'; echo ' A....D aac x'; exit;; *-filters) exit;; esac"
    checks = fake_ffmpeg(listing.replace(r"\"", '"'))
    assert checks["decoder VP9"].status is Status.WARN
    assert "not in ffmpeg:" in checks["decoder VP9"].detail
    assert "decoder H.264" not in checks
    assert checks["HDR"].status is Status.WARN
    assert fake_ffmpeg('case "$*" in *-decoders) exit;; esac')["decoder H.264"].status is Status.FAIL


def test_an_old_ffmpeg(fake_ffmpeg: Callable[[str], dict[str, Check]]) -> None:
    checks = fake_ffmpeg('case "$*" in *-version) echo "ffmpeg version 4.4.2-0ubuntu Copyright"; exit;; esac')
    assert checks["ffmpeg"].status is Status.WARN


def test_a_scratch_folder_that_cannot_be_written_to(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    settings.media.scratch = tmp_path / "file" / "scratch"
    assert found(media_worker.checks.checks(settings))["scratch folder"].status is Status.FAIL


# --- where checks come from -------------------------------------------------------------------------------------------


def broken_checks(_settings: Settings) -> Iterable[Check]:
    """Checks of a tier with a fault of its own."""
    yield control.checks.ok("first", "fine")
    raise RuntimeError("second")


def test_broken_checks_are_a_finding(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    group = control.checks.GROUP
    entries = [
        EntryPoint("absent", "no_such_package.checks:checks", group),
        EntryPoint("broken", f"{__name__}:broken_checks", group),
        EntryPoint("control", "control.checks.own:checks", group),
    ]
    monkeypatch.setattr(control.checks, "entry_points", lambda **_: entries)
    checks = found(run_checks(settings))
    assert checks["first"].status is Status.OK
    assert checks["checks of broken"].detail == "RuntimeError: second"
    assert "afterlive[absent]" in (checks["checks of absent"].remedy or "")
    assert "database" in checks
