"""The error tree. A class says whether trying again can help; its docstring is its message.

A message is the first line of the class's docstring with the keyword arguments put in. `code` is stable: it is what
the API, the command line and the ledger show, and what clients may switch on.
"""

from __future__ import annotations

from typing import Any, ClassVar


class AfterliveError(Exception):
    """Something went wrong: {reason}."""

    code: ClassVar[str] = "internal-error"
    retryable: ClassVar[bool] = False
    """Whether the same work, tried again later, may succeed."""

    def __init__(self, **facts: Any) -> None:
        self.facts = facts
        template = (type(self).__doc__ or "").strip().splitlines()[0]
        super().__init__(template.format_map(facts))

    def __reduce__(self) -> tuple[Any, ...]:
        # Celery moves errors between processes, and by default they are made anew from their message alone.
        return _made_of, (type(self), self.facts)

    @property
    def detail(self) -> str:
        """The message, one line, fit for a person."""
        return str(self)


def _made_of(kind: type[AfterliveError], facts: dict[str, Any]) -> AfterliveError:
    return kind(**facts)


class TransientError(AfterliveError):
    """A passing fault: {reason}."""

    code = "transient-error"
    retryable = True


class Cancelled(AfterliveError):
    """The work on {key} was cancelled."""

    code = "cancelled"


class DeadlineExceeded(TransientError):
    """{what} did not finish within {seconds:.0f} s."""

    code = "deadline-exceeded"


class StorageUnavailable(TransientError):
    """The object store failed on {key}: {reason}."""

    code = "storage-unavailable"


class ObjectMissing(AfterliveError):
    """The object store has no {key}."""

    code = "object-missing"


class ObjectKeyInvalid(ObjectMissing):
    """The object key {key!r} is not allowed: {reason}."""

    code = "object-key-invalid"


class ConfigurationError(AfterliveError):
    """The setting {setting} is wrong: {reason}."""

    code = "configuration-error"


class BrokerUnavailable(TransientError):
    """The broker did not take a message: {reason}."""

    code = "broker-unavailable"


class MessageRefused(TransientError):
    """The broker has no place for {task}: {reason}."""

    code = "message-refused"


class SenderUnavailable(TransientError):
    """The {channel} could not be sent now: {reason}."""

    code = "sender-unavailable"


class SenderRefused(AfterliveError):
    """The {channel} was refused: {reason}."""

    code = "sender-refused"


class ProviderRefused(SenderRefused):
    """The {channel} was refused, as another provider might not: {reason}."""

    code = "provider-refused"


class RecipientRefused(SenderRefused):
    """The {channel} was refused for its recipient: {reason}."""

    code = "recipient-refused"


class WebhookUrlRefused(AfterliveError):
    """The webhook's URL is refused: {reason}."""

    code = "webhook-url-refused"


class WebhookEndpointDisabled(AfterliveError):
    """The webhook endpoint {endpoint_id} was disabled: {reason}."""

    code = "webhook-endpoint-disabled"


class TaskFailed(AfterliveError):
    """{task} failed finally: {reason}"""

    code = "task-failed"


class NotFound(AfterliveError):
    """There is no {noun} {key}."""

    code = "not-found"


class Conflict(AfterliveError):
    """{reason}"""

    code = "conflict"


class RateLimited(AfterliveError):
    """Too many requests: {reason}."""

    code = "rate-limited"  # with the fact `retry_after_seconds`


class OtpWrong(AfterliveError):
    """The code is wrong; {attempts_left} more may be tried."""

    code = "otp-wrong"


class OtpLocked(AfterliveError):
    """Too many wrong codes were tried; a new one has to be asked for."""

    code = "otp-locked"


class OtpExpired(AfterliveError):
    """The code is of no use: it expired, was used, was replaced by a later one, or never was."""

    code = "otp-expired"


class OrderRefused(AfterliveError):
    """The order cannot be taken: {reason}."""

    code = "order-refused"


class ProductUnknown(OrderRefused):
    """There is no product {product_id}."""

    code = "product-unknown"


class ProductInactive(OrderRefused):
    """The product {product_id} is not for sale."""

    code = "product-inactive"


class OrderMixed(OrderRefused):
    """All products of an order must have the same {what}."""

    code = "order-mixed"


class QuantityRefused(OrderRefused):
    """The order cannot be taken: {reason}."""

    code = "quantity-refused"


class IdempotencyKeyReused(AfterliveError):
    """This Idempotency-Key was used for another request."""

    code = "idempotency-key-reused"


class IdempotencyKeyInUse(AfterliveError):
    """A request with this Idempotency-Key is still in progress."""

    code = "idempotency-key-in-use"  # with the fact `retry_after_seconds`


class AmountInvalid(AfterliveError):
    """The amount {amount_minor} {currency} cannot be charged: {reason}."""

    code = "amount-invalid"


class PaymentsOff(AfterliveError):
    """No payment gateway is set up: {reason}."""

    code = "payments-off"


class GatewayUnavailable(TransientError):
    """The payment gateway gave no answer to go by: {reason}."""

    code = "gateway-unavailable"


class GatewayRefused(AfterliveError):
    """The payment gateway refused: {reason}."""

    code = "gateway-refused"


class NoticeForged(AfterliveError):
    """The notice is not the payment gateway's: {reason}."""

    code = "notice-forged"


class NoticeUnreadable(AfterliveError):
    """The payment gateway's notice cannot be read: {reason}."""

    code = "notice-unreadable"


class PayloadInvalid(AfterliveError):
    """The payload of {task} is wrong: {reason}."""

    code = "payload-invalid"


# --- input -----------------------------------------------------------------------------------------------------------


class InputError(AfterliveError):
    """The recording {source} cannot be used: {reason}."""

    code = "recording-unusable"


class RecordingMissing(InputError):
    """The recording {source} does not exist or cannot be read."""

    code = "recording-missing"


class RecordingEmpty(InputError):
    """The recording {source} is empty (0 bytes)."""

    code = "recording-empty"


class RecordingNotMedia(InputError):
    """The recording {source} is not a media file that can be read: {reason}."""

    code = "recording-not-media"


class RecordingWithoutVideo(InputError):
    """The recording {source} has no video that can be decoded."""

    code = "recording-without-video"


class RecordingRefused(InputError):
    """The recording {source} is refused: {reason}."""

    code = "recording-refused"


class RecordingOutsideRoots(InputError):
    """The recording {source} is outside the folders recordings may be read from."""

    code = "recording-outside-roots"


class RecordingTooLarge(InputError):
    """The recording {source} is too large: {reason}."""

    code = "recording-too-large"


class PhoneInvalid(InputError):
    """The phone number cannot be used: {reason}."""

    code = "phone-invalid"


class LadderInvalid(InputError):
    """The ladder {source} is wrong: {reason}."""

    code = "ladder-invalid"


# --- media work ------------------------------------------------------------------------------------------------------


class EncoderFailed(TransientError):
    """ffmpeg failed on {key}: {reason}."""

    code = "encoder-failed"


class EncoderHung(EncoderFailed):
    """ffmpeg failed on {key}: {reason}."""


class OutputRejected(TransientError):
    """The output of {key} failed its check: {reason}."""

    code = "output-rejected"


class KeyframesMisplaced(OutputRejected):
    """The output of {key} failed its check: {reason}."""


class EncoderBusy(TransientError):
    """{encoder} has no free session: {reason}."""

    code = "encoder-busy"


class EncoderUnavailable(AfterliveError):
    """{encoder} cannot be had on {node}: {reason}."""

    code = "encoder-unavailable"
