"""`tests.integration.test_orders`, on PostgreSQL, where many really write at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from control.ledger import orders
from tests.integration.test_orders import (  # noqa: F401  (the same tests, with this folder's ledger)
    flash_sale,
    shop,
    test_of_many_who_want_the_last_one_gets_it,
    test_paid_cancelled_and_expired_at_once_it_is_one_of_them,
    test_the_work_of_one_order_is_done_one_after_the_other,
)
from tests.shop import Shop


def test_orders_do_not_wait_for_each_other(shop: Shop) -> None:  # noqa: F811
    bowl = shop.product()
    first, second = shop.reserved((bowl, 1)), shop.place((bowl, 1))
    with ThreadPoolExecutor(1) as pool, shop.ledger.write() as session:
        orders.get(session, first, lock=True)
        pool.submit(shop.process, second).result(10)
        assert shop.order(second).state == "reserved"


def test_a_thousand_orders_of_a_flash_sale_sell_what_there_is(shop: Shop) -> None:  # noqa: F811
    flash_sale(shop, many=1_000, buyers=50, items=100)


@pytest.mark.slow
def test_ten_thousand_orders_of_a_flash_sale_sell_what_there_is(shop: Shop) -> None:  # noqa: F811
    flash_sale(shop, many=10_000, buyers=50, items=100)
