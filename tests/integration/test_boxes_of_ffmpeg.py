"""Box reading on what ffmpeg really writes, with libav as the second opinion."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av

from media_worker.boxes import nal_types, parse_fragments, parse_init
from tests.hls_clips import FRAME_RATE, SECONDS, encode_audio, encode_video


def test_video_fragments_are_gops_at_absolute_times(tmp_path: Path) -> None:
    path = tmp_path / "v.mp4"
    encode_video(path, 320, 180, more=("-output_ts_offset", "12"))
    data = path.read_bytes()
    init = parse_init(data)
    assert (init.handler, init.width, init.height, init.timescale) == ("vide", 320, 180, 30000)
    assert init.codecs.startswith("avc1.6400")
    assert init.sps[0][0] & 0x1F == 7
    assert init.pps[0][0] & 0x1F == 8
    assert init.edit_media_time is None
    fragments = parse_fragments(data, init)
    assert fragments[0].offset == init.size
    assert [each.base_decode_time for each in fragments] == [(12 + 2 * n) * 30000 for n in range(7)]
    assert [len(each.samples) for each in fragments] == [60] * 7
    assert sum(each.duration for each in fragments) == SECONDS * 30000
    for each in fragments:
        first, *others = each.samples
        assert first.sync
        assert 5 in nal_types(data, first, init.nal_length_size)
        assert not any(sample.sync for sample in others)
        assert all(5 not in nal_types(data, sample, init.nal_length_size) for sample in others)
    shown = sorted(
        each.base_decode_time + index * 1000 + sample.composition_offset
        for each in fragments
        for index, sample in enumerate(each.samples)
    )
    assert shown == [12 * 30000 + 1000 * n for n in range(SECONDS * FRAME_RATE)]
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        sizes = [packet.size for packet in packets]
        places = [packet.pos for packet in packets]
    assert sizes == [sample.size for each in fragments for sample in each.samples]
    assert places == [sample.offset for each in fragments for sample in each.samples]


def test_audio_has_its_priming_in_an_edit_list(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    encode_audio(path)
    data = path.read_bytes()
    init = parse_init(data)
    assert (init.handler, init.codecs, init.timescale) == ("soun", "mp4a.40.2", 48000)
    assert (init.channels, init.sample_rate, init.edit_media_time) == (2, 48000, 1024)
    fragments = parse_fragments(data, init)
    assert len(fragments) == 3
    ends = 0
    for each in fragments:
        assert each.base_decode_time == ends
        ends += each.duration
    assert Fraction(ends - 1024, 48000) == SECONDS
    assert all(sample.sync for each in fragments for sample in each.samples)
