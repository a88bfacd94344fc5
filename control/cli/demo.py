"""`afterlive demo`: the main job on one machine, through the HTTP API, from a stream's end to a replay that plays."""

from __future__ import annotations

import importlib
import json
import logging
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import click
import httpx

from control.cli import demo_shop
from control.cli.logs import quiet_logs
from control.cli.private import complete
from control.cli.progress import clock, showing
from control.cli.serve import Server, embedded_api
from control.errors import AfterliveError, NotFound
from control.ledger.views import ReplayView
from control.settings import ApiSettings, LedgerSettings, Settings, StorageSettings

_SAMPLE: Final = "media_worker.sample"
_VERIFIER: Final = "media_worker.verify"


class DemoFailed(AfterliveError):
    """The demo failed: {reason}."""

    code = "demo-failed"


@click.command()
@click.option("--source", type=click.Path(path_type=Path), help="A recording of your own instead of a sample.")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Port of the API.  [default: a free one]")
@click.option("--exit", "exit_at_end", is_flag=True, help="Fetch the replay back over HTTP, check it, and end.")
def demo(source: Path | None, port: int, exit_at_end: bool) -> None:
    """Show the main job: a stream ends, and its recording becomes a replay that plays in a browser. While it is live,
    somebody logs in with a code by text message, orders and pays, at a gateway where no money moves.

    API and workers run in this process, on SQLite and a temporary folder; nothing is left behind.
    """
    quiet_logs(logging.ERROR)
    with (
        tempfile.TemporaryDirectory(prefix="afterlive-demo-") as folder,
        _served(Path(folder), port) as (settings, url),
    ):
        key = settings.api.keys[0].get_secret_value()
        with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=30) as client:
            _say("API and workers are up", url)
            recording = _recording(source, settings)
            _say("the recording", f"{recording.name}, {recording.stat().st_size / 1e6:.1f} MB")
            stream_id = _call(client, "POST", "/streams", {"title": recording.stem})["id"]
            _buy(client, stream_id, Path(folder) / demo_shop.OUTBOX)
            ended = _call(client, "POST", f"/streams/{stream_id}/end", {"recording": str(recording)})
            _say("the stream ended", f"POST /streams/{stream_id}/end → 202, replay {ended['replay']['id']}")
            final = _follow(client, stream_id)
            if exit_at_end:
                _check(str(final["playback_url"]))
                return
            click.echo(f"\nOpen it in a browser:\n  {final['player_url']}\nCtrl-C ends the demo.")
            _wait()


@contextmanager
def _served(folder: Path, port: int) -> Iterator[tuple[Settings, str]]:
    recordings = folder / "recordings"
    recordings.mkdir()
    base = Settings()
    settings = base.model_copy(
        update={
            "ledger": LedgerSettings(url=f"sqlite:///{folder / 'ledger.sqlite'}"),
            "storage": StorageSettings(url=f"file:{folder / 'store'}"),
            "api": ApiSettings(host="127.0.0.1", port=port or 8000, keys=[], signing_secret=None, public_url=None),
            "media": base.media.model_copy(update={"recording_roots": [recordings]}),
            "notify": demo_shop.notices(base.notify, folder / demo_shop.OUTBOX),
        }
    )
    with (
        demo_shop.gateway() as payment,
        embedded_api(complete(settings.model_copy(update={"payment": payment}), folder)) as (workers, app),
    ):
        server = Server(app, "127.0.0.1", port)
        thread = threading.Thread(target=server.run, name="api", daemon=True)
        thread.start()
        while not server.started:
            if not thread.is_alive():
                raise DemoFailed(reason=f"the API could not listen on port {port}")
            time.sleep(0.01)
        bound = server.servers[0].sockets[0].getsockname()[1]
        try:
            yield workers.settings, f"http://127.0.0.1:{bound}"
        finally:
            server.should_exit = True
            thread.join(10)


def _recording(source: Path | None, settings: Settings) -> Path:
    """The recording, where a media server would have put it."""
    root = settings.media.recording_roots[0]
    if source is None:
        path = root / "sample.mp4"
        importlib.import_module(_SAMPLE).make_sample(path, settings.media)
        return path
    if not source.is_file():
        raise NotFound(noun="file", key=str(source))
    path = root / source.name
    shutil.copyfile(source, path)
    return path


def _buy(client: httpx.Client, stream_id: str, outbox: Path) -> None:
    try:
        demo_shop.buy(client, _call, _say, stream_id, outbox)
    except (httpx.HTTPError, TimeoutError) as error:
        raise DemoFailed(reason=str(error)) from error


def _follow(client: httpx.Client, stream_id: str) -> dict[str, Any]:
    """Show `GET /streams/{id}/events` until the end; the stream as it is then. Raises DemoFailed."""
    started = time.monotonic()
    with (
        showing("making the replay") as show,
        client.stream("GET", f"/streams/{stream_id}/events", timeout=None) as answer,
    ):
        name = ""
        for line in answer.iter_lines():
            field, _, value = line.partition(": ")
            if field == "event":
                name = value
            elif field == "data" and name == "progress":
                show(ReplayView.model_validate(json.loads(value)["replay"]))
            elif field == "data" and name.startswith("replay."):
                _say(name, f"after {time.monotonic() - started:.1f} s")
    final = _call(client, "GET", f"/streams/{stream_id}")
    if problem := final["replay"]["problem"]:
        raise DemoFailed(reason=f"{problem['code']}: {problem['detail']}")
    for note in final["replay"]["notes"]:
        _say("note", note["detail"])
    return final


def _check(master: str) -> None:
    """Fetch the whole replay back, as a player would, decode every frame and check every rule."""
    started = time.monotonic()
    report = importlib.import_module(_VERIFIER).verify(master)
    for finding in report.findings:
        click.echo(f"  {finding.level} {finding.rule} {finding.where}: {finding.message}")
    if not report.ok:
        raise DemoFailed(reason="the replay breaks rules of HLS, see above")
    video = [rendition for rendition in report.renditions if rendition.kind == "video"]
    frames = sum(rendition.decoded_frames or 0 for rendition in video)
    length = clock(max(rendition.duration_seconds for rendition in video))
    _say(
        "fetched back and checked",
        f"{report.rules} rules, {len(video)} rungs, {frames} frames decoded, {length} of replay",
    )
    _say("checked in", f"{time.monotonic() - started:.1f} s")


def _call(client: httpx.Client, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    answer = client.request(method, path, json=body)
    document: dict[str, Any] = answer.json()
    if answer.is_error:
        raise DemoFailed(reason=f"{method} {path}: {document.get('detail', answer.status_code)}")
    return document


def _say(what: str, more: str) -> None:
    click.echo(f"{what + ':':<26}{more}")


def _wait() -> None:
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        click.echo()
