"""What this node can encode with: asked of the media tier by an entry point, as the control plane imports no worker."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Final

from control.bus.messages import NodeReport
from control.settings import Settings

GROUP: Final = "afterlive.capabilities"


def report_of(settings: Settings) -> NodeReport | None:
    """The report of the tier that is installed here; None where there is none."""
    for point in entry_points(group=GROUP):
        found = point.load()(settings)
        if not isinstance(found, NodeReport):
            raise TypeError(f"{point.value} gave no NodeReport")
        return found
    return None
