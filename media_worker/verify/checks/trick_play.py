"""I-frame playlists, which scrubbing needs."""

from __future__ import annotations

from fractions import Fraction

from media_worker.verify.checks import Faults
from media_worker.verify.subject import Subject, average_bps, peak_bps

_RATE_TOLERANCE = Fraction(1, 10)


def present(subject: Subject) -> Faults:
    if not subject.said.is_master or not subject.video:
        return
    if not subject.iframes:
        yield "master playlist", "there is no EXT-X-I-FRAME-STREAM-INF"
    for found in subject.iframes:
        playlist = found.variant.playlist
        if playlist.problem:
            continue
        if not playlist.iframes_only:
            yield playlist.where, "EXT-X-I-FRAMES-ONLY is missing"
        if not found.variant.codecs:
            yield playlist.where, "CODECS is missing"
        if found.variant.resolution is None:
            yield playlist.where, "RESOLUTION is missing"


def ranges(subject: Subject) -> Faults:
    for found in subject.iframes:
        yield from found.problems


def duration(subject: Subject) -> Faults:
    whole = [each for each in subject.video if each.whole]
    frame = subject.longest_frame
    if not whole or frame is None:
        return
    lasts = whole[0].seconds("video")
    for found in subject.iframes:
        playlist = found.variant.playlist
        if playlist.problem or not playlist.segments:
            continue
        if abs(playlist.seconds - lasts) > frame:
            yield playlist.where, f"it covers {float(playlist.seconds):.4f} s of {float(lasts):.4f} s of video"


def bandwidth(subject: Subject) -> Faults:
    for found in subject.iframes:
        playlist, said = found.variant.playlist, found.variant.bandwidth
        if not said or not found.sizes or 0 in found.sizes:
            continue
        pieces = [(size, told.seconds) for size, told in zip(found.sizes, playlist.segments, strict=True)]
        real = peak_bps(pieces, playlist.target_seconds)
        if average_bps(pieces) and abs(real - said) > _RATE_TOLERANCE * said:
            yield playlist.where, f"BANDWIDTH is {said}, the measured peak is {round(real)}"
