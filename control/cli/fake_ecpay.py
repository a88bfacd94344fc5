"""`afterlive fake-ecpay`: a gateway to develop against."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import click

from control.cli.logs import quiet_logs

if TYPE_CHECKING:
    from control.fake_ecpay.trades import Merchant

_DEFAULT_PORT = 8100


@click.command("fake-ecpay")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(1, 65535), default=_DEFAULT_PORT, show_default=True)
@click.option(
    "--again", type=click.FloatRange(0.1), default=600.0, show_default=True, help="Seconds until it tells again."
)
def fake_ecpay(host: str, port: int, again: float) -> None:
    """Be ECPay, for development: takes forms, shows a page to pay on, tells of payments until it hears 1|OK.

    It is the merchant ECPay gives everybody for trials, and keeps nothing. PUT /_fake/lies has it lie.
    """
    import uvicorn

    from control.fake_ecpay.app import create_fake
    from control.fake_ecpay.trades import Merchant

    quiet_logs(logging.INFO)
    merchant = Merchant()
    click.echo("Set, for the API and the workers:\n" + _settings(merchant, f"http://{host}:{port}"))
    uvicorn.run(create_fake(merchant, again_seconds=again), host=host, port=port, log_config=None, access_log=False)


def _settings(merchant: Merchant, url: str) -> str:
    found = {
        "BASE_URL": url,
        "MERCHANT_ID": merchant.id,
        "HASH_KEY": merchant.hash_key,
        "HASH_IV": merchant.hash_iv,
    }
    return "\n".join(f"AFTERLIVE_PAYMENT_{name}={value}" for name, value in found.items())
