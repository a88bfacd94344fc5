"""The images of docker/Dockerfile, built and run without an engine: buildah in a chroot, on a Debian made from scratch.

Where the Dockerfile says `debian:…-slim` there is the same distribution made by mmdebstrap, as no registry of images
need be reached; packages come from wherever this machine gets them.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).parents[1]
TARGETS = ("control", "notify", "media-cpu", "media-nvidia", "media-vaapi", "flower")
_BASE = "localhost/debian:base"
# What Debian's own slim images leave out.
_SLIM = ("/usr/share/man/*", "/usr/share/locale/*", "/usr/share/doc/*", "/usr/share/info/*")
_OWN_AUTHORITIES = Path("/usr/local/share/ca-certificates")


def why_not() -> str | None:
    """Why images cannot be built here; None where they can."""
    missing = [name for name in ("buildah", "mmdebstrap") if shutil.which(name) is None]
    if missing:
        return f"no {' and no '.join(missing)}: run python -m tests.house.system {' '.join(missing)}"
    return None if os.geteuid() == 0 else "only root builds images here"


@dataclass
class Images:
    """A store of images and containers in a folder of its own."""

    folder: Path
    _containers: list[str] = field(default_factory=list)

    def make_base(self, suite: str = "trixie") -> None:
        """A minimal Debian that trusts the authorities this machine was told to trust."""
        archive = self.folder / "base.tar"
        excluded = [f"--dpkgopt=path-exclude={pattern}" for pattern in _SLIM]
        command = ["mmdebstrap", "--variant=minbase", "--include=ca-certificates", *excluded, suite, str(archive)]
        subprocess.run(command, check=True, capture_output=True)
        name = self.buildah("from", "scratch")
        self.buildah("add", name, str(archive), "/")
        if _OWN_AUTHORITIES.is_dir():
            self.buildah("copy", name, str(_OWN_AUTHORITIES), str(_OWN_AUTHORITIES))
        self.buildah("config", "--env", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", name)
        self.buildah("run", name, "update-ca-certificates")
        self.buildah("commit", name, _BASE)
        self.buildah("rm", name)
        archive.unlink()

    def build(self, target: str) -> None:
        """As `docker build --target` does."""
        secrets = {"pip": Path("/etc/pip.conf"), "npm": Path.home() / ".npmrc"}
        given = [f"--secret=id={name},src={path}" for name, path in secrets.items() if path.is_file()]
        self.buildah(
            "build", "--format=docker", "--layers", "--pull-never", "--network=host", f"--build-arg=BASE={_BASE}",
            *given, "--file", str(ROOT / "docker" / "Dockerfile"), "--target", target,
            "--tag", f"localhost/afterlive/{target}", str(ROOT),
        )  # fmt: skip

    def facts(self, target: str) -> dict[str, Any]:
        """What the image says of itself, as `docker inspect` shows it, and its size in bytes."""
        told = json.loads(self.buildah("inspect", "--type=image", f"localhost/afterlive/{target}"))
        listed = json.loads(self.buildah("images", "--json", f"localhost/afterlive/{target}"))
        return {**told["Docker"]["config"], "size": listed[0]["size"]}

    def container(self, target: str) -> str:
        name = self.buildah("from", f"localhost/afterlive/{target}" if target in TARGETS else target)
        self._containers.append(name)
        return name

    def command(
        self,
        container: str,
        *arguments: str,
        env: Mapping[str, str] | None = None,
        mounts: Mapping[Path, str] | None = None,
    ) -> list[str]:
        """The command line that runs `arguments` in it, as its own user, on this machine's network."""
        given = [f"--env={name}={value}" for name, value in (env or {}).items()]
        given += [f"--volume={ours}:{theirs}:ro" for ours, theirs in (mounts or {}).items()]
        return [*self._buildah, "run", "--network=host", *given, container, "--", *arguments]

    def run(self, container: str, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        command = self.command(container, *arguments, **options)
        return subprocess.run(command, env=self._env, capture_output=True, text=True, check=False, timeout=300)

    @contextmanager
    def running(self, container: str, *arguments: str, log: Path, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
        """It runs until the block ends; then it gets SIGTERM."""
        with log.open("ab") as output:
            process = subprocess.Popen(
                self.command(container, *arguments, **options),
                env=self._env, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            )  # fmt: skip
        try:
            yield process
        finally:
            self._end(process)

    def buildah(self, *arguments: str) -> str:
        done = subprocess.run(
            [*self._buildah, *arguments], env=self._env, capture_output=True, text=True, check=False, timeout=1500
        )
        assert done.returncode == 0, f"buildah {arguments[0]}:\n{done.stdout[-3000:]}\n{done.stderr[-6000:]}"
        return (done.stdout.strip().splitlines() or [""])[-1] if arguments[0] in ("from", "commit") else done.stdout

    def clean(self) -> None:
        """Remove containers and images: their files are not the test's to keep."""
        self.buildah("rm", "--all")
        self.buildah("rmi", "--all", "--force")

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        # buildah hands no signal on; what it started is told itself, the deepest first.
        for child in reversed(psutil.Process(process.pid).children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                child.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    @property
    def _buildah(self) -> list[str]:
        return ["buildah", "--root", str(self.folder / "storage"), "--runroot", str(self.folder / "run")]

    @property
    def _env(self) -> dict[str, str]:
        return os.environ | {"BUILDAH_ISOLATION": "chroot"}
