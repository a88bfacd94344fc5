"""Signed messages: whoever has a key is believed, nobody else."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.bus.app import make_app
from control.bus.signing import SIGNATURE, is_genuine, signature
from control.settings import BusSettings

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def app(*keys: str) -> Any:
    return make_app(BusSettings(_env_file=None, signing_keys=list(keys)))


OLD, NEW, BOTH, NONE = app("old"), app("new"), app("new", "old"), app()


@given(payload=st.dictionaries(st.text(), _JSON, max_size=4))
def test_what_crosses_the_wire_is_still_genuine(payload: dict[str, Any]) -> None:
    offered = signature(NEW, "a.task", "1", payload)[SIGNATURE]
    assert is_genuine(NEW, offered, "a.task", "1", json.loads(json.dumps(payload)))


@pytest.mark.parametrize(
    ("task", "task_id", "payload"), [("another", "1", {"n": 1}), ("a.task", "2", {"n": 1}), ("a.task", "1", {"n": 2})]
)
def test_another_task_id_or_argument_is_not(task: str, task_id: str, payload: dict[str, Any]) -> None:
    offered = signature(NEW, "a.task", "1", {"n": 1})[SIGNATURE]
    assert not is_genuine(NEW, offered, task, task_id, payload)


def test_keys_are_changed_without_a_pause() -> None:
    old, new = (signature(one, "t", "1", {})[SIGNATURE] for one in (OLD, BOTH))
    assert is_genuine(BOTH, old, "t", "1", {})
    assert is_genuine(BOTH, new, "t", "1", {})
    assert not is_genuine(NEW, old, "t", "1", {})


@pytest.mark.parametrize("offered", [None, "", "x", 7, "ü"])
def test_nothing_else_is_a_signature(offered: object) -> None:
    assert not is_genuine(NEW, offered, "t", "1", {})


def test_without_keys_nothing_is_signed_and_all_is_taken() -> None:
    assert signature(NONE, "t", "1", {}) == {}
    assert is_genuine(NONE, None, "t", "1", {})
