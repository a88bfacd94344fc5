"""Text messages in a file: for a machine without a provider, and the only place where one can be read."""

from __future__ import annotations

import logging
import os
from datetime import UTC, datetime
from pathlib import Path

from control.errors import SenderUnavailable
from control.phones import masked

log = logging.getLogger("afterlive.sms")
_FILE = "sms.txt"


class ConsoleSmsSender:
    """Appends to `sms.txt` of a folder; the log says only that it did."""

    name = "console"

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def send(self, to: str, text: str, key: str) -> str:
        entry = f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} {to} {' '.join(text.split())}\n".encode()
        path = self._folder / _FILE
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            # One write at the end of the file, whoever else writes; and nobody else's to read.
            file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                os.write(file, entry)
            finally:
                os.close(file)
        except OSError as error:
            raise SenderUnavailable(channel="text message", reason=f"{path}: {error.strerror}") from None
        log.warning("a text message for %s is in %s", masked(to), path)
        return key
