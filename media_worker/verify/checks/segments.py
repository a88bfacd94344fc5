"""What segments must hold: IDR frames, their lengths, their borders."""

from __future__ import annotations

from fractions import Fraction
from itertools import accumulate, pairwise

from media_worker.verify.checks import Faults
from media_worker.verify.facts import Rendition
from media_worker.verify.subject import Subject

_IDR_EVERY_SECONDS = 2
_OVER_TARGET_SECONDS = Fraction(1, 2)


def starts_with_idr(subject: Subject) -> Faults:
    for rendition in subject.video:
        for segment in rendition.segments:
            piece = segment.piece("video")
            if piece and not piece.starts_with_idr:
                yield segment.told.where, "its first frame is no IDR"


def idr_interval(subject: Subject) -> Faults:
    """One frame more is allowed: 2 s are no whole number of frames at 29.97 fps."""
    for rendition in subject.video:
        limit = _IDR_EVERY_SECONDS + (rendition.frame_seconds("video") or 0)
        since = Fraction(0)  # how long the segments before have gone without: a hole between them is not counted
        for segment in rendition.segments:
            piece = segment.piece("video")
            if piece is None:
                since = Fraction(0)
                continue
            marks = [piece.begin - since, *piece.idrs, piece.end]
            since = piece.end - marks[-2]
            for a, b in pairwise(marks):
                if b - a > limit + piece.slack:
                    yield segment.told.where, f"{float(b - a):.3f} s without an IDR frame, from {float(a):.3f} s"
                    break


def length(subject: Subject) -> Faults:
    for rendition in (*subject.video, *subject.sound):
        target = rendition.playlist.target_seconds
        if target is None:
            continue
        kind = rendition.main
        for segment in rendition.segments:
            piece = segment.piece(kind)
            longest = max(segment.told.seconds, piece.seconds if piece else Fraction(0))
            if longest > target + _OVER_TARGET_SECONDS:
                yield segment.told.where, f"it lasts {float(longest):.3f} s, the target duration is {target} s"
            elif segment.told.seconds >= target + _OVER_TARGET_SECONDS:
                yield segment.told.where, f"EXTINF {float(segment.told.seconds):.3f} rounds to more than {target} s"


def extinf(subject: Subject) -> Faults:
    """The sum over any run of segments may be one frame off: the running difference stays in a band that wide."""
    frame = subject.longest_frame
    for rendition in (*subject.video, *subject.sound):
        kind = rendition.main
        if not rendition.whole or len(rendition.pieces(kind)) != len(rendition.segments):
            continue
        band = max(frame or Fraction(0), (rendition.frame_seconds(kind) or Fraction(0)))
        low = high = drift = Fraction(0)
        for segment in rendition.segments:
            piece = segment.piece(kind)
            drift += segment.told.seconds - (piece.seconds if piece else 0)
            low, high = min(low, drift), max(high, drift)
            if high - low > band + (piece.slack if piece else 0):
                off = float(drift)
                yield segment.told.where, f"up to here the EXTINF durations are {off:+.4f} s off the media's"
                break


def aligned(subject: Subject) -> Faults:
    whole = [rendition for rendition in subject.video if rendition.whole]
    if len(whole) < 2:
        return
    first = whole[0]
    for other in whole[1:]:
        slack = max((other.frame_seconds("video") or Fraction(0)), (first.frame_seconds("video") or Fraction(0))) / 2
        mine, theirs = _borders(other), _borders(first)
        for index, (a, b) in enumerate(zip(mine, theirs, strict=False)):
            if abs(a - b) > slack:
                there = f"at {float(a):.3f} s, in {first.where} at {float(b):.3f} s"
                yield other.where, f"segment {index + 1} begins {there}"
                break
        else:
            if len(mine) != len(theirs):
                yield other.where, f"it has {len(mine) + 1} segments, {first.where} has {len(theirs) + 1}"


def _borders(rendition: Rendition) -> list[Fraction]:
    """Where segments 1, 2, … begin, counted from the rendition's own start by what the segments hold."""
    return list(accumulate(piece.seconds for piece in rendition.pieces("video")))[:-1]
