"""Products: what sellers sell, and how much there is of it."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi import Body as InBody
from sqlalchemy.orm import Session

from control.api.models import NO_NUL
from control.api.openapi import described
from control.api.orders import AtHand, Desk, answered, desk, replayable
from control.api.paging import After, Limit, link_next
from control.api.problems import RequestInvalid
from control.api.shop_models import Key, ProductChange, ProductCreate, ProductId, ProductPage
from control.errors import Conflict, IdempotencyKeyInUse, IdempotencyKeyReused, NotFound
from control.ledger import idempotency, products
from control.ledger.idempotency import Answer
from control.ledger.order_views import PRODUCT_ID, ProductView

router = APIRouter(prefix="/products", tags=["products"])
_PATH = f"/products/{PRODUCT_ID}"
_unknown = NotFound(noun="product", key=PRODUCT_ID)
_invalid = RequestInvalid()
_known = Conflict(reason=f"There is a product {PRODUCT_ID} already, with other content.")
_short = Conflict(reason=f"The product {PRODUCT_ID} has 3 left: 5 cannot be taken away.")


@router.post(
    "",
    status_code=201,
    summary="A seller has something to sell",
    responses=described(_invalid, NotFound(noun="stream", key="str_01jq"), _known, path="/products"),
)
def create(
    body: Annotated[
        ProductCreate,
        InBody(
            openapi_examples={
                "bowl": {
                    "summary": "Twelve bowls at NT$ 1,299",
                    "value": {
                        "seller_id": "seller-42",
                        "name": "Tea bowl, celadon",
                        "price_minor": 129900,
                        "currency": "TWD",
                        "stock": 12,
                    },
                }
            }
        ),
    ],
    response: Response,
    at_hand: AtHand,
) -> ProductView:
    """With an id of your own, asking twice is the same as once."""
    with at_hand.ledger.write() as session:
        product = products.create(
            session,
            seller_id=body.seller_id,
            name=body.name,
            price_minor=body.price_minor,
            currency=body.currency,
            stock=body.stock,
            stream_id=body.stream_id,
            product_id=body.id,
        )
        answer = ProductView.model_validate(product)
    response.headers["Location"] = f"/products/{answer.id}"
    return answer


@router.get("", summary="Products", responses=described(_invalid, path="/products"))
def index(
    request: Request,
    response: Response,
    at_hand: AtHand,
    limit: Limit = 20,
    after: After = None,
    seller_id: Annotated[str | None, Query(max_length=64, pattern=NO_NUL)] = None,
    stream_id: Annotated[str | None, Query(max_length=64, pattern=NO_NUL)] = None,
    active: bool | None = None,
) -> ProductPage:
    """By their ids. Pages by key, not by number."""
    with at_hand.ledger.read() as session:
        found = products.page(
            session, limit=limit + 1, after=after, seller_id=seller_id, stream_id=stream_id, active=active
        )
        items = [ProductView.model_validate(product) for product in found[:limit]]
    following = link_next(request, response, items[-1].id if len(found) > limit else None)
    return ProductPage(items=items, next=following)


@router.get("/{product_id}", summary="A product", responses=described(_unknown, _invalid, path=_PATH))
def show(product_id: ProductId, at_hand: AtHand) -> ProductView:
    """How much there is of it, and where."""
    with at_hand.ledger.read() as session:
        return ProductView.model_validate(products.get(session, product_id))


@router.patch(
    "/{product_id}",
    summary="Change a product, or its stock",
    response_model=ProductView,
    responses=replayable(200)
    | described(
        _unknown,
        _invalid,
        _short,
        IdempotencyKeyReused(),
        IdempotencyKeyInUse(retry_after_seconds=1),
        path=_PATH,
    ),
)
def change(
    product_id: ProductId,
    body: Annotated[
        ProductChange,
        InBody(
            openapi_examples={
                "more": {"summary": "There are 20 more", "value": {"stock_delta": 20}},
                "gone": {"summary": "It is not sold any more", "value": {"active": False}},
            }
        ),
    ],
    at_hand: AtHand,
    at_desk: Annotated[Desk, Depends(desk)],
    key: Key = None,
) -> Response:
    """Stock changes by a difference: nobody's sale is overwritten."""
    asked = idempotency.fingerprint(f"PATCH /products/{product_id}", body.model_dump_json())

    def act(session: Session) -> Answer:
        product = products.change(
            session,
            product_id,
            name=body.name,
            price_minor=body.price_minor,
            active=body.active,
            stock_delta=body.stock_delta,
        )
        return Answer(200, ProductView.model_validate(product).model_dump_json())

    with at_desk.in_progress.holding(key), at_hand.ledger.write() as session:
        return answered(idempotency.once(session, key, asked, lambda: act(session)))
