"""`afterlive secrets FOLDER`: every password, key and URL a deployment needs, a file each, made once.

`docker/compose.yaml` reads them; they fit Kubernetes' and systemd's secrets as well.
"""

from __future__ import annotations

import hashlib
import json
import secrets as random
from pathlib import Path
from typing import Final
from urllib.parse import quote

import click

VHOST: Final = "afterlive"
# As compose.yaml names the servers. Who has servers elsewhere writes their URLs into the files: they stay.
_RABBITMQ: Final = "amqp://rabbitmq:5672"
_REDIS: Final = "redis:6379"
_POSTGRES: Final = "postgres:5432"
_PASSWORDS: Final = (
    "api_key",
    "grafana_password",
    "otp_secret",
    "postgres_password",
    "redis_password",
    "s3_access_key",
    "s3_secret_key",
    "signing_secret",
)


@click.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option("--address", help="Broker's address for other machines, such as amqps://control.example:5671.")
def secrets(folder: Path, address: str | None) -> None:
    """Make all secrets of a deployment in FOLDER, a file each. What is there already stays as it is; only the broker's
    definitions follow this version's users and rights, so run it again after an upgrade.

    With --address, FOLDER/gpu-host gets what a machine with nothing but media workers needs.
    """
    if address is not None and (not address.startswith(("amqp://", "amqps://")) or "@" in address):
        raise click.UsageError(f"--address is scheme, host and port, such as amqps://control.example:5671: {address}")
    _folder(folder)
    made = _control_host(folder)
    if address is not None:
        made += _gpu_hosts(folder, _folder(folder / "gpu-host"), address)
    click.echo(f"{folder}: made {', '.join(made)}" if made else f"{folder}: all there")


def _control_host(folder: Path) -> list[str]:
    from control.bus.definitions import ADMINISTRATOR, definitions
    from control.bus.rights import RIGHTS

    tiers = (*RIGHTS, ADMINISTRATOR)
    users = {tier: f"rabbitmq_password_{tier}" for tier in tiers}
    made = [name for name in (*_PASSWORDS, *users.values()) if _write(folder / name, random.token_urlsafe(24))]
    known = {name: (folder / name).read_text("utf-8").strip() for name in (*_PASSWORDS, *users.values())}
    texts = {
        "api_keys": json.dumps([known["api_key"]]),
        "database_url": f"postgresql+psycopg://afterlive:{known['postgres_password']}@{_POSTGRES}/afterlive",
        "flower_auth": f"afterlive:{random.token_urlsafe(24)}",
        "redis_url": f"redis://:{known['redis_password']}@{_REDIS}/0",
        # Redis keeps a hash too: https://redis.io/docs/latest/operate/oss_and_stack/management/security/acl/
        "redis_acl": f"user default on #{hashlib.sha256(known['redis_password'].encode()).hexdigest()} ~* &* +@all",
        **{f"broker_url_{tier}": broker_url(_RABBITMQ, tier, known[users[tier]]) for tier in RIGHTS},
    }
    made += [name for name, text in texts.items() if _write(folder / name, text)]
    said = definitions(VHOST, {tier: known[users[tier]] for tier in tiers})
    if _write(folder / "rabbitmq_definitions.json", json.dumps(said, indent=1), renew=True):
        made.append("rabbitmq_definitions.json")
    return made


def _gpu_hosts(folder: Path, theirs: Path, address: str) -> list[str]:
    password = (folder / "rabbitmq_password_media").read_text("utf-8").strip()
    texts = {
        "broker_url": broker_url(address, "media", password),
        **{name: (folder / name).read_text("utf-8") for name in ("s3_access_key", "s3_secret_key")},
    }
    return [f"{theirs.name}/{name}" for name, text in texts.items() if _write(theirs / name, text, renew=True)]


def broker_url(address: str, tier: str, password: str) -> str:
    """`address` (scheme, host, port) with a tier's user and our virtual host."""
    scheme, _, host = address.rstrip("/").partition("://")
    return f"{scheme}://afterlive-{tier}:{quote(password, safe='')}@{host}/{VHOST}"


def _folder(path: Path) -> Path:
    """Nobody but its owner gets into it; a container, whose user has another number, is given files alone."""
    path.mkdir(parents=True, exist_ok=True)
    path.chmod(0o700)
    return path


def _write(path: Path, text: str, *, renew: bool = False) -> bool:
    """Whether the file was made; where it is there already, only with `renew`, and where it says something else."""
    if path.exists() and (not renew or path.read_text("utf-8") == text):
        return False
    whole = path.with_name(f".{path.name}")
    whole.unlink(missing_ok=True)
    whole.write_text(text, "utf-8")
    whole.chmod(0o444)
    whole.replace(path)  # whole or not at all: half a password locks everybody out
    return True
