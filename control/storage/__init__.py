"""The object store: a local folder and S3 behind one small interface."""

from control.storage.base import ObjectStore
from control.storage.content import cache_control, content_type
from control.storage.factory import open_store
from control.storage.local import LocalStore
from control.storage.metered import Metered, folder_of
from control.storage.s3 import S3Store

__all__ = [
    "LocalStore",
    "Metered",
    "ObjectStore",
    "S3Store",
    "cache_control",
    "content_type",
    "folder_of",
    "open_store",
]
