"""Where a webhook may go."""

from __future__ import annotations

import ipaddress

import pytest

from control.errors import WebhookUrlRefused
from control.ledger.webhook_urls import check_url, is_public


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://shop.example/hooks?key=1", ("shop.example", 443)),
        ("https://SHOP.example:8443", ("shop.example", 8443)),
        ("https://8.8.8.8/hook", ("8.8.8.8", 443)),
        ("https://[2606:4700::1111]:9000/", ("2606:4700::1111", 9000)),
        ("https://xn--fiq228c.example/", ("xn--fiq228c.example", 443)),
    ],
)
def test_a_public_address_by_https_is_fine(url: str, expected: tuple[str, int]) -> None:
    assert check_url(url) == expected


@pytest.mark.parametrize(
    "url",
    [
        "http://shop.example/",
        "ftp://shop.example/",
        "//shop.example/",
        "shop.example",
        "https://",
        "https:///hook",
        "https://ann@shop.example/",
        "https://ann:secret@shop.example/",
        "https://@shop.example/",
        "https://shop.example/#part",
        "https://shop.example/#",
        "https://shop.example:port/",
        "https://shop.example:70000/",
        "https://shop.example:0/",
        "https://shop.example\\@10.0.0.1/",
        "https://shop.example/a b",
        "https://shop.example/\r\nX-Evil: 1",
        "https://shop.example/\x00",
        "https://中文.example/",
        "https://[::1",
        "https://[fe80::1%25eth0]/",
        "https://" + "a" * 2000 + ".example/",
        # hosts that only our machines can reach, in every form the system would take
        "https://localhost/",
        "https://LOCALHOST./",
        "https://api.localhost:8443/",
        "https://printer.local/",
        "https://metadata.google.internal/",
        "https://127.0.0.1/",
        "https://127.0.0.1./",
        "https://127.1/",
        "https://2130706433/",
        "https://0x7f000001/",
        "https://0x7f.0.0.1/",
        "https://0177.0.0.1/",
        "https://017700000001/",
        "https://0/",
        "https://10.1.2.3/",
        "https://169.254.169.254/latest/meta-data",
        "https://2852039166/",
        "https://[::1]/",
        "https://[::ffff:127.0.0.1]/",
        "https://[::ffff:7f00:1]/",
        "https://[fd00:ec2::254]/",
    ],
)
def test_others_are_refused(url: str) -> None:
    with pytest.raises(WebhookUrlRefused) as error:
        check_url(url)
    assert "secret" not in error.value.detail


def test_what_a_setting_allows() -> None:
    assert check_url("http://127.0.0.1:9000/x", allow_private=True, allow_http=True) == ("127.0.0.1", 9000)
    assert check_url("https://shop.example", ports=[443]) == ("shop.example", 443)
    for url in ("https://shop.example:22/", "https://shop.example:8443"):
        with pytest.raises(WebhookUrlRefused):
            check_url(url, ports=[443])
    with pytest.raises(WebhookUrlRefused):  # the one permission is not the other
        check_url("http://shop.example/", allow_private=True)
    with pytest.raises(WebhookUrlRefused):
        check_url("http://127.0.0.1/", allow_http=True)
    with pytest.raises(WebhookUrlRefused):
        check_url("https://ann:secret@127.0.0.1/", allow_private=True, allow_http=True)


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True),
        ("203.69.66.102", True),
        ("2606:4700:4700::1111", True),
        ("64:ff9b::808:808", True),  # NAT64 of a public one
        ("2002:808:808::1", True),  # 6to4 of a public one
        ("::ffff:8.8.8.8", True),
        ("0.0.0.0", False),  # noqa: S104  (nothing is bound to it)
        ("0.1.2.3", False),
        ("10.0.0.1", False),
        ("100.64.0.1", False),  # a provider's own (RFC 6598)
        ("127.0.0.1", False),
        ("127.255.255.254", False),
        ("169.254.169.254", False),
        ("172.16.0.1", False),
        ("172.31.255.255", False),
        ("192.0.0.1", False),
        ("192.0.2.1", False),
        ("192.168.1.1", False),
        ("198.18.0.1", False),
        ("198.51.100.1", False),
        ("203.0.113.1", False),
        ("224.0.0.1", False),
        ("239.255.255.255", False),
        ("240.0.0.1", False),
        ("255.255.255.255", False),
        ("::", False),
        ("::1", False),
        ("::7f00:1", False),
        ("::ffff:10.0.0.1", False),
        ("::ffff:169.254.169.254", False),
        ("64:ff9b::7f00:1", False),
        ("64:ff9b::a9fe:a9fe", False),
        ("64:ff9b:1::1", False),
        ("100::1", False),
        ("2001::1", False),
        ("2001:db8::1", False),
        ("2002:7f00:1::1", False),
        ("2002:a00:1::1", False),
        ("fc00::1", False),
        ("fd12:3456::1", False),
        ("fe80::1", False),
        ("fe80::1%eth0", False),
        ("2606:4700::1%eth0", False),
        ("fec0::1", False),
        ("ff02::1", False),
    ],
)
def test_which_addresses_are_public(address: str, public: bool) -> None:
    assert is_public(ipaddress.ip_address(address)) is public
