"""What a machine of one's own needs and nobody wants to make by hand: a key, a secret, and the knowledge that one
process at a time uses the folder."""

from __future__ import annotations

import fcntl
import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pydantic import SecretStr

from control.errors import ConfigurationError, Conflict
from control.settings import Settings


def kept_secret(path: Path) -> SecretStr:
    """The secret in `path`, made (with mode 0600) where there is none. Raises ConfigurationError where the file is
    empty: an empty key would let everybody in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        # Whole or not at all: who comes at the same moment, or after a crash, reads no half.
        with tempfile.NamedTemporaryFile("w", encoding="ascii", dir=path.parent, prefix=".") as file:
            file.write(secrets.token_urlsafe(32) + "\n")
            file.flush()
            os.fsync(file.fileno())
            with suppress(FileExistsError):  # another was quicker: its secret is the one
                os.link(file.name, path)
    secret = path.read_text(encoding="ascii").strip()
    if not secret:
        raise ConfigurationError(setting=str(path), reason="the file is empty; remove it, and a secret is made")
    return SecretStr(secret)


def complete(settings: Settings, folder: Path) -> Settings:
    """The settings with an API key, a signing secret and one for one-time passwords, from `folder` where the
    environment has none."""
    api = settings.api
    changes: dict[str, object] = {}
    if not api.keys:
        changes["keys"] = [kept_secret(folder / "api-key")]
    if api.signing_secret is None:
        changes["signing_secret"] = kept_secret(folder / "signing-secret")
    otp = settings.otp
    if otp.secret is None:
        otp = otp.model_copy(update={"secret": kept_secret(folder / "otp-secret")})
    return settings.model_copy(update={"api": api.model_copy(update=changes), "otp": otp})


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
