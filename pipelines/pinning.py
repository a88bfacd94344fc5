"""Which encoder makes which rung: pinned once for the whole replay, by what the nodes that are alive can. Pure.

One init segment serves all chunks of a rung, so all must come from one encoder. A chunk is made by one node, which
takes it from the queue of one family of devices (`control.bus.routing`): so a replay's rungs are pinned to one family,
and to the processor where not every node of that family can make a rung.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

from control.bus.messages import LeftRung, NodeReport, Plan, Rung
from control.bus.routing import CPU, FAMILIES, family_of, has_family

SOFTWARE: Final = {"h264": "libx264", "hevc": "libx265", "av1": "libsvtav1"}
"""Codec → the encoder that every node has."""
_CODECS: Final = {encoder: codec for codec, encoder in SOFTWARE.items()}


def pin(plan: Plan, bit_depth: int, nodes: Sequence[NodeReport]) -> Plan:
    """The plan with each rung on the best encoder that is there for it; unchanged where there are no GPUs.

    `bit_depth` is the source's. A rung that left an encoder does not go back to it.
    """
    family = _best_family(plan.rungs, bit_depth, nodes, FAMILIES, _left_families(plan.left))
    return plan.model_copy(update={"rungs": tuple(_on(family, rung, bit_depth, nodes) for rung in plan.rungs)})


def repin(plan: Plan, encoder: str, bit_depth: int, nodes: Sequence[NodeReport]) -> Plan:
    """The plan with the rungs of `encoder` on another one, each in a new folder: what is in the old one was made by
    the other encoder, and may still be watched. The other rungs stay as they are."""
    left = (*plan.left, *(LeftRung(name=rung.name, encoder=encoder) for rung in plan.rungs if rung.encoder == encoder))
    staying = {family_of(rung.encoder) for rung in plan.rungs if rung.encoder != encoder} - {CPU}
    open_to = (*staying, CPU) if staying else FAMILIES  # no chunk waits for two kinds of devices
    changing = [rung for rung in plan.rungs if rung.encoder == encoder]
    family = _best_family(changing, bit_depth, nodes, open_to, _left_families(left))
    rungs = tuple(
        _moved(rung, _on(family, rung, bit_depth, nodes).encoder) if rung.encoder == encoder else rung
        for rung in plan.rungs
    )
    return plan.model_copy(update={"rungs": rungs, "left": left})


def can(node: NodeReport, encoder: str, rung: Rung, bit_depth: int) -> bool:
    """Whether a node has `encoder` for this rung of a source of `bit_depth`."""
    return node.can(encoder, width=rung.width, height=rung.height, bit_depth=bit_depth)


def _best_family(
    rungs: Sequence[Rung], bit_depth: int, nodes: Sequence[NodeReport], open_to: Collection[str], left: Collection[str]
) -> str:
    """The one that takes most pixels off the processors; of two, the one that is named first."""
    best, most = CPU, 0.0
    for family in FAMILIES:
        if family == CPU or family not in open_to or family in left:
            continue
        on = [_on(family, rung, bit_depth, nodes) for rung in rungs]
        rest = [rung.encoder for rung in on if family_of(rung.encoder) == CPU]
        if not all(_has_software(node, rest) for node in nodes if has_family(node, family)):
            continue
        taken = sum(float(r.width * r.height * r.frame_rate) for r in on if family_of(r.encoder) == family)
        if taken > most:
            best, most = family, taken
    return best


def _has_software(node: NodeReport, encoders: Sequence[str]) -> bool:
    """Whether a node makes rungs with these beside those of its device, which it does though it refuses chunks that
    are for its processors alone."""
    has = {each.encoder for each in node.capabilities if each.usable}
    return has.issuperset(encoders)


def _on(family: str, rung: Rung, bit_depth: int, nodes: Sequence[NodeReport]) -> Rung:
    """The rung on its codec's encoder of `family`, where every node that may get the chunk can make it."""
    codec = codec_of(rung.encoder)
    encoder = f"{codec}_{family}" if family != CPU else SOFTWARE[codec]
    takers = [node for node in nodes if has_family(node, family)]
    if family == CPU or not takers or not all(can(node, encoder, rung, bit_depth) for node in takers):
        encoder = SOFTWARE[codec]
    return rung if encoder == rung.encoder else rung.model_copy(update={"encoder": encoder})


def codec_of(encoder: str) -> str:
    """`h264`, `hevc` or `av1`. Raises ValueError for an encoder nobody knows."""
    codec = _CODECS.get(encoder) or encoder.rpartition("_")[0]
    if codec not in SOFTWARE:
        raise ValueError(f"{encoder!r} is no encoder that a rung can be pinned to")
    return codec


def _moved(rung: Rung, encoder: str) -> Rung:
    name = f"{rung.name.removesuffix(f'-{rung.encoder}')}-{encoder}"
    return rung.model_copy(update={"encoder": encoder, "name": name})


def _left_families(left: Sequence[LeftRung]) -> set[str]:
    return {family_of(rung.encoder) for rung in left}
