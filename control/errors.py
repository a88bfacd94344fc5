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


class TaskFailed(AfterliveError):
    """{task} failed finally: {reason}"""

    code = "task-failed"


class NotFound(AfterliveError):
    """There is no {noun} {key}."""

    code = "not-found"


class Conflict(AfterliveError):
    """{reason}"""

    code = "conflict"


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


class LadderInvalid(InputError):
    """The ladder {source} is wrong: {reason}."""

    code = "ladder-invalid"


# --- media work ------------------------------------------------------------------------------------------------------


class EncoderFailed(TransientError):
    """ffmpeg failed on {key}: {reason}."""

    code = "encoder-failed"


class OutputRejected(TransientError):
    """The output of {key} failed its check: {reason}."""

    code = "output-rejected"
