"""Text messages by Amazon SNS."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from control.errors import AfterliveError, ConfigurationError, ProviderRefused, RecipientRefused, SenderUnavailable

if TYPE_CHECKING:
    from botocore.exceptions import ClientError

_CHANNEL: Final = "text message"
_CONNECT_SECONDS: Final = 2
_READ_SECONDS: Final = 4
_CONNECTIONS: Final = 16
# Of the number itself: no other provider may, or can, do it (docs.aws.amazon.com/sns/latest/api/API_Publish.html).
_OF_THE_NUMBER: Final = {"InvalidParameter", "InvalidParameterValue", "ParameterValueInvalid", "OptedOut"}
_PASSES: Final = {"InternalError", "InternalFailure", "ServiceUnavailable", "RequestTimeout"}
_TOO_MANY_STATUS: Final = 429


class SnsSender:
    """Of one region. Credentials are found as boto3 finds them. `endpoint` is of another server that speaks SNS."""

    def __init__(self, region: str, endpoint: str | None = None) -> None:
        if not region:
            raise ConfigurationError(
                setting="AFTERLIVE_NOTIFY_SMS_URLS", reason="sns: needs a region, such as sns:us-east-1"
            )
        import boto3
        from botocore.config import Config

        self.name = f"sns:{region}"
        config = Config(
            connect_timeout=_CONNECT_SECONDS,
            read_timeout=_READ_SECONDS,
            # Another provider is asked sooner than the same again; and then the task is tried again.
            retries={"mode": "standard", "total_max_attempts": 1},
            max_pool_connections=_CONNECTIONS,
        )
        # A session of its own: making a client of the common one is not safe in threads.
        session = boto3.session.Session()
        self._client: Any = session.client("sns", region_name=region, endpoint_url=endpoint, config=config)

    def send(self, to: str, text: str, key: str) -> str:  # noqa: ARG002  (SNS knows no message by a key of ours)
        from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

        # Dearer, and delivered first: what is of use now (docs.aws.amazon.com/sns/latest/dg/sms_publish-to-phone.html).
        kind = {"AWS.SNS.SMS.SMSType": {"DataType": "String", "StringValue": "Transactional"}}
        try:
            answer = self._client.publish(PhoneNumber=to, Message=text, MessageAttributes=kind)
        except ClientError as error:
            raise _meaning(error) from None
        except NoCredentialsError:
            raise ProviderRefused(channel=_CHANNEL, reason=f"{self.name} has no credentials") from None
        except BotoCoreError as error:
            raise SenderUnavailable(channel=_CHANNEL, reason=f"{self.name}: {type(error).__name__}") from None
        return str(answer["MessageId"])


def _meaning(error: ClientError) -> AfterliveError:
    code = str(error.response.get("Error", {}).get("Code", ""))
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    # No word of the server's message: it may have the number in it.
    reason = f"SNS said {status} {code}"
    if status >= 500 or status == _TOO_MANY_STATUS or code in _PASSES or code.startswith("Throttl"):
        return SenderUnavailable(channel=_CHANNEL, reason=reason)
    return (RecipientRefused if code in _OF_THE_NUMBER else ProviderRefused)(channel=_CHANNEL, reason=reason)
