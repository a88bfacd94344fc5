"""A recording whose clock jumps, or that cannot be entered at a time, copied packet by packet into one that can.

Streams are copied, not decoded. Where the clock jumps (a live that dropped and came back), the break is closed up:
the packets after it follow the packets before it, and all tracks are moved by the same amount, so that picture and
sound stay together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
from av.container import InputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.stream import Stream

from control.bus.work import Work
from media_worker.probe import open_recording, pick_video
from media_worker.timeline import BACK_SECONDS, JUMP_SECONDS


@dataclass
class _Clock:
    """The corrections so far; a track moves to the next one where it sees the jump itself."""

    offsets: list[Fraction] = field(default_factory=lambda: [Fraction(0)])

    def offset(self, track: _TrackClock, seconds: Fraction, length: Fraction) -> Fraction:
        expected = track.last + track.length
        if track.started and not (-BACK_SECONDS <= seconds - expected <= JUMP_SECONDS):
            track.epoch += 1
            if track.epoch == len(self.offsets):
                # First to see it: what follows is set right behind what came before.
                self.offsets.append(self.offsets[-1] + expected - seconds)
        track.started, track.last, track.length = True, seconds, length
        return self.offsets[track.epoch]


@dataclass
class _TrackClock:
    started: bool = False
    last: Fraction = Fraction(0)
    length: Fraction = Fraction(0)
    epoch: int = 0


def rewrite(source: str, address: str, out: Path, work: Work) -> None:
    """Write the video and all audio of the recording at `address` to `out` (Matroska, with an index).

    Reads as far as the recording can be read. Raises as `open_recording` does, and Cancelled and DeadlineExceeded.
    """
    clock = _Clock()
    with open_recording(source, address) as container, av.open(str(out), "w", format="matroska") as target:
        audio = [stream for stream in container.streams.audio if stream.codec_context is not None]
        kept = [pick_video(container, source), *audio]
        copies = {stream.index: target.add_stream_from_template(stream) for stream in kept}
        tracks = {stream.index: _TrackClock() for stream in kept}
        written: dict[int, int] = {}
        for number, packet in enumerate(_readable(container, kept)):
            if number % 1024 == 0:
                work.check()
            index = packet.stream_index
            if not packet.size or not _shift(packet, clock, tracks[index]):
                continue
            dts = packet.dts
            if dts is None or dts <= written.get(index, dts - 1):
                continue  # the muxer takes rising times alone; one packet of a torn join is lost
            written[index] = dts
            packet.stream = copies[index]
            target.mux(packet)


def _readable(container: InputContainer, streams: Sequence[Stream]) -> Iterator[Packet[Stream]]:
    try:
        yield from container.demux(*streams)
    except FFmpegError:
        # Reading broke off, as the scan already noted; what was copied is a whole file all the same.
        return


def _shift(packet: Packet[Stream], clock: _Clock, track: _TrackClock) -> bool:
    """Move the packet to the corrected clock; False where it has no time at all."""
    tick = packet.time_base
    time = packet.dts if packet.dts is not None else packet.pts
    if time is None or tick is None:
        return False
    offset = clock.offset(track, time * tick, (packet.duration or 0) * tick)
    ticks = round(offset / tick)
    packet.dts = time + ticks
    if packet.pts is not None:
        packet.pts += ticks
    return True
