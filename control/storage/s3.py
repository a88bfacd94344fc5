"""An object store in an S3 bucket, or any server that speaks S3."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from control.errors import ObjectMissing, StorageUnavailable
from control.storage.content import cache_control, content_type
from control.storage.keys import check_folder, check_key, check_prefix
from control.storage.s3_client import connect, range_unsatisfiable, translate
from control.storage.window import window

if TYPE_CHECKING:
    from boto3.s3.transfer import TransferConfig
    from mypy_boto3_s3 import S3Client

    from control.settings import StorageSettings

_MULTIPART_BYTES: Final = 8 * 1024**2
_TRANSFER_THREADS: Final = 4
_DELETE_BATCH: Final = 1000  # the most DeleteObjects takes
_LONGEST_LINK_SECONDS: Final = 7 * 24 * 3600  # the most a version 4 signature allows


class S3Store:
    """Objects of one bucket under one prefix. Safe to use from several threads; connects on first use."""

    def __init__(self, bucket: str, prefix: str, settings: StorageSettings) -> None:
        self.bucket = bucket
        self.prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        self._settings = settings

    def put_file(self, key: str, path: Path) -> None:
        with path.open("rb") as source, self._failures(key):
            self._client.upload_fileobj(
                source, self.bucket, self._full(key), ExtraArgs=_headers(key), Config=self._transfer
            )

    def put_bytes(self, key: str, data: bytes) -> None:
        with self._failures(key):
            self._client.put_object(Bucket=self.bucket, Key=self._full(key), Body=data, **_headers(key))

    def get_bytes(self, key: str) -> bytes:
        with self.open(key) as stream:
            return stream.read()

    def open(self, key: str, start: int = 0, length: int | None = None) -> BinaryIO:
        if start < 0 or (length is not None and length < 0):
            raise ValueError("a range starts at 0 or later and is not negative")
        full = self._full(key)
        if length == 0:  # S3 has no empty range
            if self.size(key) is None:
                raise ObjectMissing(key=key)
            return io.BytesIO()
        asked: dict[str, Any] = {}
        if start or length is not None:
            asked["Range"] = f"bytes={start}-" if length is None else f"bytes={start}-{start + length - 1}"
        try:
            body = self._client.get_object(Bucket=self.bucket, Key=full, **asked)["Body"]
        except Exception as error:
            if range_unsatisfiable(error):  # the object is there and ends before `start`
                return io.BytesIO()
            raise translate(error, key) or error from error
        return window(body, translate=lambda error: translate(error, key))

    def size(self, key: str) -> int | None:
        full = self._full(key)
        try:
            with self._failures(key):
                return self._client.head_object(Bucket=self.bucket, Key=full)["ContentLength"]
        except ObjectMissing:
            return None

    def list(self, prefix: str) -> Iterator[str]:
        start = self.prefix + check_prefix(prefix)
        pages = iter(self._client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=start))
        while True:
            with self._failures(prefix):
                page = next(pages, None)
            if page is None:
                return
            for entry in page.get("Contents", []):
                yield entry["Key"].removeprefix(self.prefix)

    def delete(self, key: str) -> None:
        with self._failures(key):
            self._client.delete_object(Bucket=self.bucket, Key=self._full(key))

    def delete_prefix(self, prefix: str) -> int:
        keys = self.list(check_folder(prefix))
        count = 0
        while batch := [*islice(keys, _DELETE_BATCH)]:
            self._delete_batch(prefix, batch)
            count += len(batch)
        return count

    def read_url(self, key: str, seconds: int) -> str | None:
        """A presigned link; `seconds` is cut to a week, the longest S3 allows."""
        with self._failures(key):
            return self._client.generate_presigned_url(
                "get_object",
                Params={"Bucket": self.bucket, "Key": self._full(key)},
                ExpiresIn=min(seconds, _LONGEST_LINK_SECONDS),
            )

    def local_path(self, key: str) -> Path | None:
        check_key(key)
        return None

    def _full(self, key: str) -> str:
        return self.prefix + check_key(key)

    def _delete_batch(self, prefix: str, keys: Sequence[str]) -> None:
        with self._failures(prefix):
            answer = self._client.delete_objects(
                Bucket=self.bucket, Delete={"Objects": [{"Key": self._full(key)} for key in keys], "Quiet": True}
            )
        # One request may succeed for some keys and fail for others, and still answer 200.
        for refused in answer.get("Errors", []):
            raise StorageUnavailable(key=refused.get("Key", prefix), reason=refused.get("Code", "not deleted"))

    @cached_property
    def _client(self) -> S3Client:
        return connect(self._settings)

    @cached_property
    def _transfer(self) -> TransferConfig:
        from boto3.s3.transfer import TransferConfig

        return TransferConfig(
            multipart_threshold=_MULTIPART_BYTES,
            multipart_chunksize=_MULTIPART_BYTES,
            max_concurrency=_TRANSFER_THREADS,
        )

    @contextmanager
    def _failures(self, key: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            translated = translate(error, key)
            if translated is None:
                raise
            raise translated from error


def _headers(key: str) -> Any:
    """Typed Any: the stubs want the literal keys of two different calls."""
    return {"ContentType": content_type(key), "CacheControl": cache_control(key)}
