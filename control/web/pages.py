"""The pages and what they load: templates rendered, scripts and styles read once, under an address of their content."""

from __future__ import annotations

import base64
import gzip
import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

HERE = Path(__file__).parent
HLS_JS = HERE / "node_modules" / "hls.js" / "dist"
MEDIA_TYPES = {
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}


@dataclass(frozen=True)
class Asset:
    """One file a page loads."""

    content: bytes
    zipped: bytes
    media_type: str


class Pages:
    """Renders the pages. hls.js is part of them where it was installed (`python -m control.web.install`)."""

    def __init__(self, hls_folder: Path = HLS_JS) -> None:
        self._hls_folder = hls_folder
        self._templates = Environment(
            loader=FileSystemLoader(HERE / "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )

        self._templates.filters["code"] = _code

    @cached_property
    def assets(self) -> Mapping[str, Asset]:
        """Every file a page may load, by name."""
        return {path.name: _read(path) for path in self._files()}

    @cached_property
    def version(self) -> str:
        """Changes when any asset does."""
        digest = hashlib.sha256()
        for name, asset in sorted(self.assets.items()):
            digest.update(f"{name}\n{len(asset.content)}\n".encode() + asset.content)
        return digest.hexdigest()[:16]

    @property
    def has_hls(self) -> bool:
        """Whether hls.js is here; without it the page uses the browser's own HLS."""
        return "hls.min.js" in self.assets

    def player(self, *, title: str) -> str:
        """The player page of one replay."""
        return self._render("player.html", title=title)

    def refused(self, *, heading: str, detail: str) -> str:
        """What a person sees who opens a link that does not work."""
        return self._render(
            "refused.html", heading=heading, detail=detail, title=heading, style=self._style("refused.css")
        )

    def docs(self, openapi: Mapping[str, Any]) -> str:
        """The API's documentation."""
        title = f"{openapi['info']['title']} API"
        return self._render("docs.html", api=openapi, title=title, style=self._style("docs.css"))

    def style_hash(self, name: str) -> str:
        """How a Content-Security-Policy admits the style sheet `name` inside a page."""
        digest = hashlib.sha256(self._style(name).encode()).digest()
        return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"

    def _style(self, name: str) -> Markup:
        return Markup(self.assets[name].content.decode())  # noqa: S704  (a file of ours)

    def _render(self, template: str, **values: Any) -> str:
        folder = f"_player/{self.version}"
        return self._templates.get_template(template).render(assets=folder, has_hls=self.has_hls, **values)

    def _files(self) -> Iterator[Path]:
        yield from sorted(path for path in (HERE / "static").iterdir() if path.suffix in MEDIA_TYPES)
        # The worker too: started from a file of ours it needs no `blob:` in the page's policy.
        yield from (path for name in ("hls.min.js", "hls.worker.js") if (path := self._hls_folder / name).is_file())


def _code(text: str) -> Markup:
    """Text with `such` spans set as code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))  # noqa: S704  (escaped first)


def _read(path: Path) -> Asset:
    content = path.read_bytes()
    if path.name.startswith("hls."):
        # The source map is not served; asking for it would only log an error in the browser's console.
        content = content.rsplit(b"\n//# sourceMappingURL=", 1)[0] + b"\n"
    return Asset(content, gzip.compress(content, 9, mtime=0), MEDIA_TYPES[path.suffix])
