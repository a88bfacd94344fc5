"""`python -m tests.gpu_worker worker media` is `afterlive worker media` on a machine that has what the test says, with
a media tier that needs no ffmpeg.

TEST_NODE_ENCODERS (a comma-separated list) is what it says it has; TEST_NODE_LACKS what it then has not; both are read
anew from files of these names below TEST_NODE_HOME, where they are there. Other commands are the platform's own.
"""

from __future__ import annotations

import dataclasses
import os
import socket
import sys
from pathlib import Path

from control.bus import worker
from control.bus.app import TIERS
from control.bus.messages import ChunkJob, ChunkResult, NodeReport
from control.bus.task import task
from control.bus.work import Work
from control.cli import main as afterlive
from control.settings import Settings
from tests.fake_media import Studio
from tests.nodes import CPU, capability, node

_STUDIO = Studio()


def _said(name: str) -> list[str]:
    file = Path(os.environ.get("TEST_NODE_HOME", "/nowhere")) / name
    said = file.read_text() if file.exists() else os.environ.get(name, "")
    return [encoder for encoder in said.strip().split(",") if encoder]


def report(_settings: Settings) -> NodeReport:
    """What this machine has at the moment."""
    return node(socket.gethostname(), *(capability(encoder) for encoder in _said("TEST_NODE_ENCODERS")), CPU)


def chunk(job: ChunkJob, work: Work) -> ChunkResult:
    _STUDIO.lacks = set(_said("TEST_NODE_LACKS"))
    _STUDIO.chunk_seconds = float(os.environ.get("TEST_NODE_CHUNK_SECONDS", "0"))
    return _STUDIO.chunk(job, work)


for _spec, _body in _STUDIO.bodies():
    task(_spec)(chunk if _body == _STUDIO.chunk else _body)


def main() -> None:
    # Tasks by this module's own name, as a worker loads them.
    TIERS["media"] = dataclasses.replace(TIERS["media"], modules=("tests.gpu_worker",))
    vars(worker)["report_of"] = report
    sys.argv[0] = "afterlive"
    afterlive()


if __name__ == "__main__":
    main()
