"""Poster, candidates and storyboard of a recording, from its keyframes alone."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
from av.error import FFmpegError
from PIL import Image

from control.bus.messages import Progress, Thumbnail, ThumbnailJob, ThumbnailResult
from control.bus.work import Work
from control.errors import OutputRejected
from media_worker.probe import open_recording, pick_video


def make_pictures(address: str, job: ThumbnailJob, out: Path, work: Work, options: dict[str, str]) -> ThumbnailResult:
    started = time.monotonic()
    (out / "storyboard").mkdir()
    (out / "thumbnails").mkdir()
    shots: list[tuple[float, Image.Image]] = []
    video = job.video
    with open_recording(job.source, address) as container:
        stream = pick_video(container, job.source)
        stream.codec_context.skip_frame = "NONKEY"
        size = (160, max(2, round(160 * video.height / video.width)))
        packets = container.demux(stream)
        for packet in packets:
            try:
                frames = packet.decode()
            except FFmpegError:
                continue
            for frame in frames:
                work.check()
                if frame.pts is None or frame.pts < video.origin_pts:
                    continue
                at = float((frame.pts - video.origin_pts) * video.time_base)
                if shots and at - shots[-1][0] < 2:
                    continue
                image = frame.to_image().rotate(-video.rotation, expand=True).resize(size)
                shots.append((at, image))
                work.report(Progress(done_frames=int(at), total_frames=int(job.duration_seconds) + 1, fps=0))
    if not shots:
        raise OutputRejected(key=work.key, reason="no keyframe could be decoded")
    sheet = Image.new("RGB", (size[0] * 10, size[1] * 10))
    lines = ["WEBVTT", ""]
    for n, (at, image) in enumerate(shots[:100]):
        x, y = n % 10 * size[0], n // 10 * size[1]
        sheet.paste(image, (x, y))
        end = shots[n + 1][0] if n + 1 < len(shots) else job.duration_seconds
        begin = 0 if n == 0 else at

        def stamp(s: float) -> str:
            m = round(s * 1000)
            return f"{m // 3600000:02}:{m // 60000 % 60:02}:{m // 1000 % 60:02}.{m % 1000:03}"

        lines += [f"{stamp(begin)} --> {stamp(end)}", f"storyboard/001.jpg#xywh={x},{y},{size[0]},{size[1]}", ""]
    sheet.save(out / "storyboard" / "001.jpg")
    (out / "storyboard.vtt").write_text("\n".join(lines))
    best = max(shots, key=lambda s: float(np.asarray(s[1].convert("L")).std()))
    best[1].save(out / "poster.jpg")
    best[1].save(out / "thumbnails" / "01.jpg")
    t = Thumbnail(name="poster.jpg", seconds=best[0], score=1, width=size[0], height=size[1])
    return ThumbnailResult(
        poster=t,
        candidates=(t.model_copy(update={"name": "thumbnails/01.jpg"}),),
        storyboard="storyboard.vtt",
        sheets=("storyboard/001.jpg",),
        tiles=len(shots),
        seconds=time.monotonic() - started,
    )
