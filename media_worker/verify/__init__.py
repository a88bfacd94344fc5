"""Verifies anyone's HLS against Apple's authoring specification and RFC 8216, down to the decoded frame.

It shares no code with what writes playlists, so that one mistake is not made twice.
"""

from __future__ import annotations

from collections.abc import Callable

from media_worker.verify.facts import Rendition
from media_worker.verify.fetch import Fetcher, FetchError, address
from media_worker.verify.iframes import read_iframes
from media_worker.verify.presentation import load
from media_worker.verify.read import read
from media_worker.verify.report import Finding, RenditionSummary, Report, Score, VerifyError
from media_worker.verify.rules import RULES, Rule
from media_worker.verify.score import score
from media_worker.verify.subject import Subject, average_bps, peak_bps, weights

__all__ = ["RULES", "Finding", "RenditionSummary", "Report", "Rule", "Score", "VerifyError", "score", "verify"]


def verify(
    master: str,
    *,
    decode: bool = True,
    timeout_seconds: float = 20.0,
    on_playlist: Callable[[str], None] | None = None,
) -> Report:
    """Check the HLS at `master`, a local path or an http(s) URL; with `decode`, decode every frame too.

    Memory is bounded by the largest segment. `on_playlist` is told each playlist before it is read. Raises VerifyError
    where `master` cannot be read or is no playlist; whatever else is wrong becomes a finding.
    """
    try:
        url = address(master)
    except FetchError as error:
        raise VerifyError(str(error)) from error
    fetcher = Fetcher(url, timeout_seconds=timeout_seconds)
    said = load(url, fetcher)
    tell = on_playlist or (lambda _: None)
    named = [each.playlist for each in said.variants] + [each.playlist for each in said.audio if each.playlist]
    measured: dict[str, Rendition] = {}
    for playlist in named:
        if playlist.where not in measured:
            tell(playlist.where)
            measured[playlist.where] = read(playlist, fetcher, decode=decode)
    broken = {each.told.ref.url for rendition in measured.values() for each in rendition.segments if each.problem}
    iframes = []
    for variant in said.iframes:
        tell(variant.playlist.where)
        iframes.append(read_iframes(variant, fetcher, broken))
    subject = Subject(said, measured, tuple(iframes))
    findings = [finding for rule in RULES for finding in rule.apply(subject)]
    return Report(
        master=master,
        decoded=decode,
        rules=len(RULES),
        findings=tuple(sorted(findings, key=lambda each: each.level != "must")),
        renditions=tuple(_summary(each) for each in measured.values()),
    )


def _summary(rendition: Rendition) -> RenditionSummary:
    video, audio = rendition.format("video"), rendition.format("audio")
    main = video or audio
    lasts = rendition.frame_seconds("video")
    decoded = next((each.frames for each in rendition.decoded if main and each.kind == main.kind), None)
    pieces = weights(rendition)
    return RenditionSummary(
        name=rendition.where,
        kind="muxed" if video and audio else main.kind if main else "unknown",
        codecs=",".join(dict.fromkeys(each.codecs for each in rendition.formats)),
        width=video.width if video else None,
        height=video.height if video else None,
        frame_rate=float(1 / lasts) if lasts else None,
        duration_seconds=float(rendition.seconds(main.kind)) if main else 0.0,
        segments=len(rendition.segments),
        samples=rendition.samples(main.kind) if main else 0,
        decoded_frames=decoded,
        average_bps=round(average_bps(pieces)),
        peak_bps=round(peak_bps(pieces, rendition.playlist.target_seconds)),
    )
