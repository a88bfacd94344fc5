"""What a part of a replay is to the bus: a job, a result, and what is heard of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from control.bus import names
from control.bus.embedded import Embedded
from control.bus.messages import Message
from control.ledger import failures
from tests.bus import spec_of

ANSWERS = (names.PART_DONE, names.PART_FAILED, names.PART_PROGRESS)


class Job(Message):
    """The shape every part's job has."""

    replay_id: str = "rep_1"
    run: int = 1
    part: str = "chunk-00000"
    frames: int = 1


class Made(Message):
    """A result."""

    frames: int


class Heard:
    """What media tasks answered: bodies for the tasks they answer to."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []

    def bodies(self) -> list[tuple[Any, Callable[..., None]]]:
        return [(spec, self._body(spec.name)) for spec in ANSWERS]

    def _body(self, name: str) -> Callable[..., None]:
        def hear(**payload: Any) -> None:
            self.calls.append((name, payload))

        return hear

    def to(self, spec: names.TaskSpec) -> list[dict[str, Any]]:
        return [payload for name, payload in list(self.calls) if name == spec.name]


def work_spec(**changes: Any) -> names.TaskSpec:
    defaults: dict[str, Any] = {"name": "tests.part", "queue": names.LOW, "reports_to_replay": True}
    return spec_of(**(defaults | changes))


def failed_task(running: Embedded, task_id: str) -> Any:
    with running.ledger.read() as session:
        return next((row for row in failures.page(session, limit=10) if row.task_id == task_id), None)
