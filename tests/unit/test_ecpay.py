"""ECPay's signature, notices and forms: pure, against what ECPay publishes and against forgers."""

from __future__ import annotations

import hashlib
import hmac
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from control.errors import AmountInvalid, ConfigurationError, NoticeForged, NoticeUnreadable, PaymentsOff
from control.gateways import gateway
from control.gateways.base import Checkout
from control.gateways.ecpay import notice as notices
from control.gateways.ecpay.client import Ecpay
from control.gateways.ecpay.signature import check_mac_value, is_genuine, signed
from control.settings import PaymentSettings, Settings
from tests.ecpay import MERCHANT, body, notice, payment_settings, unsigned

KEYS = (MERCHANT.hash_key, MERCHANT.hash_iv)
FORM = {
    "ChoosePayment": "ALL",
    "EncryptType": "1",
    "ItemName": "Apple iphone 15",
    "MerchantID": "3002607",
    "MerchantTradeDate": "2023/03/12 15:30:23",
    "MerchantTradeNo": "ecpay20230312153023",
    "PaymentType": "aio",
    "ReturnURL": "https://www.ecpay.com.tw/receive.php",
    "TotalAmount": "30000",
    "TradeDesc": "促銷方案",
}


# --- the signature ----------------------------------------------------------------------------------------------------


def test_the_example_of_ecpay_s_documentation() -> None:
    value = "6C51C9E6888DE861FD62FB1DD17029FC742634498FD813DC43D4243B5685B840"
    assert check_mac_value(FORM, *KEYS) == value
    assert check_mac_value({**FORM, "CheckMacValue": "anything"}, *KEYS) == value
    assert check_mac_value(dict(reversed(FORM.items())), *KEYS) == value


def test_names_are_sorted_without_regard_to_case() -> None:
    """`customField` comes between `CheckX` and `DX`; sorted by bytes it would be last."""
    one = check_mac_value({"CheckX": "1", "customField": "2", "DX": "3"}, "k", "v")

    text = "hashkey%3dk%26checkx%3d1%26customfield%3d2%26dx%3d3%26hashiv%3dv"
    assert one == hashlib.sha256(text.encode()).hexdigest().upper()


def test_it_is_dot_net_s_encoding() -> None:

    text = "hashkey%3dk%26a%3d-_.!*()%7e+%27%2f%e5%95%86%26hashiv%3dv"
    assert check_mac_value({"a": "-_.!*()~ '/商"}, "k", "v") == hashlib.sha256(text.encode()).hexdigest().upper()


@given(
    fields=st.dictionaries(st.text("abcXYZ0_", min_size=1, max_size=8), st.text(max_size=12), min_size=1, max_size=6),
    data=st.data(),
)
def test_whatever_is_changed_is_noticed(fields: dict[str, str], data: st.DataObject) -> None:
    made = signed(fields, *KEYS)
    assert is_genuine(made, *KEYS)
    name = data.draw(st.sampled_from(sorted(fields)))
    # The encoding is blind to case, as ECPay's is.
    changed = data.draw(st.text(max_size=12).filter(lambda value: value.lower() != fields[name].lower()))
    assert not is_genuine({**made, name: changed}, *KEYS)
    assert not is_genuine({key: value for key, value in made.items() if key != name}, *KEYS)
    assert not is_genuine({**made, f"{name}1": ""}, *KEYS)


def test_it_is_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[int] = []
    real = hmac.compare_digest

    def watched(one: Any, other: Any) -> bool:
        compared.append(len(one))
        return real(one, other)

    monkeypatch.setattr(hmac, "compare_digest", watched)
    assert not is_genuine({"a": "1", "CheckMacValue": "0" * 64}, *KEYS)
    assert not is_genuine({"a": "1", "CheckMacValue": "Ä"}, *KEYS)
    assert not is_genuine({"a": "1"}, *KEYS)
    assert compared == [64, 2, 0]


# --- notices ----------------------------------------------------------------------------------------------------------


def test_a_notice_is_kept_as_it_came_without_its_signature() -> None:
    got = notices.receive(body(notice(RtnMsg="")), *KEYS)
    assert got.trade_no == "TRADE1"
    assert got.fields == {name: value for name, value in notice(RtnMsg="").items() if name != "CheckMacValue"}
    assert got.fields["StoreID"] == ""  # empty fields are signed too


FORGED = {
    "no signature": body(unsigned()),
    "an empty signature": body({**unsigned(), "CheckMacValue": ""}),
    "lower case": body({**notice(), "CheckMacValue": notice()["CheckMacValue"].lower()}),
    "half a signature": body({**notice(), "CheckMacValue": notice()["CheckMacValue"][:32]}),
    "another amount": body({**notice(), "TradeAmt": "1"}),
    "another order": body({**notice(), "MerchantTradeNo": "TRADE2"}),
    "failed made paid": body({**notice(RtnCode="10100248"), "RtnCode": "1"}),
    "a trial made real": body({**notice(SimulatePaid="1"), "SimulatePaid": "0"}),
    "a field more": body({**notice(), "CustomField5": ""}),
    "a field less": body({name: value for name, value in notice().items() if name != "StoreID"}),
    "another key": body(signed(unsigned(), "another", "key")),
    "an amount twice": body(notice()) + b"&TradeAmt=1",
    "a signature twice": body(notice()) + b"&CheckMacValue=" + notice()["CheckMacValue"].encode(),
    "nothing": b"",
    "json": b'{"RtnCode": 1}',
    "not utf-8": b"MerchantID=%ff%fe",
    "not text": b"\xff\xfe",
    "a thousand fields": b"&".join(b"a%d=" % number for number in range(1000)),
}


@pytest.mark.parametrize("name", FORGED)
def test_a_forged_notice_is_refused(name: str) -> None:
    with pytest.raises(NoticeForged):
        notices.receive(FORGED[name], *KEYS)


@pytest.mark.parametrize(
    "changes",
    [
        {"MerchantTradeNo": ""},
        {"MerchantTradeNo": "x" * 21},
        {"MerchantTradeNo": "a'b"},
        {"RtnCode": ""},
        {"RtnCode": "one"},
        {"TradeAmt": "-5"},
        {"TradeAmt": "12.99"},
        {"TradeAmt": "٣"},
        {"RtnMsg": "a\x00b"},
    ],
)
def test_signed_nonsense_is_unreadable(changes: dict[str, str]) -> None:
    with pytest.raises(NoticeUnreadable):
        notices.receive(body(notice(**changes)), *KEYS)


def test_copies_are_one_notice_and_what_says_something_else_is_another() -> None:
    def known_as(**changes: str) -> str:
        return notices.receive(body(notice(**changes)), *KEYS).id

    assert known_as() == known_as() == known_as(RtnMsg="paid", PaymentTypeChargeFee="6")
    others = [
        known_as(**changes)
        for changes in (
            {"RtnCode": "10100248"}, {"TradeNo": "2"}, {"MerchantTradeNo": "B"}, {"MerchantID": "1"},
            {"TradeAmt": "1"}, {"SimulatePaid": "1"},
        )
    ]  # fmt: skip
    assert len({known_as(), *others}) == 7


@pytest.mark.parametrize(
    ("changes", "standing", "simulated"),
    [
        ({}, "paid", False),
        ({"SimulatePaid": "1"}, "paid", True),
        ({"SimulatePaid": "yes"}, "paid", True),
        ({"RtnCode": "10100248"}, "failed", False),
        ({"RtnCode": "0"}, "failed", False),
        ({"RtnCode": "2"}, "open", False),
        ({"RtnCode": "10100073"}, "open", False),
    ],
)
def test_what_a_notice_says(changes: dict[str, str], standing: str, simulated: bool) -> None:
    said = notices.report(notice(**changes))
    assert (said.standing, said.simulated, said.asked) == (standing, simulated, False)
    assert (said.amount_minor, said.currency) == (129900, "TWD")
    assert said.paid_at == datetime(2025, 10, 1, 12, 15, tzinfo=UTC)  # Taipei is eight hours ahead


def test_an_old_notice_without_a_word_on_trials_is_real() -> None:
    fields = notice()
    del fields["SimulatePaid"]
    assert notices.report(fields).simulated is False


@pytest.mark.parametrize(
    ("status", "standing"), [("0", "open"), ("1", "paid"), ("10200047", "unknown"), ("10200095", "failed")]
)
def test_what_an_answer_says(status: str, standing: str) -> None:
    amount = "" if standing == "unknown" else "1299"
    said = notices.answer(notice(TradeStatus=status, TradeAmt=amount))
    assert (said.standing, said.simulated, said.asked) == (standing, None, True)


# --- forms ------------------------------------------------------------------------------------------------------------


def wanted(**changes: Any) -> Checkout:
    facts: dict[str, Any] = {
        "payment_id": "pay_1", "trade_no": "01K8F2Z9QM3T7W5X4B6C", "order_id": "ord_1", "amount_minor": 129900,
        "currency": "TWD", "items": ("杯子 x 2", "<b>Tea & co#</b> x 1"), "locale": "zh-TW",
        "at": datetime(2025, 10, 1, 16, 30, tzinfo=UTC), "notice_url": "https://shop.example/webhooks/payment/ecpay",
    }  # fmt: skip
    return Checkout(**(facts | changes))


def test_the_form_a_buyer_pays_with() -> None:
    form = Ecpay(payment_settings()).checkout(wanted())
    assert form.action == "http://127.0.0.1:9/Cashier/AioCheckOut/V5"
    assert form.method == "POST"
    assert is_genuine(form.fields, *KEYS)
    expected = {
        "MerchantTradeNo": "01K8F2Z9QM3T7W5X4B6C",
        "MerchantTradeDate": "2025/10/02 00:30:00",
        "TotalAmount": "1299",
        "ItemName": "杯子 x 2#b Tea co b x 1",
        "ReturnURL": "https://shop.example/webhooks/payment/ecpay",
        "ChoosePayment": "Credit",
        "CustomField1": "pay_1",
    }
    assert {name: form.fields[name] for name in expected} == expected
    assert "Language" not in form.fields


def test_a_form_in_english_with_a_way_back_and_more_items_than_fit() -> None:
    ecpay = Ecpay(payment_settings(back_url="https://shop.example/thanks"))
    fields = ecpay.checkout(wanted(locale="en", items=("名" * 90,) * 5)).fields
    assert (fields["Language"], fields["ClientBackURL"]) == ("ENG", "https://shop.example/thanks")
    assert len(fields["ItemName"]) == 200
    assert ecpay.checkout(wanted(items=("★",))).fields["ItemName"] == "Order ord_1"


@pytest.mark.parametrize("changes", [{"amount_minor": 129950}, {"amount_minor": 0}, {"currency": "USD"}])
def test_what_ecpay_cannot_charge(changes: dict[str, Any]) -> None:
    with pytest.raises(AmountInvalid):
        Ecpay(payment_settings()).checkout(wanted(**changes))


# --- settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("missing", ["merchant_id", "hash_key", "hash_iv"])
def test_half_a_merchant_is_none(missing: str) -> None:
    half = payment_settings().model_copy(update={missing: None})
    with pytest.raises(ConfigurationError, match=missing.upper()):
        gateway(Settings(_env_file=None, payment=half))


def test_no_merchant_is_no_gateway() -> None:
    with pytest.raises(PaymentsOff):
        gateway(Settings(_env_file=None, payment=PaymentSettings(_env_file=None)))


def test_keys_everybody_knows_are_refused_where_money_moves() -> None:
    with pytest.raises(ConfigurationError, match="everybody knows"):
        Ecpay(payment_settings("https://payment.ecpay.com.tw"))
    Ecpay(payment_settings("https://payment.ecpay.com.tw", hash_key=SecretStr("a-key-of-one-s-own")))


def test_no_key_is_in_what_may_be_printed() -> None:
    ecpay = Ecpay(payment_settings())
    for text in (repr(ecpay), repr(payment_settings()), str(vars(ecpay))):
        assert MERCHANT.hash_key not in text
        assert MERCHANT.hash_iv not in text
