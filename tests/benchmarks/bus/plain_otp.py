"""The peer of our one-time passwords: a handler that makes a code and calls `delay()`, a task that posts it."""

from __future__ import annotations

import os
import secrets
from typing import Final

import httpx
from celery import Celery
from fastapi import FastAPI, Header, HTTPException
from pydantic import BaseModel

from tests.benchmarks.bus.plain import BACKEND, BROKER
from tests.platform import API_KEY

PROVIDER: Final = "BENCH_PROVIDER"

celery_app = Celery("plain_otp", broker=os.environ.get(BROKER), backend=os.environ.get(BACKEND), set_as_current=False)
app = FastAPI()
_client = httpx.Client()


class Ask(BaseModel):
    phone: str
    purpose: str


@celery_app.task(shared=False)
def send_sms(phone: str, code: str) -> None:
    _client.post(os.environ[PROVIDER], json={"to": phone, "text": f"Your code is {code}"}).raise_for_status()


@app.get("/healthz")
def health() -> str:
    return "ok"


@app.post("/otp", status_code=202)
def ask(body: Ask, x_api_key: str = Header()) -> dict[str, str]:
    if x_api_key != API_KEY:
        raise HTTPException(401)
    send_sms.delay(body.phone, f"{secrets.randbelow(1_000_000):06d}")
    return {"state": "sent"}
