"""What ffmpeg says, and whose fault it is."""

from __future__ import annotations

import pytest

from control.errors import (
    AfterliveError,
    EncoderFailed,
    EncoderHung,
    KeyframesMisplaced,
    OutputRejected,
    RecordingMissing,
)
from media_worker.encoders.failures import Failure, cause_of, failure_of, is_certain
from tests.gpu_stand_in import SAYS


def failed(said: str, status: int = 1) -> EncoderFailed:
    return EncoderFailed(key="k", reason="the last line", said=said, status=status)


@pytest.mark.parametrize(
    ("how", "failure"),
    [
        ("no session", Failure.BUSY),
        ("no memory", Failure.BUSY),
        ("va busy", Failure.BUSY),
        ("no driver", Failure.UNAVAILABLE),
        ("no display", Failure.UNAVAILABLE),
        ("no decoder", Failure.INCAPABLE),
        ("no entrypoint", Failure.INCAPABLE),
        ("too small", Failure.INCAPABLE),
        ("damaged", Failure.INPUT),
        ("illegal address", Failure.FAULT),
    ],
)
def test_each_kind_of_failure(how: str, failure: Failure) -> None:
    assert failure_of(failed(SAYS[how])) is failure
    # A live's damage is complained of all along; it does not hide what ended the command.
    noise = "[h264] [error] error while decoding MB 3 4, bytestream 12\n" * 20
    assert failure_of(failed(noise + SAYS[how])) is failure


@pytest.mark.parametrize(
    ("said", "failure"),
    [
        ("[h264_nvenc] 10 bit encode not supported\n[h264_nvenc] No capable devices found", Failure.INCAPABLE),
        ("[h264_nvenc] No capable devices found", Failure.UNAVAILABLE),
        ("[hevc_nvenc] OpenEncodeSessionEx failed: unsupported device (2): (no details)", Failure.UNAVAILABLE),
        ("[h264_nvenc] Failed creating CUDA context for NVENC: 0x2", Failure.BUSY),
        ("Driver does not support the required nvenc API version. Required: 13.0 Found: 12.1", Failure.UNAVAILABLE),
        (
            "[h264_vaapi] Hardware does not support encoding at size 64x36 (constraints: width 128-4096).",
            Failure.INCAPABLE,
        ),
        ("[hevc_nvenc] B frames as references are not supported", Failure.INCAPABLE),
        ("[AVHWDeviceContext] Failed to initialise VAAPI connection: -1 (unknown libva error).", Failure.UNAVAILABLE),
        ("Error opening input files: Invalid data found when processing input", Failure.INPUT),
        ("Unknown encoder 'h264_nvenc'", Failure.UNAVAILABLE),
        ("something nobody has seen", Failure.FAULT),
        ("", Failure.FAULT),
    ],
)
def test_what_was_seen_elsewhere(said: str, failure: Failure) -> None:
    assert failure_of(failed(said)) is failure


def test_a_signal_says_more_than_words() -> None:
    assert failure_of(failed(SAYS["damaged"], status=-11)) is Failure.FAULT


@pytest.mark.parametrize(
    ("error", "failure", "certain"),
    [
        (EncoderHung(key="k", reason="r"), Failure.FAULT, True),
        (KeyframesMisplaced(key="k", reason="r"), Failure.FAULT, True),
        (OutputRejected(key="k", reason="r"), Failure.FAULT, False),
        (failed("", -9), Failure.FAULT, True),
        (RecordingMissing(source="s"), Failure.INPUT, True),
    ],
)
def test_errors_of_our_own(error: AfterliveError, failure: Failure, certain: bool) -> None:
    assert failure_of(error) is failure
    assert is_certain(error) is certain


def test_the_cause_is_the_line_it_was_read_from() -> None:
    assert "incompatible client key" in cause_of(failed(SAYS["no session"] + "\n[fatal] Error opening output files"))
    assert cause_of(failed("something nobody has seen")) == "the last line"
    assert cause_of(OutputRejected(key="k", reason="180 frames")) == "180 frames"
