"""Measures segments that are no fragmented MP4 (MPEG transport streams, packed audio) with libav's demuxers."""

from __future__ import annotations

import io
from fractions import Fraction
from itertools import pairwise

import av
from av.audio.stream import AudioStream
from av.video.stream import VideoStream

from media_worker.verify.facts import Format, Piece

_AAC_OBJECT_TYPES = {"LC": 2, "HE-AAC": 5, "HE-AACv2": 29, "Main": 1}
_OTHER_AUDIO = {"mp3": "mp4a.40.34", "ac3": "ac-3", "eac3": "ec-3", "opus": "Opus", "flac": "fLaC"}


class UnreadableSegment(ValueError):
    """libav cannot demux the segment."""


def measure_demuxed(data: bytes) -> tuple[Piece, ...]:
    """What each audio and video stream has in a segment. Raises UnreadableSegment."""
    try:
        with av.open(io.BytesIO(data), mode="r") as container:
            streams = [each for each in container.streams if isinstance(each, (VideoStream, AudioStream))]
            packets: dict[int, list[_Packet]] = {each.index: [] for each in streams}
            for packet in container.demux(streams):
                if packet.pts is None or packet.dts is None or packet.size == 0:
                    continue
                head = bytes(packet) if packet.is_keyframe and isinstance(packet.stream, VideoStream) else b""
                packets[packet.stream.index].append((packet.dts, packet.pts, packet.duration or 0, head))
            pieces = tuple(_piece(each, packets[each.index]) for each in streams if packets[each.index])
    except (av.FFmpegError, OSError, ValueError) as error:
        raise UnreadableSegment(f"it cannot be demuxed: {error}") from error
    if not pieces:
        raise UnreadableSegment("it holds neither audio nor video with timestamps")
    return pieces


_Packet = tuple[int, int, int, bytes]


def _piece(stream: VideoStream | AudioStream, packets: list[_Packet]) -> Piece:
    tick = Fraction(stream.time_base or Fraction(1, 90000))
    video = isinstance(stream, VideoStream)
    hevc = stream.codec_context.name == "hevc"
    first = _types(packets[0][3], hevc=hevc)
    idrs = tuple(sorted(pts * tick for _, pts, _, head in packets if head and _idr(_types(head, hevc=hevc), stream)))
    times = sorted(pts for _, pts, _, _ in packets)
    steps = [b - a for a, b in pairwise(times)]
    # Transport streams seldom tell durations: the usual distance is one.
    usual = sorted(steps)[len(steps) // 2] if steps else packets[-1][2]
    mean = Fraction(times[-1] - times[0], len(steps)) if steps else Fraction(usual)
    steady = all(abs(step - usual) <= 1 for step in steps)
    lasts = mean if steady else Fraction(usual)
    breaks = [
        f"frames are {float(step * tick):.4f} s apart, mostly {float(usual * tick):.4f} s"
        for step in steps
        if step <= 0 or (step > 2.5 * usual)
    ]
    return Piece(
        format=_format(stream, packets[0][3]),
        slack=lasts * tick / 2,  # 90 kHz timestamps are rounded, and so are the durations derived from them
        decode_begin=packets[0][0] * tick,
        decode_end=(packets[-1][0] + lasts) * tick,
        begin=times[0] * tick,
        end=(times[-1] + lasts) * tick,
        samples=len(packets),
        times=tuple(at * tick for at in times) if video else (),
        sample_seconds=None if not steady else lasts * tick,
        idrs=idrs if video else (),
        starts_with_idr=video and bool(packets[0][3]) and _idr(first, stream),
        breaks=tuple(breaks[:1]),
    )


def _format(stream: VideoStream | AudioStream, first: bytes) -> Format:
    context = stream.codec_context
    if isinstance(stream, VideoStream):
        codecs = _avc(first) if context.name == "h264" else context.name
        return Format("video", codecs, stream.codec_context.width, stream.codec_context.height)
    codecs = context.name
    if codecs == "aac":
        codecs = f"mp4a.40.{_AAC_OBJECT_TYPES.get(str(context.profile), 2)}"
    return Format("audio", _OTHER_AUDIO.get(codecs, codecs), sample_rate=stream.codec_context.sample_rate)


def _avc(packet: bytes) -> str:
    at = packet.find(b"\x00\x00\x01")
    while at >= 0 and at + 6 < len(packet):
        if packet[at + 3] & 0x1F == 7:
            return f"avc1.{packet[at + 4 : at + 7].hex()}"
        at = packet.find(b"\x00\x00\x01", at + 3)
    return "avc1"


def _types(packet: bytes, *, hevc: bool) -> set[int]:
    """NAL unit types of an Annex B packet."""
    found: set[int] = set()
    at = packet.find(b"\x00\x00\x01")
    while 0 <= at < len(packet) - 3:
        found.add(packet[at + 3] >> 1 & 0x3F if hevc else packet[at + 3] & 0x1F)
        at = packet.find(b"\x00\x00\x01", at + 3)
    return found


def _idr(types: set[int], stream: VideoStream | AudioStream) -> bool:
    if stream.codec_context.name == "h264":
        return 5 in types
    if stream.codec_context.name == "hevc":
        return bool(types & {19, 20})
    return True
