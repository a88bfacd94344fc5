"""`afterlive replay SOURCE --out DIR`: one recording → one replay, no server."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Final

import click

from control.bus.embedded import Embedded
from control.cli.logs import quiet_logs
from control.cli.private import only_one
from control.cli.progress import clock, showing
from control.errors import AfterliveError, Cancelled, Conflict
from control.ledger import commits, streams, views
from control.ledger.views import ReplayView
from control.recordings import check_recording_file, resolve_recording
from control.settings import LedgerSettings, MediaSettings, Settings, StorageSettings

PRIVATE: Final = ".afterlive"
_STREAM: Final = "replay"
_ENDS: Final = ("completed", "failed")
_LOOK_EVERY_SECONDS: Final = 2.0  # each chunk tells of its progress every four, in turn; the end is seen at once
_HEED_EVERY_SECONDS: Final = 0.25


class ReplayFailed(AfterliveError):
    """{detail}"""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail=detail)
        self.code = code  # type: ignore[misc]  # the replay's own code is what the shell should see


@click.command()
@click.argument("source")
@click.option("--out", required=True, type=click.Path(path_type=Path, file_okay=False), help="Folder for the replay.")
@click.option("--json", "as_json", is_flag=True, help="Print replay.json when done, nothing else.")
@click.option("--ladder", type=click.Path(path_type=Path, dir_okay=False), help="A ladder file (TOML) of your own.")
@click.option("--preset", help="x264 preset.  [default: AFTERLIVE_MEDIA_PRESET or veryfast]")
@click.option("--jobs", type=click.IntRange(1), help="Chunks at a time.  [default: one a core]")
@click.option("--loudness", type=click.FloatRange(-40, -5), help="Bring the sound to this loudness, in LUFS.")
@click.option("--force", is_flag=True, help="Replace what is in the folder.")
@click.option("--verbose", "-v", is_flag=True, help="A log line for each step.")
def replay(
    source: str,
    out: Path,
    as_json: bool,
    ladder: Path | None,
    preset: str | None,
    jobs: int | None,
    loudness: float | None,
    force: bool,
    verbose: bool,
) -> None:
    """Make the replay of one recording SOURCE in the folder --out.

    The folder gets master.m3u8 and all it needs once everything is done and checked. Ctrl-C gives up and leaves
    nothing behind; killed in any other way, the same command goes on where it stopped.
    """
    quiet_logs(logging.INFO if verbose else logging.ERROR)
    changes: dict[str, object] = {"ladder": ladder, "preset": preset, "concurrency": jobs, "normalise_lufs": loudness}
    settings = _settings(source, out, {key: value for key, value in changes.items() if value is not None})
    recording = str(resolve_recording(source, settings.media.recording_roots))
    check_recording_file(Path(recording), settings.media)
    private = out / PRIVATE
    _make_room(out, force)
    with only_one(private, "afterlive replay"):
        _forget_other_work(private, _fingerprint(Path(recording), settings.media))
        started = time.monotonic()
        try:
            view = _make(settings, recording, Path(source).name)
        except Cancelled:
            _leave_nothing(out)
            raise
        if view.problem:
            _leave_nothing(out)
            raise ReplayFailed(view.problem.code, view.problem.detail)
        _hand_over(private / "store" / view.prefix, out)
        shutil.rmtree(private)
    _tell(out, view, time.monotonic() - started, as_json)


def _settings(source: str, out: Path, changes: dict[str, object]) -> Settings:
    base = Settings()
    private = out.resolve() / PRIVATE
    # Only the recording's own folder may be read.
    media = base.media.model_copy(update={**changes, "recording_roots": [Path(source).expanduser().absolute().parent]})
    return base.model_copy(
        update={
            # Only what somebody chose: devices are tried where they are named, and not because they have a default.
            "media": MediaSettings.model_validate(media.model_dump(exclude_unset=True)),
            "ledger": LedgerSettings(url=f"sqlite:///{private / 'ledger.sqlite'}"),
            "storage": StorageSettings(url=f"file:{private / 'store'}"),
        }
    )


def _make_room(out: Path, force: bool) -> None:
    if out.is_dir() and not (out / PRIVATE).is_dir() and any(out.iterdir()):
        if not force:
            raise Conflict(reason=f"The folder {out} is not empty; --force replaces what is in it.")
        shutil.rmtree(out)
    out.mkdir(parents=True, exist_ok=True)


def _fingerprint(recording: Path, media: MediaSettings) -> str:
    """What the work depends on: of another recording, or other settings, nothing may be taken over."""
    found = recording.stat()
    # Another version of this program may have other tables, and make other files.
    facts = [
        version("afterlive"),
        str(recording),
        found.st_size,
        found.st_mtime_ns,
        media.preset,
        media.normalise_lufs,
        media.chunk_seconds,
        media.content_aware,
    ]
    facts.append(media.ladder.read_text(encoding="utf-8") if media.ladder and media.ladder.is_file() else None)
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _forget_other_work(private: Path, fingerprint: str) -> None:
    mark = private / "work"
    if not mark.is_file() or mark.read_text(encoding="ascii") != fingerprint:
        for path in private.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name != "lock":
                path.unlink()
        mark.write_text(fingerprint, encoding="ascii")


def _make(settings: Settings, recording: str, title: str) -> ReplayView:
    with _interrupts() as interrupted, Embedded(settings, own_ledger=True) as workers:
        with workers.ledger.write() as session:
            streams.create(session, title=title, stream_id=_STREAM)
            made = streams.end(session, _STREAM, recording=recording)
            if made.state in ("failed", "cancelled"):  # the process ended right after; the same command tries again
                streams.retry(session, _STREAM)
        with _news() as news, showing(title) as show:
            while True:
                view = _look(workers)
                show(view)
                if view.state in _ENDS:
                    return view
                if interrupted and _cancel(workers):
                    raise Cancelled(key=title)
                _wait(workers, news, interrupted)


def _wait(workers: Embedded, news: threading.Event, interrupted: list[int]) -> None:
    """Until it is time to look, or something is over. A look is dear beside what encodes, the state alone is not."""
    until = time.monotonic() + _LOOK_EVERY_SECONDS
    while not interrupted and (left := until - time.monotonic()) > 0:
        if not news.wait(min(left, _HEED_EVERY_SECONDS)):
            continue  # a signal does not end the wait
        news.clear()
        with workers.ledger.read() as session:
            if views.replay_state(session, _STREAM) in _ENDS:
                return


def _cancel(workers: Embedded) -> bool:
    """False where it was over already."""
    try:
        with workers.ledger.write() as session:
            streams.cancel(session, _STREAM)
    except Conflict:
        return False
    return True


def _look(workers: Embedded) -> ReplayView:
    with workers.ledger.read() as session:
        view = views.snapshot(session, _STREAM).replay
    if view is None:
        raise RuntimeError("the stream lost its replay")
    return view


@contextmanager
def _news() -> Iterator[threading.Event]:
    """Set whenever something happened."""
    happened = threading.Event()
    forget = commits.on_news(happened.set)
    try:
        yield happened
    finally:
        forget()


@contextmanager
def _interrupts() -> Iterator[list[int]]:
    """A list that is filled when somebody wants to stop."""
    seen: list[int] = []
    caught = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, lambda got, _: seen.append(got)) for number in caught}
    try:
        yield seen
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _leave_nothing(out: Path) -> None:
    shutil.rmtree(out / PRIVATE)
    if not any(out.iterdir()):
        out.rmdir()


def _hand_over(finished: Path, out: Path) -> None:
    """Move what was made into the folder, the master playlist last: where it is, all is."""
    for path in sorted(finished.iterdir(), key=lambda path: path.name == "master.m3u8"):
        if (out / path.name).is_dir():
            shutil.rmtree(out / path.name)  # of other work, that ended right here
        path.replace(out / path.name)


def _tell(out: Path, view: ReplayView, seconds: float, as_json: bool) -> None:
    summary = json.loads((out / "replay.json").read_text(encoding="utf-8"))
    if as_json:
        json.dump(summary, sys.stdout, indent=2, ensure_ascii=False)
        sys.stdout.write("\n")
        return
    length = summary["source"]["duration_seconds"]
    click.echo(f"{out / 'master.m3u8'}: {clock(length)} in {seconds:.1f} s, {length / seconds:.2f} × realtime")
    for rung in summary["rungs"]:
        average, peak = rung["average_bps"] / 1000, rung["peak_bps"] / 1000
        click.echo(f"  {rung['name']:>6}  {rung['frames']} frames, {average:.0f} kbit/s on average, {peak:.0f} at most")
    for note in view.notes:
        click.echo(f"  note: {note.detail}")
