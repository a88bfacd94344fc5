"""One-time passwords: a code is asked for, and used up once."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from datetime import datetime
from ipaddress import IPv4Address, IPv6Address
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi import Body as InBody
from prometheus_client import Counter
from pydantic import BaseModel, BeforeValidator, Field, StringConstraints
from sqlalchemy.orm import Session

from control import phones
from control.api.models import Body
from control.api.openapi import described
from control.api.problems import NotReady, RequestInvalid, problem_response
from control.api.services import Services, services
from control.errors import AfterliveError, OtpExpired, OtpLocked, OtpWrong, PhoneInvalid, RateLimited
from control.ledger import otp
from control.ledger.group import GroupCommit
from control.ledger.otp_vault import Vault, vault_of

log = logging.getLogger(__name__)
router = APIRouter(prefix="/otp", tags=["one-time passwords"])
OTPS = Counter("afterlive_otp_total", "One-time passwords: requests and answers by what became of them", ["outcome"])
AtHand = Annotated[Services, Depends(services)]
_ID = "otp_019a3b5c7d8f2a4b6c8d0e"
_missing = NotReady(reason="AFTERLIVE_OTP_SECRET is not set")
_limited = RateLimited(reason="this number was just sent a code", retry_after_seconds=30)


class Desk:
    """What requests go through: those that come at once are committed together (`control.ledger.group`)."""

    def __init__(self, at_hand: Services, vault: Vault) -> None:
        self.vault = vault
        self._settings = at_hand.settings.otp
        self.requests: GroupCommit[otp.Asked, otp.Issued] = GroupCommit(at_hand.ledger, self._act)

    def _act(self, session: Session, asked: Sequence[otp.Asked]) -> Sequence[otp.Issued | AfterliveError]:
        return otp.request_all(session, self.vault, self._settings, asked)


def _written(value: Any) -> Any:
    if not isinstance(value, str):  # a number would be taken for one, too
        raise ValueError("It should be an address, as text.")  # noqa: TRY004  (pydantic's word for a wrong value)
    return value


class OtpRequest(Body):
    """Somebody is to be sent a code."""

    phone: Annotated[str, StringConstraints(min_length=3, max_length=40)] = Field(
        description="A mobile phone's number, with its country code or as it is dialled in `region`.",
        examples=["0912 345 678"],
    )
    region: Annotated[str, StringConstraints(pattern=r"^[A-Za-z]{2}$")] | None = Field(
        None, description="ISO 3166-1; AFTERLIVE_OTP_REGION where it is missing.", examples=["TW"]
    )
    purpose: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]{0,31}$")] = Field(
        description="What it is for; a code of another purpose goes on being valid.", examples=["login"]
    )
    locale: Literal["zh-TW", "en"] = "zh-TW"
    ip: Annotated[IPv4Address | IPv6Address, BeforeValidator(_written)] | None = Field(
        None, description="The end user's address, which is limited; without one the number alone is.",
        examples=["203.0.113.7"],
    )  # fmt: skip


class OtpAnswer(BaseModel):
    """A code is on its way."""

    otp_id: str = Field(examples=[_ID])
    expires_at: datetime
    resend_after_seconds: int = Field(description="Before that, another request for the number is refused.")


class OtpVerify(Body):
    """What the end user typed."""

    otp_id: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_]{1,64}$")] = Field(examples=[_ID])
    code: Annotated[str, StringConstraints(strip_whitespace=True, pattern=r"^[0-9]{1,12}$")] = Field(
        examples=["042917"]
    )


class OtpVerified(BaseModel):
    """The code was right, and is used up."""

    verified: Literal[True] = True
    otp_id: str = Field(examples=[_ID])
    phone: str = Field(description="Whose phone it was sent to, in E.164: compare it.", examples=["+886912345678"])
    purpose: str = Field(description="What it was asked for: compare it.", examples=["login"])


@router.post(
    "",
    status_code=202,
    summary="Send somebody a one-time password",
    responses=described(
        RequestInvalid(), PhoneInvalid(reason="it is not a mobile phone's"), _limited, _missing, path="/otp"
    ),
)
async def ask(
    body: Annotated[
        OtpRequest,
        InBody(
            openapi_examples={
                "login": {
                    "summary": "A number of Taiwan",
                    "value": {"phone": "0912 345 678", "region": "TW", "purpose": "login", "ip": "203.0.113.7"},
                },
                "abroad": {"value": {"phone": "+447400123456", "purpose": "checkout", "locale": "en"}},
            }
        ),
    ],
    at_hand: AtHand,
    request: Request,
    response: Response,
) -> OtpAnswer:
    """Answers when it is certain to be sent; a text message follows within a second. It ends the code before for the
    same number and purpose. How often a number, and an end user's address, may ask is limited: `Retry-After` says
    when it may again."""
    settings = at_hand.settings.otp
    desk = _desk(request)
    asked = otp.Asked(
        phones.normalise(body.phone, body.region or settings.region),
        body.purpose,
        body.locale,
        str(body.ip) if body.ip else None,
    )
    try:
        issued = await asyncio.wrap_future(desk.requests.submit(asked))
    except RateLimited:
        OTPS.labels("limited").inc()
        raise
    at_hand.wake()
    OTPS.labels("requested").inc()
    response.headers["Cache-Control"] = "no-store"
    return OtpAnswer(otp_id=issued.otp_id, expires_at=issued.expires_at, resend_after_seconds=settings.resend_seconds)


@router.post(
    "/verify",
    summary="Use a one-time password up",
    response_model=OtpVerified,
    responses=described(
        RequestInvalid(), OtpWrong(attempts_left=4), OtpExpired(), OtpLocked(), _missing, path="/otp/verify"
    ),
)
def verify(
    body: Annotated[OtpVerify, InBody(openapi_examples={"typed": {"value": {"otp_id": _ID, "code": "042917"}}})],
    at_hand: AtHand,
    request: Request,
    response: Response,
) -> OtpVerified | Response:
    """It is right once. A wrong code is `otp-wrong` with `attempts_left`, the last of them `otp-locked`; one that was
    used, that is too old, that a later one replaced or that never was is `otp-expired`."""
    vault = _desk(request).vault
    with at_hand.ledger.write() as session:
        found = otp.verify(session, vault, body.otp_id, body.code, at_hand.settings.otp.attempts)
    if isinstance(found, otp.Verified):
        OTPS.labels("verified").inc()
        response.headers["Cache-Control"] = "no-store"
        return OtpVerified(otp_id=found.otp_id, phone=found.phone, purpose=found.purpose)
    OTPS.labels(found.code).inc()
    return problem_response(request, found, **found.facts)


def install(app: FastAPI) -> None:
    """Open the desk. Raises ConfigurationError where its secret is too short; without one the rest of the API works."""
    at_hand: Services = app.state.services
    vault = vault_of(at_hand.settings.otp.secret)
    if vault is None:
        log.warning("AFTERLIVE_OTP_SECRET is not set: no one-time passwords")
    app.state.otp_desk = Desk(at_hand, vault) if vault else None


def _desk(request: Request) -> Desk:
    found: Desk | None = request.app.state.otp_desk
    if found is None:
        raise NotReady(reason="AFTERLIVE_OTP_SECRET is not set")
    return found
