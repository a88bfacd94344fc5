"""Which queue a message goes to, and which queues a media node takes from: by the encoders that are wanted and had.

A chunk's rungs are pinned to encoders by the plan. One that wants NVENC or VAAPI goes to the queue of that family,
which nodes consume that have it; all else of the media tier goes to `low_priority`, which any node can do.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from control.bus.messages import NodeReport
from control.bus.names import GPU_QUEUES, LOW, TaskSpec

CPU: Final = "cpu"
FAMILIES: Final = (*GPU_QUEUES, CPU)
"""Best first."""


def family_of(encoder: str) -> str:
    """Of ffmpeg's name of an encoder: the kind of device it wants (`h264_nvenc` → `nvenc`); `cpu` where none."""
    family = encoder.rpartition("_")[2]
    return family if family in GPU_QUEUES else CPU


def queue_of(spec: TaskSpec, payload: Mapping[str, Any]) -> str:
    """Where a message of `spec` with this payload goes. Of a payload that is not what it should be, the task's usual
    queue: whoever takes it says what is wrong."""
    for encoder in _of_rungs(payload, "encoder") if spec.also else ():
        queue = GPU_QUEUES.get(family_of(encoder))
        if queue in spec.also:
            return str(queue)
    return spec.queue


def has_family(report: NodeReport, family: str) -> bool:
    """Whether a node takes chunks of that family."""
    return any(has.usable and family_of(has.encoder) == family for has in report.capabilities)


def queues_of(report: NodeReport | None) -> tuple[str, ...]:
    """What a media worker takes from: what any can do, and the chunks of each family it has."""
    return (LOW, *(queue for family, queue in GPU_QUEUES.items() if report is not None and has_family(report, family)))


def rung_names(payload: Mapping[str, Any]) -> tuple[str, ...]:
    """Of a chunk's message: what it makes, by which it is known what plan it is of. Of another's, nothing."""
    return tuple(_of_rungs(payload, "name"))


def _of_rungs(payload: Mapping[str, Any], field: str) -> Iterator[str]:
    job = payload.get("job")
    rungs = job.get("rungs") if isinstance(job, dict) else None
    for rung in rungs if isinstance(rungs, list) else ():
        if isinstance(rung, dict) and isinstance(rung.get(field), str):
            yield rung[field]
