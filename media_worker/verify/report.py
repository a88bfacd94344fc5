"""What the verifier answers."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Literal

Level = Literal["must", "should"]


class VerifyError(ValueError):
    """The address cannot be verified at all: it cannot be read, or it is no HLS playlist."""


@dataclass(frozen=True)
class Finding:
    """One place where one rule does not hold."""

    rule: str
    level: Level
    where: str
    """Playlist or segment, as the master playlist names it."""
    message: str
    source: str
    """Where the rule is written."""


@dataclass(frozen=True)
class RenditionSummary:
    """What one rendition was measured to be."""

    name: str
    kind: str
    """`video`, `audio`, `muxed` or `unknown`."""
    codecs: str
    width: int | None
    height: int | None
    frame_rate: float | None
    duration_seconds: float
    segments: int
    samples: int
    """Video frames; for audio, coded frames."""
    decoded_frames: int | None
    """None where nothing was decoded."""
    average_bps: int
    peak_bps: int


@dataclass(frozen=True)
class Score:
    """How near one rendition comes to the recording it was made from."""

    rendition: str
    width: int
    height: int
    """Size at which pictures were compared: the recording's, 1080 lines at most."""
    segments: int
    frames: int
    """How many were compared."""
    vmaf: float | None
    """0 to 100, mean of the frames (Netflix' vmaf_v0.6.1); None where ffmpeg has no libvmaf."""
    vmaf_lowest: float | None
    """That of the worst segment."""
    psnr_db: float
    """Of luma; 60 at most."""
    ssim: float
    """Of luma, 0 to 1, mean of the frames."""


@dataclass(frozen=True)
class Report:
    """The findings, worst first, and what was measured."""

    master: str
    decoded: bool
    rules: int
    """How many rules were checked."""
    findings: tuple[Finding, ...]
    renditions: tuple[RenditionSummary, ...]
    scores: tuple[Score, ...] = ()
    """Empty where nothing was scored."""

    @property
    def ok(self) -> bool:
        """No rule that must hold is broken."""
        return all(finding.level != "must" for finding in self.findings)

    def to_json(self) -> str:
        """The whole report as indented JSON."""
        return json.dumps({"ok": self.ok, **asdict(self)}, indent=2, ensure_ascii=False)
