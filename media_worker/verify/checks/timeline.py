"""Whether the timelines have no holes and agree with each other, and whether everything decodes."""

from __future__ import annotations

from fractions import Fraction

from media_worker.verify.checks import Faults
from media_worker.verify.facts import Kind, Piece, Rendition
from media_worker.verify.subject import Subject

_STEP_TOLERANCE = Fraction(1, 50)


def continuous(subject: Subject) -> Faults:
    for rendition, kind in subject.kinds:
        before: Piece | None = None
        for segment in rendition.segments:
            piece = segment.piece(kind)
            if piece:
                for fault in piece.breaks:
                    yield segment.told.where, f"{kind}: {fault}"
                if before and not segment.told.discontinuity:
                    yield from _step(segment.told.where, kind, before, piece)
            before = piece


def _step(where: str, kind: Kind, before: Piece, piece: Piece) -> Faults:
    """A hole or overlap between two segments, in decoding time or in what is shown."""
    slack = max(before.slack, piece.slack)
    for what, ended, begins in (
        ("decode time", before.decode_end, piece.decode_begin),
        ("presentation", before.end, piece.begin),
    ):
        off = begins - ended
        if abs(off) > slack:
            yield where, f"{kind}: its {what} begins {float(off):+.4f} s off the end of the segment before"
            return


def same_start(subject: Subject) -> Faults:
    begins = {rendition.where: _begin(rendition) for rendition in (*subject.video, *subject.sound)}
    known = {where: begin for where, begin in begins.items() if begin is not None}
    if not known:
        return
    first = next(iter(known.values()))
    for where, begin in known.items():
        if abs(begin - first) > (subject.longest_frame or Fraction(1, 20)):
            yield where, f"it begins at {float(begin):.4f} s, the first variant at {float(first):.4f} s"


def _begin(rendition: Rendition) -> Fraction | None:
    segment = rendition.segments[0] if rendition.segments else None
    piece = segment.piece(rendition.main) if segment else None
    return piece.begin if piece else None


def same_duration(subject: Subject) -> Faults:
    frame = subject.longest_frame
    first = next((rendition for rendition in subject.video if rendition.whole), None)
    if frame is None or first is None:
        return
    lasts = first.seconds("video")
    for rendition, kind in subject.kinds:
        seconds = rendition.seconds(kind)
        if rendition.whole and abs(seconds - lasts) > frame:
            there = f"{first.where} lasts {float(lasts):.4f} s"
            yield rendition.where, f"its {kind} lasts {float(seconds):.4f} s, {there}"


def same_frames(subject: Subject) -> Faults:
    """A rung of half the frame rate holds every second frame; rates that are no multiple are not compared."""
    whole = [each for each in subject.video if each.whole and each.steady("video")]
    if not whole:
        return
    top = min(whole, key=lambda each: each.frame_seconds("video") or Fraction(1))
    fastest = top.frame_seconds("video")
    for rendition in whole:
        lasts = rendition.frame_seconds("video")
        if not fastest or not lasts:
            continue
        step = round(lasts / fastest)
        if abs(lasts / fastest - step) > _STEP_TOLERANCE:
            continue
        expected = -(-top.samples("video") // step)
        if rendition.samples("video") != expected:
            yield rendition.where, f"it has {rendition.samples('video')} frames, {expected} go with {top.where}"


def decodes(subject: Subject) -> Faults:
    for rendition in subject.measured.values():
        for decoded in rendition.decoded:
            for problem in decoded.problems:
                yield rendition.where, f"{decoded.kind}: {problem}"


def frames(subject: Subject) -> Faults:
    for rendition in subject.measured.values():
        for decoded in rendition.decoded:
            if decoded.problems or not rendition.whole:
                continue  # blamed for that already, not again for the frames that are lost by it
            for fault in decoded.disorder:
                yield rendition.where, f"{decoded.kind}: {fault}"
            samples = rendition.samples(decoded.kind)
            if decoded.kind == "video" and decoded.frames != samples:
                yield rendition.where, f"video: {decoded.frames} frames come out of {samples} samples"
