"""`/healthz`: the process answers. `/readyz`: it can do its work. Both open; neither tells anything of the inside."""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import anyio
from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, ConfigDict

from control.api.openapi import described
from control.api.problems import NotReady, problem_response
from control.api.services import Services, services
from control.storage import folder_of

log = logging.getLogger(__name__)
router = APIRouter(tags=["operations"])
CHECK_SECONDS = 5.0
LEAST_FREE_BYTES = 1024**3
"""Under this, the next replays would fail half-way: better to take no new ones."""
OPEN: dict[str, Any] = {"security": []}


class Health(BaseModel):
    """The process answers."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"status": "ok"}]})
    status: str


class Readiness(BaseModel):
    """What the work needs, each `ok` or what is wrong with it."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"status": "ready", "checks": {"ledger": "ok", "store": "ok", "disk": "ok"}}],
        }
    )
    status: str
    checks: dict[str, str]


@router.get("/healthz", summary="Is the process alive?", openapi_extra=OPEN)
def healthz() -> Health:
    """Answers as long as the process does."""
    return Health(status="ok")


@router.get(
    "/readyz",
    summary="Can it do its work?",
    response_model=Readiness,
    openapi_extra=OPEN,
    responses=described(NotReady(reason="disk"), path="/readyz"),
)
async def readyz(request: Request, at_hand: Annotated[Services, Depends(services)]) -> Readiness | Response:
    """Asks the ledger, the object store and the disk; 503 names the ones that failed."""
    names = ("ledger", "store", "disk")
    checks: tuple[Callable[[], str], ...] = (
        lambda: _ledger(at_hand),
        lambda: _store(at_hand),
        lambda: _disk(at_hand),
    )
    results = await asyncio.gather(*(_ask(name, check) for name, check in zip(names, checks, strict=True)))
    found = dict(zip(names, results, strict=True))
    failed = [name for name, result in found.items() if result != "ok"]
    if failed:
        return problem_response(request, NotReady(reason=", ".join(failed)), checks=found)
    return Readiness(status="ready", checks=found)


async def _ask(name: str, check: Callable[[], str]) -> str:
    """The check's word; a fault is logged in full and answered in brief. One that hangs is left behind."""
    try:
        with anyio.fail_after(CHECK_SECONDS):
            return await anyio.to_thread.run_sync(check, abandon_on_cancel=True)
    except TimeoutError:
        log.warning("readiness: %s did not answer within %s s", name, CHECK_SECONDS)
        return f"no answer within {CHECK_SECONDS:.0f} s"
    except Exception:  # whatever is wrong with it, the answer is "not ready"
        log.warning("readiness: %s failed", name, exc_info=True)
        return "unavailable"


def _ledger(at_hand: Services) -> str:
    at_hand.ledger.check()
    # A database that answers may still be the wrong one: an empty file where the ledger was, a schema of last month.
    return "ok" if at_hand.ledger.is_current() else "its schema is not the newest"


def _store(at_hand: Services) -> str:
    at_hand.store.size("readiness-probe")
    return "ok"


def _disk(at_hand: Services) -> str:
    for path in (folder_of(at_hand.store), at_hand.settings.media.scratch):
        if path is not None and shutil.disk_usage(_existing(path)).free < LEAST_FREE_BYTES:
            return "less than 1 GiB free"
    return "ok"


def _existing(path: Path) -> Path:
    """The nearest folder above `path` that exists already."""
    return next(folder for folder in (path, *path.resolve().parents) if folder.exists())
