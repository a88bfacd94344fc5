"""The rules, a table: what must hold, how bad it is when it does not, where it is written, and what checks it.

Levels are this product's own: what a replay is promised to fulfil is `must`, also where the source says SHOULD (the
source column then says so). "Apple" is the HLS Authoring Specification for Apple Devices, "bis" draft rfc8216bis.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from media_worker.verify.checks import Faults, attributes, playlists, segments, timeline, trick_play
from media_worker.verify.report import Finding, Level
from media_worker.verify.subject import Subject


@dataclass(frozen=True)
class Rule:
    """One row."""

    id: str
    level: Level
    sentence: str
    source: str
    check: Callable[[Subject], Faults]

    def apply(self, subject: Subject) -> list[Finding]:
        return [Finding(self.id, self.level, where, message, self.source) for where, message in self.check(subject)]


# fmt: off
RULES: Final[tuple[Rule, ...]] = (
    Rule("readable", "must", "Every playlist, init section and segment can be read whole.",
         "RFC 8216 6.2.1", playlists.readable),
    Rule("clear", "should", "No segment is encrypted, so that all can be checked.",
         "this verifier", playlists.clear),
    Rule("master", "must", "The address is a multivariant playlist with variants.",
         "Apple 9.9", playlists.master),
    Rule("codecs", "must", "Every variant declares CODECS, exactly those of its media.",
         "Apple 9.1, RFC 8216 4.3.4.2", attributes.codecs),
    Rule("resolution", "must", "Every video variant declares RESOLUTION, that of its media.",
         "Apple 9.2, RFC 8216 4.3.4.2", attributes.resolution),
    Rule("frame-rate", "must", "Every video variant declares FRAME-RATE, that of its media.",
         "Apple 9.15, RFC 8216 4.3.4.2", attributes.frame_rate),
    Rule("average-bandwidth", "must", "AVERAGE-BANDWIDTH is within 10 % of what is measured.",
         "Apple 9.14 and 1.26", attributes.average_bandwidth),
    Rule("bandwidth", "must", "BANDWIDTH is within 10 % of the measured peak.",
         "Apple 9.13 and 1.27, bis 4.1", attributes.bandwidth),
    Rule("peak", "should", "The peak bit rate is at most 200 % of the average.",
         "Apple 1.30", attributes.peak),
    Rule("vod", "must", "Every media playlist is of type VOD and ended.",
         "Apple 8.6, RFC 8216 4.3.3.4 and 4.3.3.5", playlists.vod),
    Rule("map", "must", "Fragmented MP4 comes with EXT-X-MAP.",
         "Apple 8.20, RFC 8216 3.3", playlists.init_section),
    Rule("independent-segments", "must", "EXT-X-INDEPENDENT-SEGMENTS is in the master or in every video playlist.",
         "Apple 9.11 and 9.12", playlists.independent_segments),
    Rule("separate-audio", "must", "Audio is a rendition group of its own, and every variant has it.",
         "Apple 9.5 (SHOULD) and 8.9", playlists.separate_audio),
    Rule("audio-language", "must", "Every audio rendition declares LANGUAGE.",
         "Apple 8.10", playlists.audio_language),
    Rule("same-target", "must", "Audio and video playlists have the same target duration.",
         "Apple 8.2", playlists.same_target),
    Rule("target-duration", "should", "The target duration is 6 s.",
         "Apple 7.5 and 7.6", playlists.target_length),
    Rule("segment-length", "must", "No segment is longer than the target duration plus 0.5 s.",
         "Apple 7.7, RFC 8216 4.3.3.1", segments.length),
    Rule("segment-idr", "must", "Every video segment starts with an IDR frame.",
         "Apple 7.4", segments.starts_with_idr),
    Rule("idr-interval", "must", "An IDR frame comes every 2 s.",
         "Apple 1.13 (SHOULD)", segments.idr_interval),
    Rule("aligned", "must", "Segments begin at the same times in all variants.",
         "Apple 8.22 (SHOULD)", segments.aligned),
    Rule("extinf", "must", "EXTINF durations add up to the media's, within a frame for any run of segments.",
         "Apple 8.1", segments.extinf),
    Rule("continuous", "must", "Each segment's timestamps go on where the one before ended, without a gap inside.",
         "Apple 7.1 to 7.3", timeline.continuous),
    Rule("same-start", "must", "All renditions begin at the same time, within a frame.",
         "Apple 8.7, RFC 8216 6.2.4", timeline.same_start),
    Rule("same-duration", "must", "Audio and video of all renditions last equally long, within a frame.",
         "Apple 8.3 and 8.7", timeline.same_duration),
    Rule("same-frames", "must", "All variants hold the same frames (every nth, where the frame rate is an nth).",
         "RFC 8216 6.2.4", timeline.same_frames),
    Rule("iframes", "must", "There are I-frame playlists, with CODECS and RESOLUTION.",
         "Apple 6.1, 6.8, 9.3 and 9.4", trick_play.present),
    Rule("iframe-ranges", "must", "Every byte range of an I-frame playlist holds its moof and a whole IDR frame.",
         "Apple 6.10, RFC 8216 4.3.3.6", trick_play.ranges),
    Rule("iframe-duration", "must", "I-frame playlists cover the whole video.",
         "Apple 8.7", trick_play.duration),
    Rule("iframe-bandwidth", "should", "An I-frame playlist's BANDWIDTH is within 10 % of its measured peak.",
         "Apple 6.9", trick_play.bandwidth),
    Rule("decodes", "must", "Every segment decodes without an error.",
         "RFC 8216 3", timeline.decodes),
    Rule("frames", "must", "Every sample gives its frame, in order, at the time it says; sound has no gap.",
         "RFC 8216 3", timeline.frames),
)
# fmt: on
