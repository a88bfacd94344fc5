"""One platform for all tests of a module, as long as none fails: what comes after a failure starts afresh. A module may
say how its platform is made (`FIELD`: arguments of `field_of`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.chaos.field import Field, field_of


@pytest.fixture(scope="module")
def _fields(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Callable[[], Field]]:
    running: list[Field] = []
    choices: dict[str, Any] = getattr(request.module, "FIELD", {})
    failed = request.session.testsfailed
    with ExitStack() as stack:

        def give() -> Field:
            nonlocal failed
            if failed != request.session.testsfailed or not running:
                failed = request.session.testsfailed
                running.clear()
                stack.close()
                running.append(stack.enter_context(field_of(tmp_path_factory.mktemp("chaos"), **choices)))
            return running[0]

        yield give


@pytest.fixture
def field(_fields: Callable[[], Field]) -> Field:
    return _fields()
