"""What the API and the command line show of media workers."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Literal

from pydantic import BaseModel, Field
from sqlalchemy.orm import Session

from control.bus.messages import Capability, NodeReport
from control.bus.routing import queues_of
from control.ledger import nodes
from control.ledger.base import now
from control.ledger.node_models import Node


class NodeView(BaseModel):
    """A media worker, by what it last said of itself."""

    name: str = Field(examples=["gpu-1-4711"])
    state: Literal["alive", "lost", "ended"] = Field(description="lost: nothing was heard of it for too long")
    host: str = Field(examples=["gpu-1"])
    queues: list[str] = Field(description="What it takes from", examples=[["low_priority", "low_priority.nvenc"]])
    encoders: list[str] = Field(description="Those that work there, best first", examples=[["h264_nvenc", "libx264"]])
    refuses_cpu: bool = Field(description="Whether it was told to encode nothing on its processors")
    ffmpeg: str = Field(description="Version", examples=["9.0"])
    first_at: datetime
    heard_at: datetime
    capabilities: list[Capability] = Field(description="Each way to encode on each device, as it was tried")


def known(session: Session, lost_seconds: float) -> list[NodeView]:
    """All media workers, those heard of last first."""
    return [_view(node, lost_seconds) for node in nodes.known(session)]


def _view(node: Node, lost_seconds: float) -> NodeView:
    report = NodeReport.model_validate(node.report)
    return NodeView(
        name=node.name,
        state=_state(node, lost_seconds),
        host=report.node,
        queues=list(queues_of(report)),
        encoders=list(dict.fromkeys(can.encoder for can in report.capabilities if can.usable)),
        refuses_cpu=report.refuses_cpu,
        ffmpeg=report.ffmpeg,
        first_at=node.first_at,
        heard_at=node.heard_at,
        capabilities=list(report.capabilities),
    )


def _state(node: Node, lost_seconds: float) -> Literal["alive", "lost", "ended"]:
    if node.left_at is not None:
        return "ended"
    return "alive" if node.heard_at >= now() - timedelta(seconds=lost_seconds) else "lost"
