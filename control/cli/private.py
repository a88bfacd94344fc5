"""What a machine of one's own needs and nobody wants to make by hand: a key, a secret, and the knowledge that one
process at a time uses the folder."""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import SecretStr

from control.errors import Conflict
from control.settings import Settings


def kept_secret(path: Path) -> SecretStr:
    """The secret in `path`, made (with mode 0600) where there is none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return SecretStr(path.read_text(encoding="ascii").strip())
    with os.fdopen(handle, "w", encoding="ascii") as file:
        secret = secrets.token_urlsafe(32)
        file.write(secret + "\n")
        file.flush()
        os.fsync(file.fileno())
    return SecretStr(secret)


def complete(settings: Settings, folder: Path) -> Settings:
    """The settings with an API key and a signing secret, from `folder` where the environment has none."""
    api = settings.api
    changes: dict[str, object] = {}
    if not api.keys:
        changes["keys"] = [kept_secret(folder / "api-key")]
    if api.signing_secret is None:
        changes["signing_secret"] = kept_secret(folder / "signing-secret")
    return settings.model_copy(update={"api": api.model_copy(update=changes)})


@contextmanager
def only_one(folder: Path, what: str) -> Iterator[None]:
    """Hold `folder` for this process. Raises Conflict where another has it; a process that dies lets go."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w", encoding="ascii") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise Conflict(reason=f"{what} already works in {folder}") from error
        yield
