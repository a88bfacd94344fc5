"""A sample entry (child of `stsd`): picture or sound format, parameter sets, RFC 6381 codec string."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SampleEntry:
    """How a track is coded."""

    format: str
    """The entry's four-character code, such as `avc1`."""
    codecs: str
    """RFC 6381; the bare four-character code where its configuration is not known to this module."""
    width: int = 0
    height: int = 0
    channels: int = 0
    sample_rate: int = 0
    nal_length_size: int = 0
    sps: tuple[bytes, ...] = ()
    pps: tuple[bytes, ...] = ()


def read_sample_entry(kind: str, body: bytes, handler: str) -> SampleEntry:
    """Read the entry `kind` from its bytes after the box header. Raises IndexError or struct.error where it is short.

    Layouts: ISO/IEC 14496-12 section 12.1.3 (visual), 12.2.3 (audio); QuickTime's sound versions 1 and 2 are allowed.
    """
    if handler == "vide":
        width, height = struct.unpack_from(">HH", body, 24)
        inner = dict(_boxes(body, 78))
        return _visual(kind, inner, width, height)
    version, channels = struct.unpack_from(">H6xH", body, 8)
    (rate,) = struct.unpack_from(">I", body, 24)
    inner = dict(_boxes(body, 28 + {1: 16, 2: 36}.get(version, 0)))
    esds = inner.get("esds") or dict(_boxes(inner.get("wave", b""), 0)).get("esds")
    codecs = mp4a_codec(esds) if kind == "mp4a" and esds else kind
    return SampleEntry(kind, codecs, channels=channels, sample_rate=rate >> 16)


def _boxes(body: bytes, at: int) -> Iterator[tuple[str, bytes]]:
    while len(body) - at >= 8:
        size, kind = struct.unpack_from(">I4s", body, at)
        if size < 8:  # QuickTime ends such a list with a zero
            return
        yield kind.decode("latin-1"), body[at + 8 : at + size]
        at += size


def _visual(kind: str, inner: dict[str, bytes], width: int, height: int) -> SampleEntry:
    if kind in ("avc1", "avc3") and "avcC" in inner:
        avcc = inner["avcC"]
        sps, at = _sets(avcc, 6, avcc[5] & 0x1F)
        pps, _ = _sets(avcc, at + 1, avcc[at])
        return SampleEntry(
            kind, avc_codec(kind, avcc), width, height, nal_length_size=(avcc[4] & 3) + 1, sps=sps, pps=pps
        )
    if kind in ("hvc1", "hev1") and "hvcC" in inner:
        hvcc = inner["hvcC"]
        arrays = dict(_hevc_arrays(hvcc))
        return SampleEntry(
            kind,
            hevc_codec(kind, hvcc),
            width,
            height,
            nal_length_size=(hvcc[21] & 3) + 1,
            sps=arrays.get(33, ()),
            pps=arrays.get(34, ()),
        )
    if kind == "av01" and "av1C" in inner:
        return SampleEntry(kind, av1_codec(inner["av1C"]), width, height)
    if kind == "vp09" and "vpcC" in inner:
        return SampleEntry(kind, vp9_codec(inner["vpcC"]), width, height)
    return SampleEntry(kind, kind, width, height)


def _sets(body: bytes, at: int, count: int) -> tuple[tuple[bytes, ...], int]:
    found: list[bytes] = []
    for _ in range(count):
        (size,) = struct.unpack_from(">H", body, at)
        found.append(body[at + 2 : at + 2 + size])
        at += 2 + size
    return tuple(found), at


def _hevc_arrays(hvcc: bytes) -> Iterator[tuple[int, tuple[bytes, ...]]]:
    at = 23
    for _ in range(hvcc[22]):
        kind = hvcc[at] & 0x3F
        (count,) = struct.unpack_from(">H", hvcc, at + 1)
        units, at = _sets(hvcc, at + 3, count)
        yield kind, units


def avc_codec(kind: str, avcc: bytes) -> str:
    """`avc1.PPCCLL`: profile, constraints, level in hex (RFC 6381 section 3.3)."""
    return f"{kind}.{avcc[1]:02x}{avcc[2]:02x}{avcc[3]:02x}"


def hevc_codec(kind: str, hvcc: bytes) -> str:
    """`hvc1.P.C.TL.B…` after ISO/IEC 14496-15 annex E.3: compatibility bits reversed, trailing zero bytes left out."""
    space = ("", "A", "B", "C")[hvcc[1] >> 6]
    tier = "H" if hvcc[1] & 0x20 else "L"
    (compatibility,) = struct.unpack_from(">I", hvcc, 2)
    reversed_bits = int(f"{compatibility:032b}"[::-1], 2)
    constraints = hvcc[6:12].rstrip(b"\0")
    parts = [kind, f"{space}{hvcc[1] & 0x1F}", f"{reversed_bits:X}", f"{tier}{hvcc[12]}"]
    return ".".join(parts + [f"{byte:X}" for byte in constraints])


def av1_codec(av1c: bytes) -> str:
    """`av01.P.LLT.DD` after the AV1 codec ISO media file format binding, section 5."""
    profile, level, bits = av1c[1] >> 5, av1c[1] & 0x1F, av1c[2]
    tier = "H" if bits & 0x80 else "M"
    depth = 12 if bits & 0x60 == 0x60 and profile == 2 else 10 if bits & 0x40 else 8
    return f"av01.{profile}.{level:02d}{tier}.{depth:02d}"


def vp9_codec(vpcc: bytes) -> str:
    """`vp09.PP.LL.DD` after the VP codec ISO media file format binding."""
    return f"vp09.{vpcc[4]:02d}.{vpcc[5]:02d}.{vpcc[6] >> 4:02d}"


def mp4a_codec(esds: bytes) -> str:
    """`mp4a.OO.A`: object type in hex and, for MPEG-4 audio (0x40), the audio object type (RFC 6381 section 3.3)."""
    object_type, audio_type = 0, 0
    at, end = 4, len(esds)
    while at < end:
        tag = esds[at]
        at, size = _descriptor_size(esds, at + 1)
        if tag == 3:  # ES_Descriptor: look inside it (ISO/IEC 14496-1 section 7.2.6.5)
            flags = esds[at + 2]
            at += 3 + (2 if flags & 0x80 else 0)
            at += 1 + esds[at] if flags & 0x40 else 0
            at += 2 if flags & 0x20 else 0
        elif tag == 4:  # DecoderConfigDescriptor: the same
            object_type = esds[at]
            at += 13
        elif tag == 5:  # AudioSpecificConfig (ISO/IEC 14496-3 section 1.6.2.1)
            audio_type = esds[at] >> 3
            if audio_type == 31:
                audio_type = 32 + ((esds[at] & 7) << 3 | esds[at + 1] >> 5)
            break
        else:
            at += size
    return f"mp4a.{object_type:02x}" + (f".{audio_type}" if object_type == 0x40 and audio_type else "")


def _descriptor_size(esds: bytes, at: int) -> tuple[int, int]:
    size = 0
    for _ in range(4):
        byte = esds[at]
        at += 1
        size = size << 7 | byte & 0x7F
        if not byte & 0x80:
            break
    return at, size
