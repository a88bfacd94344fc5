"""What the playlists' text must say."""

from __future__ import annotations

from media_worker.verify.checks import Faults
from media_worker.verify.read import ENCRYPTED
from media_worker.verify.subject import Subject, silent

_SEGMENT_TARGET_SECONDS = 6


def readable(subject: Subject) -> Faults:
    for playlist in subject.playlists:
        if playlist.problem:
            yield playlist.where, playlist.problem
        elif not playlist.segments:
            yield playlist.where, "it lists no segment"
    for rendition in subject.measured.values():
        for segment in rendition.segments:
            if segment.problem and not segment.lacks_init and segment.problem != ENCRYPTED:
                yield segment.told.where, segment.problem


def clear(subject: Subject) -> Faults:
    for rendition in subject.measured.values():
        hidden = sum(segment.problem == ENCRYPTED for segment in rendition.segments)
        if hidden:
            yield rendition.where, f"{hidden} encrypted segments could not be looked into"


def master(subject: Subject) -> Faults:
    if not subject.said.is_master:
        yield subject.said.variants[0].playlist.where, "this is a media playlist; there is no choice of variants"
    elif not subject.said.variants:
        yield "master playlist", "it lists no variant"


def vod(subject: Subject) -> Faults:
    for playlist in subject.playlists:
        if playlist.problem:
            continue
        if playlist.type != "VOD":
            yield playlist.where, f"EXT-X-PLAYLIST-TYPE is {playlist.type or 'missing'}, not VOD"
        if not playlist.ended:
            yield playlist.where, "EXT-X-ENDLIST is missing"


def init_section(subject: Subject) -> Faults:
    for rendition in subject.measured.values():
        lacking = [segment for segment in rendition.segments if segment.lacks_init]
        if lacking:
            yield rendition.where, f"{len(lacking)} fragmented MP4 segments come without EXT-X-MAP"


def independent_segments(subject: Subject) -> Faults:
    if subject.said.independent:
        return
    for rendition in subject.video:
        if not rendition.playlist.independent:
            yield rendition.where, "EXT-X-INDEPENDENT-SEGMENTS is neither here nor in the master playlist"


def separate_audio(subject: Subject) -> Faults:
    anywhere = bool(subject.sound) or any(rendition.format("audio") for rendition in subject.video)
    for rendition in subject.video:
        if rendition.format("audio"):
            yield rendition.where, "audio is mixed into the video's segments"
    for variant, rendition in subject.video_variants:
        if variant.audio_group and not subject.said.group(variant):
            yield rendition.where, f"AUDIO names the group {variant.audio_group!r}, which has no EXT-X-MEDIA"
        elif anywhere and not variant.audio_group and not rendition.format("audio"):
            yield rendition.where, "the variant has no sound, though others have"
    for audio in silent(subject):
        yield f"audio {audio.name!r}", "its segments hold no audio"


def audio_language(subject: Subject) -> Faults:
    for audio in subject.said.audio:
        if not audio.language:
            yield f"audio {audio.name!r}", "EXT-X-MEDIA has no LANGUAGE"


def same_target(subject: Subject) -> Faults:
    targets = {each.where: each.playlist.target_seconds for each in (*subject.video, *subject.sound)}
    if len(set(targets.values())) > 1:
        told = ", ".join(f"{where} {seconds} s" for where, seconds in targets.items())
        yield "media playlists", f"EXT-X-TARGETDURATION differs: {told}"


def target_length(subject: Subject) -> Faults:
    for rendition in (*subject.video, *subject.sound):
        target = rendition.playlist.target_seconds
        if target is None:
            yield rendition.where, "EXT-X-TARGETDURATION is missing"
        elif target != _SEGMENT_TARGET_SECONDS and (target > _SEGMENT_TARGET_SECONDS or len(rendition.segments) > 1):
            yield rendition.where, f"the target duration is {target} s, not {_SEGMENT_TARGET_SECONDS} s"
