"""The boto3 client of the object store, and what its errors mean.

boto3 takes most of a second to import, and only a store in a bucket needs it: so it is imported here, on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pydantic import SecretStr

from control.errors import AfterliveError, ConfigurationError, ObjectMissing, StorageUnavailable
from control.settings import StorageSettings

if TYPE_CHECKING:
    from botocore.exceptions import ClientError
    from mypy_boto3_s3 import S3Client

_CONNECT_SECONDS: Final = 5
_READ_SECONDS: Final = 30
_TRIES: Final = 4

_MISSING: Final = {"NoSuchKey", "404", "NotFound"}
# What trying again cannot mend, and the setting that can.
_WRONG_SETTING: Final = {
    "NoSuchBucket": "URL",
    "InvalidBucketName": "URL",
    "AccessDenied": "S3_ACCESS_KEY",
    "403": "S3_ACCESS_KEY",
    "Forbidden": "S3_ACCESS_KEY",
    "InvalidAccessKeyId": "S3_ACCESS_KEY",
    "SignatureDoesNotMatch": "S3_SECRET_KEY",
    "ExpiredToken": "S3_ACCESS_KEY",
    "PermanentRedirect": "S3_REGION",
    "AuthorizationHeaderMalformed": "S3_REGION",
    "301": "S3_REGION",
}


def connect(settings: StorageSettings) -> S3Client:
    """A client for the settings; nothing is asked of the server yet. Raises ConfigurationError."""
    import boto3
    from botocore.config import Config

    if (settings.s3_access_key is None) != (settings.s3_secret_key is None):
        name = "S3_ACCESS_KEY" if settings.s3_access_key is None else "S3_SECRET_KEY"
        raise ConfigurationError(setting=_name(name), reason="access key and secret key are set together or not at all")
    own_server = settings.s3_endpoint is not None
    config = Config(
        signature_version="s3v4",
        connect_timeout=_CONNECT_SECONDS,
        read_timeout=_READ_SECONDS,
        retries={"mode": "standard", "total_max_attempts": _TRIES},
        max_pool_connections=16,
        # Servers other than AWS are reached by address, so the bucket goes into the path; and not all of them know
        # the trailing checksums boto3 sends where they are not required.
        s3={"addressing_style": "path" if own_server else "auto"},
        request_checksum_calculation="when_required" if own_server else "when_supported",
        response_checksum_validation="when_required" if own_server else "when_supported",
    )
    try:
        return boto3.session.Session().client(
            "s3",
            endpoint_url=settings.s3_endpoint,
            region_name=settings.s3_region,
            aws_access_key_id=_reveal(settings.s3_access_key),
            aws_secret_access_key=_reveal(settings.s3_secret_key),
            config=config,
        )
    except ValueError as error:  # botocore's word for an endpoint that is no URL
        raise ConfigurationError(setting=_name("S3_ENDPOINT"), reason=str(error)) from error


def translate(error: Exception, key: str) -> AfterliveError | None:
    """The error to raise for one of boto3's; None where it is not boto3's."""
    from botocore import exceptions as boto

    if isinstance(error, boto.ClientError):
        return _translate_answer(error, key)
    if isinstance(error, boto.NoCredentialsError | boto.PartialCredentialsError | boto.CredentialRetrievalError):
        return ConfigurationError(setting=_name("S3_ACCESS_KEY"), reason=str(error))
    if isinstance(error, boto.ParamValidationError):
        return ConfigurationError(setting=_name("URL"), reason=" ".join(str(error).split()))
    if isinstance(error, boto.BotoCoreError | boto.HTTPClientError | ConnectionError | TimeoutError):
        return StorageUnavailable(key=key, reason=str(error) or type(error).__name__)
    return None


def range_unsatisfiable(error: Exception) -> bool:
    """Whether the server says the object ends before the range asked for begins."""
    from botocore.exceptions import ClientError

    return isinstance(error, ClientError) and error.response["Error"].get("Code") in ("InvalidRange", "416")


def _translate_answer(error: ClientError, key: str) -> AfterliveError:
    code = error.response["Error"].get("Code", "")
    reason = error.response["Error"].get("Message") or code
    if code in _MISSING:
        return ObjectMissing(key=key)
    if code in _WRONG_SETTING:
        return ConfigurationError(
            setting=_name(_WRONG_SETTING[code]), reason=f"the object store answers {code}: {reason}"
        )
    return StorageUnavailable(key=key, reason=f"{code}: {reason}")


def _reveal(secret: SecretStr | None) -> str | None:
    return secret.get_secret_value() if secret else None


def _name(setting: str) -> str:
    return f"AFTERLIVE_STORAGE_{setting}"
