"""From the request for a one-time password to the call of the SMS provider, over HTTP and the bus: the machine idle,
and media on every core. Beside it a FastAPI handler that makes a code and calls `delay()`."""

from __future__ import annotations

import sys
import time
from contextlib import nullcontext
from typing import Final

import httpx

from tests import services
from tests.benchmarks.bus import plain, plain_otp
from tests.benchmarks.bus.latency import Spread
from tests.benchmarks.bus.media import Media, make_media
from tests.benchmarks.bus.servers import Servers, running, until
from tests.benchmarks.bus.sms_provider import Provider, provider
from tests.platform import API_KEY, Process

_RATE: Final = 20
_WARM_UP: Final = 20
_SECRET: Final = "a-secret-for-benchmarks-of-otp"


def main(servers: Servers, seconds: float) -> None:
    """The four, one after the other, and their ratios."""
    print(f"OTP: {_RATE} requests/s for {seconds:.0f} s each, request to sender called, milliseconds", flush=True)
    print(f"  {'':34} {'p50':>8} {'p95':>8} {'p99':>8}")
    media = make_media(servers)
    found = {
        (who, loaded): measure(servers, seconds, media if loaded else None)
        for loaded in (False, True)
        for who, measure in (("ours", measure_ours), ("plain", measure_plain))
    }
    loaded, quiet, theirs = found["ours", True].p99, found["ours", False].p99, found["plain", True].p99
    print(f"  ratio, our p99: under media / idle           {loaded / quiet:8.2f}   (bar: at most 2.5)")
    print(f"  ratio, p99 under media: ours / plain Celery  {loaded / theirs:8.2f}")


def measure_ours(servers: Servers, seconds: float, media: Media | None) -> Spread:
    """`afterlive api` and `afterlive worker fast`."""
    with provider() as sms, servers.bus() as bus:
        more = {
            "AFTERLIVE_OTP_SECRET": _SECRET,
            "AFTERLIVE_NOTIFY_SMS_URLS": f'["http://127.0.0.1:{sms.port}/sms"]',
        }
        bus.more = more
        with running([bus.api(), bus.worker("fast")]) as (api, _), media.ours(bus) if media else nullcontext():
            return _measure(_label("afterlive", media), api, sms, seconds)


def measure_plain(servers: Servers, seconds: float, media: Media | None) -> Spread:
    """uvicorn and `celery worker`, as they come."""
    with provider() as sms, servers.vhost() as url, plain.sender(servers, url) as sender:
        port = services.free_port()
        env = plain.settings(servers, url) | {plain_otp.PROVIDER: f"http://127.0.0.1:{sms.port}/sms"}
        command = [sys.executable, "-m", "uvicorn", f"{plain_otp.__name__}:app", "--port", str(port)]
        api = servers.start("plain-otp", [*command, "--no-access-log"], port, env=env)
        until(api.healthy, "the plain API answers", api)
        worker = plain.worker(servers, url, env=env, module=f"{plain_otp.__name__}:celery_app")
        with running([api, worker]), media.plain(url, sender) if media else nullcontext():
            return _measure(_label("plain Celery", media), api, sms, seconds)


def _label(who: str, media: Media | None) -> str:
    return f"{who}, {'media on every core' if media else 'idle'}"


def _measure(label: str, api: Process, sms: Provider, seconds: float) -> Spread:
    number = _WARM_UP + round(seconds * _RATE)
    asked: dict[str, float] = {}
    with httpx.Client(base_url=f"http://127.0.0.1:{api.port}", headers={"X-API-Key": API_KEY}) as client:
        started = time.monotonic()
        for position in range(number):
            pause = started + position / _RATE - time.monotonic()
            if pause > 0:
                time.sleep(pause)
            phone = f"+8869{12_000_000 + position:08d}"
            asked[phone] = time.time()
            answer = client.post("/otp", json={"phone": phone, "purpose": "login"})
            if answer.status_code != httpx.codes.ACCEPTED:
                raise RuntimeError(f"{answer.status_code} {answer.text}")
    until(lambda: len(sms.called) == number, "all codes are sent", seconds=60)
    spread = Spread.of(sorted((asked[phone], at) for phone, at in sms.called.items())[_WARM_UP:])
    print(f"  {label:34} {spread.p50:8.1f} {spread.p95:8.1f} {spread.p99:8.1f}", flush=True)
    return spread
