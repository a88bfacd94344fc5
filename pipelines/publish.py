"""Publishing a replay is writing playlists over finished segments: while it grows, and once more when it is whole."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Sequence
from datetime import datetime
from fractions import Fraction
from typing import Any, Final

from control.bus import names
from control.bus.messages import AudioResult, ChunkResult, Plan, ThumbnailResult, Track
from control.ledger import events, outbox, parts, replays, webhooks
from control.ledger.base import now
from control.ledger.engine import Ledger
from control.ledger.models import Part, Replay
from control.storage import ObjectStore
from control.telemetry import REPLAY_PACE, REPLAY_SECONDS, REPLAYS
from pipelines import sellers
from pipelines.claim import Claim
from pipelines.jobs import facts_of
from pipelines.playlists import (
    IFRAME_PLAYLIST,
    MASTER_PLAYLIST,
    MEDIA_PLAYLIST,
    average_bit_rate,
    cut_audio,
    finished_prefix,
    iframe_playlist,
    master_playlist,
    media_playlist,
    peak_bit_rate,
    target_duration,
    track_seconds,
)

SUMMARY: Final = "replay.json"
# Each time the playlists are written whole; growing steps keep the sum in proportion to the replay's length.
_GROWTH: Final = 1.15


def publish(ledger: Ledger, store: ObjectStore, replay_id: str, run: int) -> None:
    """Write what is worth writing, until nothing is. Where somebody else is at it, that one looks again at the end, and
    sees what the caller would have written."""
    wanted: int | None = run
    while wanted is not None:
        wanted = _publish_once(ledger, store, replay_id, wanted)


def _publish_once(ledger: Ledger, store: ObjectStore, replay_id: str, run: int) -> int | None:
    """The run to look at next; None where there was nothing to write, or somebody else writes."""
    with ledger.write() as session:
        replay = replays.lock(session, replay_id)
        if replay.run != run or replay.state != "transcoding":
            return None
        in_a_row = parts.done_in_a_row(session, replay_id)
        whole = parts.count(session, replay_id, "pending", "sent") == 0
        sounding = parts.count(session, replay_id, "pending", "sent", kind="audio") == 0
        grown = in_a_row >= max(1, int(replay.published_chunks * _GROWTH) + 1)
        if not (whole or (sounding and grown)):
            return None
        at = replays.claim_publishing(session, replay)
        if at is None:
            # Or nobody does any more: then this comes when the claim of who was killed at it has run out.
            again = {"replay_id": replay_id, "run": run}
            outbox.add(session, names.PUBLISH_REPLAY, again, delay_seconds=replays.PUBLISHING_LEASE_SECONDS + 1)
            return None
        done = [part for part in parts.of_replay(session, replay_id, state="done") if part.kind != "recording"]
        session.refresh(replay, ("info", "plan"))
    prefix, claim = replay.prefix, Claim(ledger, replay_id, at)
    try:
        with claim:
            written = _write(store, replay, done, complete=whole)
            if whole:
                # Before it counts as completed: then a process that dies in between does it again.
                store.delete_prefix(f"{prefix}.work/")
                for left in facts_of(replay)[1].left:
                    store.delete_prefix(f"{prefix}{left.name}/")
        counts = _count(ledger, replay_id, run, claim.at, in_a_row, written, complete=whole)
        if not counts:
            take_back(ledger, store, replay_id, prefix, claim.at)
    finally:
        with ledger.write() as session:
            replays.release_publishing(session, replay_id, claim.at)
    with ledger.read() as session:
        replay = replays.get(session, replay_id)
        return replay.run if replay.state == "transcoding" else None


def _count(
    ledger: Ledger, replay_id: str, run: int, claim: datetime, chunks: int, seconds: float, *, complete: bool
) -> bool:
    """What was written is what the replay is now; False where that was decided otherwise meanwhile."""
    with ledger.write() as session:
        replay = replays.lock(session, replay_id)
        if replay.run != run or replay.state != "transcoding" or replay.publishing_since != claim:
            return False
        if replay.playable_at is None:
            replays.touch(session, replay_id, playable_at=now())
            facts = {"replay_id": replay_id, "prefix": replay.prefix, "seconds": seconds}
            events.record(session, replay.stream_id, "replay.playable", **facts)
            session.refresh(replay)
            webhooks.emit_of_replay(session, "replay.playable", replay, seconds=seconds)
            _measure(replay, "playable")
        replays.touch(session, replay_id, published_chunks=chunks)
        if complete and replays.move(session, replay, ("transcoding",), "completed"):
            sellers.replay_is_ready(session, replay)
            REPLAYS.labels("completed").inc()
            pace = _measure(replay, "completed") / max(seconds, 1.0)
            REPLAY_PACE.observe(pace)
    return True


def take_back(ledger: Ledger, store: ObjectStore, replay_id: str, prefix: str, claim: datetime) -> None:
    """Cancelled or failed while the playlists were written; its own clean-up may have passed before they came."""
    with ledger.read() as session:
        replay = replays.get(session, replay_id)
    if replay.publishing_since != claim:
        return  # it took too long, and somebody came after: what is there now is theirs
    withdraw(store, prefix)
    if replay.state == "cancelled" or replay.prefix != prefix:
        store.delete_prefix(prefix)


def withdraw(store: ObjectStore, prefix: str) -> None:
    """Make a replay invisible: without its master playlist nothing leads to the rest."""
    store.delete(prefix + MASTER_PLAYLIST)


def _measure(replay: Replay, mark: str) -> float:
    """Seconds since the stream ended."""
    passed = (now() - replay.created_at).total_seconds()
    REPLAY_SECONDS.labels(mark).observe(passed)
    return passed


def _write(store: ObjectStore, replay: Replay, done: Sequence[Part], *, complete: bool) -> float:
    """Media playlists first, the master last: what it leads to is there. Seconds of replay that can be played."""
    _, plan = facts_of(replay)
    chunks = {part.number: ChunkResult.model_validate(part.result) for part in done if part.kind == "chunk"}
    sounds = [AudioResult.model_validate(part.result) for part in done if part.kind == "audio"]
    video = finished_prefix(plan, chunks)
    seconds = min((track_seconds(track) for track in video.values()), default=Fraction(0))
    audio = {sound.track.name: sound.track if complete else cut_audio(sound.track, seconds) for sound in sounds}
    target = target_duration([*video.values(), *audio.values()])
    for track in (*video.values(), *audio.values()):
        text = media_playlist(track, complete=complete, target_seconds=target)
        store.put_bytes(f"{replay.prefix}{track.name}/{MEDIA_PLAYLIST}", text.encode())
    for track in video.values():
        text = iframe_playlist(track, complete=complete)
        store.put_bytes(f"{replay.prefix}{track.name}/{IFRAME_PLAYLIST}", text.encode())
    if complete:
        summary = summarise(replay, plan, video, chunks, sounds, done)
        store.put_bytes(replay.prefix + SUMMARY, json.dumps(summary, indent=2, ensure_ascii=False).encode())
    store.put_bytes(replay.prefix + MASTER_PLAYLIST, master_playlist(plan, video, audio).encode())
    return float(seconds)


def summarise(
    replay: Replay,
    plan: Plan,
    video: dict[str, Track],
    chunks: dict[int, ChunkResult],
    sounds: Sequence[AudioResult],
    done: Sequence[Part],
) -> dict[str, Any]:
    """`replay.json`: source facts, plan, and what came of it, measured."""
    pictures = next((ThumbnailResult.model_validate(part.result) for part in done if part.kind == "pictures"), None)
    busy = sum(chunk.seconds for chunk in chunks.values())
    at = now()
    info = dict(replay.info or {})
    info["video"] = {key: value for key, value in info.get("video", {}).items() if key != "keyframes"}
    return {
        "version": 1,
        "replay_id": replay.id,
        "stream_id": replay.stream_id,
        "source": info,
        "plan": replay.plan,
        "notes": replay.notes or [],
        "rungs": [_rung_summary(video[rung.name], rung.encoder) for rung in plan.rungs],
        "made_on": _made_on(chunks.values()),
        "audio": [
            {
                "name": sound.track.name,
                "mode": sound.mode,
                "codecs": sound.track.codecs,
                "average_bps": round(average_bit_rate(sound.track)),
                "seconds": float(track_seconds(sound.track)),
                "loudness_lufs": sound.loudness_lufs,
            }
            for sound in sounds
        ],
        "pictures": pictures.model_dump(mode="json") if pictures else None,
        "timings": {
            "created_at": replay.created_at.isoformat(),
            "started_at": replay.started_at.isoformat() if replay.started_at else None,
            "planned_at": replay.planned_at.isoformat() if replay.planned_at else None,
            # What can be played at once when it is complete becomes playable with this.
            "playable_at": (replay.playable_at or at).isoformat(),
            "completed_at": at.isoformat(),
            "transcoding_seconds": round(busy, 3),
            "audio_seconds": round(sum(sound.seconds for sound in sounds), 3),
            "pictures_seconds": pictures.seconds if pictures else None,
            "chunks_reused": sum(chunk.reused for chunk in chunks.values()),
        },
        "checks": _checks(plan, video, sounds, chunks),
    }


def _rung_summary(track: Track, encoder: str) -> dict[str, Any]:
    return {
        "name": track.name,
        "encoder": encoder,
        "codecs": track.codecs,
        "frames": track.frames,
        "segments": len(track.segments),
        "average_bps": round(average_bit_rate(track)),
        "peak_bps": round(peak_bit_rate(track)),
        "bytes": sum(segment.size_bytes for segment in track.segments),
        "init_sha256": track.init_sha256,
        "seconds": float(track_seconds(track)),
    }


def _made_on(chunks: Collection[ChunkResult]) -> list[dict[str, Any]]:
    """How many chunks each device made, and how often one was not had as wanted before that."""
    ways = [(chunk.node, chunk.device, chunk.tier) for chunk in chunks]
    fallbacks: Counter[tuple[str, str, str]] = Counter()
    for way, chunk in zip(ways, chunks, strict=True):
        fallbacks[way] += len(chunk.fallbacks)
    return [
        {"node": way[0], "device": way[1], "tier": way[2], "chunks": number, "fallbacks": fallbacks[way]}
        for way, number in sorted(Counter(ways).items())
    ]


def _checks(
    plan: Plan, video: dict[str, Track], sounds: Sequence[AudioResult], chunks: dict[int, ChunkResult]
) -> dict[str, bool]:
    """What must hold of the whole; every segment was checked by itself before it was stored."""
    inits = {(track.name, track.init_sha256) for chunk in chunks.values() for track in chunk.tracks}
    frame = 1 / min(rung.frame_rate for rung in plan.rungs)
    longest = max(track_seconds(track) for track in video.values())
    return {
        "frames_as_planned": all(video[rung.name].frames == -(-plan.frames // rung.frame_step) for rung in plan.rungs),
        "one_init_per_rung": len(inits) == len(plan.rungs),
        "audio_as_long_as_video": all(abs(track_seconds(sound.track) - longest) <= frame for sound in sounds),
    }
