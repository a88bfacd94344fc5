"""Orders under many threads at once, and from end to end on the embedded bus."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

import pytest
from sqlalchemy import delete, func, select

from control.bus import names
from control.bus.app import NOTIFY, PIPELINES
from control.bus.embedded import Embedded
from control.errors import Conflict
from control.ledger import order_placing, order_upkeep, orders, reservations
from control.ledger.analytics_models import Sale
from control.ledger.base import now
from control.ledger.engine import Ledger
from control.ledger.group import GroupCommit
from control.ledger.models import OutboxRow
from control.ledger.notice_models import Notice
from control.ledger.order_models import Order, OrderLine
from control.ledger.order_placing import Placement, Wanted
from control.settings import Settings, ShopSettings
from pipelines import checkout
from tests.bus import bus, until
from tests.shop import Shop

CONTACT = {"buyer_email": "ann@example.com", "buyer_phone": "+886912345678"}


@pytest.fixture
def shop(ledger: Ledger) -> Shop:
    return Shop(ledger)


def flash_sale(shop: Shop, many: int, buyers: int, items: int) -> None:
    """`many` orders are placed by `buyers` at once; there are `items` in all, of two products, and all want both, or
    one. Each tenth message comes twice at the same moment."""
    made = [shop.product(stock=items // 2), shop.product(stock=items - items // 2)]
    desk: GroupCommit[Placement, Any] = GroupCommit(shop.ledger, order_placing.place_all)

    def place(number: int) -> str:
        # In both orders: whoever locks several must do so in one.
        wanted = [Wanted(product, 1) for product in (made if number % 2 else reversed(made))]
        placement = Placement(buyer_id=f"buyer-{number}", lines=tuple(wanted if number % 3 else wanted[:1]))
        order_id = desk.submit(placement).result(60).location.removeprefix("/orders/")
        at_work.extend(workers.submit(work, order_id) for _ in range(2 if number % 10 == 0 else 1))
        return str(order_id)

    def work(order_id: str) -> None:
        def told(spec: names.TaskSpec, effect: Callable[[Any], None]) -> None:
            shop.deliver(spec, effect, f"{spec.name}-{order_id}"[-64:])

        try:
            told(names.PROCESS_ORDER, lambda session: reservations.reserve(session, order_id, 900))
        except reservations.StockShort:
            told(names.PROCESS_ORDER, lambda session: reservations.sold_out(session, order_id))
        if shop.order(order_id).state != "reserved":
            return
        assert shop.pay(order_id) in ("paid", "already")
        told(names.ADVANCE_ORDER, lambda session: checkout.advance(session, order_id, "order.paid"))
        told(names.UPDATE_INVENTORY, lambda session: order_upkeep.settle_again(session, order_id))

    at_work: list[Future[None]] = []
    # As many as the ledger keeps connections for: another is made anew each time.
    with ThreadPoolExecutor(4) as workers, ThreadPoolExecutor(buyers) as clients:
        assert len(set(clients.map(place, range(many)))) == many
        for one in list(at_work):
            one.result(300)
    with shop.ledger.read() as session:
        states = Counter(session.scalars(select(Order.state)))
        sold = session.scalar(select(func.sum(OrderLine.quantity)).where(OrderLine.holds == "sold"))
        sales = session.scalar(select(func.sum(Sale.items)))
    assert set(states) == {"confirmed", "sold_out"}
    assert states.total() == many
    # One product at least is gone to the last; of the other, those who wanted both could not have it.
    figures = [shop.figures(product) for product in made]
    assert min(free for free, _, _ in figures) == 0
    assert [reserved for _, reserved, _ in figures] == [0, 0]
    assert sum(free + done for free, _, done in figures) == items
    assert sum(done for _, _, done in figures) == sold == sales


def test_a_flash_sale_sells_what_there_is(shop: Shop) -> None:
    flash_sale(shop, many=60, buyers=10, items=20)


def test_of_many_who_want_the_last_one_gets_it(shop: Shop) -> None:
    bowl = shop.product(stock=1)
    made = [shop.place((bowl, 1)) for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(shop.process, made))
    assert sorted(shop.order(order_id).state for order_id in made) == ["reserved"] + ["sold_out"] * 7
    assert shop.figures(bowl) == (0, 1, 0)


@pytest.mark.parametrize("round_", range(4))
def test_paid_cancelled_and_expired_at_once_it_is_one_of_them(shop: Shop, round_: int) -> None:
    bowl = shop.product(stock=3)
    order_id = shop.reserved((bowl, 2))
    start = threading.Barrier(3)

    def at_once(act: Any) -> Any:
        start.wait()
        try:
            return act()
        except Exception as error:  # noqa: BLE001  (what is raised is the result)
            return error

    with ThreadPoolExecutor(3) as pool:
        paid = pool.submit(at_once, lambda: shop.pay(order_id))
        pool.submit(at_once, lambda: shop.cancel(order_id))
        pool.submit(at_once, shop.expire)
    shop.work_off()
    assert paid.result() == "paid"  # in time, or late with stock that is there
    assert shop.order(order_id).state == "confirmed"
    assert shop.figures(bowl) == (1, 0, 2)


def test_the_work_of_one_order_is_done_one_after_the_other(shop: Shop) -> None:
    order_id = shop.reserved((shop.product(), 1))
    with ThreadPoolExecutor(1) as pool:
        with shop.ledger.write() as session:
            order = orders.get(session, order_id, lock=True)
            late = pool.submit(shop.cancel, order_id)
            assert wait([late], 0.3).not_done
            assert orders.pay(session, order, at=now()) == "paid"
        with pytest.raises(Conflict, match="is paid"):
            late.result(30)
    assert shop.history(order_id) == ["placed", "reserved", "paid"]


# --- on the bus -------------------------------------------------------------------------------------------------------


@pytest.fixture
def running(settings: Settings) -> Iterator[Embedded]:
    quick = settings.model_copy(update={"shop": ShopSettings(_env_file=None, reservation_seconds=2)})
    with bus(quick, modules=(PIPELINES, NOTIFY)) as embedded:
        yield embedded


def state(shop: Shop, order_id: str) -> str:
    return shop.order(order_id).state


def test_an_order_goes_its_way_by_itself(running: Embedded) -> None:
    shop = Shop(running.ledger)
    bowl = shop.product(stock=3)
    order_id = shop.place((bowl, 2), **CONTACT)
    until(lambda: state(shop, order_id) == "reserved", "it is reserved")
    assert shop.pay(order_id) == "paid"
    until(lambda: shop.figures(bowl) == (1, 0, 2), "it is sold")
    assert state(shop, order_id) == "confirmed"

    def sent() -> bool:
        with shop.ledger.read() as session:
            states = session.execute(select(Notice.template, Notice.state).where(Notice.about == order_id)).all()
        return {(template, how) for template, how in states} == {
            ("order_confirmation", "sent"),
            ("payment_confirmation", "sent"),
            ("order_status", "sent"),
        }

    until(sent, "its buyer is told", 20)


def test_what_is_not_paid_is_on_sale_again_within_moments(running: Embedded) -> None:
    shop = Shop(running.ledger)
    bowl = shop.product(stock=3)
    order_id, cancelled = shop.place((bowl, 1), **CONTACT), shop.place((bowl, 1))
    until(lambda: shop.figures(bowl) == (1, 2, 0), "they are reserved")
    shop.cancel(cancelled)
    until(lambda: shop.figures(bowl) == (3, 0, 0), "both are free again", 15)
    assert (state(shop, order_id), state(shop, cancelled)) == ("expired", "cancelled")
    with shop.ledger.read() as session:
        assert list(session.scalars(select(Notice.template))) == ["abandoned_cart"]


def test_what_the_bus_forgot_goes_on_at_the_next_start(settings: Settings, ledger: Ledger) -> None:
    shop = Shop(ledger)
    bowl = shop.product(stock=3)
    order_id = shop.place((bowl, 1))
    shop.write(lambda session: session.execute(delete(OutboxRow)))
    with bus(settings, modules=(PIPELINES, NOTIFY)):
        until(lambda: state(shop, order_id) == "reserved", "it is reserved")
