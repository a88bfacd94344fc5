"""The API keeps to its own description, whatever it is sent: no answer that is not described, none that is a fault of
ours, and nothing taken that is described as wrong. What is sent, schemathesis makes out of the description."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

import httpx
import hypothesis
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck
from pydantic import SecretStr
from schemathesis.checks import CheckFunction, not_a_server_error
from schemathesis.config import SchemathesisConfig
from schemathesis.core.failures import FailureGroup
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi import checks as described

from control.api.app import create_app
from control.api.signing import sign
from control.bus import names
from control.ledger.analytics_models import DailyReport, StreamAnalytics
from control.ledger.base import Base, now
from control.ledger.engine import Ledger
from control.ledger.models import Replay, Stream
from control.ledger.node_models import Node
from control.ledger.notice_models import Bulk, Contact, Notice
from control.ledger.order_models import Order, OrderLine, Product
from control.ledger.order_views import ORDER_ID, PRODUCT_ID
from control.ledger.payment_models import Payment
from control.ledger.task_models import FailedTask, TaskRow
from control.ledger.webhook_models import WebhookDelivery, WebhookEndpoint
from control.settings import OtpSettings, Settings, use
from control.storage import LocalStore
from tests.api_server import problem, serving
from tests.conftest import API_KEY
from tests.ecpay import MERCHANT, payment_settings
from tests.nodes import capability, node

CHECKS: Final[list[CheckFunction]] = [
    not_a_server_error,
    described.status_code_conformance,
    described.content_type_conformance,
    described.response_headers_conformance,
    described.response_schema_conformance,
    described.negative_data_rejection,
    described.unsupported_method,
]
"""Not that all that fits the description is taken: a number of no phone, a path of no recording, stock there is not."""
AT_RANDOM: Final = [one for one in CHECKS if one is not described.negative_data_rejection]
"""Some that is described as wrong is taken, and may be: spaces around a title, a parameter that comes twice."""
NEVER_ENDS: Final = "/streams/{stream_id}/events"
"""It follows a stream as long as that has no end, so there is no whole answer to look at: test_api_events looks."""
STREAM, TASK, FAILED = "str_01jq", "5b0c3a52-6f0e-4f7e-9d57-0c2f5a0f8a11", "fail_019a3b5c7d8f2a4b"
PAYMENT, ENDPOINT, DELIVERY = "pay_019a3b5c7d8f2a4b", "whe_019a3b5c7d8f2a4b", "whd_019a3b5c7d8f2a4b"
_CONFIG: Final = {
    "seed": 1,
    "generation": {"with-security-parameters": False},
    "phases": {"coverage": {"unexpected-methods": ["PUT"]}},
    "checks": {"negative_data_rejection": {"expected-statuses": ["401", "403", "404", "405", "409", "413", "422"]}},
}
SECRET: Final = b"secret-for-tests"


@dataclass
class Described:
    """A running API, its description, and a ledger that has what the description's examples name."""

    url: str
    ledger: Ledger
    schema: Any
    link: str
    key: requests.Session
    stranger: httpx.Client
    whats_wrong: dict[str, str]
    sent: int = 0

    def operations(self) -> list[Any]:
        """What deletes comes last."""
        found = [result.ok() for result in self.schema.get_all_operations()]
        return sorted(found, key=lambda operation: operation.method == "delete")

    def known(self, operation: Any) -> dict[str, Any]:
        """The path's parameters, of things there are."""
        ids = {
            "stream_id": STREAM, "task_id": TASK, "failed_id": FAILED, "day": "2026-11-24", "product_id": PRODUCT_ID,
            "order_id": ORDER_ID, "payment_id": PAYMENT, "endpoint_id": ENDPOINT, "delivery_id": DELIVERY,
            "bulk_id": "autumn-sale", "seller_id": "seller-42", "link": self.link, "path": "master.m3u8",
        }  # fmt: skip
        return {one.name: ids[one.name] for one in operation.path_parameters if one.name in ids}

    def send(self, case: Any, checks: list[CheckFunction]) -> None:
        """Note what is wrong with the answer, once an operation and kind."""
        self.sent += 1
        answer = case.call(base_url=self.url, session=self.key, timeout=10)
        try:
            case.validate_response(answer, checks=checks)
        except FailureGroup as group:
            for failure in group.exceptions:
                what = f"{case.operation.label} {answer.status_code}: {failure.title}"
                self.whats_wrong.setdefault(
                    what, f"{failure.message}\n{case.as_curl_command()[:600]}\n{answer.text[:400]}"
                )

    def told(self) -> str:
        return "\n\n".join(f"{what}\n{more}" for what, more in self.whats_wrong.items())


def _rows() -> list[Base]:
    """What the description's examples are about. Parents first."""
    at = now()
    before = at - timedelta(minutes=5)
    figures = {"day": "2026-11-24", "zone": "UTC", "begin": at.isoformat(), "end": at.isoformat()}
    watched = {"begin": at.isoformat(), "end": None}
    key, payload = "rep_01jq", {"fact": "stream.ended", "facts": {"replay_id": "rep_01jq"}}
    return [
        Stream(id=STREAM, title="Autumn ceramics", seller_id="seller-42", state="ended", created_at=before,
               ended_at=at),
        Replay(id=key, stream_id=STREAM, state="failed", source="yingge.mp4", prefix="replays/rep_01jq/",
               problem_code="encoder-failed", problem_detail="ffmpeg failed.", created_at=before, updated_at=at),
        StreamAnalytics(stream_id=STREAM, changes=1, counted=1, data=watched, computed_at=at),
        DailyReport(day="2026-11-24", zone="UTC", seller_id="", data=figures, csv_key="reports/day.csv",
                    created_at=at),
        TaskRow(id=TASK, task=names.HANDLE_FACT.name, queue=names.HANDLE_FACT.queue, key=key, state="FAILURE",
                created_at=before, finished_at=at),
        FailedTask(id=FAILED, origin="origin", task_id=TASK, task=names.HANDLE_FACT.name,
                   queue=names.HANDLE_FACT.queue, key=key, payload=payload, reason="failed", code="internal-error",
                   detail="It was made to fail.", attempts=6, failed_at=at, received_at=at, state="open"),
        Product(id=PRODUCT_ID, seller_id="seller-42", stream_id=STREAM, name="Tea bowl", price_minor=129900,
                currency="TWD", stock=1000, reserved=1, sold=0, active=True, created_at=before, updated_at=at),
        Order(id=ORDER_ID, buyer_id="buyer-7", locale="zh-TW", seller_id="seller-42", state="reserved",
              total_minor=129900, currency="TWD", created_at=before, updated_at=at,
              expires_at=at + timedelta(hours=1)),
        OrderLine(order_id=ORDER_ID, number=1, product_id=PRODUCT_ID, name="Tea bowl", quantity=1,
                  unit_price_minor=129900, holds="reserved"),
        Payment(id=PAYMENT, order_id=ORDER_ID, gateway="ecpay", merchant_id=MERCHANT.id, trade_no="TRADE1",
                amount_minor=129900, currency="TWD", state="paid", created_at=before, updated_at=at, waits_from=at,
                paid_at=at),
        WebhookEndpoint(id=ENDPOINT, url="https://shop.example/hooks", events=["order.paid"],
                        secret="whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD", state="enabled", created_at=before,
                        updated_at=at),
        WebhookDelivery(id=DELIVERY, endpoint_id=ENDPOINT, event_id="evt_1", event="order.paid", about=ORDER_ID,
                        body="{}", state="failed", attempts=8, created_at=before),
        Bulk(id="autumn-sale", fingerprint="", content={}, state="running", created_at=before, queued_at=at),
        Notice(id="ntc_1", key="autumn-sale:1", channel="mail", task="notify.send_bulk", template="announcement",
               locale="en", to="mei@example.com", about="ord_01jq", data={}, state="failed", created_at=before,
               queued_at=at),
        Node(name="gpu-1-4711", report=node("gpu-1", capability()).model_dump(mode="json"), usable_at={},
             first_at=before, heard_at=at),
        Contact(seller_id="seller-42", email="kiln@example.com", locale="zh-TW", updated_at=at),
    ]  # fmt: skip


def _restore(ledger: Ledger) -> None:
    """As if nothing had been asked before: of what there was."""
    with ledger.write() as session:
        for row in _rows():
            session.merge(row)
            session.flush()


def _opened(settings: Settings, ledger: Ledger, store: LocalStore) -> Iterator[Described]:
    """With all switched on."""
    otps = OtpSettings(
        _env_file=None,
        secret=SecretStr("secret-of-the-tests"),
        resend_seconds=0,
        hourly_per_phone=10**6,
        hourly_per_ip=10**6,
    )
    made = settings.model_copy(update={"otp": otps, "payment": payment_settings()})
    use(made)
    (settings.media.recording_roots[0] / "yingge.mp4").write_bytes(b"a recording")
    store.put_bytes("replays/rep_01jq/master.m3u8", b"#EXTM3U\n")
    store.put_bytes("reports/day.csv", "﻿order\n".encode())
    _restore(ledger)
    app = create_app(made, ledger, store)
    link = sign(SECRET, STREAM, int((now() + timedelta(hours=1)).timestamp()))
    with serving(app) as url, requests.Session() as key, httpx.Client(base_url=url, timeout=10) as stranger:
        key.headers["X-API-Key"] = API_KEY
        raw = key.get(f"{url}/openapi.json").json()
        config = SchemathesisConfig.from_dict(_CONFIG)
        schema = schemathesis.openapi.from_dict(raw, config=config).exclude(path=NEVER_ENDS)
        yield Described(url, ledger, schema, link, key, stranger, {})


@pytest.fixture
def api(settings: Settings, ledger: Ledger, local_store: LocalStore) -> Iterator[Described]:
    yield from _opened(settings, ledger, local_store)


def cover(api: Described) -> None:
    """Of each operation all that lies at the edge of what is described, and just beyond it."""
    for operation in api.operations():
        _restore(api.ledger)
        config = api.schema.config.generation_for(operation=operation)
        known = api.known(operation)
        for case in api.schema.iter_coverage_cases(
            operation, generation_modes=list(GenerationMode), generation_config=config
        ):
            if case.operation.path.startswith("/play/"):
                case.path_parameters = {**case.path_parameters, **known}
            api.send(case, CHECKS)


def fuzz(api: Described, examples: int) -> None:
    """To each operation so many requests of each kind: right ones and wrong ones, about what there is and what not."""
    for operation in api.operations():
        _restore(api.ledger)
        known = api.known(operation)
        for mode in GenerationMode:
            linked = {name: known[name] for name in ("stream_id", "link") if "link" in known}
            for fixed in [known, linked] if known else [{}]:
                _some(api, operation, mode, fixed, examples)


def _some(api: Described, operation: Any, mode: GenerationMode, fixed: dict[str, Any], examples: int) -> None:
    @hypothesis.settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[hypothesis.Phase.generate],
    )
    @hypothesis.given(operation.as_strategy(generation_mode=mode, path_parameters=fixed or None))
    def each(case: Any) -> None:
        api.send(case, AT_RANDOM)

    try:
        each()
    except hypothesis.errors.Unsatisfiable:
        return


def test_the_api_keeps_to_its_description(api: Described) -> None:
    """At all edges of what is described."""
    cover(api)
    assert not api.whats_wrong, api.told()
    assert api.sent > 1000


def test_without_a_key_all_but_the_open_paths_are_shut(api: Described) -> None:
    """Whatever the method, and also with a key that is none."""
    wrong: list[dict[str, str]] = [{}, {"X-API-Key": "no"}, {"Authorization": "Bearer no"}]
    opened = set()
    for operation in api.operations():
        path = operation.path.format(**{one.name: "x" for one in operation.path_parameters} | api.known(operation))
        for headers in wrong:
            answer = api.stranger.request(operation.method.upper(), path, headers=headers, json={})
            if operation.definition.raw.get("security") == []:
                opened.add(operation.path)
                assert answer.status_code != 401, operation.label
            else:
                problem(answer, 401, "key-required")
    assert {path for path in opened if not path.startswith("/play/")} == {"/healthz", "/readyz"}


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_api_keeps_to_its_description_for_long(api: Described) -> None:
    """Whatever can be made up."""
    fuzz(api, 10)
    assert not api.whats_wrong, api.told()
    assert api.sent > 1000
