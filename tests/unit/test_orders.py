"""Orders: states, stock, reservations, money that comes late, and what follows from each."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, select, update

from control.bus import names
from control.errors import Conflict, NotFound, OrderMixed, OrderRefused, ProductInactive, ProductUnknown
from control.ledger import inventory, order_placing, order_upkeep, orders, products, reservations
from control.ledger.analytics_models import Sale, SaleRefund
from control.ledger.base import now
from control.ledger.engine import Ledger
from control.ledger.models import OutboxRow
from control.ledger.notice_models import Notice
from control.ledger.order_models import Order
from control.ledger.order_placing import Placement, Wanted
from control.ledger.task_models import TaskRow
from control.ledger.webhook_models import WebhookDelivery, WebhookEndpoint
from tests.shop import Shop, waiting

CONTACT = {"buyer_email": "ann@example.com", "buyer_phone": "+886912345678", "locale": "en"}


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """Without migrations, which take longer than all that is tested here."""
    made = Ledger(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    made.create()
    yield made
    made.close()


@pytest.fixture
def shop(ledger: Ledger) -> Shop:
    return Shop(ledger)


def rows(shop: Shop, model: Any) -> list[Any]:
    with shop.ledger.read() as session:
        return list(session.scalars(select(model)))


def test_an_order_costs_what_its_products_cost_when_it_was_placed(shop: Shop) -> None:
    bowl, cup = shop.product(price_minor=120_00), shop.product(price_minor=35_50, name="Cup")
    order_id = shop.place((bowl, 2), (cup, 3))
    shop.write(lambda session: products.change(session, bowl, price_minor=999_00, name="Dear bowl"))
    order = shop.order(order_id)
    assert (order.state, order.total_minor, order.currency) == ("placed", 2 * 120_00 + 3 * 35_50, "TWD")
    assert [(line.name, line.unit_price_minor) for line in shop.lines(order_id)] == [("Bowl", 120_00), ("Cup", 35_50)]
    assert shop.sent() == [{"order_id": order_id}]
    assert shop.history(order_id) == ["placed"]


def test_what_cannot_be_ordered(shop: Shop) -> None:
    bowl = shop.product()
    others = {
        "currency": shop.product(currency="USD"),
        "seller": shop.product(seller_id="another"),
    }
    gone = shop.product()
    shop.write(lambda session: products.change(session, gone, active=False))
    cases: list[tuple[tuple[Wanted, ...], type[Exception], str]] = [
        ((), OrderRefused, "nothing"),
        ((Wanted("prd_none", 1),), ProductUnknown, "prd_none"),
        ((Wanted(gone, 1),), ProductInactive, "not for sale"),
        *[((Wanted(bowl, 1), Wanted(other, 1)), OrderMixed, what) for what, other in others.items()],
    ]
    placements = [Placement(buyer_id="b", lines=lines) for lines, _, _ in cases]
    answers = shop.write(lambda session: order_placing.place_all(session, placements))
    for answer, (_, kind, words) in zip(answers, cases, strict=True):
        assert type(answer) is kind
        assert words in str(answer)
    assert rows(shop, Order) == []
    assert shop.sent() == []


def test_stock_is_kept_for_an_order_and_sold_when_it_is_confirmed(shop: Shop) -> None:
    bowl = shop.product(stock=5)
    order_id = shop.place((bowl, 2))
    assert shop.figures(bowl) == (5, 0, 0)
    for _ in range(2):  # the message comes twice
        shop.process(order_id)
        assert shop.figures(bowl) == (3, 2, 0)
    assert shop.pay(order_id) == "paid"
    assert shop.pay(order_id) == "already"
    for _ in range(2):
        shop.advance(order_id)
        assert shop.order(order_id).state == "confirmed"
    for _ in range(2):
        shop.settle(order_id)
        assert shop.figures(bowl) == (3, 0, 2)
    assert shop.pay(order_id) == "already"
    assert shop.history(order_id) == ["placed", "reserved", "paid", "confirmed"]
    assert shop.write(waiting) == []


def test_all_of_an_order_is_to_be_had_or_none_of_it(shop: Shop) -> None:
    bowl, cup = shop.product(stock=5), shop.product(stock=1)
    order_id = shop.reserved((bowl, 2), (cup, 2))
    order = shop.order(order_id)
    assert (order.state, order.problem) == ("sold_out", "sold-out")
    assert (shop.figures(bowl), shop.figures(cup)) == ((5, 0, 0), (1, 0, 0))
    assert shop.pay(order_id) == "too_late"
    with pytest.raises(Conflict, match="sold_out"):
        shop.cancel(order_id)


@pytest.mark.parametrize("lacking", [0, 1])
def test_the_last_one_goes_a_moment_before(shop: Shop, monkeypatch: pytest.MonkeyPatch, lacking: int) -> None:
    """The look said that there was enough; nothing of the reservation stays."""
    made = [shop.product(stock=3), shop.product(stock=3)]
    order_id = shop.place((made[0], 3), (made[1], 3))
    look = inventory.order_and_missing

    def late(session: Any, order: str) -> Any:
        found = look(session, order)
        products.change(session, made[lacking], stock_delta=-1)
        return *found[:2], []

    with monkeypatch.context() as patched:
        patched.setattr(inventory, "order_and_missing", late)
        with pytest.raises(reservations.StockShort):
            shop.write(lambda session: reservations.reserve(session, order_id, 900))
    assert shop.order(order_id).state == "placed"
    assert [shop.figures(product) for product in made] == [(3, 0, 0), (3, 0, 0)]
    shop.write(lambda session: reservations.sold_out(session, order_id))
    assert shop.history(order_id) == ["placed", "sold_out"]


@pytest.mark.parametrize("state", ["placed", "reserved"])
def test_a_cancelled_order_gives_its_stock_back(shop: Shop, state: str) -> None:
    bowl = shop.product(stock=5)
    order_id = shop.place((bowl, 2)) if state == "placed" else shop.reserved((bowl, 2))
    for _ in range(2):
        shop.cancel(order_id)
    shop.work_off()
    shop.process(order_id)  # late: it was cancelled before
    assert shop.order(order_id).state == "cancelled"
    assert shop.figures(bowl) == (5, 0, 0)
    assert shop.write(waiting) == []


def test_a_paid_order_cannot_be_cancelled(shop: Shop) -> None:
    order_id = shop.reserved((shop.product(), 1))
    shop.pay(order_id)
    with pytest.raises(Conflict, match="is paid"):
        shop.cancel(order_id)


def test_a_reservation_ends_and_its_buyer_is_reminded_once(shop: Shop) -> None:
    bowl = shop.product(stock=5)
    order_id, silent = shop.reserved((bowl, 2), **CONTACT), shop.reserved((bowl, 1))
    assert shop.expire(seconds=890) == 0
    assert shop.expire(seconds=901) == 2
    assert shop.expire(seconds=901) == 0
    shop.work_off()
    assert shop.figures(bowl) == (5, 0, 0)
    assert shop.order(silent).reminded_at is None
    # Paid late, it expired once more: it cannot; but whatever asks again, there is one mail.
    (notice,) = rows(shop, Notice)
    assert (notice.template, notice.to, notice.about, notice.locale) == (
        "abandoned_cart", "ann@example.com", order_id, "en",
    )  # fmt: skip
    assert notice.data["lines"] == [{"name": "Bowl", "quantity": 2, "unit_price_minor": 100_00}]
    assert len(shop.sent(names.SEND_ABANDONED_CART_EMAIL)) == 1


def test_somebody_looks_as_soon_as_a_reservation_has_ended(shop: Shop) -> None:
    bowl = shop.product(stock=100)
    for _ in range(20):
        shop.reserved((bowl, 1))
    with shop.ledger.read() as session:
        looks = session.scalars(select(TaskRow).where(TaskRow.task == names.CHECK_ABANDONED_CARTS.name)).all()
    assert 1 <= len(looks) <= 2  # twenty in a moment have one in common
    assert len(shop.sent(names.CHECK_ABANDONED_CARTS)) == len(looks)


def test_money_that_comes_late_pays_if_there_is_stock(shop: Shop) -> None:
    bowl = shop.product(stock=2)
    first, second = shop.reserved((bowl, 1)), shop.reserved((bowl, 1))
    shop.cancel(first)
    shop.expire()
    assert shop.pay(second) == "paid"  # its stock is still kept: nobody has given it back yet
    shop.work_off()
    assert shop.figures(bowl) == (1, 0, 1)
    assert shop.pay(first) == "paid"  # taken anew
    shop.work_off()
    assert shop.figures(bowl) == (0, 0, 2)
    assert shop.history(first) == ["placed", "reserved", "cancelled", "paid", "confirmed"]
    assert shop.history(second) == ["placed", "reserved", "expired", "paid", "confirmed"]


def test_money_that_comes_too_late_goes_back(shop: Shop) -> None:
    bowl, cup = shop.product(stock=3), shop.product(stock=1)
    order_id = shop.reserved((bowl, 3), (cup, 1))
    shop.expire()
    shop.work_off()
    other = shop.reserved((cup, 1))
    assert shop.pay(order_id) == "too_late"
    order = shop.order(order_id)
    assert (order.state, order.paid_at, order.problem) == ("expired", None, "paid-too-late")
    assert (shop.figures(bowl), shop.figures(cup)) == ((3, 0, 0), (0, 1, 0))
    assert shop.order(other).state == "reserved"


@pytest.mark.parametrize("advanced", [True, False])
def test_a_refunded_order_gives_its_stock_back(shop: Shop, advanced: bool) -> None:
    bowl = shop.product(stock=5)
    order_id = shop.reserved((bowl, 2), **CONTACT)
    shop.pay(order_id)
    if advanced:
        shop.work_off()
    for _ in range(2):
        shop.refund(order_id)
    shop.work_off()
    shop.advance(order_id)  # late
    assert shop.order(order_id).state == "refunded"
    assert shop.figures(bowl) == (5, 0, 0)
    assert shop.pay(order_id) == "already"
    assert [refund.order_id for refund in rows(shop, SaleRefund)] == [order_id]
    assert "refunded" in [notice.data.get("state") for notice in rows(shop, Notice)]


def test_what_is_paid_is_confirmed_once_with_all_that_follows(shop: Shop) -> None:
    endpoint = {"url": "https://example.com/", "events": ["order.paid"], "secret": "whsec_x", "state": "enabled"}
    shop.write(lambda session: session.add(WebhookEndpoint(id="whe_1", created_at=now(), updated_at=now(), **endpoint)))
    bowl = shop.product(stock=5)
    order_id = shop.reserved((bowl, 2), **CONTACT)
    paid_at = now() - timedelta(seconds=3)
    shop.pay(order_id, paid_at)
    for _ in range(3):
        shop.advance(order_id)
    assert {notice.template for notice in rows(shop, Notice)} == {
        "order_confirmation", "payment_confirmation", "order_status",
    }  # fmt: skip
    assert len(rows(shop, Notice)) == 3
    for spec in (
        names.SEND_ORDER_CONFIRMATION_EMAIL,
        names.SEND_PAYMENT_CONFIRMATION_EMAIL,
        names.SEND_ORDER_STATUS_SMS,
        names.DELIVER_WEBHOOK,
    ):
        assert len(shop.sent(spec)) == 1, spec.name
    assert shop.figures(bowl) == (3, 0, 2), "what is confirmed is sold"
    (sale,) = rows(shop, Sale)
    assert (sale.order_id, sale.amount_minor, sale.items, sale.at) == (order_id, 200_00, 2, paid_at)
    (delivery,) = rows(shop, WebhookDelivery)
    assert order_id in delivery.body
    told = delivery.body + repr(shop.sent())
    assert not any(secret in told for secret in ("ann@", "912345678"))


def test_a_stream_s_products_are_its_sales(shop: Shop) -> None:
    from control.ledger import streams

    shop.write(lambda session: streams.create(session, title="t", stream_id="live"))
    shop.write(lambda session: streams.create(session, title="t", stream_id="other"))
    here, there = shop.product(stream_id="live"), shop.product(stream_id="other")
    assert shop.order(shop.place((here, 1))).stream_id == "live"
    assert shop.order(shop.place((here, 1), (there, 1))).stream_id is None
    assert shop.order(shop.place((there, 1), stream_id="live")).stream_id == "live"
    with pytest.raises(OrderRefused, match="nowhere"):
        shop.place((here, 1), stream_id="nowhere")


def test_what_was_lost_on_the_bus_is_sent_again(shop: Shop) -> None:
    bowl = shop.product(stock=50)
    made = [shop.place((bowl, 1)) for _ in range(5)]
    for order_id in made[1:]:
        shop.process(order_id)
    shop.cancel(made[2])
    for order_id in made[3:]:
        shop.pay(order_id)
    shop.advance(made[4])
    shop.write(lambda session: session.execute(delete(OutboxRow)))
    assert shop.write(lambda session: order_upkeep.send_lost(session)) == 0
    assert shop.write(lambda session: order_upkeep.send_lost(session, bus_is_empty=True)) == 3
    old = update(Order).values(waits_since=now() - timedelta(minutes=6))
    shop.write(lambda session: session.execute(old.where(Order.waits_since.is_not(None))))
    assert shop.write(lambda session: order_upkeep.send_lost(session)) == 3
    shop.work_off()
    states = [shop.order(order_id).state for order_id in made]
    assert states == ["reserved", "reserved", "cancelled", "confirmed", "confirmed"]
    assert shop.figures(bowl) == (46, 2, 2)
    assert shop.write(waiting) == []


def test_a_reservation_nobody_looked_at_is_looked_at_after_all(shop: Shop) -> None:
    shop.reserved((shop.product(), 1))
    shop.write(lambda session: session.execute(update(Order).values(expires_at=now() - timedelta(minutes=6))))
    before = len(shop.sent(names.CHECK_ABANDONED_CARTS))
    shop.write(lambda session: order_upkeep.send_lost(session))
    assert len(shop.sent(names.CHECK_ABANDONED_CARTS)) == before + 1


def test_stock_changes_by_differences_and_never_below_nothing(shop: Shop) -> None:
    bowl = shop.product(stock=5)
    shop.reserved((bowl, 2))
    shop.write(lambda session: products.change(session, bowl, stock_delta=4))
    assert shop.figures(bowl) == (7, 2, 0)
    with pytest.raises(Conflict, match="7 left"):
        shop.write(lambda session: products.change(session, bowl, stock_delta=-8))
    assert shop.figures(bowl) == (7, 2, 0)
    with pytest.raises(NotFound):
        shop.write(lambda session: products.change(session, "prd_none", stock_delta=1))


def test_no_state_but_those_that_are_legal(shop: Shop) -> None:
    order_id = shop.place((shop.product(), 1))
    for state in ("paid", "confirmed", "expired", "refunded", "placed"):
        with pytest.raises(Conflict, match=f"cannot become {state}"):
            shop.write(
                lambda session, state=state: orders.move(  # type: ignore[misc]
                    session, orders.get(session, order_id, lock=True), state, now()
                )
            )
    assert shop.history(order_id) == ["placed"]
