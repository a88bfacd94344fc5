"""Mails by Amazon SES (API version 2). boto3 takes most of a second to import, so it is, on first use."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from control.errors import AfterliveError, ConfigurationError, SenderRefused, SenderUnavailable
from notify_worker.senders.base import Mail
from notify_worker.senders.mime import message

if TYPE_CHECKING:
    from botocore.exceptions import ClientError

_SECONDS: Final = 20
_REGION: Final = re.compile(r"[a-z]{2}(-[a-z]+)+-\d")
# Of this mail, whenever it is sent (https://docs.aws.amazon.com/ses/latest/APIReference-V2/API_SendEmail.html).
_REFUSED: Final = ("BadRequestException", "MessageRejected", "ValidationException")
# Of all mails, until somebody mends a setting.
_WRONG_SETTING: Final = (
    "AccessDeniedException",
    "ExpiredTokenException",
    "InvalidClientTokenId",
    "InvalidSignatureException",
    "MailFromDomainNotVerifiedException",
    "NotFoundException",
    "SignatureDoesNotMatch",
    "UnrecognizedClientException",
)


class SesSender:
    """`ses:REGION`. Keys come from where boto3 finds them (role, profile, environment).

    Raises ConfigurationError.
    """

    def __init__(self, region: str, sender: str, *, endpoint: str | None, configuration_set: str | None) -> None:
        if not _REGION.fullmatch(region):
            raise ConfigurationError(setting="AFTERLIVE_NOTIFY_MAIL_URL", reason="ses:REGION, such as ses:ap-east-2")
        self._region = region
        self._sender = sender
        self._endpoint = endpoint
        self._more = {"ConfigurationSetName": configuration_set} if configuration_set else {}

    def send(self, mail: Mail) -> str:
        from botocore import exceptions as boto

        made = message(mail, self._sender)
        client = _client(self._region, self._endpoint)
        try:
            answer = client.send_email(
                FromEmailAddress=self._sender,
                Destination={"ToAddresses": list(mail.to)},
                Content={"Raw": {"Data": made.as_bytes()}},
                **self._more,
            )
        except boto.ClientError as error:
            raise _translate(error) from None
        except (boto.NoCredentialsError, boto.PartialCredentialsError, boto.CredentialRetrievalError):
            raise ConfigurationError(setting="AWS_ACCESS_KEY_ID", reason="no keys for SES were found") from None
        except (boto.BotoCoreError, boto.HTTPClientError, OSError) as error:
            raise SenderUnavailable(channel="mail", reason=type(error).__name__) from None
        return str(answer["MessageId"])


@lru_cache(maxsize=4)
def _client(region: str, endpoint: str | None) -> Any:
    import boto3
    from botocore.config import Config

    # Tried once: whether it is tried again, and when, the ledger decides.
    config = Config(connect_timeout=_SECONDS, read_timeout=_SECONDS, retries={"total_max_attempts": 1})
    made: Any = boto3.session.Session()
    try:
        return made.client("sesv2", region_name=region, endpoint_url=endpoint, config=config)
    except ValueError as error:  # botocore's word for an endpoint that is no URL
        raise ConfigurationError(setting="AFTERLIVE_NOTIFY_SES_ENDPOINT", reason=str(error)) from None


def _translate(error: ClientError) -> AfterliveError:
    """Of SES' answers the code alone: its words may hold the address."""
    code = error.response["Error"].get("Code", "")
    if code in _REFUSED:
        return SenderRefused(channel="mail", reason=f"SES answered {code}")
    if code in _WRONG_SETTING:
        return ConfigurationError(setting="AFTERLIVE_NOTIFY_MAIL_URL", reason=f"SES answered {code}")
    return SenderUnavailable(channel="mail", reason=f"SES answered {code}")
