"""Reads ISO base media (ISO/IEC 14496-12) and CMAF bytes: boxes, the init segment, fragments, NAL units. Pure.

It reads what a replay is made of and what the verifier meets on other people's servers: one malformed box is a
BoxError with the box's place, never an IndexError or an endless loop.
"""

from __future__ import annotations

from media_worker.boxes.fragments import Fragment, Sample, nal_types, parse_fragments
from media_worker.boxes.init import InitInfo, parse_init, parse_tracks
from media_worker.boxes.sample_entry import SampleEntry
from media_worker.boxes.structure import Box, BoxError, iter_boxes

__all__ = [
    "Box",
    "BoxError",
    "Fragment",
    "InitInfo",
    "Sample",
    "SampleEntry",
    "iter_boxes",
    "nal_types",
    "parse_fragments",
    "parse_init",
    "parse_tracks",
]
