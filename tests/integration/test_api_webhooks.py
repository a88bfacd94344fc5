"""The API of webhooks."""

from __future__ import annotations

from typing import Any

import pytest

from control.ledger import webhook_attempts, webhooks
from control.ledger.base import now
from control.ledger.webhook_attempts import Outcome, Policy
from control.ledger.webhook_models import WebhookDelivery, WebhookEndpoint
from tests.api_server import Api, problem

URL = "https://shop.example/hooks"
POLICY = Policy(retry_seconds=(), disable_seconds=86400, in_flight=9, total_seconds=15)


def create(api: Api, **changes: Any) -> dict[str, Any]:
    answer = api.client.post("/webhook-endpoints", json={"url": URL, "events": ["order.paid"], **changes})
    assert answer.status_code == 201, answer.text
    assert answer.headers["location"] == f"/webhook-endpoints/{answer.json()['id']}"
    assert answer.headers["cache-control"] == "no-store"
    found: dict[str, Any] = answer.json()
    return found


def pay(api: Api, *orders: str) -> None:
    with api.ledger.write() as session:
        for order_id in orders:
            webhooks.emit(session, "order.paid", about=order_id, data={"order_id": order_id})


def deliveries(api: Api, endpoint: dict[str, Any], **query: str | int) -> list[dict[str, Any]]:
    answer = api.client.get(f"/webhook-endpoints/{endpoint['id']}/deliveries", params=query)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["items"]
    return found


def attempted(api: Api, delivery_id: str, status: int) -> None:
    """As a worker does it."""
    with api.ledger.write() as session:
        made = webhook_attempts.claim(session, delivery_id, None, POLICY)
        assert made
        webhook_attempts.note(
            session, made, Outcome(status, None if status == 200 else f"it answered {status}"), POLICY
        )


def test_a_secret_is_shown_once(api: Api) -> None:
    made = create(api, events=["order.paid", "order.paid", "payment.failed"], seller_id="ann", description="Her shop")
    secret = made.pop("secret")
    assert secret.startswith("whsec_")
    made.pop("previous_until")
    assert made["events"] == ["order.paid", "payment.failed"]
    assert (made["state"], made["seller_id"], made["description"]) == ("enabled", "ann", "Her shop")
    path = f"/webhook-endpoints/{made['id']}"
    assert api.client.get(path).json() == made
    assert api.client.get("/webhook-endpoints").json()["items"] == [made]
    assert api.client.get("/webhook-endpoints", params={"seller_id": "bob"}).json()["items"] == []
    rotated = api.client.post(f"{path}/rotate-secret").json()
    assert rotated["secret"].startswith("whsec_")
    assert rotated["secret"] != secret
    assert rotated["previous_until"]
    assert "secret" not in api.client.patch(path, json={"description": None}).json()
    with api.ledger.read() as session:
        row = session.get_one(WebhookEndpoint, made["id"])
        assert (row.secret, row.previous_secret) == (rotated["secret"], secret)
    assert api.stranger.get(path).status_code == 401


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"url": "http://shop.example/"}, "webhook-url-refused"),
        ({"url": "https://ann:pw@shop.example/"}, "webhook-url-refused"),
        ({"url": "https://127.0.0.1/"}, "webhook-url-refused"),
        ({"url": "https://2130706433/"}, "webhook-url-refused"),
        ({"url": "https://[::ffff:10.0.0.1]/"}, "webhook-url-refused"),
        ({"url": "https://localhost/"}, "webhook-url-refused"),
        ({"url": ""}, "request-invalid"),
        ({"url": "https://shop.example/\0"}, "request-invalid"),
        ({"events": []}, "request-invalid"),
        ({"events": ["order.sent"]}, "request-invalid"),
        ({"events": ["webhook.test"]}, "request-invalid"),
        ({"secret": "whsec_mine"}, "request-invalid"),
    ],
)
def test_what_is_refused(api: Api, changes: dict[str, Any], code: str) -> None:
    body = {"url": URL, "events": ["order.paid"]} | changes
    document = problem(api.client.post("/webhook-endpoints", json=body), 422, code)
    assert "pw" not in str(document)
    path = f"/webhook-endpoints/{create(api)['id']}"
    problem(api.client.patch(path, json=changes), 422, code)
    assert api.client.get(path).json()["url"] == URL


def test_it_is_changed_disabled_and_enabled(api: Api) -> None:
    made = create(api)
    path = f"/webhook-endpoints/{made['id']}"
    assert api.client.patch(path, json={"url": None, "events": None, "state": None}).json()["url"] == URL
    changed = api.client.patch(path, json={"url": f"{URL}/2", "events": ["payment.failed", "order.paid"]}).json()
    assert (changed["url"], changed["events"]) == (f"{URL}/2", ["order.paid", "payment.failed"])
    pay(api, "ord_1")
    assert api.client.patch(path, json={"state": "disabled"}).json()["disabled_reason"] == "somebody disabled it"
    pay(api, "ord_2")
    (pending,) = deliveries(api, made)
    assert pending["about"] == "ord_1"
    for refused in (f"{path}/test", f"{path}/replay", f"/webhook-deliveries/{pending['id']}/replay"):
        problem(api.client.post(refused), 409, "conflict")
    before = len(api.woken)
    enabled = api.client.patch(path, json={"state": "enabled"}).json()
    assert (enabled["state"], enabled["disabled_reason"], len(api.woken)) == ("enabled", None, before + 1)


def test_a_test_is_sent_whatever_it_asked_for(api: Api) -> None:
    made, before = create(api), len(api.woken)
    answers = [api.client.post(f"/webhook-endpoints/{made['id']}/test") for _ in range(2)]
    assert {answer.status_code for answer in answers} == {202}
    assert len(api.woken) == before + 2
    found = deliveries(api, made)
    assert found == [answer.json() for answer in reversed(answers)]
    assert {one["event"] for one in found} == {"webhook.test"}
    assert len({one["event_id"] for one in found}) == 2


def test_deliveries_are_looked_at_and_sent_again(api: Api) -> None:
    made = create(api)
    pay(api, *[f"ord_{number}" for number in range(5)])
    newest, *_, oldest = deliveries(api, made)
    assert (newest["about"], oldest["about"]) == ("ord_4", "ord_0")
    attempted(api, oldest["id"], 200)
    attempted(api, newest["id"], 503)
    (failed,) = deliveries(api, made, state="failed")
    assert (failed["id"], failed["last_status"], failed["attempts"]) == (newest["id"], 503, 1)
    assert failed["last_problem"] == "it answered 503"
    assert api.client.get(f"/webhook-endpoints/{made['id']}").json()["failing_since"]
    detail = api.client.get(f"/webhook-deliveries/{oldest['id']}").json()
    assert detail["state"] == "delivered"
    assert '"order_id":"ord_0"' in detail["body"]
    # page by page
    first = api.client.get(f"/webhook-endpoints/{made['id']}/deliveries", params={"limit": 3})
    assert "next" in first.links
    rest = deliveries(api, made, limit=3, after=first.json()["next"])
    assert [one["about"] for one in first.json()["items"] + rest] == [f"ord_{number}" for number in range(4, -1, -1)]
    # again
    again = api.client.post(f"/webhook-deliveries/{oldest['id']}/replay")
    assert (again.status_code, again.json()["state"]) == (202, "pending")
    path = f"/webhook-endpoints/{made['id']}/replay"
    assert api.client.post(path, params={"since": now().isoformat()}).json() == {"replayed": 0, "more": False}
    assert api.client.post(path).json() == {"replayed": 1, "more": False}
    assert deliveries(api, made, state="failed") == []
    problem(api.client.post(path, params={"since": "2026-10-01T00:00:00"}), 422, "request-invalid")
    problem(api.client.get("/webhook-deliveries/whd_none"), 404, "not-found")
    problem(api.client.post("/webhook-deliveries/whd_none/replay"), 404, "not-found")


def test_deleted_it_is_gone_but_for_what_it_got(api: Api) -> None:
    made = create(api)
    pay(api, "ord_1")
    (pending,) = deliveries(api, made)
    path = f"/webhook-endpoints/{made['id']}"
    assert api.client.delete(path).status_code == 204
    for answer in (
        api.client.get(path),
        api.client.delete(path),
        api.client.patch(path, json={"state": "enabled"}),
        api.client.post(f"{path}/test"),
        api.client.post(f"{path}/rotate-secret"),
        api.client.post(f"{path}/replay"),
        api.client.get(f"{path}/deliveries"),
    ):
        problem(answer, 404, "not-found")
    assert api.client.get("/webhook-endpoints").json()["items"] == []
    assert api.client.get(f"/webhook-deliveries/{pending['id']}").json()["state"] == "discarded"
    problem(api.client.post(f"/webhook-deliveries/{pending['id']}/replay"), 409, "conflict")
    with api.ledger.read() as session:
        assert session.get_one(WebhookDelivery, pending["id"]).body
        assert session.get_one(WebhookEndpoint, made["id"]).secret == ""
