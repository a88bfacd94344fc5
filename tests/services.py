"""Real servers for tests, each private to the run: on a free port of the loopback interface, in a folder of its own."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import psycopg
from psycopg import sql
from pydantic import SecretStr

from control.settings import StorageSettings
from control.storage.s3_client import connect
from tests.house import system

_START_SECONDS = 20
_STOP_SECONDS = 10
_SERVERS = ("rclone", "postgres", "rabbitmq", "beam", "epmd", "redis")


def free_port() -> int:
    """A TCP port of the loopback interface, kept for the caller: for a minute no one else is given it.

    The server's end of a connection closes first, and the kernel then holds the port (TIME_WAIT): not to be had by
    asking for any port, but by a server that names it (SO_REUSEADDR, which all set). Without that, two test processes
    were given the same port within a second.
    """
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("127.0.0.1", 0))
        server.listen(1)
        port = int(server.getsockname()[1])
        with socket.create_connection(("127.0.0.1", port)), server.accept()[0]:
            return port


def tool(name: str) -> Path:
    """An executable of this environment (`.venv/bin`)."""
    path = Path(sys.executable).parent / name
    assert path.is_file(), f"{path} is missing: run 'make setup'"
    return path


@dataclass
class S3Server:
    """An S3 server that can be killed and restarted. Its buckets are folders of `folder`."""

    port: int
    folder: Path
    log: Path
    process: subprocess.Popen[bytes] | None = None
    access_key: str = "afterlive"
    secret_key: str = "only-for-tests"
    prefix: Sequence[str] = ()
    """What it is started by."""

    def start(self) -> None:
        """Returns once it takes connections."""
        command = [
            *self.prefix,
            str(tool("rclone")),
            "serve",
            "s3",
            str(self.folder),
            "--addr",
            f"127.0.0.1:{self.port}",
        ]
        command += ["--config", "", "--auth-key", f"{self.access_key},{self.secret_key}"]
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(command, stdout=output, stderr=output, stdin=subprocess.DEVNULL)
        await_port(self.process, self.port, self.log)

    def kill(self) -> None:
        """kill -9."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def settings(self, bucket: str, prefix: str = "") -> StorageSettings:
        """Settings of a store in `bucket`, which is made where it is missing."""
        made = StorageSettings(
            _env_file=None,
            url=f"s3://{bucket}/{prefix}",
            s3_endpoint=f"http://127.0.0.1:{self.port}",
            s3_access_key=SecretStr(self.access_key),
            s3_secret_key=SecretStr(self.secret_key),
        )
        if not (self.folder / bucket).exists():
            connect(made).create_bucket(Bucket=bucket)
        return made


@contextmanager
def s3_server(folder: Path, prefix: Sequence[str] = ()) -> Iterator[S3Server]:
    """Run rclone's S3 server over `folder/buckets` until the block ends."""
    buckets = folder / "buckets"
    buckets.mkdir(parents=True)
    made = S3Server(free_port(), buckets, folder / "rclone.log", prefix=prefix)
    try:
        made.start()
        yield made
    finally:
        if made.process is not None:
            stop(made.process)


@dataclass
class PostgresqlServer:
    """A PostgreSQL server without passwords that can be killed and restarted."""

    port: int
    folder: Path
    """Of its data."""
    log: Path
    durable: bool = False
    """Whether a commit waits for the disk. What it wrote outlives any kill of it either way, only not the machine."""
    process: subprocess.Popen[bytes] | None = None
    _migrated: str = ""

    def prepare(self) -> None:
        """Make the files of an empty server."""
        if self._as_user:
            shutil.chown(self.folder, "postgres", "postgres")
        options = ["--auth=trust", "--username=afterlive", "--no-sync", "--encoding=UTF8", "--locale=C.UTF-8"]
        command = [*self._as_user, str(self._program("initdb")), "-D", str(self._data), *options]
        subprocess.run(command, check=True, capture_output=True, cwd="/")

    def start(self) -> None:
        """Returns once it answers. Its data is what was committed when it ended."""
        server = [str(self._program("postgres")), "-D", str(self._data), "-p", str(self.port)]
        server += ["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="]
        if not self.durable:
            server += ["-c", "fsync=off"]
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                [*self._as_user, *server], stdout=output, stderr=output, stdin=subprocess.DEVNULL, cwd="/"
            )
        await_port(self.process, self.port, self.log)
        _await_postgresql(self.port)

    def kill(self) -> None:
        """kill -9 of the server and all its processes, so that nothing of it is left when this returns."""
        assert self.process is not None
        parent = psutil.Process(self.process.pid)
        everything = [parent, *parent.children(recursive=True)]
        for process in everything:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.wait()
        psutil.wait_procs(everything, timeout=_STOP_SECONDS)

    def stop(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGQUIT)  # at once: its data is not needed again
            stop(self.process)

    def database(self) -> str:
        """The SQLAlchemy URL of a new, empty database."""
        name = f"d{uuid.uuid4().hex[:12]}"
        with psycopg.connect(_address(self.port), autocommit=True) as made:
            made.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        return f"postgresql+psycopg://afterlive@127.0.0.1:{self.port}/{name}"

    def migrated(self) -> str:
        """As `database`, with the newest schema: a copy of one that was migrated once."""
        from control.ledger.engine import Ledger  # most of what uses this module needs none of it

        with psycopg.connect(_address(self.port), autocommit=True) as made:
            if not self._migrated:
                self._migrated = self.database()
                ledger = Ledger(self._migrated)
                ledger.upgrade()
                ledger.close()
            name = f"d{uuid.uuid4().hex[:12]}"
            template = sql.Identifier(self._migrated.rpartition("/")[2])
            made.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), template))
        return f"{self._migrated.rpartition('/')[0]}/{name}"

    @property
    def _data(self) -> Path:
        return self.folder / "data"

    @property
    def _as_user(self) -> list[str]:
        if os.geteuid() != 0:
            return []
        # PostgreSQL refuses to run as root.
        return ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", "--"]

    def _program(self, name: str) -> Path:
        found = system.find(system.NEEDS["postgresql"])
        assert found, "no PostgreSQL on this machine: run python -m tests.house.system postgresql"
        return Path(found).with_name(name)


@contextmanager
def postgresql_server(folder: Path, *, durable: bool = False) -> Iterator[PostgresqlServer]:
    """Run PostgreSQL until the block ends. Its log is in `folder`, and so is its data, but where root starts it: each
    start of pytest, by anybody, shuts pytest's folders to other users, and the server would end at its next look."""
    as_root = os.geteuid() == 0
    data = Path(tempfile.mkdtemp(prefix="afterlive-postgresql-")) if as_root else folder
    made = PostgresqlServer(free_port(), data, folder / "postgresql.log", durable)
    try:
        made.prepare()
        made.start()
        yield made
    finally:
        made.stop()
        if as_root:
            shutil.rmtree(data, ignore_errors=True)


def _address(port: int) -> str:
    return f"host=127.0.0.1 port={port} user=afterlive dbname=postgres"


def _await_postgresql(port: int) -> None:
    give_up = time.monotonic() + _START_SECONDS
    while True:
        try:
            psycopg.connect(_address(port)).close()
        except psycopg.OperationalError:
            assert time.monotonic() < give_up, "PostgreSQL does not answer"
            time.sleep(0.05)
        else:
            return


def children() -> list[psutil.Process]:
    """What this process started and still runs, but for the servers tests share."""
    found: list[psutil.Process] = []
    for child in psutil.Process().children():
        if not any(name in child.name() for name in _SERVERS):  # what those start is theirs, whatever its name
            found += [child, *child.children(recursive=True)]
    return found


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a child: politely, then not."""
    if process.poll() is None:
        process.terminate()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def await_port(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    give_up = time.monotonic() + _START_SECONDS
    while time.monotonic() < give_up:
        if process.poll() is not None:
            break
        with socket.socket() as probe:
            probe.settimeout(0.5)
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise AssertionError(f"the server did not start on port {port}:\n{log.read_text(errors='replace')}")
