"""Media nodes in the ledger: who is there, what each can, and since when nobody had an encoder."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import update

from control.ledger import nodes
from control.ledger.base import now
from control.ledger.engine import Ledger
from control.ledger.node_models import Node
from tests.nodes import CPU, capability, node

NVENC = capability("h264_nvenc")


def names(ledger: Ledger, lost_seconds: float = 60) -> list[str]:
    with ledger.read() as session:
        return [report.node for report in nodes.alive(session, lost_seconds)]


def last_heard(ledger: Ledger, name: str, seconds_ago: float) -> None:
    """As if it had said nothing since."""
    at = now() - timedelta(seconds=seconds_ago)
    with ledger.write() as session:
        known = session.get_one(Node, name).usable_at
        old = {encoder: at.isoformat() for encoder in known}
        session.execute(update(Node).where(Node.name == name).values(heard_at=at, usable_at=old))


def last_usable(ledger: Ledger, encoder: str = "h264_nvenc") -> datetime | None:
    with ledger.read() as session:
        return nodes.last_usable(session, encoder)


def test_who_was_heard_of_is_there(ledger: Ledger) -> None:
    with ledger.write() as session:
        nodes.heard(session, node("b", NVENC, CPU))
        nodes.heard(session, node("a", CPU))
    assert names(ledger) == ["a", "b"]
    last_heard(ledger, "b", 61)
    assert names(ledger) == ["a"]
    assert names(ledger, lost_seconds=120) == ["a", "b"]
    with ledger.write() as session:
        nodes.heard(session, node("b", CPU))
    assert names(ledger) == ["a", "b"]
    with ledger.read() as session:
        assert nodes.alive(session, 60)[1].capabilities == (CPU,)


def test_who_says_good_bye_is_gone_until_it_is_back(ledger: Ledger) -> None:
    with ledger.write() as session:
        nodes.heard(session, node("a", NVENC))
    with ledger.write() as session:
        nodes.left(session, "a")
        nodes.left(session, "never there")
    assert names(ledger) == []
    assert last_usable(ledger)  # it was there a moment ago: a restart is no loss
    with ledger.write() as session:
        nodes.heard(session, node("a", NVENC))
    assert names(ledger) == ["a"]


def test_when_an_encoder_was_last_there_is_remembered(ledger: Ledger) -> None:
    assert last_usable(ledger) is None
    with ledger.write() as session:
        nodes.heard(session, node("a", NVENC, CPU))
    first = last_usable(ledger)
    assert first
    assert (now() - first).total_seconds() < 10
    dead = NVENC.model_copy(update={"usable": False, "reason": "no driver"})
    with ledger.write() as session:
        nodes.heard(session, node("a", dead, CPU))
    assert last_usable(ledger) == first
    with ledger.write() as session:
        nodes.heard(session, node("b", NVENC))
    assert last_usable(ledger) > first  # type: ignore[operator]
    assert last_usable(ledger, "h264_vaapi") is None


def test_what_a_chunk_found_holds_until_the_node_says_otherwise(ledger: Ledger) -> None:
    with ledger.write() as session:
        nodes.heard(session, node("a", NVENC, CPU))
    with ledger.write() as session:
        nodes.cannot(session, "a", "h264_nvenc", "its driver is gone")
        nodes.cannot(session, "never there", "h264_nvenc", "x")
    with ledger.read() as session:
        (report,) = nodes.alive(session, 60)
    assert report.capabilities == (NVENC.model_copy(update={"usable": False, "reason": "its driver is gone"}), CPU)
    with ledger.write() as session:
        nodes.heard(session, node("a", NVENC, CPU))
    with ledger.read() as session:
        assert nodes.alive(session, 60)[0].capabilities == (NVENC, CPU)


def test_a_long_name_is_one_node(ledger: Ledger) -> None:
    for _ in range(2):
        with ledger.write() as session:
            nodes.heard(session, node("n" * 500, CPU))
    with ledger.read() as session:
        assert len(nodes.known(session)) == 1


def test_who_was_not_heard_of_for_long_is_forgotten(ledger: Ledger) -> None:
    with ledger.write() as session:
        for name in ("a", "b", "c"):
            nodes.heard(session, node(name, CPU))
    for name in ("a", "b"):
        last_heard(ledger, name, 3600)
    with ledger.write() as session:
        assert nodes.forget(session, now() - timedelta(minutes=30), 1) == 1
        assert nodes.forget(session, now() - timedelta(minutes=30), 10) == 1
    with ledger.read() as session:
        assert [one.name for one in nodes.known(session)] == ["c"]
