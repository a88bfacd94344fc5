"""Real servers for tests, each private to the run: on a free port of the loopback interface, in a folder of its own."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
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
_SERVERS = ("rclone", "postgres", "rabbitmq", "beam", "erl", "epmd", "inet_gethost", "redis")


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


@dataclass(frozen=True)
class S3Server:
    """A running S3 server. Its buckets are folders of `folder`."""

    port: int
    folder: Path
    process: subprocess.Popen[bytes]
    access_key: str = "afterlive"
    secret_key: str = "only-for-tests"

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
def s3_server(folder: Path) -> Iterator[S3Server]:
    """Run rclone's S3 server over `folder/buckets` until the block ends."""
    buckets = folder / "buckets"
    buckets.mkdir(parents=True)
    port = free_port()
    command = [str(tool("rclone")), "serve", "s3", str(buckets), "--addr", f"127.0.0.1:{port}", "--config", ""]
    command += ["--auth-key", f"{S3Server.access_key},{S3Server.secret_key}"]
    log = folder / "rclone.log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, stdin=subprocess.DEVNULL)
    try:
        _await_port(process, port, log)
        yield S3Server(port=port, folder=buckets, process=process)
    finally:
        stop(process)


@dataclass(frozen=True)
class PostgresqlServer:
    """A running PostgreSQL server without passwords."""

    port: int

    def database(self) -> str:
        """The SQLAlchemy URL of a new, empty database."""
        name = f"d{uuid.uuid4().hex[:12]}"
        with psycopg.connect(_address(self.port), autocommit=True) as made:
            made.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        return f"postgresql+psycopg://afterlive@127.0.0.1:{self.port}/{name}"


@contextmanager
def postgresql_server(folder: Path) -> Iterator[PostgresqlServer]:
    """Run PostgreSQL with its data in `folder` until the block ends."""
    found = system.find(system.NEEDS["postgresql"])
    assert found, "no PostgreSQL on this machine: run python -m tests.house.system postgresql"
    initdb, data, log, port = Path(found), folder / "data", folder / "postgresql.log", free_port()
    as_user: list[str] = []
    if os.geteuid() == 0:  # which PostgreSQL refuses to run as
        as_user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", "--"]
        _let_in(folder)
        shutil.chown(folder, "postgres", "postgres")
    options = ["--auth=trust", "--username=afterlive", "--no-sync", "--encoding=UTF8", "--locale=C.UTF-8"]
    subprocess.run([*as_user, str(initdb), "-D", str(data), *options], check=True, capture_output=True, cwd="/")
    server = [str(initdb.with_name("postgres")), "-D", str(data), "-p", str(port)]
    server += ["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="]
    with log.open("wb") as output:
        process = subprocess.Popen([*as_user, *server], stdout=output, stderr=output, stdin=subprocess.DEVNULL, cwd="/")
    try:
        _await_port(process, port, log)
        _await_postgresql(port)
        yield PostgresqlServer(port)
    finally:
        process.send_signal(signal.SIGINT)  # its fast shutdown
        stop(process)


def _let_in(folder: Path) -> None:
    """Let other users pass to `folder`: pytest keeps its folders to one user."""
    for parent in folder.parents:
        if parent.stat().st_uid == os.geteuid() and not parent.stat().st_mode & 0o001:
            parent.chmod(parent.stat().st_mode | 0o011)


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
    found = psutil.Process().children(recursive=True)
    return [process for process in found if not any(name in process.name() for name in _SERVERS)]


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a child: politely, then not."""
    if process.poll() is None:
        process.terminate()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _await_port(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
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
