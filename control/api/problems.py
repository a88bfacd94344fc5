"""Errors as RFC 9457 problem details: one table from error class to HTTP status, one shape for all of them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.exc import OperationalError
from starlette.exceptions import HTTPException

from control import errors
from control.api.redaction import without_signature
from control.api.signing import LinkExpired, LinkInvalid

log = logging.getLogger(__name__)
MEDIA_TYPE = "application/problem+json"


class KeyRequired(errors.AfterliveError):
    """This needs a valid API key."""

    code = "key-required"


class CrossSiteRefused(errors.AfterliveError):
    """A page of another site may not do this with the browser's stored credentials."""

    code = "cross-site-refused"


class RequestInvalid(errors.AfterliveError):
    """The request does not fit what this operation takes."""

    code = "request-invalid"


class BodyTooLarge(errors.AfterliveError):
    """The request body is larger than {limit} bytes."""

    code = "body-too-large"


class RangeUnsatisfiable(errors.AfterliveError):
    """The range asked for lies outside the file's {size} bytes."""

    code = "range-unsatisfiable"


class LedgerUnavailable(errors.TransientError):
    """The ledger cannot be reached at the moment."""

    code = "ledger-unavailable"


class NotReady(errors.TransientError):
    """Not ready: {reason}."""

    code = "not-ready"


class InternalError(errors.AfterliveError):
    """Something went wrong inside; it is logged under the request's id."""


STATUS: dict[type[errors.AfterliveError], int] = {
    errors.AfterliveError: 500,
    errors.TransientError: 503,
    errors.NotFound: 404,
    errors.ObjectMissing: 404,
    errors.Conflict: 409,
    errors.Cancelled: 409,
    errors.InputError: 422,
    errors.AmountInvalid: 422,
    errors.GatewayRefused: 502,
    errors.PaymentsOff: 503,
    errors.WebhookUrlRefused: 422,
    errors.RateLimited: 429,
    errors.OtpWrong: 422,
    errors.OtpLocked: 423,
    errors.OtpExpired: 410,
    errors.OrderRefused: 422,
    errors.IdempotencyKeyReused: 422,
    errors.IdempotencyKeyInUse: 409,
    KeyRequired: 401,
    CrossSiteRefused: 403,
    LinkInvalid: 403,
    LinkExpired: 410,
    BodyTooLarge: 413,
    RangeUnsatisfiable: 416,
    RequestInvalid: 422,
}
"""The HTTP status of an error class; a class that is not here has its nearest base's."""

RETRY_AFTER_SECONDS = 5
LARGEST_BODY_BYTES = 1024 * 1024


class FieldError(BaseModel):
    """What is wrong with one field."""

    pointer: str = Field(examples=["#/title"], description="JSON pointer into the body, or `query/NAME`.")
    detail: str = Field(examples=["String should have at least 1 character"])


class Problem(BaseModel):
    """Problem details (RFC 9457)."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(examples=["urn:afterlive:problem:not-found"])
    title: str = Field(examples=["Not Found"])
    status: int = Field(examples=[404])
    detail: str = Field(examples=["There is no stream 01JQ."])
    instance: str = Field(examples=["/streams/01JQ"])
    code: str = Field(examples=["not-found"], description="Stable; what clients switch on.")
    errors: list[FieldError] | None = Field(None, description="Validation only: one entry a field.")


def status_of(kind: type[errors.AfterliveError]) -> int:
    """The HTTP status of an error class."""
    return next(STATUS[base] for base in kind.__mro__ if base in STATUS)


def problem(code: str, status: int, detail: str, instance: str, **more: Any) -> Problem:
    """The details of one problem."""
    return Problem(
        type=f"urn:afterlive:problem:{code}",
        title=HTTPStatus(status).phrase,
        status=status,
        detail=detail,
        instance=instance,
        code=code,
        **more,
    )


def problem_response(
    request: Request,
    error: errors.AfterliveError,
    *,
    headers: Mapping[str, str] | None = None,
    **more: Any,
) -> Response:
    """The answer to a request that failed with `error`; `more` are extension members."""
    status = status_of(type(error))
    extra = dict(headers or {})
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        extra.setdefault("Retry-After", str(RETRY_AFTER_SECONDS))
    if "retry_after_seconds" in error.facts:
        extra.setdefault("Retry-After", str(error.facts["retry_after_seconds"]))
    return _answer(problem(error.code, status, error.detail, request.url.path, **more), extra)


def install(app: FastAPI) -> None:
    """Make every error of `app` a problem document."""
    app.add_exception_handler(errors.AfterliveError, _on_error)
    app.add_exception_handler(RequestValidationError, _on_validation)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(OperationalError, _on_ledger)
    app.add_exception_handler(Exception, _on_bug)


def _on_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, errors.AfterliveError)  # noqa: S101  (narrows the type; the table below registers it)
    if status_of(type(error)) == HTTPStatus.INTERNAL_SERVER_ERROR:
        return _on_bug(request, error)
    return problem_response(request, error)


def _on_validation(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101
    fields = [FieldError(pointer=pointer(item["loc"]), detail=item["msg"]) for item in error.errors()]
    return problem_response(request, RequestInvalid(), errors=fields)


def _on_http(request: Request, error: Exception) -> Response:
    """404 and 405 of the router, and whatever the framework raises by itself."""
    assert isinstance(error, HTTPException)  # noqa: S101
    if error.status_code < HTTPStatus.BAD_REQUEST:
        return Response(status_code=error.status_code, headers=error.headers)
    if error.status_code == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        return problem_response(request, BodyTooLarge(limit=LARGEST_BODY_BYTES))
    if error.status_code == HTTPStatus.BAD_REQUEST:  # the framework's word for a body that is not even text
        return problem_response(request, RequestInvalid())
    # Codes are written out: the phrases of HTTPStatus change from one Python to the next.
    code, detail = {
        404: ("not-found", "There is nothing at this address."),
        405: ("method-not-allowed", f"{request.method} is not possible here."),
    }.get(error.status_code, (f"http-{error.status_code}", str(error.detail)))
    return _answer(problem(code, error.status_code, detail, request.url.path), dict(error.headers or {}))


def _on_ledger(request: Request, error: Exception) -> Response:
    log.error("ledger unavailable: %s", error, extra=_context(request))
    return problem_response(request, LedgerUnavailable())


def _on_bug(request: Request, error: Exception) -> Response:
    """The answer tells nothing of the inside; the log tells all, under the same id."""
    context = _context(request)
    path = without_signature(request.url.path)
    log.error("unhandled error on %s %s", request.method, path, exc_info=error, extra=context)
    # This answer is made outside of all middleware, so it must carry the id itself.
    return problem_response(request, InternalError(), headers={"X-Request-ID": context["request_id"]}, **context)


def _context(request: Request) -> dict[str, str]:
    return {"request_id": request.scope.get("state", {}).get("request_id", "")}


def pointer(loc: tuple[int | str, ...]) -> str:
    """Where a field is: `#/a/b` in the body (RFC 6901, as a URI fragment), `query/limit` elsewhere."""
    place, *rest = loc
    steps = [str(step).replace("~", "~0").replace("/", "~1") for step in rest]
    if place == "body":
        return "#/" + "/".join(steps) if steps and not isinstance(rest[0], int) else "#"
    return "/".join([str(place), *steps])


def _answer(document: Problem, headers: Mapping[str, str]) -> Response:
    return Response(
        document.model_dump_json(exclude_none=True),
        status_code=document.status,
        media_type=MEDIA_TYPE,
        headers={"Cache-Control": "no-store", **headers},
    )
