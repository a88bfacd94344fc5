"""A control group for encoders that runs only where nothing else on the machine would (`cpu.idle`, Linux 5.15).

Idle scheduling alone puts the threads of one control group in order, and what wakes beside them may still wait for the
scheduler's next tick. As a group, all encoders together weigh next to nothing, to whatever group the others belong.

It is made below the worker's own group where that may be done: in version 1 by root, in version 2 by root or in a
service that systemd delegates it to (`Delegate=cpu`). Kernel's documentation: admin-guide/cgroup-v1, cgroup-v2.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

log = logging.getLogger("afterlive.media")

NAME: Final = "afterlive-encoders"
_WORKER: Final = "afterlive-worker"
_PROC: Final = Path("/proc/self")


@dataclass(frozen=True)
class OwnGroup:
    """The control group this process is in, as far as processors go."""

    folder: Path
    version: int

    @property
    def may_have_others(self) -> bool:
        """Whether a group can be made below it."""
        try:
            may_write = self.folder.is_dir() and os.access(self.folder, os.W_OK)
            return may_write and (self.version == 1 or self._shares or not self._strangers())
        except OSError:
            return False

    def prepare(self) -> Path:
        """Version 2 has either processes or groups in a group: this process moves into one of its own.

        The group it is in from then on.
        """
        if self.version == 1 or self._shares:
            return self.folder
        is_root = not (self.folder / "cgroup.type").exists()
        if not is_root:
            (self.folder / _WORKER).mkdir(exist_ok=True)
            _write(self.folder / _WORKER / "cgroup.procs", str(os.getpid()))
        try:
            _write(self.folder / "cgroup.subtree_control", "+cpu")
        except OSError:
            if not is_root:
                _write(self.folder / "cgroup.procs", str(os.getpid()))
                (self.folder / _WORKER).rmdir()
            raise
        return self.folder if is_root else self.folder / _WORKER

    @property
    def _shares(self) -> bool:
        return "cpu" in (self.folder / "cgroup.subtree_control").read_text(encoding="ascii").split()

    def _strangers(self) -> set[str]:
        return {*(self.folder / "cgroup.procs").read_text(encoding="ascii").split()} - {str(os.getpid())}


def own_group(proc: Path = _PROC) -> OwnGroup | None:
    """None where this system has no control groups for processors."""
    try:
        mounts = [line.split() for line in (proc / "mountinfo").read_text(encoding="utf-8").splitlines()]
        groups = [line.split(":", 2) for line in (proc / "cgroup").read_text(encoding="utf-8").splitlines()]
    except OSError:
        return None
    found: dict[int, OwnGroup] = {}
    for mount in mounts:
        root, folder, (kind, _, options) = mount[3], Path(mount[4]), mount[mount.index("-") + 1 :][:3]
        for number, controllers, path in groups:
            if kind == "cgroup" and "cpu" in options.split(",") and "cpu" in controllers.split(","):
                found.setdefault(1, OwnGroup(_below(folder, root, path), 1))
            elif kind == "cgroup2" and (number, controllers) == ("0", ""):
                found.setdefault(2, OwnGroup(_below(folder, root, path), 2))
    # Where both are mounted, version 2 does not have the processors.
    return found.get(1) or found.get(2)


def _below(folder: Path, root: str, path: str) -> Path:
    """Where the group `path` is, of a hierarchy whose `root` is mounted at `folder`."""
    inner = path.removeprefix(root if root != "/" else "")
    return folder / inner.lstrip("/")


class IdleGroup:
    """The encoders' group, once it is opened; until then, and where there can be none, nobody joins it."""

    def __init__(self) -> None:
        self.folder: Path | None = None
        self._workers: Path | None = None

    def open(self, own: OwnGroup | None) -> None:
        """Make it below `own`, if that may be done."""
        if self.folder or own is None or not own.may_have_others:
            return
        try:
            self._workers = own.prepare()
            _make(own.folder / NAME)
        except OSError as error:
            log.info("encoders have no control group of their own: %s", error)
            return
        self.folder = own.folder / NAME
        atexit.register(self.close)

    def join(self, pid: int) -> None:
        """Put a process into it."""
        if self.folder:
            with contextlib.suppress(OSError):  # the process has ended already
                _make(self.folder)
                _write(self.folder / "cgroup.procs", str(pid))

    def leave(self, pid: int) -> None:
        """Put a process where the worker is."""
        if self.folder and self._workers:
            with contextlib.suppress(OSError):
                _write(self._workers / "cgroup.procs", str(pid))

    def close(self) -> None:
        """Remove it, unless another worker's encoders are in it."""
        if self.folder:
            with contextlib.suppress(OSError):
                self.folder.rmdir()
            self.folder = None


def _make(folder: Path) -> None:
    """Another worker that ended may have removed it."""
    folder.mkdir(exist_ok=True)
    _write(folder / "cpu.idle", "1")


def _write(path: Path, text: str) -> None:
    with path.open("r+", encoding="ascii") as file:  # what the kernel has; none is made
        file.write(text)


IDLE_GROUP: Final = IdleGroup()
"""This process's."""
