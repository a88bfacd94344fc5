"""What a buyer sees at the fake: what is to be paid, and two buttons."""

from __future__ import annotations

from html import escape

from control.fake_ecpay.trades import Trade

_FRAME = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Fake ECPay</title>
<style>body {{ font: 1rem/1.5 system-ui, sans-serif; max-width: 32rem; margin: 4rem auto; padding: 0 1rem }}
button {{ font: inherit; padding: .5rem 1.5rem; margin-right: 1rem }}</style>
<h1>Fake ECPay</h1>
<p>No money moves here.</p>
{content}
</html>
"""


def checkout(trade: Trade) -> str:
    """Pay or decline."""
    items = "".join(f"<li>{escape(name)}</li>" for name in trade.asked.get("ItemName", "").split("#"))
    number = escape(trade.asked["MerchantTradeNo"])
    return _FRAME.format(
        content=f"""<ul>{items}</ul>
<p><strong>NT$ {trade.amount:,}</strong> · {number}</p>
<form method="post" action="/_fake/page/{number}">
<button name="decision" value="pay">Pay</button>
<button name="decision" value="decline">Decline</button>
</form>"""
    )


def said(title: str, back: str = "") -> str:
    """One line, and the way back."""
    link = f'<p><a href="{escape(back)}">Back to the shop</a></p>' if back.startswith(("http://", "https://")) else ""
    return _FRAME.format(content=f"<p><strong>{escape(title)}</strong></p>{link}")
