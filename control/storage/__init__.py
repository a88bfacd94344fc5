"""The object store: a local folder and S3 behind one small interface."""

from control.storage.base import ObjectStore

__all__ = ["ObjectStore"]
