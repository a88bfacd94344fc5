"""What media tasks are given."""

from __future__ import annotations

from fractions import Fraction

from control.bus.messages.base import Message
from control.bus.messages.plan import AudioRendition, Chunk, Rung
from control.bus.messages.recording import AudioTrack, VideoTrack


class RecordingJob(Message):
    """Payload of `media.process_stream_recording`."""

    replay_id: str
    run: int = 1
    part: str = "recording"
    source: str
    prefix: str
    """Where the replay lives in the object store."""


class ChunkJob(Message):
    """Payload of `media.transcode_chunk`."""

    replay_id: str
    run: int = 1
    part: str
    source: str
    prefix: str
    video: VideoTrack
    """With its keyframes left out (they only serve planning)."""
    chunk: Chunk
    rungs: tuple[Rung, ...]
    frame_rate: Fraction
    gop_frames: int
    segment_frames: int
    preset: str
    threads: int


class AudioJob(Message):
    """Payload of `media.encode_audio`."""

    replay_id: str
    run: int = 1
    part: str
    source: str
    prefix: str
    rendition: AudioRendition
    track: AudioTrack
    origin_seconds: float
    """The video's frame 0 on the container's clock."""
    duration_seconds: Fraction
    """Length of the replay: audio is cut or padded with silence to it."""
    segment_seconds: Fraction
    normalise_lufs: float | None = None


class ThumbnailJob(Message):
    """Payload of `media.generate_stream_thumbnail`."""

    replay_id: str
    run: int = 1
    part: str
    source: str
    prefix: str
    video: VideoTrack
    """With its keyframes left out."""
    duration_seconds: float
