"""Pages by key: the same two parameters, and the same link to the next page, of every list."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query, Request, Response

from control.api.models import NO_NUL

Limit = Annotated[int, Query(ge=1, le=100)]
After = Annotated[str | None, Query(max_length=64, pattern=NO_NUL, description="`next` of the page before.")]


def link_next(request: Request, response: Response, following: str | None) -> str | None:
    """`following`, the last id of a page that is not the last, as a `Link` header too."""
    if following:
        response.headers["Link"] = f'<{request.url.include_query_params(after=following)}>; rel="next"'
    return following
