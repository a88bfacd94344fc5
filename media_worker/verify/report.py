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
class Report:
    """The findings, worst first, and what was measured."""

    master: str
    decoded: bool
    rules: int
    """How many rules were checked."""
    findings: tuple[Finding, ...]
    renditions: tuple[RenditionSummary, ...]

    @property
    def ok(self) -> bool:
        """No rule that must hold is broken."""
        return all(finding.level != "must" for finding in self.findings)

    def to_json(self) -> str:
        """The whole report as indented JSON."""
        return json.dumps({"ok": self.ok, **asdict(self)}, indent=2, ensure_ascii=False)
