"""Media workers, by what they last said of themselves."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict

from control.api.openapi import described
from control.api.services import Services, services
from control.ledger import node_views
from control.ledger.node_views import NodeView

router = APIRouter(prefix="/nodes", tags=["nodes"])

_EXAMPLE: dict[str, Any] = {
    "name": "gpu-1-4711",
    "state": "alive",
    "host": "gpu-1",
    "queues": ["low_priority", "low_priority.nvenc"],
    "encoders": ["h264_nvenc", "libx264"],
    "refuses_cpu": False,
    "ffmpeg": "9.0",
    "first_at": "2026-11-24T08:00:00Z",
    "heard_at": "2026-11-24T08:30:00Z",
    "capabilities": [
        {
            "device": "nvenc:0",
            "encoder": "h264_nvenc",
            "codec": "h264",
            "tier": "cuda",
            "bit_depths": [8],
            "min_width": 146,
            "min_height": 50,
            "max_width": 4096,
            "max_height": 4096,
            "sessions": 8,
            "usable": True,
            "reason": None,
        }
    ],
}


class NodeList(BaseModel):
    """Media workers, those heard of last first."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"items": [_EXAMPLE]}]})
    items: list[NodeView]


@router.get("", summary="Media workers", responses=described(path="/nodes"))
def index(at_hand: Annotated[Services, Depends(services)]) -> NodeList:
    """Who is alive, what each takes from, which encoders work there, and why others do not. Those nothing was heard of
    for a day are forgotten."""
    with at_hand.ledger.read() as session:
        found = node_views.known(session, at_hand.settings.media.node_lost_seconds)
    return NodeList(items=found)
