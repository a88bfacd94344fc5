"""Real servers for tests, each private to the run: on a free port of the loopback interface, in a folder of its own."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr

from control.settings import StorageSettings
from control.storage.s3_client import connect

_START_SECONDS = 20
_STOP_SECONDS = 10


def free_port() -> int:
    """A TCP port of the loopback interface nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


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
