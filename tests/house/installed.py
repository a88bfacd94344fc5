"""Our packages, and what an installation of a tier brings."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, distribution

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PACKAGES = ("control", "media_worker", "notify_worker", "pipelines")


def installed_by(extra: str) -> set[str]:
    """Names of the distributions `pip install afterlive[extra]` brings."""
    found: set[str] = set()
    todo = [Requirement(f"afterlive[{extra}]")]
    while todo:
        wanted = todo.pop()
        name = canonicalize_name(wanted.name)
        key = f"{name}[{','.join(sorted(wanted.extras))}]"
        if key in found:
            continue
        found |= {name, key}
        try:
            needs = [Requirement(text) for text in distribution(name).requires or ()]
        except PackageNotFoundError:
            continue  # for another platform
        for need in needs:
            environments = [{"extra": each} for each in wanted.extras or {""}]
            if need.marker is None or any(need.marker.evaluate(each) for each in environments):
                todo.append(need)
    return found
