"""Products and orders over HTTP, on a real ledger and a real port."""

from __future__ import annotations

import json
import logging
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from sqlalchemy import func, select

from control.ledger import products
from control.ledger.order_models import Order
from tests.api_server import Api, problem
from tests.shop import Shop

PHONE, EMAIL = "0912 345 678", "ann@example.com"


def product(api: Api, **more: Any) -> str:
    body = {"seller_id": "seller-42", "name": "Bowl", "price_minor": 129900, "stock": 10, **more}
    answer = api.client.post("/products", json=body)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def wanted(*products: str, quantity: int = 2, **more: Any) -> dict[str, Any]:
    return {
        "buyer_id": "buyer-7",
        "buyer_phone": PHONE,
        "buyer_email": EMAIL,
        "lines": [{"product_id": one, "quantity": quantity} for one in products],
        **more,
    }


def orders(api: Api) -> int:
    with api.ledger.read() as session:
        return session.scalar(select(func.count()).select_from(Order)) or 0


def test_an_order_is_placed_shown_and_cancelled(api: Api) -> None:
    bowl = product(api)
    before = len(api.woken)
    placed = api.client.post("/orders", json=wanted(bowl))
    assert placed.status_code == 201, placed.text
    assert len(api.woken) == before + 1
    order = placed.json()
    assert placed.headers["location"] == f"/orders/{order['id']}"
    assert (order["state"], order["total_minor"], order["currency"]) == ("placed", 259800, "TWD")
    assert order["lines"] == [{"product_id": bowl, "name": "Bowl", "quantity": 2, "unit_price_minor": 129900}]
    Shop(api.ledger).work_off()
    shown = api.client.get(placed.headers["location"]).json()
    assert (shown["state"], shown["buyer_phone"], shown["buyer_email"]) == ("reserved", "+886912345678", EMAIL)
    assert [change["state"] for change in shown["history"]] == ["placed", "reserved"]
    assert shown["expires_at"]
    assert api.client.get(f"/products/{bowl}").json()["reserved"] == 2
    for _ in range(2):  # cancelling twice is the same as once
        cancelled = api.client.post(f"/orders/{order['id']}/cancel")
        assert (cancelled.status_code, cancelled.json()["state"]) == (200, "cancelled")
    for answer in (placed, cancelled, api.client.get("/orders")):  # who the buyer is, one alone tells
        assert "ann@" not in answer.text
        assert "912345678" not in answer.text


def test_a_paid_order_is_not_cancelled(api: Api) -> None:
    order_id = api.client.post("/orders", json=wanted(product(api))).json()["id"]
    shop = Shop(api.ledger)
    shop.work_off()
    shop.pay(order_id)
    problem(api.client.post(f"/orders/{order_id}/cancel"), 409, "conflict")
    problem(api.client.post("/orders/ord_none/cancel"), 404, "not-found")
    problem(api.client.get("/orders/ord_none"), 404, "not-found")


def test_the_same_key_is_the_same_order(api: Api) -> None:
    bowl, key = product(api), {"Idempotency-Key": str(uuid.uuid4())}
    first = api.client.post("/orders", json=wanted(bowl), headers=key)
    assert "idempotent-replayed" not in first.headers
    Shop(api.ledger).work_off()
    with api.ledger.write() as session:
        products.change(session, bowl, price_minor=1, active=False)
    again = api.client.post("/orders", json=wanted(bowl), headers=key)
    assert again.headers["idempotent-replayed"] == "true"
    assert (again.status_code, again.content) == (first.status_code, first.content)
    assert again.headers["location"] == first.headers["location"]
    problem(api.client.post("/orders", json=wanted(bowl, quantity=3), headers=key), 422, "idempotency-key-reused")
    assert orders(api) == 1


def test_what_was_refused_leaves_its_key_free(api: Api) -> None:
    key = {"Idempotency-Key": "k"}
    problem(api.client.post("/orders", json=wanted("prd_none"), headers=key), 422, "product-unknown")
    assert api.client.post("/orders", json=wanted(product(api)), headers=key).status_code == 201


def test_the_same_key_while_the_first_is_in_progress(api: Api) -> None:
    bowl, key = product(api), {"Idempotency-Key": "k"}
    with ThreadPoolExecutor(1) as pool, api.ledger.write() as session:
        session.connection()  # nobody else commits while this is open
        first = pool.submit(api.client.post, "/orders", json=wanted(bowl), headers=key)
        in_progress = api.app.state.shop_desk.in_progress
        while not in_progress._keys:
            threading.Event().wait(0.01)
        refused = api.stranger.post(
            "/orders", json=wanted(bowl), headers={**key, "X-API-Key": api.settings.api.keys[0].get_secret_value()}
        )
        problem(refused, 409, "idempotency-key-in-use")
        assert refused.headers["retry-after"] == "1"
    assert first.result().status_code == 201
    assert api.client.post("/orders", json=wanted(bowl), headers=key).headers["idempotent-replayed"] == "true"


def test_many_at_once_with_one_key_are_one_order(api: Api) -> None:
    bowl, key = product(api), {"Idempotency-Key": "k"}

    def ask(_: int) -> httpx.Response:
        return api.client.post("/orders", json=wanted(bowl), headers=key)

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(ask, range(24)))
    assert {answer.status_code for answer in answers} <= {201, 409}
    assert len({answer.content for answer in answers if answer.status_code == 201}) == 1
    assert sum("idempotent-replayed" not in answer.headers for answer in answers if answer.status_code == 201) == 1
    assert orders(api) == 1


BAD: list[tuple[dict[str, Any], str, str | None]] = [
    ({"lines": []}, "request-invalid", "#/lines"),
    ({"lines": [{"product_id": "PRODUCT", "quantity": 0}]}, "request-invalid", "#/lines/0/quantity"),
    ({"lines": [{"product_id": "PRODUCT", "quantity": "2"}]}, "request-invalid", "#/lines/0/quantity"),
    ({"lines": [{"product_id": "PRODUCT", "quantity": 100}]}, "quantity-refused", None),
    ({"lines": [{"product_id": "PRODUCT"}] * 2}, "quantity-refused", None),
    (
        {"lines": [{"product_id": "PRODUCT", "unit_price_minor": 1}]},
        "request-invalid",
        "#/lines/0/unit_price_minor",
    ),
    ({"total_minor": 1}, "request-invalid", "#/total_minor"),
    ({"buyer_phone": "12"}, "request-invalid", "#/buyer_phone"),
    ({"buyer_phone": "+886 2 2345 6789"}, "phone-invalid", None),
    ({"buyer_phone": "0912\x00345678"}, "request-invalid", "#/buyer_phone"),
    ({"buyer_email": "nobody"}, "request-invalid", "#/buyer_email"),
    ({"buyer_email": "a\x00b@example.com"}, "request-invalid", "#/buyer_email"),
    ({"buyer_id": "a\x00"}, "request-invalid", "#/buyer_id"),
    ({"locale": "fr"}, "request-invalid", "#/locale"),
    ({"stream_id": "nowhere"}, "order-refused", None),
]


def test_a_bad_order_is_refused(api: Api) -> None:
    bowl = product(api)
    for changes, code, pointer in BAD:
        text = json.dumps(wanted("PRODUCT") | changes).replace("PRODUCT", bowl)
        answer = api.client.post("/orders", content=text, headers={"Content-Type": "application/json"})
        document = problem(answer, 422, code)
        if pointer:
            assert pointer in [error["pointer"] for error in document["errors"]]
    assert orders(api) == 0


def test_products_that_cannot_be_in_one_order(api: Api) -> None:
    bowl = product(api)
    for other in (product(api, seller_id="another"), product(api, currency="USD")):
        problem(api.client.post("/orders", json=wanted(bowl, other)), 422, "order-mixed")
    assert api.client.patch(f"/products/{bowl}", json={"active": False}).status_code == 200
    problem(api.client.post("/orders", json=wanted(bowl)), 422, "product-inactive")


def test_a_key_that_is_none(api: Api) -> None:
    body = wanted(product(api))
    for key in (b"", b"k" * 256, b"two words", "ümlaut".encode("latin-1")):
        problem(api.client.post("/orders", json=body, headers={b"Idempotency-Key": key}), 422, "request-invalid")


def test_stock_is_changed_by_differences_and_once_a_key(api: Api) -> None:
    bowl = product(api, stock=5)
    key = {"Idempotency-Key": "k"}
    first, again = (api.client.patch(f"/products/{bowl}", json={"stock_delta": 7}, headers=key) for _ in range(2))
    assert first.json()["stock"] == 12
    assert again.content == first.content
    assert again.headers["idempotent-replayed"] == "true"
    problem(api.client.patch(f"/products/{bowl}", json={"stock_delta": 8}, headers=key), 422, "idempotency-key-reused")
    problem(
        api.client.patch(f"/products/{bowl}", json={"stock_delta": -13}, headers={"Idempotency-Key": "l"}),
        409,
        "conflict",
    )
    assert (
        api.client.patch(f"/products/{bowl}", json={"stock_delta": -12}, headers={"Idempotency-Key": "l"}).json()[
            "stock"
        ]
        == 0
    )
    changed = api.client.patch(f"/products/{bowl}", json={"name": " Cup ", "price_minor": 5}).json()
    assert (changed["name"], changed["price_minor"], changed["stock"]) == ("Cup", 5, 0)
    problem(api.client.patch("/products/prd_none", json={}), 404, "not-found")
    problem(api.client.patch(f"/products/{bowl}", json={"stock": 5}), 422, "request-invalid")


def test_a_product_of_one_s_own_id_is_one(api: Api) -> None:
    assert product(api, id="bowl-1") == product(api, id="bowl-1", stock=99) == "bowl-1"
    assert api.client.get("/products/bowl-1").json()["stock"] == 10
    body = {"seller_id": "seller-42", "name": "Other", "price_minor": 1, "id": "bowl-1"}
    problem(api.client.post("/products", json=body), 409, "conflict")
    problem(api.client.post("/products", json=body | {"id": "x", "stream_id": "nowhere"}), 404, "not-found")
    problem(api.client.post("/products", json=body | {"name": "a\x00b"}), 422, "request-invalid")
    problem(api.client.post("/products", json=body | {"price_minor": 0}), 422, "request-invalid")


@pytest.mark.parametrize("path", ["/orders", "/products"])
def test_pages_are_complete_and_stable(api: Api, path: str) -> None:
    made = [product(api) for _ in range(5)]
    if path == "/orders":
        made = [api.client.post("/orders", json=wanted(made[0], buyer_id="b")).json()["id"] for _ in range(5)]
    found: list[str] = []
    after: dict[str, str] = {}
    while True:
        page = api.client.get(path, params={"limit": 2, "seller_id": "seller-42", **after})
        found += [item["id"] for item in page.json()["items"]]
        assert ("next" in page.links) == (page.json()["next"] is not None)
        if page.json()["next"] is None:
            break
        after = {"after": page.json()["next"]}
    assert sorted(found) == sorted(made)
    assert found == sorted(found, reverse=path == "/orders")
    assert api.client.get(path, params={"seller_id": "another"}).json()["items"] == []
    if path == "/orders":
        assert len(api.client.get(path, params={"buyer_id": "b", "state": "placed"}).json()["items"]) == 5
        assert api.client.get(path, params={"state": "paid"}).json()["items"] == []
        problem(api.client.get(path, params={"state": "none"}), 422, "request-invalid")


def test_logs_hold_nothing_of_the_buyer(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    body = wanted(product(api))
    assert api.client.post("/orders", json=body).status_code == 201
    api.client.post("/orders", json=body | {"buyer_phone": "0912345678999"})
    with api.ledger.write() as session:
        session.connection().exec_driver_sql("ALTER TABLE orders RENAME TO away")
    assert api.client.post("/orders", json=body).status_code == 503
    assert not any(secret in caplog.text for secret in ("ann@", "912345678", "912 345"))
