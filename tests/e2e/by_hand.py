"""A small replay made without the pipeline: one ffmpeg, its own HLS muxer. It serves to judge the player alone."""

from __future__ import annotations

import subprocess
from pathlib import Path

import imageio_ffmpeg

SECONDS = 12
FRAME_RATE = 30
TILE = (160, 90)
TILE_SECONDS = 2


def make_replay(folder: Path) -> None:
    """Write master playlist, two rungs, audio, poster and storyboard into `folder`: a counted test picture and a tone,
    12 s at 30 fps, segments of 4 s."""
    folder.mkdir(parents=True)
    picture = f"testsrc2=size=640x360:rate={FRAME_RATE}:duration={SECONDS}"
    tone = f"sine=frequency=440:sample_rate=48000:duration={SECONDS}"
    _ffmpeg(
        folder,
        *("-f", "lavfi", "-i", picture, "-f", "lavfi", "-i", tone),
        *("-filter_complex", "[0:v]format=yuv420p,split[top][rest];[rest]scale=320:180[low]"),
        *("-map", "[top]", "-map", "[low]", "-map", "1:a"),
        *("-c:v", "libx264", "-preset", "ultrafast", "-bf", "0", "-g", "60", "-keyint_min", "60"),
        *("-sc_threshold", "0", "-b:v:0", "800k", "-b:v:1", "300k", "-c:a", "aac", "-b:a", "96k"),
        *("-f", "hls", "-hls_time", "4", "-hls_playlist_type", "vod", "-hls_segment_type", "fmp4"),
        *("-hls_flags", "independent_segments", "-master_pl_name", "master.m3u8"),
        *("-hls_segment_filename", "%v/seg-%05d.m4s", "-hls_fmp4_init_filename", "init.mp4"),
        *(
            "-var_stream_map",
            "v:0,agroup:sound,name:360p v:1,agroup:sound,name:180p a:0,agroup:sound,name:audio,default:yes",
        ),
        "%v/playlist.m3u8",
    )
    tiles = SECONDS // TILE_SECONDS
    _ffmpeg(
        folder,
        *("-f", "lavfi", "-i", picture, "-frames:v", "1"),
        *("-vf", f"fps=1/{TILE_SECONDS},scale={TILE[0]}:{TILE[1]},tile={tiles}x1", "sheet-000.jpg"),
    )
    _ffmpeg(folder, "-f", "lavfi", "-i", picture, "-ss", "3", "-frames:v", "1", "poster.jpg")
    cues = [
        f"{_at(index * TILE_SECONDS)} --> {_at((index + 1) * TILE_SECONDS)}\n"
        f"sheet-000.jpg#xywh={index * TILE[0]},0,{TILE[0]},{TILE[1]}\n"
        for index in range(tiles)
    ]
    (folder / "storyboard.vtt").write_text("WEBVTT\n\n" + "\n".join(cues))


def unfinished(playlist: str, segments: int) -> str:
    """A media playlist as it was when only its first `segments` were there: an EVENT, without an end."""
    head, *entries = playlist.replace("#EXT-X-ENDLIST", "").split("#EXTINF:")
    kept = "".join(f"#EXTINF:{entry}" for entry in entries[:segments])
    return head.replace("#EXT-X-PLAYLIST-TYPE:VOD", "#EXT-X-PLAYLIST-TYPE:EVENT") + kept.rstrip() + "\n"


def _at(seconds: int) -> str:
    return f"00:00:{seconds:02d}.000"


def _ffmpeg(folder: Path, *arguments: str) -> None:
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-loglevel", "error", "-y", *arguments]
    subprocess.run(command, cwd=folder, check=True, timeout=120)
