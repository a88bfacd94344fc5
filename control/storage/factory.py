"""Which store the settings mean."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from control.errors import ConfigurationError
from control.settings import StorageSettings
from control.storage.base import ObjectStore
from control.storage.local import LocalStore
from control.storage.metered import Metered
from control.storage.s3 import S3Store


def open_store(settings: StorageSettings) -> ObjectStore:
    """The store of `settings.url`: `file:FOLDER`, `file:///FOLDER` or `s3://bucket/prefix`. Nothing is connected yet;
    its traffic is counted.

    Raises ConfigurationError.
    """
    return Metered(_store(settings))


def _store(settings: StorageSettings) -> ObjectStore:
    scheme, _, rest = settings.url.partition(":")
    if scheme == "file" and rest.strip("/"):
        # `file:a b` is a folder as people write it; only the `//` form is a URL with its escapes.
        return LocalStore(Path(unquote(urlsplit(settings.url).path) if rest.startswith("//") else rest))
    if scheme == "s3":
        address = urlsplit(settings.url)
        if address.netloc and not address.query and not address.fragment:
            return S3Store(address.netloc, unquote(address.path), settings)
    raise ConfigurationError(
        setting="AFTERLIVE_STORAGE_URL", reason=f"{settings.url!r} is neither file:FOLDER nor s3://bucket/prefix"
    )
