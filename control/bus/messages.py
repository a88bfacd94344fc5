"""What crosses the bus: the payloads of media tasks and their results, immutable and JSON on the wire.

Media workers and pipelines import nothing of each other; this module is the contract between them. Times in a
recording are integers in the track's `time_base`; times in a replay are whole frames of the plan's `frame_rate`
grid, frame 0 being the first decodable frame of the video.
"""

from __future__ import annotations

from datetime import datetime
from fractions import Fraction
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from control.errors import AfterliveError

CPU_DEVICE: Final = "cpu"


class Message(BaseModel):
    """Base of all payloads: frozen, and a field nobody declared is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


# --- the recording --------------------------------------------------------------------------------


class Note(Message):
    """Something a person should know of a recording that could be used all the same."""

    code: str = Field(examples=["recording-truncated"])
    detail: str


class VideoTrack(Message):
    """The video of a recording, as probed."""

    index: int
    """The stream's index in the container."""
    codec: str
    profile: str | None = None
    coded_width: int
    coded_height: int
    width: int
    """Display width in square pixels, after rotation."""
    height: int
    """Display height in square pixels, after rotation."""
    rotation: Literal[0, 90, 180, 270] = 0
    """Clockwise degrees the decoded picture must be turned by."""
    sample_aspect: Fraction = Fraction(1)
    frame_rate: Fraction
    """The source's own rate: exact for constant rate, nominal for variable."""
    variable_frame_rate: bool = False
    interlaced: bool = False
    bit_depth: int = 8
    pixel_format: str
    hdr: bool = False
    """PQ or HLG transfer: needs tone-mapping for an SDR ladder."""
    color_space: str | None = None
    color_primaries: str | None = None
    color_transfer: str | None = None
    color_range: str | None = None
    time_base: Fraction
    origin_pts: int
    """Presentation time of the first decodable frame: frame 0 of the replay."""
    end_pts: int
    """End of the last frame."""
    frames: int
    """Decodable frames."""
    keyframes: tuple[int, ...]
    """Presentation times of the keyframes the video may be entered at, ascending, thinned to 0.5 s apart."""


class AudioTrack(Message):
    """One audio track of a recording, as probed."""

    index: int
    codec: str
    profile: str | None = None
    channels: int
    sample_rate: int
    language: str | None = None
    title: str | None = None
    start_seconds: float
    """Start on the container's clock (the video's origin is `origin_pts * time_base` on the same clock)."""
    end_seconds: float
    has_gaps: bool = False
    """Timestamps jump somewhere: it cannot be copied, only encoded with the gaps filled by silence."""


class ComplexityPoint(Message):
    """What constant quality took at one size, kbit/s with a keyframe every 2 s at the recording's own frame rate."""

    short_side: int
    mean_kbps: int
    busy_kbps: int
    """Upper quartile of the places looked at: each chunk is encoded for itself; busy ones must look well too."""


class Complexity(Message):
    """How many bits the pictures of a recording need, by short encodes at places spread over it."""

    crf: int
    """x264's constant rate factor: what quality was held."""
    frame_rate: Fraction
    places: int
    points: tuple[ComplexityPoint, ...]
    """Of two sizes, the larger first."""


class MediaInfo(Message):
    """All the facts of a recording that planning needs."""

    source: str
    container: str
    size_bytes: int
    duration_seconds: float
    video: VideoTrack
    audio: tuple[AudioTrack, ...] = ()
    notes: tuple[Note, ...] = ()
    complexity: Complexity | None = None
    """None where it was not asked for, or could not be measured."""


# --- the plan -------------------------------------------------------------------------------------


class Rung(Message):
    """One video rendition of a replay."""

    name: str = Field(examples=["720p"])
    """Its folder in the replay."""
    width: int
    height: int
    frame_step: Literal[1, 2] = 1
    """2 keeps every second frame of the plan's grid."""
    frame_rate: Fraction
    """Frames a second of this rung: the plan's rate over `frame_step`."""
    video_kbps: int
    max_kbps: int
    buffer_kbits: int
    profile: Literal["baseline", "main", "high"] = "high"
    timescale: int
    """Ticks a second of its media timeline; a frame is a whole number of ticks."""
    encoder: str = "libx264"
    """The encoder pinned for the whole replay: another would give another init segment."""


class RungChoice(Message):
    """What became of one step of the ladder, and why."""

    name: str = Field(examples=["720p"])
    table_kbps: int
    """What Apple's table says for it."""
    needed_kbps: int
    """What this recording was measured to need."""
    kbps: int | None
    """What it gets; None where the rung was left out."""
    why: str


class Chunk(Message):
    """A run of whole segments, made by one task."""

    index: int
    first_frame: int
    """In the plan's grid."""
    frames: int
    first_segment: int
    """Number of its first segment in every rung, from 0."""
    entry_pts: int | None
    """Keyframe to enter the source at; None reads from the start."""


class AudioRendition(Message):
    """One audio rendition of a replay."""

    name: str = Field(examples=["audio"])
    """Its folder in the replay."""
    track_index: int
    mode: Literal["copy", "encode"]
    kbps: int = 128
    sample_rate: int = 48000
    language: str | None = None
    title: str | None = None
    default: bool = True


class LeftRung(Message):
    """A rendition that was begun and left, as its encoder could not be had any more."""

    name: str
    """The folder what was made of it lies in, until the replay is complete."""
    encoder: str


class Plan(Message):
    """How a recording becomes a replay. Pure function of (MediaInfo, ladder, settings)."""

    frame_rate: Fraction
    frames: int
    """Length of the replay on the `frame_rate` grid."""
    gop_frames: int
    """About 2 s; even where a rung has `frame_step` 2."""
    segment_frames: int
    """About 6 s; a multiple of `gop_frames`."""
    rungs: tuple[Rung, ...]
    """Best first."""
    ladder: tuple[RungChoice, ...] = ()
    """Why the rungs are these, where they were chosen by the recording's content."""
    chunks: tuple[Chunk, ...]
    audio: tuple[AudioRendition, ...] = ()
    preset: str = "veryfast"
    threads: int = 1
    """Encoder threads of one chunk: pinned, as x264's output depends on it."""
    normalise_lufs: float | None = None
    left: tuple[LeftRung, ...] = ()
    """Renditions that other encoders took over, oldest first."""

    @property
    def duration_seconds(self) -> Fraction:
        return self.frames / self.frame_rate


# --- media tasks: what they are given -------------------------------------------------------------


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


# --- media tasks: what they answer ----------------------------------------------------------------


class IFrame(Message):
    """The byte range of a segment that holds one IDR frame alone (from its `moof`)."""

    offset: int
    size_bytes: int
    ticks: int
    """From this IDR to the next (or to the segment's end)."""


class Segment(Message):
    """One media segment in the store."""

    name: str = Field(examples=["seg-00000.m4s"])
    size_bytes: int
    ticks: int
    """Its duration in the rendition's timescale."""
    iframes: tuple[IFrame, ...] = ()
    """Empty for audio."""


class Track(Message):
    """The segments a task made for one rendition."""

    name: str
    codecs: str = Field(examples=["avc1.64001f"])
    """RFC 6381."""
    timescale: int
    init_sha256: str
    frames: int
    """Samples in all segments."""
    segments: tuple[Segment, ...]


class ChunkResult(Message):
    """Answer of `media.transcode_chunk`."""

    index: int
    tracks: tuple[Track, ...]
    """One a rung, in the job's order."""
    encoder: str
    encoders: tuple[str, ...] = ()
    """The encoder of each rung, in the job's order."""
    node: str = ""
    """The host that made it."""
    device: str = CPU_DEVICE
    """What it was made on; of several, the first rung's."""
    tier: str = CPU_DEVICE
    fallbacks: tuple[str, ...] = ()
    """What was not had as wanted before it was made, a line each."""
    seconds: float
    """Wall time of the encoder when the chunk was made, be it in an earlier run."""
    reused: bool = False


class AudioResult(Message):
    """Answer of `media.encode_audio`."""

    track: Track
    mode: Literal["copy", "encode"]
    seconds: float
    loudness_lufs: float | None = None
    """Integrated loudness of the source (EBU R 128); None for silence or where it was not measured."""
    reused: bool = False


class Thumbnail(Message):
    """One candidate picture."""

    name: str
    seconds: float
    """Its exact time in the replay."""
    score: float
    width: int
    height: int


class ThumbnailResult(Message):
    """Answer of `media.generate_stream_thumbnail`."""

    poster: Thumbnail
    candidates: tuple[Thumbnail, ...]
    storyboard: str
    """Name of the WebVTT file."""
    sheets: tuple[str, ...]
    tiles: int
    seconds: float
    reused: bool = False


# --- what a media node can do ---------------------------------------------------------------------

Codec = Literal["h264", "hevc", "av1"]


class Capability(Message):
    """One way a node can encode on one device, as it was found by really encoding."""

    device: str = Field(examples=["nvenc:0", "vaapi:/dev/dri/renderD128", "cpu"])
    encoder: str = Field(examples=["h264_nvenc"])
    """What a rung is pinned to (`Rung.encoder`)."""
    codec: Codec
    tier: str = Field(examples=["cuda"])
    """How it decodes and scales; a chunk may change between tiers of one encoder, its init segment stays the same."""
    bit_depths: tuple[int, ...] = (8,)
    """Of the sources it takes; what it makes has 8 bits."""
    min_width: int = 2
    min_height: int = 2
    max_width: int = 16384
    max_height: int = 16384
    """The smallest and largest rungs it makes."""
    sessions: int | None = None
    """Encoders at a time on the device, all of the node's processes together: a chunk takes one a rung. None is any
    number."""
    usable: bool
    reason: str | None = None
    """Why it is not usable, one line."""


class NodeReport(Message):
    """What a media node can do, said at its start and with each heartbeat."""

    node: str
    """The host's name."""
    at: datetime
    """When it was made, UTC."""
    ffmpeg: str
    """Version of the ffmpeg it runs."""
    capabilities: tuple[Capability, ...]
    """Best first, those that are not usable too."""
    refuses_cpu: bool = False
    """It was told to make no chunk on its CPU: one pinned to a CPU encoder ends there as `encoder-unavailable`."""

    def can(self, encoder: str, *, width: int, height: int, bit_depth: int = 8) -> bool:
        """Whether a rung of `width` × `height` of a source of `bit_depth` can be made here by `encoder`."""
        return any(
            each.usable
            and each.encoder == encoder
            and bit_depth in each.bit_depths
            and each.min_width <= width <= each.max_width
            and each.min_height <= height <= each.max_height
            and not (self.refuses_cpu and each.device == CPU_DEVICE)
            for each in self.capabilities
        )


class Progress(Message):
    """How far one part has come."""

    done_frames: int
    total_frames: int
    fps: float
    """Since the last report."""


class Problem(Message):
    """Why a part failed finally."""

    code: str
    detail: str

    @classmethod
    def of(cls, error: BaseException) -> Problem:
        """As a person may see it; of an error that is not one of ours, nothing but its kind."""
        if isinstance(error, AfterliveError):
            return cls(code=error.code, detail=error.detail)
        return cls(code=AfterliveError.code, detail=f"An unexpected {type(error).__name__}; the log says more.")


class PartProblem(Problem):
    """As it is told to the part's replay: with what the plan may have to do without."""

    encoder: str | None = None
    """The encoder that could not be had, where it failed for that."""
    node: str | None = None
    """The media worker that could not have it."""
    rungs: tuple[str, ...] = ()
    """Names of the rungs a chunk was to make: they tell which plan it is of."""
