"""`GET /metrics`: what Prometheus scrapes of this process."""

from __future__ import annotations

import logging
from typing import Annotated

from fastapi import APIRouter, Depends, Response
from prometheus_client import CONTENT_TYPE_LATEST, Counter, Histogram, generate_latest

from control.api.openapi import described
from control.api.services import Services, services

log = logging.getLogger(__name__)
REQUESTS = Counter("afterlive_http_requests_total", "Requests answered.", ["method", "route", "status"])
SECONDS_TO_RESPONSE = Histogram(
    "afterlive_http_response_seconds",
    "Seconds from a request to the start of its answer.",
    ["method", "route"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)

router = APIRouter(tags=["operations"])


@router.get(
    "/metrics",
    summary="Metrics in Prometheus' text format",
    response_class=Response,
    responses={
        **described(path="/metrics"),
        200: {
            "description": "Metrics",
            "content": {
                "text/plain": {
                    "example": 'afterlive_http_requests_total{method="GET",route="/streams",status="200"} 17.0\n'
                }
            },
        },
    },
)
def metrics(at_hand: Annotated[Services, Depends(services)]) -> Response:
    """Every counter, gauge and histogram of the process."""
    try:
        at_hand.refresh()
    except Exception:
        # While the ledger is away, what is counted elsewhere is wanted all the more.
        log.warning("the gauges of the ledger are not up to date", exc_info=True)
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)
