"""The gateway's client and the fake: what one sends the other understands, lies included."""

from __future__ import annotations

import http.server
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl

import httpx
import pytest
from click.testing import CliRunner

from control.cli import cli
from control.errors import GatewayRefused, GatewayUnavailable, NoticeForged
from control.gateways import read_notice
from control.gateways.base import Checkout, Refund
from control.gateways.ecpay.client import Ecpay
from tests.bus import until
from tests.ecpay import MERCHANT, FakeEcpay, fake_ecpay, payment_settings
from tests.services import free_port


@dataclass
class Shop:
    """Takes in notices, and says what it is told to."""

    port: int
    says: list[str] = field(default_factory=list)
    """First to last; then `1|OK`."""
    got: list[bytes] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/webhooks/payment/ecpay"


@contextmanager
def a_shop() -> Iterator[Shop]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            made.got.append(self.rfile.read(int(self.headers["Content-Length"])))
            answer = (made.says.pop(0) if made.says else "1|OK").encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made = Shop(server.server_address[1])
    threading.Thread(target=server.serve_forever, args=[0.02], daemon=True).start()
    try:
        yield made
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module")
def fake() -> Iterator[FakeEcpay]:
    with fake_ecpay(times_again=2) as made:
        yield made


@pytest.fixture
def shop(fake: FakeEcpay) -> Iterator[Shop]:
    fake.lie()
    with a_shop() as made:
        yield made
    fake.lie()


@pytest.fixture
def ecpay(fake: FakeEcpay, shop: Shop) -> Ecpay:
    return Ecpay(payment_settings(fake.url, timeout_seconds=0.5))


def opened(fake: FakeEcpay, ecpay: Ecpay, shop: Shop) -> str:
    """A trade at the gateway, whose buyer has not decided yet."""
    trade_no = f"T{time.time_ns()}"
    at = datetime.now(UTC)
    form = ecpay.checkout(Checkout("pay_1", trade_no, "ord_1", 129900, "TWD", ("杯子 x 1",), "zh-TW", at, shop.url))
    answer = fake.submit(form)
    assert answer.status_code == 200
    assert "NT$ 1,299" in answer.text
    assert "杯子 x 1" in answer.text
    return trade_no


def refund_of(fake: FakeEcpay, trade_no: str) -> Refund:
    return Refund(trade_no, fake.trade(trade_no)["TradeNo"], 129900, "TWD", "Credit_CreditCard")


# --- paying -----------------------------------------------------------------------------------------------------------


def test_a_payment_is_told_of_and_can_be_asked_for(fake: FakeEcpay, shop: Shop, ecpay: Ecpay) -> None:
    trade_no = opened(fake, ecpay, shop)
    assert ecpay.query(trade_no).standing == "open"
    fake.press(trade_no, "pay")
    until(lambda: shop.got, "the notice")
    told = read_notice("ecpay", ecpay.receive(shop.got[0]).fields)
    asked = ecpay.query(trade_no)
    for said in (told, asked):
        assert (said.standing, said.amount_minor, said.payment_id) == ("paid", 129900, "pay_1")
        assert (said.merchant_id, said.gateway_trade_no) == (MERCHANT.id, fake.trade(trade_no)["TradeNo"])
        assert said.paid_at is not None
        assert abs((said.paid_at - datetime.now(UTC)).total_seconds()) < 30


def test_declined(fake: FakeEcpay, shop: Shop, ecpay: Ecpay) -> None:
    trade_no = opened(fake, ecpay, shop)
    fake.press(trade_no, "decline")
    until(lambda: shop.got, "the notice")
    assert read_notice("ecpay", ecpay.receive(shop.got[0]).fields).standing == "failed"
    assert ecpay.query(trade_no).standing == "failed"


def test_a_trial_of_the_merchant_s_pays_nothing(fake: FakeEcpay, shop: Shop, ecpay: Ecpay) -> None:
    trade_no = opened(fake, ecpay, shop)
    fake.pay(trade_no, simulate=True)
    until(lambda: shop.got, "the notice")
    told = read_notice("ecpay", ecpay.receive(shop.got[0]).fields)
    assert (told.standing, told.simulated) == ("paid", True)
    assert ecpay.query(trade_no).standing == "open"


def test_a_form_that_was_changed_or_sent_twice_is_not_taken(fake: FakeEcpay, shop: Shop, ecpay: Ecpay) -> None:
    trade_no = opened(fake, ecpay, shop)
    form = ecpay.checkout(Checkout("pay_1", trade_no, "o", 100, "TWD", ("a",), "en", datetime.now(UTC), shop.url))
    assert "was used before" in fake.submit(form).text
    form.fields["TotalAmount"] = "2"
    assert "CheckMacValue" in fake.submit(form).text
    with pytest.raises(NoticeForged):
        ecpay.receive(b"RtnCode=1")


# --- telling again, and lying -----------------------------------------------------------------------------------------


def test_it_tells_again_until_it_hears_exactly_1_ok(fake: FakeEcpay, shop: Shop, ecpay: Ecpay) -> None:
    trade_no = opened(fake, ecpay, shop)
    shop.says = ["1|OK\n", "OK"]
    fake.pay(trade_no)
    until(lambda: len(shop.got) == 3, "it heard it the third time")
    time.sleep(0.5)
    assert len(set(shop.got)) == 1
    assert len(shop.got) == 3  # and told no more


def test_it_gives_up(fake: FakeEcpay, shop: Shop, ecpay: Ecpay) -> None:
    trade_no = opened(fake, ecpay, shop)
    shop.says = ["0|no"] * 9
    fake.pay(trade_no)
    until(lambda: len(shop.got) == 3, "it told three times")
    time.sleep(0.5)
    assert len(shop.got) == 3


def test_notices_get_lost_come_late_and_twice(fake: FakeEcpay, shop: Shop, ecpay: Ecpay) -> None:
    trade_no = opened(fake, ecpay, shop)
    fake.lie(drop=1, copies=2, delay_seconds=0.2)
    started = time.monotonic()
    fake.pay(trade_no)
    until(lambda: len(shop.got) == 2, "the second time, twice")
    assert time.monotonic() - started > 0.4
    assert len({ecpay.receive(body).id for body in shop.got}) == 1


def test_notices_come_in_another_order(fake: FakeEcpay, shop: Shop, ecpay: Ecpay) -> None:
    trade_no = opened(fake, ecpay, shop)
    fake.lie(hold=True)
    fake.pay(trade_no, fail=True)
    fake.pay(trade_no)
    assert shop.got == []
    fake.release("reversed")
    until(lambda: len(shop.got) == 2, "both")
    assert [dict(parse_qsl(body.decode()))["RtnCode"] for body in shop.got] == ["1", "10100248"]


def test_a_lie_about_amount_merchant_or_signature(fake: FakeEcpay, shop: Shop, ecpay: Ecpay) -> None:
    trade_no = opened(fake, ecpay, shop)
    fake.lie(amount=1, merchant="2000132")
    fake.pay(trade_no)
    until(lambda: shop.got, "the notice")
    told = read_notice("ecpay", ecpay.receive(shop.got[0]).fields)
    assert (told.amount_minor, told.merchant_id) == (100, "2000132")
    fake.lie(signature=False)
    fake.pay(trade_no)
    until(lambda: len(shop.got) == 2, "the notice")
    with pytest.raises(NoticeForged):
        ecpay.receive(shop.got[1])


# --- questions --------------------------------------------------------------------------------------------------------


def test_of_a_trade_it_does_not_know_it_says_so(ecpay: Ecpay) -> None:
    assert ecpay.query("NEVERHEARDOF").standing == "unknown"


@pytest.mark.parametrize(("lie", "reason"), [("error", "503"), ("hang", "ReadTimeout"), ("forged", "not signed")])
def test_no_answer_to_go_by(fake: FakeEcpay, shop: Shop, ecpay: Ecpay, lie: str, reason: str) -> None:
    trade_no = opened(fake, ecpay, shop)
    fake.lie(query=lie)
    with pytest.raises(GatewayUnavailable, match=reason) as caught:
        ecpay.query(trade_no)
    assert caught.value.retryable
    assert MERCHANT.hash_key not in str(caught.value)


def test_a_gateway_that_is_away_and_one_that_does_not_know_our_key(fake: FakeEcpay, shop: Shop) -> None:
    with pytest.raises(GatewayUnavailable, match="ConnectError"):
        Ecpay(payment_settings(f"http://127.0.0.1:{free_port()}")).query("T1")
    with pytest.raises(GatewayUnavailable, match="not signed"):
        Ecpay(payment_settings(fake.url, merchant_id="2000132")).query("T1")


# --- refunds ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("captured", [False, True])
def test_money_goes_back_once(fake: FakeEcpay, shop: Shop, ecpay: Ecpay, captured: bool) -> None:
    """Whether it was captured, only the gateway knows."""
    trade_no = opened(fake, ecpay, shop)
    fake.pay(trade_no)
    if captured:
        fake.capture(trade_no)
    wanted = refund_of(fake, trade_no)
    ecpay.refund(wanted)
    assert fake.trade(trade_no)["given_back"]
    with pytest.raises(GatewayRefused, match="error_nopay"):
        ecpay.refund(wanted)


def test_a_refund_that_is_refused_and_one_whose_answer_is_lost(fake: FakeEcpay, shop: Shop, ecpay: Ecpay) -> None:
    trade_no = opened(fake, ecpay, shop)
    with pytest.raises(GatewayRefused):
        ecpay.refund(refund_of(fake, trade_no))  # it was never paid
    fake.pay(trade_no)
    fake.lie(refund="error")
    with pytest.raises(GatewayUnavailable):
        ecpay.refund(refund_of(fake, trade_no))
    assert not fake.trade(trade_no)["given_back"]
    fake.lie(refund="lose")
    with pytest.raises(GatewayUnavailable):
        ecpay.refund(refund_of(fake, trade_no))
    assert fake.trade(trade_no)["given_back"]


def test_what_was_not_paid_by_card_is_given_back_by_hand(fake: FakeEcpay, ecpay: Ecpay) -> None:
    with pytest.raises(GatewayRefused, match="by card alone"):
        ecpay.refund(Refund("T1", "1", 129900, "TWD", "ATM_LAND"))


# --- the command ------------------------------------------------------------------------------------------------------


def test_the_command_says_how_to_use_it(monkeypatch: pytest.MonkeyPatch) -> None:
    served: list[dict[str, Any]] = []
    monkeypatch.setattr("uvicorn.run", lambda _, **options: served.append(options))
    done = CliRunner().invoke(cli, ["fake-ecpay", "--port", "8123"])
    assert done.exit_code == 0, done.output
    assert "AFTERLIVE_PAYMENT_BASE_URL=http://127.0.0.1:8123" in done.output
    assert (served[0]["host"], served[0]["port"]) == ("127.0.0.1", 8123)


def test_a_browser_is_sent_nowhere_but_to_the_shop(fake: FakeEcpay, shop: Shop) -> None:
    ecpay = Ecpay(payment_settings(fake.url, back_url="javascript:alert(1)"))
    trade_no = opened(fake, ecpay, shop)
    answer = httpx.post(f"{fake.url}/_fake/page/{trade_no}", data={"decision": "pay"})
    assert "Paid" in answer.text
    assert "javascript" not in answer.text
