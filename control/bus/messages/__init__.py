"""What crosses the bus: the payloads of media tasks and their results, immutable and JSON on the wire.

Media workers and pipelines import nothing of each other; this package is the contract between them.
"""

from control.bus.messages.base import Message
from control.bus.messages.jobs import AudioJob, ChunkJob, RecordingJob, ThumbnailJob
from control.bus.messages.nodes import CPU_DEVICE, Capability, Codec, NodeReport
from control.bus.messages.plan import AudioRendition, Chunk, LeftRung, Plan, Rung, RungChoice
from control.bus.messages.problems import PartProblem, Problem
from control.bus.messages.recording import AudioTrack, Complexity, ComplexityPoint, MediaInfo, Note, VideoTrack
from control.bus.messages.results import (
    AudioResult,
    ChunkResult,
    IFrame,
    Progress,
    Segment,
    Thumbnail,
    ThumbnailResult,
    Track,
)

__all__ = [
    "CPU_DEVICE",
    "AudioJob",
    "AudioRendition",
    "AudioResult",
    "AudioTrack",
    "Capability",
    "Chunk",
    "ChunkJob",
    "ChunkResult",
    "Codec",
    "Complexity",
    "ComplexityPoint",
    "IFrame",
    "LeftRung",
    "MediaInfo",
    "Message",
    "NodeReport",
    "Note",
    "PartProblem",
    "Plan",
    "Problem",
    "Progress",
    "RecordingJob",
    "Rung",
    "RungChoice",
    "Segment",
    "Thumbnail",
    "ThumbnailJob",
    "ThumbnailResult",
    "Track",
    "VideoTrack",
]
