"""The checks, by what they look at. Each takes a Subject and yields (where, message) for every place a rule fails."""

from __future__ import annotations

from collections.abc import Iterator

Faults = Iterator[tuple[str, str]]
