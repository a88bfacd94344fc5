"""docker/*.yaml as Compose reads them: variables filled in, merges and `extends` resolved, several files laid over each
other. Of Compose's own rules only those these files use."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

DOCKER = Path(__file__).parents[1] / "docker"
FILES = ("compose.yaml", "gpu-host.yaml", "media.yaml", "tls.yaml")
_VARIABLE = re.compile(r"\$\$|\$\{(?P<name>[A-Z0-9_]+)(?:(?P<how>:[-?])(?P<word>[^}]*))?\}")
# Where two have a list, Compose appends; a mapping is merged key by key, and so is a list of one of these.
_APPENDED = {"volumes", "ports", "secrets", "env_file", "group_add", "devices", "networks", "profiles"}


class MissingVariable(Exception):
    """A variable has no value and no default."""


def fill_in(text: str, env: Mapping[str, str]) -> str:
    """Compose's interpolation: ${NAME:-default}, ${NAME:?told}, $$."""

    def value(found: re.Match[str]) -> str:
        if found.group() == "$$":
            return "$"
        name, how, word = found["name"], found["how"], found["word"]
        if given := env.get(name):
            return given
        if how == ":-":
            return str(word)
        raise MissingVariable(f"{name}: {word}")

    return _VARIABLE.sub(value, text)


def variables() -> Iterator[tuple[str, str]]:
    """Name and default of each variable of the files."""
    for name in FILES:
        for found in _VARIABLE.finditer((DOCKER / name).read_text()):
            if found["name"]:
                yield found["name"], found["word"] or ""


def load(*names: str, env: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The project that `docker compose -f NAME -f NAME` has."""
    made: dict[str, Any] = {}
    for name in names:
        made = _over(made, _read(name, env or {}))
    return made


def services_of(project: dict[str, Any], *profiles: str) -> dict[str, dict[str, Any]]:
    """The services that run with these profiles."""
    services: dict[str, dict[str, Any]] = project["services"]
    return {
        name: service
        for name, service in services.items()
        if not service.get("profiles") or set(service["profiles"]) & set(profiles)
    }


def _read(name: str, env: Mapping[str, str]) -> dict[str, Any]:
    # Each scalar is filled in by itself, as Compose does: a value may hold what YAML would take for its own.
    loaded: dict[str, Any] = _walk(_parsed(name), env)
    services = loaded.get("services", {})
    for service in services:
        services[service] = _extended(services, service, env)
    return {key: value for key, value in loaded.items() if not key.startswith("x-")}


@lru_cache
def _parsed(name: str) -> Any:
    return yaml.safe_load((DOCKER / name).read_text())


def _extended(services: dict[str, Any], name: str, env: Mapping[str, str]) -> dict[str, Any]:
    service: dict[str, Any] = dict(services[name])
    extends = service.pop("extends", None)
    if extends is None:
        return service
    theirs = _read(extends["file"], env)["services"] if "file" in extends else services
    made: dict[str, Any] = _over(_extended(theirs, extends["service"], env), service)
    return made


def _walk(value: Any, env: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _walk(each, env) for key, each in value.items()}
    if isinstance(value, list):
        return [_walk(each, env) for each in value]
    return fill_in(value, env) if isinstance(value, str) else value


def _over(below: Any, above: Any, key: str = "") -> Any:
    if isinstance(below, dict) and isinstance(above, dict):
        return below | {each: _over(below.get(each), value, each) for each, value in above.items()}
    if isinstance(below, list) and isinstance(above, list) and key in _APPENDED:
        return [*below, *(each for each in above if each not in below)]
    return above
