"""Secrets as files, a value each, named like their setting in small letters: `afterlive_bus_broker_url`.

It is how Docker, Kubernetes and systemd hand secrets over; the environment of a process can be read by more people than
a file can. Where the environment, or `.env`, has the setting too, that one holds.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final

from pydantic_settings import SecretsSettingsSource, SettingsError

from control.errors import ConfigurationError

VARIABLE: Final = "AFTERLIVE_SECRETS_DIR"
"""Names the folder."""
SYSTEMD: Final = "CREDENTIALS_DIRECTORY"
"""What systemd names it (`LoadCredential=`, https://www.freedesktop.org/software/systemd/man/systemd.exec.html)."""
DOCKERS: Final = Path("/run/secrets")
"""Where Docker mounts them."""


def folder() -> Path | None:
    """Where secrets lie as files; None: nowhere. Raises ConfigurationError where one is named that is no folder."""
    if named := os.environ.get(VARIABLE):
        if not Path(named).is_dir():
            raise ConfigurationError(setting=VARIABLE, reason=f"{named} is not a folder")
        return Path(named)
    given = os.environ.get(SYSTEMD)
    return next((path for path in (Path(given) if given else None, DOCKERS) if path and path.is_dir()), None)


class SecretFiles(SecretsSettingsSource):
    """pydantic-settings' own reading of such files; one that may not be read is named."""

    def __call__(self) -> dict[str, Any]:
        try:
            return super().__call__()
        except SettingsError as error:
            if not isinstance(cause := error.__cause__, OSError):
                raise
            reason = f"{cause.filename} cannot be read: {cause.strerror}"
            raise ConfigurationError(setting=VARIABLE, reason=reason) from error
