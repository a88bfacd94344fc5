"""Mails and other messages to people: asked for, to many at a time too, and what became of them."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Response
from fastapi import Body as BodyOf
from sqlalchemy.orm import Session

from control.api import mail_models
from control.api.mail_models import (
    BulkAnswer,
    BulkCreate,
    NoticeAnswer,
    NoticeList,
    SellerContact,
    SuppressionCreate,
    SuppressionEnd,
    Welcome,
)
from control.api.models import NO_NUL, Identifier
from control.api.openapi import described
from control.api.problems import RequestInvalid
from control.api.services import Services, services
from control.bus import names
from control.errors import Conflict, NotFound
from control.ledger import bulks, notices
from control.ledger.notice_models import Notice

router = APIRouter(tags=["mails"])
AtHand = Annotated[Services, Depends(services)]
BulkId = Annotated[
    str, Path(description="The bulk send's id.", max_length=64, pattern=NO_NUL, examples=["autumn-sale"])
]
SellerId = Annotated[str, Path(max_length=64, pattern=NO_NUL, examples=["seller-42"])]

_invalid = RequestInvalid()
_unknown = NotFound(noun="bulk send", key="autumn-sale")


@router.post(
    "/mails/welcome", status_code=202, summary="Welcome somebody who registered", responses=described(_invalid)
)
def welcome(body: Annotated[Welcome, BodyOf(openapi_examples=mail_models.WELCOME)], at_hand: AtHand) -> NoticeList:
    """Sent once a user, however often it is asked for."""
    key = f"welcome:{body.user_id}"
    with at_hand.ledger.write() as session:
        notices.request(
            session,
            names.SEND_WELCOME_EMAIL,
            key=key,
            to=body.email,
            template="welcome",
            locale=body.locale,
            data={"name": body.name},
            about=body.user_id,
        )
        found = notices.of_key(session, key)
        answer = NoticeList(items=[_shown(found)])
    at_hand.wake()
    return answer


@router.get("/notices", summary="Messages by what they are about", responses=described(_invalid))
def index(
    at_hand: AtHand,
    about: Annotated[
        str,
        Query(
            min_length=1,
            max_length=64,
            pattern=NO_NUL,
            description="An order's id, a stream's, a user's, a bulk send's.",
            examples=["ord_01jq"],
        ),
    ],
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> NoticeList:
    """Newest first. About what nobody was told of there are none."""
    with at_hand.ledger.read() as session:
        return NoticeList(items=[_shown(found) for found in notices.about(session, about, limit)])


@router.post(
    "/mails/bulk",
    status_code=202,
    summary="Send one text to many",
    responses=described(_invalid, Conflict(reason="There is a bulk send autumn-sale already, with other content.")),
)
def create_bulk(
    body: Annotated[BulkCreate, BodyOf(openapi_examples=mail_models.BULK)], response: Response, at_hand: AtHand
) -> BulkAnswer:
    """Sent at the pace the mail provider allows; single mails go first."""
    content: dict[str, Any] = {"locale": body.locale, "unsubscribe": body.unsubscribe}
    if body.announcement:
        content |= {"template": "announcement", "data": body.announcement.model_dump(exclude_none=True)}
    elif body.message:
        content |= body.message.model_dump()
    with at_hand.ledger.write() as session:
        bulks.create(session, body.id, content, [one.model_dump(exclude_none=True) for one in body.recipients])
        answer = _bulk(session, body.id)
    at_hand.wake()
    response.headers["Location"] = f"/mails/bulk/{body.id}"
    return answer


@router.get("/mails/bulk/{bulk_id}", summary="How far a bulk send is", responses=described(_unknown, _invalid))
def show_bulk(bulk_id: BulkId, at_hand: AtHand) -> BulkAnswer:
    """Counts only: of the single mails, `/notices?about=` tells."""
    with at_hand.ledger.read() as session:
        return _bulk(session, bulk_id)


@router.post(
    "/mails/bulk/{bulk_id}/cancel",
    status_code=202,
    summary="Send no more of it",
    responses=described(_unknown, _invalid, Conflict(reason="The bulk send autumn-sale is done.")),
)
def cancel_bulk(bulk_id: BulkId, at_hand: AtHand) -> BulkAnswer:
    """What is being sent at this moment still goes out. Cancelling twice is the same as once."""
    with at_hand.ledger.write() as session:
        bulks.cancel(session, bulk_id)
        return _bulk(session, bulk_id)


@router.put("/sellers/{seller_id}", summary="Where a seller is told", responses=described(_invalid))
def put_seller(
    seller_id: Annotated[Identifier, Path(examples=["seller-42"])],
    body: Annotated[SellerContact, BodyOf(openapi_examples=mail_models.SELLER)],
    at_hand: AtHand,
) -> SellerContact:
    """Of replays that are ready, and of each day's sales."""
    with at_hand.ledger.write() as session:
        notices.set_contact(session, seller_id, email=body.email, name=body.name, locale=body.locale)
    return body


@router.get(
    "/sellers/{seller_id}",
    summary="Where a seller is told",
    responses=described(NotFound(noun="contact of the seller", key="seller-42"), _invalid),
)
def show_seller(seller_id: SellerId, at_hand: AtHand) -> SellerContact:
    """The whole address: it is yours."""
    with at_hand.ledger.read() as session:
        found = notices.contact(session, seller_id)
        if found is None:
            raise NotFound(noun="contact of the seller", key=seller_id)
        return SellerContact.model_validate({"email": found.email, "name": found.name, "locale": found.locale})


@router.post("/mails/suppressions", status_code=204, summary="Write there no more", responses=described(_invalid))
def suppress(
    body: Annotated[SuppressionCreate, BodyOf(openapi_examples=mail_models.SUPPRESSION)], at_hand: AtHand
) -> None:
    """The address is kept as its hash alone."""
    with at_hand.ledger.write() as session:
        notices.suppress(session, body.email, body.reason)


@router.post("/mails/suppressions/lift", status_code=204, summary="Write there again", responses=described(_invalid))
def lift(body: Annotated[SuppressionEnd, BodyOf(openapi_examples=mail_models.LIFTED)], at_hand: AtHand) -> None:
    """Of an address that was never suppressed nothing changes."""
    with at_hand.ledger.write() as session:
        notices.lift(session, body.email)


def _bulk(session: Session, bulk_id: str) -> BulkAnswer:
    found, counts = bulks.get(session, bulk_id), bulks.counts(session, bulk_id)
    return BulkAnswer(
        id=found.id,
        state=found.state,
        total=sum(counts.values()),
        counts=counts,
        created_at=found.created_at,
        finished_at=found.finished_at,
    )


def _shown(found: Notice) -> NoticeAnswer:
    facts = {name: getattr(found, name) for name in NoticeAnswer.model_fields}
    return NoticeAnswer.model_validate(facts | {"to": notices.masked(found.to)})
