"""Health, metrics and the API's documentation."""

from __future__ import annotations

import json
from pathlib import Path

import httpx

from control.api.app import create_app
from control.ledger.engine import Ledger
from control.settings import Settings
from control.storage import LocalStore
from tests.api_server import PROBLEM, Api, problem, serving


def test_readiness_names_what_failed(settings: Settings, ledger: Ledger, local_store: LocalStore) -> None:
    app = create_app(settings, ledger, local_store)
    with serving(app) as url:
        assert httpx.get(f"{url}/readyz").json() == {
            "status": "ready",
            "checks": {"ledger": "ok", "store": "ok", "disk": "ok"},
        }
        database = Path(settings.ledger.url.removeprefix("sqlite:///"))
        for content, expected in ((b"", "its schema is not the newest"), (b"no database" * 100, "unavailable")):
            ledger.close()
            for leftover in database.parent.glob(f"{database.name}*"):
                leftover.unlink()
            database.write_bytes(content)
            answer = httpx.get(f"{url}/readyz")
            document = problem(answer, 503, "not-ready")
            assert document["detail"] == "Not ready: ledger."
            assert document["checks"] == {"ledger": expected, "store": "ok", "disk": "ok"}
            assert "sqlite" not in answer.text
        assert answer.headers["retry-after"]
        assert httpx.get(f"{url}/healthz").status_code == 200


def test_metrics_count_by_route_not_by_path(api: Api) -> None:
    stream_id = api.stream()
    api.client.get(f"/streams/{stream_id}")
    answer = api.client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    assert 'afterlive_http_requests_total{method="GET",route="/streams/{stream_id}",status="200"}' in answer.text
    assert stream_id not in answer.text


def test_every_operation_documents_its_body_and_its_errors(api: Api) -> None:
    schema = api.client.get("/openapi.json").json()
    assert set(schema["components"]["securitySchemes"]) == {"bearer", "header", "basic"}
    text = json.dumps(schema)
    assert "HTTPValidationError" not in text
    for path, item in schema["paths"].items():
        for method, operation in item.items():
            where = f"{method} {path}"
            if "requestBody" in operation:
                media = operation["requestBody"]["content"]["application/json"]
                assert media.get("examples"), where
            for status, answer in operation["responses"].items():
                if int(status) < 400:
                    continue
                examples = answer["content"][PROBLEM]["examples"]
                for code, example in examples.items():
                    assert example["value"]["code"] == code, where
                    assert example["value"]["status"] == int(status), where
            keyless = path in ("/healthz", "/readyz") or path.startswith("/play/")
            assert (operation.get("security") == []) == keyless, where
            assert keyless or "401" in operation["responses"], where
    referenced = {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}
    assert referenced <= set(schema["components"]["schemas"])


def test_the_documentation_needs_nothing_from_elsewhere(api: Api) -> None:
    page = api.client.get("/docs")
    assert page.status_code == 200
    assert "<script" not in page.text
    assert "http://" not in page.text.replace(str(api.client.base_url), "")
    assert "POST" in page.text
    assert "recording-outside-roots" in page.text
    assert "script-src 'self'" in page.headers["content-security-policy"]
