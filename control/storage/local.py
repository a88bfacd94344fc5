"""An object store in a folder.

A file is written under a temporary name in `ROOT/.incoming`, in the same file system, and renamed: a reader, or a
crash at any moment, sees the old object, the new one, or none. A symbolic link inside the folder is never followed.
"""

from __future__ import annotations

import errno
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Final

from control.errors import ConfigurationError, ObjectKeyInvalid, ObjectMissing, StorageUnavailable
from control.storage.keys import RESERVED, check_folder, check_key, check_prefix
from control.storage.window import window

_STALE_SECONDS: Final = 24 * 3600
_TRIES: Final = 5


class LocalStore:
    """Objects as files under `root`, which is made when first needed.

    `durable` also survives the loss of power: each object and the folder it is in are flushed to the disk before
    `put_*` returns. Without it an object survives the end of the process, not that of the machine.
    """

    def __init__(self, root: Path, *, durable: bool = True) -> None:
        self.root = root.resolve()
        if self.root.exists() and not self.root.is_dir():
            raise ConfigurationError(setting="AFTERLIVE_STORAGE_URL", reason=f"{self.root} is not a folder")
        self._incoming = self.root / RESERVED
        self._durable = durable
        self._remove_stale()

    def put_file(self, key: str, path: Path) -> None:
        # Never a hard link: a caller that goes on writing to its file would change a finished object.
        with path.open("rb") as source:
            self._put(key, lambda target: _copy(source, target))

    def put_bytes(self, key: str, data: bytes) -> None:
        self._put(key, lambda target: target.write(data))

    def get_bytes(self, key: str) -> bytes:
        with self.open(key) as stream:
            return stream.read()

    def open(self, key: str, start: int = 0, length: int | None = None) -> BinaryIO:
        if start < 0 or (length is not None and length < 0):
            raise ValueError("a range starts at 0 or later and is not negative")
        path = self._path(key)
        if not path.is_file():
            raise ObjectMissing(key=key)
        with _failures(key):
            file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb")
            file.seek(start)
        return file if length is None else window(file, length)

    def size(self, key: str) -> int | None:
        path = self._path(key)
        try:
            with _failures(key):
                return path.lstat().st_size if path.is_file() else None
        except ObjectMissing:
            return None  # deleted in between

    def list(self, prefix: str) -> Iterator[str]:
        check_prefix(prefix)
        yield from self._walk(self.root, "", prefix)

    def delete(self, key: str) -> None:
        path = self._path(key)
        if path.is_file():
            with _failures(key):
                path.unlink(missing_ok=True)
            self._prune(path.parent)

    def delete_prefix(self, prefix: str) -> int:
        folder = self._path(check_folder(prefix).removesuffix("/"))
        count = sum(1 for _ in self.list(prefix))
        if not folder.is_dir():
            return 0
        # All of it leaves the listing at once; taking it apart may then last.
        doomed = self._incoming / uuid.uuid4().hex
        with _failures(prefix, reading=False):
            self._incoming.mkdir(parents=True, exist_ok=True)
            try:
                folder.rename(doomed)
            except FileNotFoundError:
                return 0  # deleted by another
            shutil.rmtree(doomed)
        self._prune(folder.parent)
        return count

    def read_url(self, key: str, seconds: int) -> str | None:  # noqa: ARG002 a folder has no links that expire
        check_key(key)
        return None

    def local_path(self, key: str) -> Path | None:
        """The object's file; None where there is no such object."""
        path = self._path(key)
        return path if path.is_file() else None

    def _path(self, key: str) -> Path:
        path = self.root
        for name in check_key(key).split("/"):
            path = path / name
            if path.is_symlink():
                raise ObjectKeyInvalid(key=key, reason="a symbolic link is in its way")
        return path

    def _put(self, key: str, write: Callable[[BinaryIO], object]) -> None:
        path = self._path(key)
        part = self._incoming / uuid.uuid4().hex
        with _failures(key, reading=False):
            self._incoming.mkdir(parents=True, exist_ok=True)
            try:
                with part.open("xb") as target:
                    write(target)
                    target.flush()
                    if self._durable:
                        os.fsync(target.fileno())
                self._publish(part, path, key)
            finally:
                part.unlink(missing_ok=True)

    def _publish(self, part: Path, path: Path, key: str) -> None:
        for attempt in range(_TRIES):
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                part.replace(path)
                break
            except OSError as error:
                if path.is_dir() or self._blocked(path):
                    raise ObjectKeyInvalid(key=key, reason="another object is in its way") from error
                # Else a deletion took the emptied folder away in between.
                if attempt == _TRIES - 1 or not isinstance(error, FileNotFoundError | FileExistsError):
                    raise
        if self._durable:
            _flush_folder(path.parent)

    def _blocked(self, path: Path) -> bool:
        """Whether a folder that `path` needs is an object."""
        return any(parent.is_file() for parent in path.parents if parent.is_relative_to(self.root))

    def _walk(self, folder: Path, start: str, prefix: str) -> Iterator[str]:
        """Keys below `folder` (whose own key is `start`, ending in `/` or empty) in the order of S3: by UTF-8."""
        try:
            with _failures(start), os.scandir(folder) as entries:
                found = [
                    f"{start}{entry.name}/" if entry.is_dir(follow_symlinks=False) else f"{start}{entry.name}"
                    for entry in entries
                    if entry.is_dir(follow_symlinks=False) or entry.is_file(follow_symlinks=False)
                ]
        except ObjectMissing:
            return
        for key in sorted(found):
            if key == f"{RESERVED}/" or not _is_unicode(key):
                continue
            if key.endswith("/"):
                if key.startswith(prefix) or prefix.startswith(key):
                    yield from self._walk(self.root / key, key, prefix)
            elif key.startswith(prefix):
                yield key

    def _prune(self, folder: Path) -> None:
        """Remove folders that became empty: an object store has none."""
        while folder != self.root:
            try:
                folder.rmdir()
            except OSError:
                return  # not empty, or already gone
            folder = folder.parent

    def _remove_stale(self) -> None:
        """Remove what processes that died left unfinished."""
        if not self._incoming.is_dir():
            return
        for path in self._incoming.iterdir():
            with suppress(OSError):  # its writer, or another sweep, was quicker; the next start tries again
                if time.time() - path.lstat().st_mtime > _STALE_SECONDS:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()


@contextmanager
def _failures(key: str, *, reading: bool = True) -> Iterator[None]:
    """Operating-system errors as ours: what is not there is ObjectMissing to a reader, anything else a fault."""
    try:
        yield
    except OSError as error:
        if reading and isinstance(error, FileNotFoundError | NotADirectoryError | IsADirectoryError):
            raise ObjectMissing(key=key) from error
        if error.errno == errno.ELOOP:
            raise ObjectKeyInvalid(key=key, reason="a symbolic link is in its way") from error
        raise StorageUnavailable(key=key, reason=error.strerror or str(error)) from error


def _copy(source: BinaryIO, target: BinaryIO) -> None:
    """Copy all of `source`, inside the kernel where it can (a clone on Btrfs and XFS)."""
    if hasattr(os, "copy_file_range"):
        try:
            while os.copy_file_range(source.fileno(), target.fileno(), 1 << 30):
                pass
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM):
                raise
        else:
            return
    # Both files stand where the kernel stopped, mostly at the start.
    shutil.copyfileobj(source, target, 1 << 20)


def _flush_folder(folder: Path) -> None:
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        return  # deleted by another in between
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _is_unicode(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
