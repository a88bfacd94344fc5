"""`python -m tests.house.dashboards`: writes `docker/grafana/dashboards/*.json` from `docker/grafana/dashboards.yml`.

Grafana's JSON is long, and nobody reviews it; what a dashboard shows is a table of titles, units and queries.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Final

import yaml

GRAFANA: Final = Path(__file__).parents[2] / "docker" / "grafana"
SOURCE: Final = {"type": "prometheus", "uid": "afterlive-prometheus"}
_COLUMNS: Final = 24
_SIZES: Final = {"stat": (6, 4), "timeseries": (12, 8), "table": (12, 8)}
"""Width and height by type."""


def tables() -> dict[str, Any]:
    """The dashboards by name."""
    found: dict[str, Any] = yaml.safe_load((GRAFANA / "dashboards.yml").read_text(encoding="utf-8"))
    return found


def made(name: str, table: dict[str, Any]) -> str:
    """The JSON of a dashboard. Raises KeyError and ValueError where the table lacks or misspells something."""
    shown, x, y = [], 0, 0
    for number, panel in enumerate(table["panels"], 1):
        width, height = _SIZES[panel.get("type", "timeseries")]
        if x + width > _COLUMNS:
            raise ValueError(f"{name}: {panel['title']} does not fit into its row")
        shown.append(_panel(number, panel, {"h": height, "w": width, "x": x, "y": y}))
        x += width
        if x == _COLUMNS:
            x, y = 0, y + height
    dashboard = {
        "uid": f"afterlive-{name}",
        "title": f"Afterlive: {table['title']}",
        "tags": ["afterlive"],
        "schemaVersion": 39,
        "editable": False,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "timezone": "browser",
        "links": [{"type": "dashboards", "tags": ["afterlive"], "title": "Afterlive", "asDropdown": False}],
        "templating": {"list": []},
        "annotations": {"list": []},
        "panels": shown,
    }
    return json.dumps(dashboard, indent=1, ensure_ascii=False) + "\n"


def _panel(number: int, panel: dict[str, Any], place: dict[str, int]) -> dict[str, Any]:
    if unknown := panel.keys() - {"title", "type", "unit", "about", "queries"}:
        raise ValueError(f"{panel['title']}: {unknown}")
    kind = panel.get("type", "timeseries")
    graph = kind == "timeseries"
    targets = [
        {
            "refId": chr(ord("A") + index),
            "datasource": SOURCE,
            "expr": query,
            "legendFormat": legend or panel["title"],
            "instant": not graph,
            "range": graph,
            **({"format": "table"} if kind == "table" else {}),
        }
        for index, (legend, query) in enumerate(panel["queries"].items())
    ]
    defaults: dict[str, Any] = {"unit": panel["unit"], "min": 0}
    if graph:
        defaults["custom"] = {"fillOpacity": 10, "showPoints": "never", "spanNulls": False}
    return {
        "id": number,
        "type": kind,
        "title": panel["title"],
        "description": panel.get("about", ""),
        "gridPos": place,
        "datasource": SOURCE,
        "targets": targets,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": {"tooltip": {"mode": "multi", "sort": "desc"}} if graph else {},
    }


def main() -> int:
    """Exit status: 0."""
    folder = GRAFANA / "dashboards"
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in tables().items():
        (folder / f"{name}.json").write_text(made(name, table), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
