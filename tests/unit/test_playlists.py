"""HLS text, compared with what the m3u8 library reads out of it."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import m3u8
import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.bus.messages import AudioRendition, Chunk, ChunkResult, IFrame, Plan, Rung, Segment, Track
from pipelines.languages import bcp47
from pipelines.playlists import (
    average_bit_rate,
    cut_audio,
    finished_prefix,
    iframe_playlist,
    join_tracks,
    master_playlist,
    media_playlist,
    peak_bit_rate,
    target_duration,
    track_seconds,
)

NTSC = Fraction(30000, 1001)


def track(
    ticks: Sequence[int],
    *,
    name: str = "720p",
    timescale: int = 30000,
    sizes: Sequence[int] | None = None,
    codecs: str = "avc1.64001f",
    first: int = 0,
    init: str = "i" * 64,
    iframes: bool = True,
) -> Track:
    sizes = sizes or [1000] * len(ticks)
    return Track(
        name=name,
        codecs=codecs,
        timescale=timescale,
        init_sha256=init,
        frames=len(ticks) * 180,
        segments=tuple(
            Segment(
                name=f"seg-{first + index:05d}.m4s",
                size_bytes=size,
                ticks=length,
                iframes=tuple(
                    IFrame(offset=200 * place, size_bytes=100 + place, ticks=length // 3) for place in range(3)
                )
                if iframes
                else (),
            )
            for index, (length, size) in enumerate(zip(ticks, sizes, strict=True))
        ),
    )


def audio_track(ticks: Sequence[int], *, name: str = "audio", size: int = 100, codecs: str = "mp4a.40.2") -> Track:
    return track(ticks, name=name, timescale=48000, sizes=[size] * len(ticks), codecs=codecs, iframes=False)


def rung(name: str, width: int, height: int, kbps: int, rate: Fraction = NTSC) -> Rung:
    return Rung(
        name=name,
        width=width,
        height=height,
        frame_rate=rate,
        video_kbps=kbps,
        max_kbps=2 * kbps,
        buffer_kbits=2 * kbps,
        timescale=30000,
    )


def plan(*rungs: Rung, audio: Sequence[AudioRendition] = (), chunks: int = 1) -> Plan:
    return Plan(
        frame_rate=NTSC,
        frames=540 * chunks,
        gop_frames=60,
        segment_frames=180,
        rungs=rungs,
        chunks=tuple(
            Chunk(index=index, first_frame=540 * index, frames=540, first_segment=3 * index, entry_pts=None)
            for index in range(chunks)
        ),
        audio=tuple(audio),
    )


def rendition(name: str = "audio", *, language: str | None = None, title: str | None = None, default: bool = True) -> AudioRendition:  # fmt: skip  # noqa: E501
    return AudioRendition(name=name, track_index=1, mode="encode", language=language, title=title, default=default)


P720, P432 = rung("720p", 1280, 720, 3000), rung("432p", 768, 432, 730)


def inits(read: m3u8.M3U8) -> set[str | None]:
    return {each.init_section.uri if each.init_section else None for each in read.segments}


# --- media playlists -----------------------------------------------------------------------------


def test_a_whole_media_playlist() -> None:
    assert media_playlist(track([180180, 180180, 50050]), complete=True) == (
        "#EXTM3U\n"
        "#EXT-X-VERSION:7\n"
        "#EXT-X-TARGETDURATION:6\n"
        "#EXT-X-MEDIA-SEQUENCE:0\n"
        "#EXT-X-PLAYLIST-TYPE:VOD\n"
        "#EXT-X-INDEPENDENT-SEGMENTS\n"
        '#EXT-X-MAP:URI="init.mp4"\n'
        "#EXTINF:6.006000,\n"
        "seg-00000.m4s\n"
        "#EXTINF:6.006000,\n"
        "seg-00001.m4s\n"
        "#EXTINF:1.668333,\n"
        "seg-00002.m4s\n"
        "#EXT-X-ENDLIST\n"
    )


def test_a_growing_playlist_is_an_event_without_end() -> None:
    read = m3u8.loads(media_playlist(track([180180]), complete=False))
    assert read.playlist_type == "event"
    assert not read.is_endlist
    assert read.is_independent_segments
    assert [(each.uri, each.duration) for each in read.segments] == [("seg-00000.m4s", 6.006)]
    assert inits(read) == {"init.mp4"}


@pytest.mark.parametrize(
    ("ticks", "timescale", "target"),
    [
        ([6_000], 1000, 6),
        ([6_499], 1000, 6),
        ([6_500], 1000, 7),  # half goes up, whatever round() says
        ([4_000, 6_006, 2_000], 1000, 6),
        ([40], 1000, 1),
    ],
)
def test_target_duration(ticks: list[int], timescale: int, target: int) -> None:
    made = track(ticks, timescale=timescale)
    assert m3u8.loads(media_playlist(made, complete=True)).target_duration == target
    assert target_duration([made]) == target


def test_all_renditions_use_the_longest_target() -> None:
    short, long = track([5_400], timescale=1000), audio_track([48000 * 13 // 2])
    assert target_duration([short, long]) == 7
    assert m3u8.loads(media_playlist(short, complete=True, target_seconds=7)).target_duration == 7
    with pytest.raises(ValueError, match="6 s is too short, it needs 7 s"):
        media_playlist(long, complete=True, target_seconds=6)


@given(
    st.lists(st.integers(1, 400_000), min_size=1, max_size=60),
    st.sampled_from([1000, 12288, 15360, 24000, 30000, 44100, 48000, 60000, 90000]),
)
def test_durations_never_drift(ticks: list[int], timescale: int) -> None:
    text = media_playlist(track(ticks, timescale=timescale), complete=True)
    told = [Fraction(line[8:-1]) for line in text.splitlines() if line.startswith("#EXTINF")]
    exact = said = Fraction(0)
    for length, seconds in zip(ticks, told, strict=True):
        exact += Fraction(length, timescale)
        said += seconds
        assert abs(exact - said) <= Fraction(1, 2_000_000)


def test_an_empty_track_makes_no_playlist() -> None:
    for make in (media_playlist, iframe_playlist):
        with pytest.raises(ValueError, match="720p"):
            make(track([]), complete=False)
    with pytest.raises(ValueError, match="720p"):
        iframe_playlist(track([180180], iframes=False), complete=True)


def test_an_iframe_playlist() -> None:
    text = iframe_playlist(track([180180, 90090]), complete=True)
    read = m3u8.loads(text)
    assert read.is_i_frames_only
    assert read.is_endlist
    assert (read.playlist_type, read.target_duration) == ("vod", 2)
    assert [(each.uri, each.byterange, each.duration) for each in read.segments] == [
        ("seg-00000.m4s", "100@0", 2.002),
        ("seg-00000.m4s", "101@200", 2.002),
        ("seg-00000.m4s", "102@400", 2.002),
        ("seg-00001.m4s", "100@0", 1.001),
        ("seg-00001.m4s", "101@200", 1.001),
        ("seg-00001.m4s", "102@400", 1.001),
    ]
    assert inits(read) == {"init.mp4"}


# --- the master playlist -------------------------------------------------------------------------


def test_a_whole_master_playlist() -> None:
    video = {
        "720p": track([180000] * 2, sizes=[750_000, 1_500_000]),
        "432p": track([180000] * 2, sizes=[75_000, 75_000], name="432p", codecs="avc1.64001e"),
    }
    audio = {"audio": audio_track([288000] * 2, size=96_000)}
    text = master_playlist(plan(P720, P432, audio=[rendition(language="eng")]), video, audio)
    assert text == (
        "#EXTM3U\n"
        "#EXT-X-VERSION:7\n"
        "#EXT-X-INDEPENDENT-SEGMENTS\n"
        '#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="audio",NAME="en",LANGUAGE="en",DEFAULT=YES,AUTOSELECT=YES,CHANNELS="2",'
        'URI="audio/playlist.m3u8"\n'
        '#EXT-X-STREAM-INF:BANDWIDTH=228000,AVERAGE-BANDWIDTH=228000,CODECS="avc1.64001e,mp4a.40.2",'
        'RESOLUTION=768x432,FRAME-RATE=29.970,VIDEO-RANGE=SDR,CLOSED-CAPTIONS=NONE,AUDIO="audio"\n'
        "432p/playlist.m3u8\n"
        '#EXT-X-STREAM-INF:BANDWIDTH=2128000,AVERAGE-BANDWIDTH=1628000,CODECS="avc1.64001f,mp4a.40.2",'
        'RESOLUTION=1280x720,FRAME-RATE=29.970,VIDEO-RANGE=SDR,CLOSED-CAPTIONS=NONE,AUDIO="audio"\n'
        "720p/playlist.m3u8\n"
        '#EXT-X-I-FRAME-STREAM-INF:BANDWIDTH=408,AVERAGE-BANDWIDTH=404,CODECS="avc1.64001e",RESOLUTION=768x432,'
        'VIDEO-RANGE=SDR,URI="432p/iframes.m3u8"\n'
        '#EXT-X-I-FRAME-STREAM-INF:BANDWIDTH=408,AVERAGE-BANDWIDTH=404,CODECS="avc1.64001f",RESOLUTION=1280x720,'
        'VIDEO-RANGE=SDR,URI="720p/iframes.m3u8"\n'
    )
    read = m3u8.loads(text)
    assert read.is_variant
    assert [each.stream_info.resolution for each in read.playlists] == [(768, 432), (1280, 720)]
    assert [each.stream_info.frame_rate for each in read.playlists] == [29.97, 29.97]
    assert [each.uri for each in read.iframe_playlists] == ["432p/iframes.m3u8", "720p/iframes.m3u8"]


def test_without_audio_nothing_speaks_of_it() -> None:
    text = master_playlist(plan(P720), {"720p": track([180180])}, {})
    assert "AUDIO" not in text
    assert m3u8.loads(text).playlists[0].stream_info.codecs == "avc1.64001f"


def test_what_is_not_made_yet_is_not_listed() -> None:
    text = master_playlist(plan(P720, P432, audio=[rendition()]), {"432p": track([180180], name="432p")}, {})
    assert [each.uri for each in m3u8.loads(text).playlists] == ["432p/playlist.m3u8"]
    assert "AUDIO" not in text
    with pytest.raises(ValueError, match="at least one video"):
        master_playlist(plan(P720), {}, {})


@pytest.mark.parametrize(
    ("kbps", "order"),
    [
        ((4500, 2000, 730), ["2000", "4500", "730"]),
        ((1100, 365), ["1100", "365"]),
        ((7800, 4500), ["7800", "4500"]),
    ],
)
def test_players_begin_with_about_2000_kbps(kbps: tuple[int, ...], order: list[str]) -> None:
    rungs = [rung(str(each), 1280, 720, each) for each in kbps]
    text = master_playlist(plan(*rungs), {each.name: track([180180], name=each.name) for each in rungs}, {})
    assert [str(each.uri) for each in m3u8.loads(text).playlists] == [f"{name}/playlist.m3u8" for name in order]


def test_audio_renditions_have_unique_names_and_one_default() -> None:
    renditions = [
        rendition("audio", language="eng", title='The "best" one', default=False),
        rendition("audio-2", language="deu"),
        rendition("audio-3", language="en", title='The "best" one'),
        rendition("audio-4", language="und", default=False),
    ]
    tracks = {each.name: audio_track([288000], name=each.name) for each in renditions}
    read = m3u8.loads(master_playlist(plan(P720, audio=renditions), {"720p": track([180180])}, tracks))
    assert [(each.name, each.language, each.default, each.autoselect, each.uri) for each in read.media] == [
        ("de", "de", "YES", "YES", "audio-2/playlist.m3u8"),
        ("The 'best' one", "en", "NO", "YES", "audio/playlist.m3u8"),
        ("The 'best' one (2)", "en", "NO", "NO", "audio-3/playlist.m3u8"),
        ("audio-4", "und", "NO", "NO", "audio-4/playlist.m3u8"),
    ]
    assert {(each.type, each.group_id, each.channels) for each in read.media} == {("AUDIO", "audio", "2")}


def test_codecs_are_those_of_every_rendition_once() -> None:
    tracks = {"audio": audio_track([288000]), "b": audio_track([288000], name="b", codecs="mp4a.40.5")}
    renditions = [rendition(), rendition("b", language="de", default=False)]
    read = m3u8.loads(master_playlist(plan(P720, audio=renditions), {"720p": track([180180])}, tracks))
    assert read.playlists[0].stream_info.codecs == "avc1.64001f,mp4a.40.2,mp4a.40.5"


@pytest.mark.parametrize(
    ("told", "tag"),
    [
        ("eng", "en"),
        ("chi", "zh"),
        ("zho", "zh"),
        ("zh-Hant-TW", "zh-Hant-TW"),
        ("FRE", "fr"),
        ("yue", "yue"),
        ("und", None),
        ("", None),
        (None, None),
        ('e"n', None),
        ("english\n", None),
    ],
)
def test_language_tags(told: str | None, tag: str | None) -> None:
    assert bcp47(told) == tag


# --- bit rates -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "sizes", "average", "peak"),
    [
        ([6, 6, 6], [600, 1200, 600], Fraction(3200, 3), 1600),
        # 1 s is under half the target: it counts only together with its neighbour.
        ([6, 6, 1], [600, 600, 900], Fraction(16800, 13), Fraction(12000, 7)),
        # 3 s and 6 s is a run of 1.5 targets, and allowed.
        ([6, 3, 6], [600, 900, 1200], 1440, 2400),
        ([0.4], [100], 2000, 2000),  # a lone segment that makes no run that counts
    ],
)
def test_average_and_peak(seconds: list[float], sizes: list[int], average: Fraction, peak: Fraction) -> None:
    made = track([round(each * 30000) for each in seconds], sizes=sizes)
    assert average_bit_rate(made) == average
    assert peak_bit_rate(made) == peak


def test_nothing_has_no_bit_rate() -> None:
    assert average_bit_rate(track([])) == peak_bit_rate(track([])) == 0


# --- a replay that is still being made -----------------------------------------------------------


def result(index: int, *names: str, **options: str) -> ChunkResult:
    return ChunkResult(
        index=index,
        tracks=tuple(track([180180] * 3, name=name, first=3 * index, **options) for name in names),  # type: ignore[arg-type]
        encoder="libx264",
        seconds=1.0,
    )


def test_only_the_chunks_up_to_the_first_missing_one_are_shown() -> None:
    ours = plan(P720, P432, chunks=4)
    results = {index: result(index, "720p", "432p") for index in (3, 1, 0)}
    shown = finished_prefix(ours, results)
    assert list(shown) == ["720p", "432p"]
    assert [each.name for each in shown["432p"].segments] == [f"seg-{number:05d}.m4s" for number in range(6)]
    assert track_seconds(shown["720p"]) == Fraction(1001, 1000) * 36
    assert shown["720p"].frames == 6 * 180
    assert finished_prefix(ours, {1: results[1]}) == {}
    assert len(finished_prefix(ours, {**results, 2: result(2, "720p", "432p")})["720p"].segments) == 12


def test_a_chunk_without_a_rung_is_named() -> None:
    with pytest.raises(ValueError, match="chunk 1 has no 432p"):
        finished_prefix(plan(P720, P432, chunks=2), {0: result(0, "720p", "432p"), 1: result(1, "720p")})


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (track([1], first=9, init="j" * 64), "720p: chunk 1 has init_sha256 jjj"),
        (track([1], first=9, codecs="avc1.64002a"), "chunk 1 has codecs avc1.64002a, chunk 0 has avc1.64001f"),
        (track([1], first=9, timescale=90000), "chunk 1 has timescale 90000, chunk 0 has 30000"),
        (track([1], first=9, name="480p"), "chunk 1 has name 480p"),
        (track([1], first=0), "chunk 1 makes seg-00000.m4s a second time"),
    ],
)
def test_chunks_that_do_not_fit_are_named(other: Track, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        join_tracks([track([1]), other])


def test_no_chunks_are_no_track() -> None:
    with pytest.raises(ValueError, match="no chunk"):
        join_tracks([])


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(Fraction(0), 0), (Fraction(1, 100), 1), (Fraction(6), 1), (Fraction(601, 100), 2), (Fraction(99), 3)],
)
def test_audio_is_cut_to_what_begins_before_the_video_ends(seconds: Fraction, shown: int) -> None:
    cut = cut_audio(audio_track([288000] * 3), seconds)
    assert [each.name for each in cut.segments] == [f"seg-{number:05d}.m4s" for number in range(shown)]
