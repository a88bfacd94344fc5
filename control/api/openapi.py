"""The API's description: every body and every error with an example, and nothing that is never sent."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from control.api.problems import (
    LARGEST_BODY_BYTES,
    MEDIA_TYPE,
    BodyTooLarge,
    FieldError,
    InternalError,
    KeyRequired,
    LedgerUnavailable,
    Problem,
    RequestInvalid,
    problem,
    status_of,
)
from control.errors import AfterliveError

SECURITY_SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "An API key as a bearer token."},
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "An API key."},
    "basic": {"type": "http", "scheme": "basic", "description": "Any user name, an API key as the password."},
}


def described(*examples: AfterliveError, path: str = "/streams/str_01jq") -> dict[int | str, dict[str, Any]]:
    """OpenAPI responses with an example for each of the errors a route may answer with."""
    found: dict[int | str, dict[str, Any]] = {}
    for error in (*examples, KeyRequired(), LedgerUnavailable(), InternalError()):
        status = status_of(type(error))
        more: dict[str, Any] = {}
        if isinstance(error, RequestInvalid):
            more["errors"] = [FieldError(pointer="#/title", detail="Field required")]
        if isinstance(error, InternalError):
            more["request_id"] = "4f0c7d2e9a6b4f3f"
        document = problem(error.code, status, error.detail, path, **more)
        entry = found.setdefault(
            status,
            {
                "description": HTTPStatus(status).phrase,
                "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemDetails"}, "examples": {}}},
            },
        )
        example = {"summary": error.detail, "value": document.model_dump(exclude_none=True, mode="json")}
        entry["content"][MEDIA_TYPE]["examples"][error.code] = example
    return found


def openapi(app: FastAPI) -> dict[str, Any]:
    """OpenAPI with the ways to show a key, the problem document, and no error shape that is never sent."""
    if app.openapi_schema is None:
        schema = get_openapi(
            title=app.title,
            version=app.version,
            summary=app.summary,
            description=app.description,
            tags=app.openapi_tags,
            routes=app.routes,
        )
        parts = schema.setdefault("components", {})
        parts["securitySchemes"] = SECURITY_SCHEMES
        schemas = parts.setdefault("schemas", {})
        for framework_shape in ("HTTPValidationError", "ValidationError"):
            schemas.pop(framework_shape, None)
        invalid = described(RequestInvalid())[422]
        too_large = described(BodyTooLarge(limit=LARGEST_BODY_BYTES))[413]
        for operation in (operation for item in schema["paths"].values() for operation in item.values()):
            if "application/json" in operation["responses"].get("422", {}).get("content", {}):
                operation["responses"]["422"] = invalid
            if "requestBody" in operation:
                operation["responses"]["413"] = too_large
        shape = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas.update(shape.pop("$defs", {}))
        schemas["ProblemDetails"] = shape  # "Problem" is what a replay has
        schema["security"] = [{name: []} for name in SECURITY_SCHEMES]
        app.openapi_schema = schema
    return app.openapi_schema
