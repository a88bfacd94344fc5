"""What a failure of ffmpeg means for the device it ran on, read from the end of its stderr.

The texts are libavcodec's and libavutil's (nvenc.c, vaapi_encode.c, hwcontext_cuda.c, hwcontext_vaapi.c, cuviddec) and
NVIDIA's and libva's names of errors; each was seen in a report of a user of one of them, or in ffmpeg itself.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Final

from control.errors import AfterliveError, EncoderFailed, EncoderHung, KeyframesMisplaced, OutputRejected


class Failure(StrEnum):
    """Its class."""

    BUSY = "busy"
    """No free session or no memory on the device: another one, or a while later."""
    INCAPABLE = "incapable"
    """The device cannot do this at all (a size, a depth, a codec): the next tier."""
    UNAVAILABLE = "unavailable"
    """The device, its driver or the encoder is not there: another device."""
    INPUT = "input"
    """The recording is damaged or cannot be read: not the device's fault."""
    FAULT = "fault"
    """It crashed, hung or made something wrong: the device is suspected."""


_LONGEST: Final = 300


def _any_of(*patterns: str) -> re.Pattern[str]:
    return re.compile("|".join(patterns), re.IGNORECASE)


# In this order: of a card without a free session, or without 10 bits, it is also said that there is no capable device;
# and a damaged recording is complained of whatever happens besides.
_CLASSES: Final = (
    (
        Failure.BUSY,
        _any_of(
            # GeForce drivers' limit of sessions has been told in both ways.
            r"OpenEncodeSessionEx failed: (out of memory|incompatible client key|encoder busy)",
            r"InitializeEncoder failed: (out of memory|encoder busy)",
            r"CUDA_ERROR_OUT_OF_MEMORY",
            r"Failed creating CUDA context for NVENC: 0x2\b",
            r"No free encoding session",
            # libva: VA_STATUS_ERROR_ALLOCATION_FAILED, …_HW_BUSY, …_MAX_NUM_EXCEEDED
            r"resource allocation failed",
            r"hw busy now",
            r"maximum number exceeded",
        ),
    ),
    (
        Failure.INCAPABLE,
        _any_of(
            r"(10|12)[- ]bit (encode|depth)[^\n]*not supported",
            r"(less|greater|bigger|larger) than the (minimum|maximum) supported",
            r"exceeds? (the )?(maximum|limits)",
            r"InitializeEncoder failed: (invalid param|unsupported param)",
            r"No usable encoding (profile|entrypoint)",
            r"Hardware does not support encoding at size",
            r"Hardware is lacking required capabilities",
            r"Provided device doesn't support required NVENC features",
            r"Codec not supported",
            r"(profile|entrypoint|resolution|rate control mode|RC mode|format|level) is not supported",
            r"(B frames?|B frames as references|lookahead|temporal AQ)[^\n]* (is|are) not supported",
            r"Driver does not support[^\n]*(RC|rate|packed|mode)",
            r"Impossible to convert between the formats",
            r"Failed setup for format (cuda|vaapi)",
            r"hwaccel initialisation returned error",
            r"(Your|The) (decoder|hardware)[^\n]*not supported",
            r"No support for codec [^\n]* profile",
            r"Unsupported (input|output|pixel|hw) format",
        ),
    ),
    (
        Failure.UNAVAILABLE,
        _any_of(
            r"Cannot load lib(cuda|nvidia-encode|nvcuvid|va)",
            r"Could not dynamically load CUDA",
            r"CUDA_ERROR_(NO_DEVICE|INVALID_DEVICE|SYSTEM_DRIVER_MISMATCH|SYSTEM_NOT_READY|NOT_INITIALIZED|UNKNOWN)",
            r"does not support the required nvenc API version",
            r"minimum required Nvidia driver",
            # A card with CUDA and no encoder, such as H100.
            r"OpenEncodeSessionEx failed: (unsupported device|no encode device)",
            r"No VA display found",
            r"Failed to initialise VAAPI connection",
            r"(vaInitialize|va_openDriver)[^\n]*(fail|returns -1)",
            r"No (NVENC )?capable devices found",
            r"Device creation failed",
            r"No device available for decoder",
            r"Unknown encoder",
        ),
    ),
    (
        Failure.FAULT,
        _any_of(
            r"CUDA_ERROR_",
            r"(EncodePicture|LockBitstream|MapInputResource|RegisterResource) failed",
            r"Failed to (sync|map|upload|issue|end picture|begin picture|create)[^\n]*(encode|surface|parameter|decod)",
            r"Failed to (get|create) (decode|encode)r? (context|buffer|surface)",
        ),
    ),
    (
        Failure.INPUT,
        _any_of(
            r"Error opening input",
            r"moov atom not found",
            r"Invalid data found when processing input",
            r"error while decoding MB",
            r"Error submitting packet to decoder",
            r"Error during demuxing",
            r"Server returned \dXX|HTTP error \d",
            r"Input/output error",
            r"Stream map '[^\n]*' matches no streams",
        ),
    ),
)  # fmt: skip


def failure_of(error: AfterliveError) -> Failure:
    """The class of what `media_worker.runner` or the check of the output raised."""
    if isinstance(error, EncoderHung | OutputRejected):
        return Failure.FAULT
    if not isinstance(error, EncoderFailed):
        return Failure.INPUT  # of the recording or the store
    # What ends by a signal was ended by what it ran in, whatever it said before.
    if int(error.facts.get("status") or 0) < 0:
        return Failure.FAULT
    said = _said(error)
    return next((kind for kind, pattern in _CLASSES if pattern.search(said)), Failure.FAULT)


def cause_of(error: AfterliveError) -> str:
    """The line its class was read from, which is seldom the last; else what the error says."""
    kind = failure_of(error)
    pattern = next((pattern for each, pattern in _CLASSES if each is kind), None)
    if pattern is not None and isinstance(error, EncoderFailed):
        for line in _said(error).splitlines():
            if pattern.search(line):
                return line.strip()[:_LONGEST]
    return str(error.facts.get("reason", error.detail))


def _said(error: AfterliveError) -> str:
    return str(error.facts.get("said", "")) or error.detail


def is_certain(error: AfterliveError) -> bool:
    """Whether a fault is the device's for sure. Output of the wrong length may be what a damaged recording gives, but
    no recording puts keyframes elsewhere, hangs a driver or kills the process."""
    return isinstance(error, KeyframesMisplaced) or not isinstance(error, OutputRejected)
